//! Seawall's socket.

use libc::{
    AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET, c_char, c_int, sockaddr_un, socklen_t,
};

use crate::{fail, real};

/// The value of `SEAWALL_IPVS_SOCKET`.
fn value() -> *const c_char {
    // SAFETY: the name ends with a NUL.
    unsafe { libc::getenv(c"SEAWALL_IPVS_SOCKET".as_ptr()) }
}

/// Whether there is one to connect to. If so the kernel's IPVS is never asked, reachable or not.
pub(crate) fn is_named() -> bool {
    !value().is_null()
}

/// The address that the variable names; none when it is empty or too long.
fn address() -> Option<sockaddr_un> {
    let value = value();
    if value.is_null() {
        return None;
    }
    // SAFETY: it ends with a NUL, and lives until somebody changes the environment.
    let path = unsafe { std::ffi::CStr::from_ptr(value) }.to_bytes();
    // SAFETY: all zeros are an address.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    if path.is_empty() || path.len() >= address.sun_path.len() {
        return None;
    }
    address.sun_family = AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as c_char;
    }
    Some(address)
}

/// A connection, with the flags of the socket that it stands for. Without one, -1, and `errno` as
/// connect(2) leaves it, or `EINVAL` when the variable names no path that can be connected to.
pub(crate) fn connect(flags: c_int) -> c_int {
    let Some(address) = address() else { return fail(libc::EINVAL) };
    let kind = SOCK_SEQPACKET | flags & (SOCK_CLOEXEC | SOCK_NONBLOCK);
    // SAFETY: both calls get what they ask for: numbers, and an address of the length that is said.
    unsafe {
        let descriptor = real::SOCKET.get()(AF_UNIX, kind, 0);
        if descriptor < 0 {
            return -1;
        }
        let length = size_of::<sockaddr_un>() as socklen_t;
        if libc::connect(descriptor, (&raw const address).cast(), length) < 0 {
            let error = *libc::__errno_location();
            real::CLOSE.get()(descriptor);
            return fail(error);
        }
        descriptor
    }
}

/// Has `descriptor` be a new connection, the old one having ended. Says whether it is.
pub(crate) fn reconnect(descriptor: c_int) -> bool {
    // SAFETY: numbers, and a descriptor that nobody else has.
    unsafe {
        let status = libc::fcntl(descriptor, libc::F_GETFL);
        let own = libc::fcntl(descriptor, libc::F_GETFD);
        if status < 0 || own < 0 {
            return false;
        }
        let nonblocking = if status & libc::O_NONBLOCK != 0 { SOCK_NONBLOCK } else { 0 };
        let new = connect(nonblocking | SOCK_CLOEXEC);
        if new < 0 {
            return false;
        }
        let flags = if own & libc::FD_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
        let replaced = libc::dup3(new, descriptor, flags) == descriptor;
        real::CLOSE.get()(new);
        replaced
    }
}
