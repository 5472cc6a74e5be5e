//! `/proc/net/ip_vs*`: their text is read from the socket into memory, and that is what is opened.

use std::ffi::CStr;

use libc::{MFD_CLOEXEC, SEEK_SET, c_int, c_void};

use crate::{fail, real, remote};

const NAMES: [&CStr; 3] = [c"/proc/net/ip_vs", c"/proc/net/ip_vs_conn", c"/proc/net/ip_vs_stats"];

/// The last datagram of a file.
const END: u8 = 0;
/// Bytes of a datagram; the daemon sends no longer ones.
const DATAGRAM: usize = 65_536;

/// A descriptor of the file's text if `path` is one of them, to be read from its start; -1 if that
/// fails, with `errno`.
pub(crate) fn open(path: &CStr) -> Option<c_int> {
    NAMES.contains(&path).then_some(())?;
    if !remote::is_named() {
        return None;
    }
    let socket = remote::connect(libc::SOCK_CLOEXEC);
    if socket < 0 {
        return Some(-1);
    }
    // SAFETY: the name ends with a NUL.
    let file = unsafe { libc::memfd_create(c"ip_vs".as_ptr(), MFD_CLOEXEC) };
    let copied = file >= 0 && copy(path, socket, file);
    // SAFETY: both are descriptors of ours; `errno` is that of what failed.
    unsafe {
        let error = *libc::__errno_location();
        real::CLOSE.get()(socket);
        if !copied && file >= 0 {
            real::CLOSE.get()(file);
        }
        *libc::__errno_location() = error;
    }
    Some(if copied { file } else { -1 })
}

/// Asks for the file and writes what comes; says whether all of it did.
fn copy(path: &CStr, socket: c_int, file: c_int) -> bool {
    let name = path.to_bytes();
    let mut buffer = [0u8; DATAGRAM];
    // SAFETY: what is sent and written is as long as is said, and what is received has its room.
    unsafe {
        let flags = libc::MSG_NOSIGNAL;
        let sent = real::SENDTO.get()(
            socket,
            name.as_ptr().cast(),
            name.len(),
            flags,
            std::ptr::null(),
            0,
        );
        if sent < 0 {
            return false;
        }
        loop {
            let length = real::RECVFROM.get()(
                socket,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            match usize::try_from(length) {
                Ok(1) if buffer[0] == END => return libc::lseek(file, 0, SEEK_SET) == 0,
                // It ends before its end.
                Ok(0) => return fail(libc::EIO) >= 0,
                Ok(length) if write_all(file, &buffer[..length]) => {}
                Err(_) if *libc::__errno_location() == libc::EINTR => {}
                _ => return false,
            }
        }
    }
}

fn write_all(file: c_int, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: there are as many bytes as is said.
        let written = unsafe { libc::write(file, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => bytes = &bytes[written..],
            // SAFETY: the place of this thread's `errno`.
            Err(_) if unsafe { *libc::__errno_location() } == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    true
}
