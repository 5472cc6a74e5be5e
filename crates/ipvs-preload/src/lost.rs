//! What is said to a request whose daemon has ended: a netlink error. libnl takes the end of a
//! connection for the end of an answer, and keepalived would wait for ever.

use libc::{iovec, msghdr};

const NLMSG_ERROR: u16 = 2;
/// A header, an error number, and the header of the request.
const LENGTH: usize = 36;

/// The message: `ECONNRESET` for the request of that sequence number.
pub(crate) fn message(sequence: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let port = std::process::id().to_ne_bytes();
    bytes[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[12..16].copy_from_slice(&port);
    bytes[16..20].copy_from_slice(&(-libc::ECONNRESET).to_ne_bytes());
    bytes[20..24].copy_from_slice(&16u32.to_ne_bytes());
    bytes[28..32].copy_from_slice(&sequence.to_ne_bytes());
    bytes[32..36].copy_from_slice(&port);
    bytes
}

/// Writes as much of `bytes` as `message` has room for, as recvmsg(2) does; gives how much.
///
/// # Safety
/// As recvmsg(2) demands of `message`.
pub(crate) unsafe fn scatter(bytes: &[u8], message: *mut msghdr) -> usize {
    let mut rest = bytes;
    // SAFETY: the vectors are there, and have the room that they say.
    unsafe {
        (*message).msg_controllen = 0;
        (*message).msg_flags = 0;
        for number in 0..(*message).msg_iovlen {
            let iovec { iov_base, iov_len } = *(*message).msg_iov.add(number);
            let (now, later) = rest.split_at(rest.len().min(iov_len));
            std::ptr::copy_nonoverlapping(now.as_ptr(), iov_base.cast(), now.len());
            rest = later;
        }
        if !rest.is_empty() {
            (*message).msg_flags |= libc::MSG_TRUNC;
        }
    }
    bytes.len() - rest.len()
}

/// The sequence number of a request in `message`; none when it is no whole header.
///
/// # Safety
/// As sendmsg(2) demands of `message`.
pub(crate) unsafe fn sequence(message: *const msghdr) -> Option<u32> {
    let mut header = [0u8; 16];
    let mut got = 0;
    // SAFETY: the vectors are there, and hold the bytes that they say.
    unsafe {
        for number in 0..(*message).msg_iovlen {
            let iovec { iov_base, iov_len } = *(*message).msg_iov.add(number);
            let now = iov_len.min(header.len() - got);
            std::ptr::copy_nonoverlapping(iov_base.cast(), header[got..].as_mut_ptr(), now);
            got += now;
        }
    }
    let [.., a, b, c, d, _, _, _, _] = header;
    (got == header.len()).then_some(u32::from_ne_bytes([a, b, c, d]))
}
