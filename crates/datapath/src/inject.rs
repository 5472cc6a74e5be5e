//! Frames sent past the kernel's stack: one packet socket (packet(7)) an interface.
//!
//! A socket for each, so that one interface whose queue is stuck holds up no other. What an XDP
//! program at the other end of the link sees is an ordinary frame.

use std::os::fd::{AsRawFd, OwnedFd};
use std::{io, mem, ptr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::Error;

/// Frames that wait for one interface before they are sent without being asked.
pub const BATCH_FRAMES: usize = 256;
/// Bytes of the longest frame.
pub const MAX_FRAME: usize = 4096;
/// Bytes of the shortest: an Ethernet header.
const MIN_FRAME: usize = 14;
/// Bytes that one interface's batch may take.
const BATCH_BYTES: usize = BATCH_FRAMES * MAX_FRAME;
/// Frames a system call; more would cost stack and save little.
const CHUNK: usize = 64;
/// How often one flush tries again because the socket or the interface's queue is full, before
/// frames are dropped: a bound on how long the worker is held up.
const RETRIES: u32 = 16;
/// Bytes the kernel may hold for one socket: a full batch, counted with the kernel's own
/// overhead of about 1 KiB a frame.
const SEND_BUFFER: usize = 2 * BATCH_BYTES;

/// What became of frames, since the injector was opened. Each counts once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InjectCounters {
    /// Taken by the kernel.
    pub sent: u64,
    /// Dropped (`inject_dropped`): socket or interface queue stayed full.
    pub dropped: u64,
    /// Refused by the kernel: the interface is down or gone, or its MTU too small.
    pub failed: u64,
    /// Never offered to the kernel: no such interface here, or a length out of range.
    pub refused: u64,
}

/// Sends frames on the interfaces it was opened for.
///
/// [`send`](Self::send) collects, [`flush`](Self::flush) sends; call it once a round. At most
/// 1 MiB an interface waits. Nothing is allocated a frame.
#[derive(Debug)]
pub struct Injector {
    ports: Vec<Port>,
    counters: InjectCounters,
}

#[derive(Debug)]
struct Port {
    interface: u32,
    socket: OwnedFd,
    /// Frames end to end.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Injector {
    /// Opens a socket for each of `interfaces` (indexes in the calling thread's namespace).
    ///
    /// # Errors
    ///
    /// [`Error::PacketSocket`]: without `CAP_NET_RAW`, or if there is no such interface.
    pub fn open(interfaces: &[u32]) -> Result<Self, Error> {
        let ports = interfaces.iter().map(|&interface| Port::open(interface));
        Ok(Self { ports: ports.collect::<Result<_, _>>()?, counters: InjectCounters::default() })
    }

    /// Takes a copy of `frame`, Ethernet header and all, to be sent on `interface`.
    pub fn send(&mut self, interface: u32, frame: &[u8]) {
        let port = self.ports.iter_mut().find(|port| port.interface == interface);
        match port {
            Some(port) if (MIN_FRAME..=MAX_FRAME).contains(&frame.len()) => {
                if port.ends.len() == BATCH_FRAMES {
                    port.flush(&mut self.counters);
                }
                port.bytes.extend_from_slice(frame);
                port.ends.push(port.bytes.len());
            }
            _ => self.counters.refused += 1,
        }
    }

    /// Sends what waits. Frames of one interface leave in the order they came in.
    pub fn flush(&mut self) {
        for port in &mut self.ports {
            port.flush(&mut self.counters);
        }
    }

    /// Goes on counting from what another has counted.
    pub fn count_from(&mut self, counters: InjectCounters) {
        self.counters = counters;
    }

    /// What became of all frames so far.
    #[must_use]
    pub fn counters(&self) -> InjectCounters {
        self.counters
    }
}

impl Port {
    fn open(interface: u32) -> Result<Self, Error> {
        let at = |action| move |source| Error::PacketSocket { interface, action, source };
        // Protocol 0: nothing that arrives is copied to the socket.
        let socket = packet_socket(interface, 0).map_err(at("open"))?;
        bypass_queueing(&socket).map_err(at("set up"))?;
        sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER))
            .map_err(|source| at("set up")(source.into()))?;
        Ok(Self {
            interface,
            socket,
            bytes: Vec::with_capacity(BATCH_BYTES),
            ends: Vec::with_capacity(BATCH_FRAMES),
        })
    }

    fn flush(&mut self, counters: &mut InjectCounters) {
        let mut next = 0;
        let mut retries = RETRIES;
        while next < self.ends.len() {
            match self.send_from(next) {
                Ok(sent) => {
                    counters.sent += sent as u64;
                    next += sent;
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) if retries > 0 => {
                    retries -= 1;
                    std::thread::yield_now();
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                    counters.dropped += 1;
                    next += 1;
                }
                Err(_) => {
                    counters.failed += 1;
                    next += 1;
                }
            }
        }
        self.bytes.clear();
        self.ends.clear();
    }

    /// Sends frames from the `first` on, at most [`CHUNK`]; says how many, at least one.
    fn send_from(&self, first: usize) -> Result<usize, Errno> {
        let waiting = &self.ends[first..];
        let count = waiting.len().min(CHUNK);
        let mut slices = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; CHUNK];
        // SAFETY: `mmsghdr` is made of integers and pointers, for all of which zero is a value.
        let mut messages: [libc::mmsghdr; CHUNK] = unsafe { mem::zeroed() };
        let mut start = if first == 0 { 0 } else { self.ends[first - 1] };
        for ((&end, slice), message) in waiting.iter().zip(&mut slices).zip(&mut messages) {
            let frame = &self.bytes[start..end];
            // The kernel only reads what it sends.
            slice.iov_base = frame.as_ptr().cast_mut().cast();
            slice.iov_len = frame.len();
            message.msg_hdr.msg_iov = slice;
            message.msg_hdr.msg_iovlen = 1;
            start = end;
        }
        // SAFETY: the first `count` messages (at most `CHUNK`) each point to one slice of
        // `slices`, and that to bytes of `self.bytes`; all outlive the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(sent) {
            Ok(0) => Err(Errno::NOBUFS),
            Ok(sent) => Ok(sent),
            Err(_) => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }
}

/// A raw packet socket on one interface, which receives the frames of `protocol` (an EtherType,
/// host order; 0 for none).
pub(crate) fn packet_socket(interface: u32, protocol: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    // SAFETY: `sockaddr_ll` is made of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex =
        i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: the address lives through the call and is as long as stated.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Frames go to the driver directly: the engine is its own queue, and a queueing discipline
/// would cost a lock a packet (`PACKET_QDISC_BYPASS`, packet(7)).
fn bypass_queueing(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value lives through the call and is as long as stated.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
