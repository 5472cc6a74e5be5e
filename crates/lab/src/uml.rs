//! User-mode Linux: another kernel as a process, with this machine's files read-only.
//!
//! Debian's `user-mode-linux` is the oldest kernel that Seawall supports, 6.1, and has the modules
//! that a machine for tests may lack, 8021q among them. It boots in seconds and interprets BPF.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seawall_datapath::netns;
use tempfile::TempDir;

/// Below this lie the kernel's modules, in a folder by its version.
const MODULES: &str = "/usr/lib/uml/modules";
/// What the lab needs, in the order of their dependencies.
const WANTED: [&str; 9] = [
    "lib/crc-ccitt",
    "net/ipv6/ipv6",
    "net/llc/llc",
    "net/802/stp",
    "net/bridge/bridge",
    "drivers/net/veth",
    "net/802/mrp",
    "net/802/garp",
    "net/8021q/8021q",
];
/// The kernel's IPVS with all its schedulers, for [`Uml::with`]; and an interface that loses all.
pub const IPVS: [&str; 18] = [
    "drivers/net/dummy",
    "net/ipv4/netfilter/nf_defrag_ipv4",
    "net/ipv6/netfilter/nf_defrag_ipv6",
    "net/netfilter/nf_conntrack",
    "net/netfilter/ipvs/ip_vs",
    "net/netfilter/ipvs/ip_vs_rr",
    "net/netfilter/ipvs/ip_vs_wrr",
    "net/netfilter/ipvs/ip_vs_lc",
    "net/netfilter/ipvs/ip_vs_wlc",
    "net/netfilter/ipvs/ip_vs_lblc",
    "net/netfilter/ipvs/ip_vs_lblcr",
    "net/netfilter/ipvs/ip_vs_dh",
    "net/netfilter/ipvs/ip_vs_sh",
    "net/netfilter/ipvs/ip_vs_sed",
    "net/netfilter/ipvs/ip_vs_nq",
    "net/netfilter/ipvs/ip_vs_fo",
    "net/netfilter/ipvs/ip_vs_ovf",
    "net/netfilter/ipvs/ip_vs_mh",
];
const MEMORY: &str = "mem=512M";
/// What a machine may take to boot and to halt.
const OVERHEAD: Duration = Duration::from_secs(30);
/// Before the exit status, on a line of its own.
const MARK: &str = "uml: exit status ";

/// A kernel that can be booted.
#[derive(Debug)]
pub struct Uml {
    kernel: PathBuf,
    modules: PathBuf,
    wanted: Vec<&'static str>,
}

/// What a command has said and come to in there.
#[derive(Debug)]
pub struct Outcome {
    /// Its output and errors, among the kernel's own messages.
    pub output: String,
    /// Its exit status (124: out of time), or none if the kernel ended before it.
    pub status: Option<i32>,
    /// From the start of the kernel to its end.
    pub elapsed: Duration,
}

impl Uml {
    /// Finds the kernel and its modules.
    ///
    /// # Errors
    ///
    /// What is missing and how to install it.
    pub fn find() -> Result<Self, String> {
        let install = "(apt-get install user-mode-linux kmod)";
        let path = std::env::var_os("PATH").unwrap_or_default();
        let kernel = std::env::split_paths(&path).map(|folder| folder.join("linux.uml"));
        let kernel = kernel
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| format!("there is no linux.uml in PATH {install}"))?;
        let folders = std::fs::read_dir(MODULES).into_iter().flatten().flatten();
        let modules = folders
            .map(|folder| folder.path().join("kernel"))
            .find(|folder| folder.is_dir())
            .ok_or_else(|| format!("there are no modules below {MODULES} {install}"))?;
        Ok(Self { kernel, modules, wanted: WANTED.to_vec() })
    }

    /// Has it load further modules, in the order of their dependencies.
    #[must_use]
    pub fn with(mut self, modules: &[&'static str]) -> Self {
        self.wanted.extend(modules);
        self
    }

    /// Boots, runs `program` as root within `limit`, and halts. It finds this machine's files,
    /// read-only but for `/run`, where `TMPDIR` is; nothing of the network.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be started or prepared; not when the program fails.
    pub fn run(&self, program: &Path, arguments: &[&str], limit: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let directory = TempDir::with_prefix("seawall-uml-")?;
        let at = |name: &str| directory.path().join(name);
        compile(&at("any_alignment.so"))?;
        std::fs::write(at("init"), self.init(program, arguments, limit, directory.path()))?;
        std::fs::set_permissions(at("init"), Permissions::from_mode(0o755))?;
        let log = File::create(at("log"))?;
        let mut command = Command::new(&self.kernel);
        command.args(["rootfstype=hostfs", "rootflags=/", "ro", MEMORY, "quiet"]);
        command.args(["con=null", "con0=null,fd:1"]);
        command.arg(format!("uml_dir={}", at("").display()));
        command.arg(format!("init={}", at("init").display()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        netns::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        while child.try_wait()?.is_none() {
            if start.elapsed() > limit + OVERHEAD {
                child.kill()?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = String::from_utf8_lossy(&std::fs::read(at("log"))?).into_owned();
        let status = output.lines().rev().find_map(|line| line.trim().strip_prefix(MARK));
        let status = status.and_then(|status| status.parse().ok());
        Ok(Outcome { output, status, elapsed: start.elapsed() })
    }

    /// The first process: a shell script that the kernel starts.
    fn init(
        &self,
        program: &Path,
        arguments: &[&str],
        limit: Duration,
        directory: &Path,
    ) -> String {
        let modules: String = self
            .wanted
            .iter()
            .map(|name| format!("insmod {}\n", quoted(self.modules.join(format!("{name}.ko")))))
            .collect();
        let command: Vec<_> = std::iter::once(program.as_os_str())
            .chain(arguments.iter().map(OsStr::new))
            .map(quoted)
            .collect();
        let shim = quoted(directory.join("any_alignment.so"));
        format!(
            "#!/bin/sh\n\
             mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t tmpfs run /run\n\
             {modules}\
             export PATH={path} HOME=/run TMPDIR=/run RUST_BACKTRACE=1 SEAWALL_REQUIRE_ROOT=1\n\
             cd /run\n\
             LD_PRELOAD={shim} timeout {seconds} {command}\n\
             echo \"{MARK}$?\"\n\
             echo o > /proc/sysrq-trigger\nsleep 10\n",
            path = quoted(std::env::var_os("PATH").unwrap_or_default()),
            seconds = limit.as_secs(),
            command = command.join(" "),
        )
    }
}

/// Builds what is preloaded.
fn compile(object: &Path) -> io::Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/any_alignment.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(object).arg(source).arg("-ldl");
    let output = cc.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A word of the shell's.
fn quoted(word: impl AsRef<OsStr>) -> String {
    format!("'{}'", word.as_ref().to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::require;

    #[test]
    fn a_command_runs_on_another_kernel() {
        let uml = match Uml::find() {
            Ok(uml) => uml,
            Err(missing) => return require::missing(missing),
        };
        let script =
            "uname -r; test ! -e /sys/class/net/eth0; ls /proc/net/vlan; echo \"$1\"; exit 7";
        let arguments = ["-c", script, "sh", "it's $HOME"];
        let outcome = uml.run(Path::new("/bin/sh"), &arguments, Duration::from_secs(20)).unwrap();
        assert_eq!(outcome.status, Some(7), "{}", outcome.output);
        assert!(outcome.output.contains("\n6.1."), "{}", outcome.output);
        assert!(outcome.output.contains("it's $HOME"), "{}", outcome.output);
        let outcome = uml.run(Path::new("/bin/sleep"), &["60"], Duration::from_secs(1)).unwrap();
        assert_eq!(outcome.status, Some(124), "{}", outcome.output);
    }
}
