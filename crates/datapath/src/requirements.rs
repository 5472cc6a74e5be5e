//! What Seawall needs of the machine, looked at before anything is touched.

use std::io;

use aya::maps::MapType;
use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

/// The oldest kernel that the XDP program is tested on.
pub const OLDEST_KERNEL: KernelVersion = KernelVersion { major: 6, minor: 1 };

/// A kernel release, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KernelVersion {
    /// The first number of the release.
    pub major: u32,
    /// The second number of the release.
    pub minor: u32,
}

impl std::fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is missing, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Requirement {
    /// The process may not do what Seawall does.
    #[error(
        "missing privileges: {}; run as root, or give the service AmbientCapabilities=CAP_BPF \
         CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON", .0.join(", ")
    )]
    Capabilities(
        /// Names of the missing ones.
        Vec<&'static str>,
    ),
    /// The kernel is too old.
    #[error("this kernel is {found}; Seawall needs {OLDEST_KERNEL} or newer")]
    Kernel {
        /// The running one.
        found: KernelVersion,
    },
    /// The kernel does not say what it is.
    #[error(
        "cannot tell this kernel's version from its release {0:?}; Seawall needs {OLDEST_KERNEL} or newer"
    )]
    Release(
        /// What uname(2) gives.
        String,
    ),
    /// The process's capabilities cannot be read.
    #[error("cannot read this process's capabilities: {0}")]
    Unreadable(#[source] io::Error),
    /// bpf(2) does not work here, privileges or not.
    #[error("the bpf system call does not work here: {reason}; {remedy}")]
    Bpf {
        /// The kernel's answer.
        reason: io::Error,
        /// What helps.
        remedy: &'static str,
    },
}

/// Checks all of it; touches nothing.
///
/// # Errors
///
/// The first [`Requirement`] that is not met: kernel, then privileges, then BPF.
pub fn check() -> Result<(), Requirement> {
    check_kernel(&uname().release().to_string_lossy())?;
    let held = capabilities(None).map_err(|error| Requirement::Unreadable(error.into()))?;
    check_capabilities(held.effective)?;
    check_bpf()
}

fn check_kernel(release: &str) -> Result<(), Requirement> {
    let found = kernel_version(release).ok_or_else(|| Requirement::Release(release.to_owned()))?;
    if found < OLDEST_KERNEL { Err(Requirement::Kernel { found }) } else { Ok(()) }
}

/// `6.1.0-18-amd64` and `6.18-rc2` alike.
fn kernel_version(release: &str) -> Option<KernelVersion> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(KernelVersion { major, minor })
}

/// `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` (capabilities(7)). The last lets the
/// verifier allow the pointer arithmetic that packet parsing needs.
fn check_capabilities(held: CapabilitySet) -> Result<(), Requirement> {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    let missing: Vec<_> = [
        ("CAP_BPF", admin || held.contains(CapabilitySet::BPF)),
        ("CAP_NET_ADMIN", held.contains(CapabilitySet::NET_ADMIN)),
        ("CAP_NET_RAW", held.contains(CapabilitySet::NET_RAW)),
        ("CAP_PERFMON", admin || held.contains(CapabilitySet::PERFMON)),
    ]
    .into_iter()
    .filter_map(|(name, held)| (!held).then_some(name))
    .collect();
    if missing.is_empty() { Ok(()) } else { Err(Requirement::Capabilities(missing)) }
}

/// Creates and drops the smallest ring buffer: what a container's seccomp filter, a user
/// namespace, lockdown or a kernel without BPF refuses even to root.
fn check_bpf() -> Result<(), Requirement> {
    let remedy_for = |reason: &io::Error| match reason.raw_os_error() {
        Some(libc::ENOSYS) => "build the kernel with CONFIG_BPF_SYSCALL",
        Some(libc::EPERM | libc::EACCES) => {
            "a container's seccomp filter, a user namespace or kernel lockdown forbids it: run \
             on the host, or let the container use bpf(2)"
        }
        _ => "see dmesg",
    };
    match aya::sys::is_map_supported(MapType::RingBuf) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Requirement::Bpf {
            reason: io::Error::from_raw_os_error(libc::EINVAL),
            remedy: "build the kernel with CONFIG_BPF_SYSCALL and CONFIG_NET",
        }),
        Err(error) => {
            let reason = error.io_error;
            Err(Requirement::Bpf { remedy: remedy_for(&reason), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        KernelVersion, Requirement, check, check_capabilities, check_kernel, kernel_version,
    };
    use crate::testing::needs_root;
    use rustix::thread::CapabilitySet;

    #[test]
    fn releases_of_all_kinds_are_read() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        assert_eq!(kernel_version("6.1.0-18-amd64"), version(6, 1));
        assert_eq!(kernel_version("6.18-rc2"), version(6, 18));
        assert_eq!(kernel_version("10.0+"), version(10, 0));
        for nonsense in ["", "6", "six.1", ".6.1", "99999999999.1"] {
            assert_eq!(kernel_version(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn old_kernels_are_refused() {
        assert!(check_kernel("6.1.0").is_ok());
        assert!(check_kernel("7.0.0").is_ok());
        let error = check_kernel("5.15.0-91-generic").unwrap_err();
        assert_eq!(error.to_string(), "this kernel is 5.15; Seawall needs 6.1 or newer");
        assert!(matches!(check_kernel("plan9"), Err(Requirement::Release(_))));
    }

    #[test]
    fn missing_privileges_are_named() {
        let net = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert!(check_capabilities(net | bpf).is_ok());
        assert!(check_capabilities(net | CapabilitySet::SYS_ADMIN).is_ok());
        let missing = |held| match check_capabilities(held) {
            Err(Requirement::Capabilities(missing)) => missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(bpf), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(missing(net), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn root_on_this_machine_has_all_of_it() {
        if needs_root() {
            check().unwrap();
        }
    }
}
