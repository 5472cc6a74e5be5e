//! The other end of a tunnel, for kernels without `ipip`, `gre` and `fou`: what arrives wrapped is
//! unwrapped and arrives once more.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use seawall_datapath::Injector;
use seawall_datapath::netlink::VethSpec;
use seawall_wire::checksum::Sum;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;
use crate::namespace::Error;

/// All protocols (`linux/if_ether.h`).
const ETH_P_ALL: u16 = 3;
/// Longest frame that is unwrapped, in bytes.
const FRAME: usize = 2048;
/// Bytes that may wait to be read.
const BUFFER: usize = 16 << 20;
/// The pair that what was unwrapped goes over: in by the first, received on the second.
const PAIR: [&str; 2] = ["unwrap0", "unwrap1"];
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0xdd, 0], [2, 0, 0, 0, 0xdd, 1]];
const LINK: usize = 14;
/// Where UDP of GUE goes to.
const UDP: u8 = 17;
const GRE: u8 = 47;

/// Unwraps IPIP, GRE and GUE that a host receives, of either version in either; ends when dropped.
pub struct Unwrapper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    unwrapped: AtomicU64,
    corrupt: AtomicU64,
}

impl Unwrapper {
    /// Starts on a host. Packets for an address of its own must find it: give `lo` the address.
    ///
    /// # Errors
    /// When the interfaces or sockets cannot be made.
    pub fn start(host: &Namespace) -> Result<Self, Error> {
        let index = host.netlink(|netlink| {
            let spec = VethSpec {
                name: PAIR[0],
                mac: Some(MACS[0]),
                peer_name: PAIR[1],
                peer_mac: Some(MACS[1]),
                peer_netns: Some(host.as_fd()),
            };
            netlink.add_veth(&spec)?;
            let mut first = 0;
            for name in PAIR.iter().rev() {
                first = netlink.link(name)?.map_or(0, |link| link.index);
                netlink.set_up(first)?;
            }
            Ok(first)
        })?;
        host.sysctl("net.ipv4.conf.unwrap1.rp_filter", "0")?;
        let open = || -> io::Result<(Socket, Injector)> {
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            socket.set_recv_buffer_size(BUFFER)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok((socket, Injector::open(&[index]).map_err(io::Error::other)?))
        };
        let (socket, injector) = host.run(open).map_err(|source| Error::System {
            label: host.label().to_owned(),
            action: "open packet sockets".to_owned(),
            source,
        })?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || work(&own, &socket, injector, index));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Packets unwrapped so far.
    pub fn unwrapped(&self) -> u64 {
        self.shared.unwrapped.load(Ordering::Relaxed)
    }

    /// Packets dropped because the checksum of UDP or GRE around them was wrong.
    pub fn corrupt(&self) -> u64 {
        self.shared.corrupt.load(Ordering::Relaxed)
    }
}

impl Drop for Unwrapper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, mut socket: &Socket, mut injector: Injector, interface: u32) {
    let mut frame = [0; FRAME];
    while !shared.stop.load(Ordering::Relaxed) {
        match socket.read(&mut frame) {
            Ok(len) => match unwrap(&frame[..len]) {
                Some(Ok((ethertype, packet))) => {
                    let inner = [&MACS[1][..], &MACS[0][..], &ethertype[..], packet].concat();
                    shared.unwrapped.fetch_add(1, Ordering::Relaxed);
                    injector.send(interface, &inner);
                    injector.flush();
                }
                Some(Err(Corrupt)) => {
                    shared.corrupt.fetch_add(1, Ordering::Relaxed);
                }
                None => {}
            },
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

struct Corrupt;

/// EtherType and packet.
type Unwrapped<'f> = ([u8; 2], &'f [u8]);

/// What is in a wrapped packet; `None` for any other.
fn unwrap(frame: &[u8]) -> Option<Result<Unwrapped<'_>, Corrupt>> {
    let (header, length) = match frame.get(12..LINK)? {
        [0x08, 0x00] => (20, usize::from(half(frame, LINK + 2)?)),
        [0x86, 0xdd] => (40, 40 + usize::from(half(frame, LINK + 4)?)),
        _ => return None,
    };
    let packet = frame.get(LINK..LINK + length)?;
    let protocol = if header == 20 { *packet.get(9)? } else { *packet.get(6)? };
    let addresses = if header == 20 { packet.get(12..20)? } else { packet.get(8..40)? };
    let payload = packet.get(header..)?;
    let (number, inner) = match protocol {
        4 | 41 => (protocol, payload),
        GRE => {
            let long = payload.first()? & 0x80 != 0;
            if long && Sum::new().bytes(payload).finish() != 0 {
                return Some(Err(Corrupt));
            }
            let number = if payload.get(2..4)? == [0x08, 0x00] { 4 } else { 41 };
            (number, payload.get(if long { 8 } else { 4 }..)?)
        }
        UDP => {
            let sum = Sum::new().bytes(addresses).word(UDP.into()).word(payload.len() as u16);
            if half(payload, 6)? != 0 && sum.bytes(payload).finish() != 0 {
                return Some(Err(Corrupt));
            }
            (*payload.get(9)?, payload.get(12..)?)
        }
        _ => return None,
    };
    match number {
        4 => Some(Ok(([0x08, 0x00], inner))),
        41 => Some(Ok(([0x86, 0xdd], inner))),
        _ => None,
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
