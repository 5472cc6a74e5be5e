//! The tools that build BPF objects, and how to install them.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target of the XDP programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Names another compiler than Debian's.
const RUSTC_VARIABLE: &str = "SEAWALL_BPF_RUSTC";
/// Where Debian installs `rustc-web`; a compiler that rustup put first in `PATH` has no `core`
/// for the target.
const DEFAULT_RUSTC: &str = "/usr/bin/rustc";

const INSTALL: &str = "\
On Debian 12, everything that builds the BPF objects:

  apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev
  LLVM_PREFIX=/usr/lib/llvm-22 RUSTFLAGS=\"-L native=/usr/lib/llvm-22/lib\" \\
    cargo install bpf-linker --no-default-features --features llvm-22

SEAWALL_BPF_RUSTC names another compiler; it needs a prebuilt `core` for bpfel-unknown-none.";

/// What builds the objects.
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// Its version, one line.
    pub(crate) rustc_version: String,
    /// The linker's version, one line.
    pub(crate) linker_version: String,
}

impl Toolchain {
    /// Finds the tools; says what is missing and how to install it.
    pub(crate) fn find() -> Result<Self> {
        let rustc = env::var_os(RUSTC_VARIABLE).map_or_else(|| DEFAULT_RUSTC.into(), PathBuf::from);
        let rustc_version = output(Command::new(&rustc).arg("--version"))
            .with_context(|| format!("no compiler at {}\n\n{INSTALL}", rustc.display()))?;
        let library =
            output(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]))
                .with_context(|| format!("{rustc_version} knows no {TARGET}\n\n{INSTALL}"))?;
        if !PathBuf::from(&library).is_dir() {
            bail!("{rustc_version} has no `core` for {TARGET}\n\n{INSTALL}");
        }
        let linker_version = output(Command::new("bpf-linker").arg("--version"))
            .with_context(|| format!("no bpf-linker in PATH\n\n{INSTALL}"))?;
        Ok(Self { rustc, rustc_version, linker_version })
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
