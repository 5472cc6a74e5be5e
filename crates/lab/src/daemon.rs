//! The real daemon, as a process in the balancer's namespace, with a configuration for the lab.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::topology::{LOCAL_ADDRESSES, Topology, VIP};
use crate::{Namespace, ProcessGuard};

/// The port of the service.
pub const SERVICE_PORT: u16 = 80;
/// The port of the real servers.
pub const SERVER_PORT: u16 = 8080;

/// The configuration file's name.
const CONFIG: &str = "seawall.toml";

/// How the daemon is configured.
#[derive(Debug, Clone)]
pub struct DaemonSpec {
    /// The `seawall` binary.
    pub executable: PathBuf,
    /// Whether the SYN proxy answers.
    pub synproxy: bool,
    /// Another service without the proxy, before the same servers.
    pub unproxied: Option<SocketAddr>,
    /// How packets get to the real servers: `nat` or `fullnat`.
    pub forwarding: &'static str,
    /// The weights of the real servers, in order; 1 where there is none.
    pub weights: Vec<u16>,
    /// Sessions at a time.
    pub max_sessions: u32,
    /// The first and the last local address of FULLNAT, in the servers' network.
    pub local_addresses: [Ipv4Addr; 2],
}

impl DaemonSpec {
    /// With the proxy, FULLNAT, equal weights and room for 131,072 sessions.
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        Self {
            executable: executable.into(),
            synproxy: true,
            unproxied: None,
            forwarding: "fullnat",
            weights: Vec::new(),
            max_sessions: 1 << 17,
            local_addresses: [LOCAL_ADDRESSES[0], LOCAL_ADDRESSES[LOCAL_ADDRESSES.len() - 1]],
        }
    }

    /// The configuration file for `topology`: [`service`], and [`DaemonSpec::unproxied`] if there
    /// is one, before all its servers; the API on `socket`.
    pub fn config(&self, topology: &Topology, socket: &Path) -> String {
        let [first, last] = self.local_addresses;
        let mut text = format!(
            "interfaces = {:?}\nmax_sessions = {}\n\n[api]\nsocket = {socket:?}\n\n\
             [[local_addresses]]\nname = \"default\"\naddresses = [\"{first}-{last}\"]\n",
            topology.balancer_interfaces(),
            self.max_sessions,
        );
        let proxy = if self.synproxy { "on" } else { "off" };
        let services = [Some((service(), proxy)), self.unproxied.map(|address| (address, "off"))];
        for (address, synproxy) in services.into_iter().flatten() {
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                "\n[[service]]\naddress = \"{address}\"\nprotocol = \"tcp\"\n\
                 scheduler = \"wrr\"\nsynproxy = \"{synproxy}\"\nlocal_addresses = \"default\"\n",
            );
            for (number, server) in topology.servers.iter().enumerate() {
                let weight = self.weights.get(number).copied().unwrap_or(1);
                let _ = write!(
                    text,
                    "\n[[service.real_server]]\naddress = \"{}\"\nforwarding = \"{}\"\n\
                     weight = {weight}\n",
                    SocketAddr::new(server.address(), SERVER_PORT),
                    self.forwarding,
                );
            }
        }
        text
    }
}

/// Where clients ask.
pub const fn service() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(VIP), SERVICE_PORT)
}

/// A daemon that serves; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: ProcessGuard,
    /// Kept open: the daemon may yet print something.
    _output: Option<BufReader<ChildStdout>>,
    socket: PathBuf,
    directory: TempDir,
    greeting: String,
}

impl Daemon {
    /// Starts the daemon of `spec` in the balancer's namespace and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends before it is ready; then with what it said.
    pub fn start(topology: &Topology, spec: &DaemonSpec) -> io::Result<Self> {
        let directory = TempDir::with_prefix("seawall-")?;
        let config = spec.config(topology, &directory.path().join("api.sock"));
        Self::start_with(&topology.balancer.namespace, &spec.executable, &config, directory)
    }

    /// Starts a daemon with a configuration of one's own, whose API socket lies in `directory` as
    /// `api.sock`, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub fn start_with(
        namespace: &Namespace,
        executable: &Path,
        config: &str,
        directory: TempDir,
    ) -> io::Result<Self> {
        let file = directory.path().join(CONFIG);
        let log = directory.path().join("log");
        std::fs::write(&file, config)?;
        let mut command = Command::new(executable);
        command.arg("run").arg("--config").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = namespace.spawn_process(command)?;
        let mut output = process.child().stdout.take().map(BufReader::new);
        let mut line = String::new();
        let mut greeting = String::new();
        while let Some(output) = &mut output {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                // Waits for the end, so that the log is complete.
                let status = process.wait_for(Duration::from_secs(5))?;
                let said = std::fs::read_to_string(&log)?;
                let status = status.map_or_else(|| "no end".to_owned(), |s| s.to_string());
                return Err(io::Error::other(format!("{} ({status})", said.trim_end())));
            }
            if line.trim_end() == "ready" {
                break;
            }
            greeting.push_str(&line);
        }
        let socket = directory.path().join("api.sock");
        Ok(Self { process, _output: output, socket, directory, greeting })
    }

    /// Its API socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join(CONFIG)
    }

    /// What it has printed before it was ready.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Kills it, if it lives; gives the directory with its configuration, to start another in.
    pub fn kill(self) -> TempDir {
        self.directory
    }

    /// Its process id.
    pub fn pid(&mut self) -> u32 {
        self.process.child().id()
    }

    /// What it has written to standard error.
    ///
    /// # Errors
    ///
    /// Those of reading the file that takes it.
    pub fn log(&self) -> io::Result<String> {
        std::fs::read_to_string(self.directory.path().join("log"))
    }

    /// Has it end, and take away what outlives a daemon that is only killed.
    ///
    /// # Errors
    ///
    /// When it cannot be told, or has not ended after 10 s.
    pub fn end(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or(io::ErrorKind::InvalidData)?, Signal::TERM)?;
        match self.wait_for(Duration::from_secs(10))? {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Waits until it ends by itself; `None` when it has not within `limit`.
    ///
    /// # Errors
    ///
    /// Those of [`ProcessGuard::wait_for`].
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.process.wait_for(limit)
    }
}
