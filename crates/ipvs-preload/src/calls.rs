//! The functions that take the place of the C library's. Each looks whether it is asked about a socket
//! of ours, and passes everything else on.

use std::ffi::CStr;

use libc::{
    AF_NETLINK, FILE, NETLINK_GENERIC, SOL_NETLINK, SOL_SOCKET, c_char, c_int, c_uint, c_void,
    iovec, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t,
};

use crate::{descriptors, fail, lost, proc_files, real, remote};

/// `IP_VS_BASE_CTL` (`linux/ip_vs.h`): from here on the options of a raw socket are IPVS's, those of
/// other programs of netfilter being below.
const IP_VS_BASE_CTL: c_int = 64 + 1024 + 64;

/// Whether an option is one of IPVS's older interface, of which the kernel is not to hear.
fn is_ipvs(level: c_int, name: c_int) -> bool {
    level == libc::IPPROTO_IP
        && (IP_VS_BASE_CTL..IP_VS_BASE_CTL + 64).contains(&name)
        && remote::is_named()
}

/// Writes the address of a netlink socket as system calls do: as much of it as there is room for.
///
/// # Safety
/// `address` is null or has room for `*length` bytes, and `length` is null or valid.
unsafe fn write_address(port: u32, address: *mut sockaddr, length: *mut socklen_t) {
    if address.is_null() || length.is_null() {
        return;
    }
    // SAFETY: all zeros are an address.
    let mut own: sockaddr_nl = unsafe { std::mem::zeroed() };
    own.nl_family = AF_NETLINK as libc::sa_family_t;
    own.nl_pid = port;
    let size = size_of::<sockaddr_nl>();
    // SAFETY: no more is written than there is room for.
    unsafe {
        let room = usize::try_from(*length).unwrap_or(0).min(size);
        std::ptr::copy_nonoverlapping((&raw const own).cast::<u8>(), address.cast(), room);
        *length = size as socklen_t;
    }
}

/// The port of a netlink socket that has bound itself to none: the kernel's first choice too.
fn own_port() -> u32 {
    std::process::id()
}

/// `socket(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if domain != AF_NETLINK || protocol != NETLINK_GENERIC || !remote::is_named() {
        // SAFETY: numbers.
        let descriptor = unsafe { real::SOCKET.get()(domain, kind, protocol) };
        // One of ours that had the number may have ended unseen.
        descriptors::remove(descriptor);
        return descriptor;
    }
    let descriptor = remote::connect(kind);
    if descriptor >= 0 && !descriptors::add(descriptor) {
        // SAFETY: just opened, and known to nobody.
        unsafe { real::CLOSE.get()(descriptor) };
        return fail(libc::EMFILE);
    }
    descriptor
}

/// `bind(2)`: a connection needs no address.
///
/// # Safety
/// As bind(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(
    descriptor: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    if descriptors::is_ours(descriptor) {
        return 0;
    }
    // SAFETY: passed on.
    unsafe { real::BIND.get()(descriptor, address, length) }
}

/// `getsockname(2)`: the address that a netlink socket would have.
///
/// # Safety
/// As getsockname(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(
    descriptor: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    if descriptors::is_ours(descriptor) {
        // SAFETY: demanded by getsockname(2) too.
        unsafe { write_address(own_port(), address, length) };
        return 0;
    }
    // SAFETY: passed on.
    unsafe { real::GETSOCKNAME.get()(descriptor, address, length) }
}

/// `setsockopt(2)`: netlink's own options are granted, for none changes what is answered.
///
/// # Safety
/// As setsockopt(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    descriptor: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if is_ipvs(level, name) {
        return fail(libc::ENOPROTOOPT);
    }
    // Credentials would come with every message, and nobody has room for them.
    let granted = level == SOL_NETLINK || level == SOL_SOCKET && name == libc::SO_PASSCRED;
    if granted && descriptors::is_ours(descriptor) {
        return 0;
    }
    // SAFETY: passed on.
    unsafe { real::SETSOCKOPT.get()(descriptor, level, name, value, length) }
}

/// `getsockopt(2)`.
///
/// # Safety
/// As getsockopt(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    descriptor: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if is_ipvs(level, name) {
        return fail(libc::ENOPROTOOPT);
    }
    // SAFETY: passed on.
    unsafe { real::GETSOCKOPT.get()(descriptor, level, name, value, length) }
}

/// Sends a request of ours by `send`; `length` is the bytes that it has. If the daemon has ended it
/// goes to the one in its place, and if there is none the answer will say so.
fn request(
    descriptor: c_int,
    sequence: Option<u32>,
    length: usize,
    send: impl Fn() -> ssize_t,
) -> ssize_t {
    descriptors::ask(descriptor, sequence.unwrap_or_default());
    let sent = send();
    // SAFETY: the place of this thread's `errno`.
    let error = unsafe { *libc::__errno_location() };
    if sent >= 0 || !matches!(error, libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) {
        return sent;
    }
    if remote::reconnect(descriptor) {
        let sent = send();
        if sent >= 0 {
            return sent;
        }
    }
    length as ssize_t
}

/// `sendmsg(2)`: a connection takes no address and no credentials.
///
/// # Safety
/// As sendmsg(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(
    descriptor: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    let send = real::SENDMSG.get();
    if !descriptors::is_ours(descriptor) || message.is_null() {
        // SAFETY: passed on.
        return unsafe { send(descriptor, message, flags) };
    }
    // SAFETY: a message that is valid, by its copy, with less in it.
    unsafe {
        let mut own = *message;
        (own.msg_name, own.msg_namelen) = (std::ptr::null_mut(), 0);
        (own.msg_control, own.msg_controllen) = (std::ptr::null_mut(), 0);
        let length = (0..own.msg_iovlen).map(|number| (*own.msg_iov.add(number)).iov_len).sum();
        request(descriptor, lost::sequence(message), length, || {
            send(descriptor, &raw const own, flags | libc::MSG_NOSIGNAL)
        })
    }
}

/// `sendto(2)`, likewise.
///
/// # Safety
/// As sendto(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    descriptor: c_int,
    bytes: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> ssize_t {
    if !descriptors::is_ours(descriptor) {
        // SAFETY: passed on.
        return unsafe {
            real::SENDTO.get()(descriptor, bytes, length, flags, address, address_length)
        };
    }
    let mut vector = iovec { iov_base: bytes.cast_mut(), iov_len: length };
    // SAFETY: all zeros are a message, and with the vector it has the bytes that are said.
    unsafe {
        let mut message: msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
        sendmsg(descriptor, &raw const message, flags)
    }
}

/// Whether a connection has ended before it has answered; then the sequence number of the request.
fn is_lost(descriptor: c_int, received: ssize_t) -> Option<u32> {
    // SAFETY: the place of this thread's `errno`.
    let error = unsafe { *libc::__errno_location() };
    let ended = received == 0 || received < 0 && matches!(error, libc::ECONNRESET | libc::ENOTCONN);
    ended.then(|| descriptors::waiting(descriptor)).flatten()
}

/// `recvmsg(2)`: what comes has come from the kernel, port 0.
///
/// # Safety
/// As recvmsg(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(descriptor: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let receive = real::RECVMSG.get();
    if !descriptors::is_ours(descriptor) || message.is_null() {
        // SAFETY: passed on.
        return unsafe { receive(descriptor, message, flags) };
    }
    // SAFETY: the caller's message is valid; the address is written where it has room for one.
    unsafe {
        let (name, room) = ((*message).msg_name, (*message).msg_namelen);
        let mut length = receive(descriptor, message, flags);
        if let Some(sequence) = is_lost(descriptor, length) {
            length = lost::scatter(&lost::message(sequence), message) as ssize_t;
            if flags & libc::MSG_PEEK == 0 {
                descriptors::answered(descriptor);
            }
        }
        if length >= 0 {
            let mut written = room;
            write_address(0, name.cast(), &raw mut written);
            (*message).msg_namelen = if name.is_null() { 0 } else { written };
        }
        length
    }
}

/// `recvfrom(2)`, likewise.
///
/// # Safety
/// As recvfrom(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    descriptor: c_int,
    bytes: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    if !descriptors::is_ours(descriptor) {
        // SAFETY: passed on.
        return unsafe {
            real::RECVFROM.get()(descriptor, bytes, length, flags, address, address_length)
        };
    }
    let mut vector = iovec { iov_base: bytes, iov_len: length };
    // SAFETY: all zeros are a message, and it has the room that the caller says.
    unsafe {
        let mut message: msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
        if !address.is_null() && !address_length.is_null() {
            (message.msg_name, message.msg_namelen) = (address.cast(), *address_length);
        }
        let received = recvmsg(descriptor, &raw mut message, flags);
        if received >= 0 && !message.msg_name.is_null() {
            *address_length = message.msg_namelen;
        }
        received
    }
}

/// `close(2)`: the descriptor is no longer ours.
#[unsafe(no_mangle)]
pub extern "C" fn close(descriptor: c_int) -> c_int {
    descriptors::remove(descriptor);
    // SAFETY: passed on.
    unsafe { real::CLOSE.get()(descriptor) }
}

/// The file's text as a stream, if `path` is one of `/proc/net/ip_vs*`; null if that fails.
///
/// # Safety
/// `path` is null or ends with a NUL.
unsafe fn stream(path: *const c_char) -> Option<*mut FILE> {
    if path.is_null() {
        return None;
    }
    // SAFETY: demanded.
    let descriptor = proc_files::open(unsafe { CStr::from_ptr(path) })?;
    if descriptor < 0 {
        return Some(std::ptr::null_mut());
    }
    // SAFETY: a descriptor that nobody else has.
    Some(unsafe { libc::fdopen(descriptor, c"r".as_ptr()) })
}

/// `fopen(3)`.
///
/// # Safety
/// As fopen(3) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: passed on.
    unsafe { stream(path).unwrap_or_else(|| real::FOPEN.get()(path, mode)) }
}

/// `fopen(3)` for large files.
///
/// # Safety
/// As fopen(3) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: passed on.
    unsafe { stream(path).unwrap_or_else(|| real::FOPEN64.get()(path, mode)) }
}

/// The file's text, if `path` is one of `/proc/net/ip_vs*`; -1 if that fails.
///
/// # Safety
/// `path` is null or ends with a NUL.
unsafe fn text(path: *const c_char) -> Option<c_int> {
    // SAFETY: demanded.
    (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) }).and_then(proc_files::open)
}

/// `open(2)`.
///
/// # Safety
/// As open(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: passed on.
    unsafe { text(path).unwrap_or_else(|| real::OPEN.get()(path, flags, mode)) }
}

/// `open(2)` for large files.
///
/// # Safety
/// As open(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: passed on.
    unsafe { text(path).unwrap_or_else(|| real::OPEN64.get()(path, flags, mode)) }
}

/// `openat(2)`: those paths are absolute, whatever the directory.
///
/// # Safety
/// As openat(2) demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: passed on.
    unsafe { text(path).unwrap_or_else(|| real::OPENAT.get()(directory, path, flags, mode)) }
}
