//! Frames that the engine sends: one packet socket an interface, many frames a system call.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Frames in one system call.
const BATCH: usize = 64;
/// Largest frame.
const MAX_FRAME: usize = 4096;
/// How often a full device queue is tried again before the rest of a batch is dropped.
const TRIES: usize = 16;

/// Sends frames. Holds [`BATCH`] frames an interface at most, and never blocks.
#[derive(Debug, Default)]
pub struct Injector {
    ports: HashMap<u32, Port>,
    /// Frames that could not be sent: too long, the queue full, or the interface down or unknown.
    pub dropped: u64,
    /// Frames that were sent.
    pub sent: u64,
}

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    frames: Vec<u8>,
    lens: Vec<usize>,
}

impl Injector {
    /// Opens the packet socket of an interface. It receives nothing.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when there is no such interface.
    pub fn open(&mut self, interface: u32) -> io::Result<()> {
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: a plain system call; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero is a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = interface as i32;
        // SAFETY: the pointer and length are those of a live `sockaddr_ll`.
        let bound = unsafe {
            libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let on: libc::c_int = 1;
        // SAFETY: the pointer and length are those of a live `c_int`.
        let bypass = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        if bypass < 0 {
            return Err(io::Error::last_os_error());
        }
        let frames = vec![0; BATCH * MAX_FRAME];
        self.ports.insert(interface, Port { socket, frames, lens: Vec::with_capacity(BATCH) });
        Ok(())
    }

    /// Queues a frame, and sends the batch when it is full.
    pub fn send(&mut self, interface: u32, frame: &[u8]) {
        let Some(port) = self.ports.get_mut(&interface) else {
            self.dropped += 1;
            return;
        };
        let start = port.lens.len() * MAX_FRAME;
        let room = port.frames.get_mut(start..start + MAX_FRAME);
        match room.and_then(|room| room.get_mut(..frame.len())) {
            Some(to) => to.copy_from_slice(frame),
            None => {
                self.dropped += 1;
                return;
            }
        }
        port.lens.push(frame.len());
        if port.lens.len() == BATCH {
            let (sent, dropped) = port.flush();
            self.sent += sent;
            self.dropped += dropped;
        }
    }

    /// Sends everything that is queued.
    pub fn flush(&mut self) {
        for port in self.ports.values_mut() {
            let (sent, dropped) = port.flush();
            self.sent += sent;
            self.dropped += dropped;
        }
    }
}

impl Port {
    fn flush(&mut self) -> (u64, u64) {
        let count = self.lens.len();
        if count == 0 {
            return (0, 0);
        }
        // SAFETY: all-zero is a valid `iovec` and a valid `mmsghdr`.
        let mut pieces: [libc::iovec; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let frames = self.frames.chunks_exact_mut(MAX_FRAME);
        for (((piece, message), frame), len) in
            pieces.iter_mut().zip(&mut messages).zip(frames).zip(&self.lens)
        {
            piece.iov_base = frame.as_mut_ptr().cast();
            piece.iov_len = *len;
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        let mut done = 0;
        for _ in 0..TRIES {
            let rest = messages.get_mut(done..count).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            // SAFETY: `rest` are messages whose pieces lie in `pieces` and `self.frames`, all
            // alive; the count is theirs.
            let sent = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0)
            };
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                Err(_) if is_full(&io::Error::last_os_error()) => std::thread::yield_now(),
                Err(_) => break,
            }
        }
        self.lens.clear();
        (done as u64, (count - done) as u64)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR | libc::ENOMEM)
    )
}
