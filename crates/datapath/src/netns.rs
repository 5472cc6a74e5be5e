//! Network namespaces: making, entering and keeping them.
//!
//! A namespace belongs to a *thread* and is inherited by the threads and processes it starts. It
//! lives as long as a thread is in it, or a descriptor ([`current`]) or socket refers to it, so one
//! without a name cannot be left behind.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::state::BPFFS;

/// Moves the calling thread into a new, empty network namespace.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, and those of unshare(2).
pub fn unshare() -> io::Result<()> {
    // SAFETY: unshare takes no pointers; CLONE_NEWNET concerns the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// A descriptor of the calling thread's network namespace.
///
/// # Errors
///
/// Those of opening `/proc/thread-self/ns/net`.
pub fn current() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` when the descriptor is of something else, and those
/// of setns(2).
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes no pointers, and the descriptor is open for as long as it is borrowed.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// What names the calling thread's network namespace until the machine restarts (`SO_NETNS_COOKIE`).
///
/// # Errors
///
/// Those of opening a socket.
pub fn cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `cookie` has.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    })?;
    Ok(cookie)
}

/// Moves the calling thread into a mount namespace of its own, whose changes nobody else sees, with an
/// empty BPF file system at its usual place: what is pinned there is gone with the last process in it.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, and those of mount(2).
pub fn unshare_bpffs() -> io::Result<()> {
    // SAFETY: unshare takes no pointers; CLONE_NEWNS concerns the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)?;
    Ok(())
}

/// Makes a command's process die (SIGKILL) as soon as the *thread* that spawns it ends, so that
/// not even a killed parent leaves it behind.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: this form of prctl takes integers only.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // The parent may have died before the line above; nobody would send the signal then.
        if std::os::unix::process::parent_id() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls, both async-signal-safe,
    // and neither allocates nor takes a lock (an `io::Error` of an errno is a plain integer).
    unsafe { command.pre_exec(prepare) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
