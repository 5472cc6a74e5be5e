//! One session.
//!
//! A slot is written by the engine before its index entries are published and read by XDP
//! afterwards. Both sides change [`Slot::word`] only by compare-exchange, so that two FINs in
//! one instant lose no transition; the other deltas are written before it. The counters of a
//! direction are written by the CPU that handles that direction.

use crate::cell::{Cell32, Cell64};
use crate::options::Timestamps;
use crate::state::{Direction, TcpState};
use crate::tuple::{Addr, Endpoint, Transport, Tuple};

/// Bits of [`Word::flags`].
pub mod flag {
    /// We answered the client's SYN: `d` counts, and the real server's SYN/ACK stays with us.
    pub const PROXIED: u32 = 1;
    /// Timestamps are in use and translated.
    pub const TIMESTAMPS: u32 = 1 << 1;
    /// The window shifts of the two sides differ.
    pub const RESCALE: u32 = 1 << 2;
    /// Without the proxy: the real server has answered. Over TCP its ISN then stands where a proxied
    /// session has its cookie.
    pub const ANSWERED: u32 = 1 << 3;
    /// What the client sent before the real server accepted is not on its way yet: the engine sends
    /// it, and what the client sends now comes after it.
    pub const OPENING: u32 = 1 << 4;
    /// Its real server has been removed; what the client sends has nowhere to go.
    pub const NO_SERVER: u32 = 1 << 5;
    /// A session of UDP; without it, of TCP. Its state is SYN_RECV until it is confirmed and
    /// ESTABLISHED from then on; see [`crate::datagram`].
    pub const UDP: u32 = 1 << 10;
    /// The real server answers the client itself: DR, or with [`TUNNEL`]. The slot has no entry for the
    /// other direction, and `f`, `d` and `ts_out` are 0.
    pub const ONE_WAY: u32 = 1 << 6;
    /// Packets are wrapped: `local` is the outer source, `real` the outer destination and `ts_in` a
    /// `layout::Tunnel`.
    pub const TUNNEL: u32 = 1 << 7;
    /// The real server is not known to have heard yet who its client is: both sides go through the
    /// engine, which tells it (SPEC C7).
    pub const INTRODUCING: u32 = 1 << 11;
    /// The real server believes TOA options: none of the client's own may reach it.
    pub const TOA: u32 = 1 << 12;
    /// While [`INTRODUCING`], segments of the client's get a TOA option; without it that is for a
    /// PROXY header.
    pub const BEARS_TOA: u32 = 1 << 13;
}

/// State, flags and `d` in the one word that either side may change at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// Where the connection stands.
    pub state: TcpState,
    /// Bits of [`flag`]; 24 of them.
    pub flags: u32,
    /// The cookie less the real server's ISN (DESIGN, "Splice arithmetic").
    pub d: u32,
}

impl Word {
    /// The word as it stands in memory.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.d as u64) << 32 | ((self.flags & 0xff_ffff) << 8) as u64 | self.state as u64
    }

    /// What carries the session.
    #[inline(always)]
    #[must_use]
    pub const fn transport(self) -> Transport {
        if self.flags & flag::UDP == 0 { Transport::Tcp } else { Transport::Udp }
    }

    /// The inverse of [`Word::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            state: TcpState::from_bits(bits as u8),
            flags: (bits as u32) >> 8,
            d: (bits >> 32) as u32,
        }
    }
}

/// Stands for "this side does not scale windows".
pub const NO_SCALE: u8 = 0xff;

/// The window shifts of the parties (RFC 7323, section 2): 0 to 14, or [`NO_SCALE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scales {
    /// What the client offered.
    pub client: u8,
    /// What our SYN/ACK offered in the real server's place.
    pub ours: u8,
    /// What the real server's SYN/ACK offered.
    pub real_server: u8,
}

impl Scales {
    /// As it stands in memory.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.client as u32 | (self.ours as u32) << 8 | (self.real_server as u32) << 16
    }

    /// By how much the real server's windows are shifted.
    #[must_use]
    pub const fn real_server_shift(self) -> u32 {
        if self.real_server == NO_SCALE { 0 } else { (self.real_server & 0xf) as u32 }
    }

    /// The inverse of [`Scales::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self { client: bits as u8, ours: (bits >> 8) as u8, real_server: (bits >> 16) as u8 }
    }
}

/// What one direction's packets touch, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Flow {
    /// Packets forwarded.
    pub packets: Cell64,
    /// Bytes forwarded, IP header and up.
    pub bytes: Cell64,
    /// When the last one was, in milliseconds of the monotonic clock.
    pub last_seen: Cell64,
    /// When a SYN on an established session last went to the real server, same clock. In the outbound
    /// flow, with [`Flow::syn_seq`], what [`Slot::preface`] gives.
    pub syn_forwarded: Cell64,
    /// The highest acknowledgment number that this direction carried, as the client counts.
    pub ack: Cell32,
    /// The window that came with it, in bytes.
    pub window: Cell32,
    /// The last bare acknowledgment, for [`crate::storm`].
    pub repeated: Cell32,
    /// How often it came again for nothing.
    pub repeats: Cell32,
    /// Segments with data.
    pub data: Cell32,
    /// How many of the other direction's [`Flow::data`] have been answered.
    pub answered: Cell32,
    /// Frames punted since the last change of state.
    pub punted: Cell32,
    /// The number of the SYN that [`Flow::syn_forwarded`] is about.
    pub syn_seq: Cell32,
}

impl Flow {
    /// Makes it the flow of a session that begins at `now` and acknowledges `ack` first. For the
    /// engine, while no index entry leads here.
    pub fn begin(&self, now: u64, ack: u32) {
        self.packets.store(0);
        self.bytes.store(0);
        self.last_seen.store(now);
        self.syn_forwarded.store(0);
        self.ack.store(ack);
        self.window.store(0);
        self.repeated.store(0);
        self.repeats.store(0);
        self.data.store(0);
        self.answered.store(0);
        self.punted.store(0);
        self.syn_seq.store(0);
    }

    /// Counts a packet of `len` bytes that was forwarded at `now`.
    #[inline(always)]
    pub fn count(&self, len: u32, now: u64) {
        self.packets.store(self.packets.load().wrapping_add(1));
        self.bytes.store(self.bytes.load().wrapping_add(len as u64));
        self.last_seen.store(now);
    }
}

/// One session: 256 bytes, four cache lines.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    /// See [`Word`].
    pub word: Cell64,
    /// Rises with each reuse, so that a late reader can tell.
    pub generation: Cell32,
    /// The cookie of the session that this one replaced, or its own: still valid, but not new (SPEC
    /// A12).
    pub prior_cookie: Cell32,
    /// The ISN we chose towards the real server less the client's.
    pub f: Cell32,
    /// Added to the client's TSval, subtracted from the real server's TSecr (DESIGN's `a`). With
    /// [`flag::TUNNEL`], how packets are wrapped.
    pub ts_in: Cell32,
    /// Added to the real server's TSval, subtracted from the client's TSecr (DESIGN's `b`).
    pub ts_out: Cell32,
    /// See [`Scales`].
    pub scales: Cell32,
    /// Index of the next hop towards the real server.
    pub next_hop_in: Cell32,
    /// Index of the next hop towards the client.
    pub next_hop_out: Cell32,
    /// Number of the service.
    pub service: Cell32,
    /// Number of the real server.
    pub real_server: Cell32,
    /// Our ISN towards the client.
    pub cookie: Cell32,
    /// The client's ISN.
    pub client_isn: Cell32,
    client_vip_ports: Cell32,
    local_real_ports: Cell32,
    client: [Cell64; 2],
    vip: [Cell64; 2],
    local: [Cell64; 2],
    real: [Cell64; 2],
    /// Client to real server.
    pub inbound: Flow,
    /// Real server to client.
    pub outbound: Flow,
}

/// Beside the version in what [`Slot::set_preface`] stores: the clocks are there.
const PREFACE_CLOCKS: u32 = 1 << 7;

/// What the accepted ACK of a session in SYN_SENT said beside its numbers, so that it can be written
/// again by an engine that never saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The client's window, in bytes.
    pub window: u32,
    /// The client's timestamps, if they are in use.
    pub timestamps: Option<Timestamps>,
}

/// What an engine that never saw it must know of the PROXY header that a session's real server is to
/// get ([`flag::INTRODUCING`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preface {
    /// Version of the PROXY protocol, 1 or 2.
    pub version: u8,
    /// The largest payload of a segment to the real server, in bytes; 0 until it has answered.
    pub mss: u16,
    /// Our clock in the SYN and the real server's latest, if timestamps are in use; none until it has
    /// answered.
    pub clocks: Option<Timestamps>,
}

/// The four ends of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The client.
    pub client: Endpoint,
    /// The virtual service.
    pub vip: Endpoint,
    /// What the real server sees as its client: the local address under FULLNAT, the client
    /// itself under NAT and DR; the outer source, and the client's port, under TUNNEL.
    pub local: Endpoint,
    /// The real server.
    pub real: Endpoint,
}

impl Slot {
    /// The word, decoded.
    #[inline(always)]
    pub fn state(&self) -> Word {
        Word::from_bits(self.word.load())
    }

    /// What packets going `direction` touch.
    #[inline(always)]
    pub const fn flow(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// What packets going the other way touch.
    #[inline(always)]
    pub const fn opposite(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::Inbound => &self.outbound,
            Direction::Outbound => &self.inbound,
        }
    }

    /// Index of the next hop of packets going `direction`.
    #[inline(always)]
    pub fn next_hop(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Inbound => self.next_hop_in.load(),
            Direction::Outbound => self.next_hop_out.load(),
        }
    }

    /// When the last packet of either direction was forwarded, in milliseconds.
    #[must_use]
    pub fn last_seen(&self) -> u64 {
        self.inbound.last_seen.load().max(self.outbound.last_seen.load())
    }

    /// A change of state: both sides may punt anew.
    #[inline(always)]
    pub fn allow_punts(&self) {
        self.inbound.punted.store(0);
        self.outbound.punted.store(0);
    }

    /// Keeps the accepted ACK, where an established session counts. For the engine, in SYN_SENT.
    pub fn keep(&self, kept: &Kept) {
        let timestamps = kept.timestamps.unwrap_or_default();
        self.inbound.window.store(kept.window);
        self.inbound.repeated.store(timestamps.value);
        self.inbound.repeats.store(timestamps.echo);
        self.inbound.data.store(u32::from(kept.timestamps.is_some()));
    }

    /// What [`Slot::keep`] kept.
    pub fn kept(&self) -> Kept {
        let (value, echo) = (self.inbound.repeated.load(), self.inbound.repeats.load());
        let timestamps = Timestamps { value, echo };
        Kept {
            window: self.inbound.window.load(),
            timestamps: (self.inbound.data.load() != 0).then_some(timestamps),
        }
    }

    /// Forgets it, before the session leaves SYN_SENT.
    pub fn forget_kept(&self) {
        self.keep(&Kept { window: 0, timestamps: None });
    }

    /// Sets what [`Slot::preface`] gives. For the engine; whoever reads after a crash sees all of it or
    /// nothing.
    pub fn set_preface(&self, to: Option<Preface>) {
        self.outbound.syn_seq.publish(0);
        let Some(Preface { version, mss, clocks }) = to else { return };
        let Timestamps { value, echo } = clocks.unwrap_or_default();
        self.outbound.syn_forwarded.store(u64::from(value) << 32 | u64::from(echo));
        let clocks = if clocks.is_some() { PREFACE_CLOCKS } else { 0 };
        self.outbound.syn_seq.publish(u32::from(mss) << 16 | clocks | u32::from(version));
    }

    /// The PROXY header that the real server is to get, if there is one.
    pub fn preface(&self) -> Option<Preface> {
        let bits = self.outbound.syn_seq.load();
        let version = bits as u8 & !(PREFACE_CLOCKS as u8);
        let clocks = self.outbound.syn_forwarded.load();
        let clocks = Timestamps { value: (clocks >> 32) as u32, echo: clocks as u32 };
        let known = (bits & PREFACE_CLOCKS != 0).then_some(clocks);
        (version != 0).then_some(Preface { version, mss: (bits >> 16) as u16, clocks: known })
    }

    /// Whether a packet of `transport` and `tuple` belongs to this session in `direction`. The index
    /// only hints; this decides.
    #[inline(always)]
    pub fn matches(&self, transport: Transport, tuple: &Tuple, direction: Direction) -> bool {
        let (source, destination, ports) = match direction {
            Direction::Inbound => (&self.client, &self.vip, self.client_vip_ports.load()),
            Direction::Outbound => {
                (&self.real, &self.local, self.local_real_ports.load().rotate_left(16))
            }
        };
        ports == tuple.ports()
            && same(source, tuple.source.address)
            && same(destination, tuple.destination.address)
            && self.state().transport() == transport
    }

    /// Source and destination that a segment going `direction` gets.
    #[inline(always)]
    pub fn translated(&self, direction: Direction) -> Tuple {
        let (source, destination, ports) = match direction {
            Direction::Inbound => (&self.local, &self.real, self.local_real_ports.load()),
            Direction::Outbound => {
                (&self.vip, &self.client, self.client_vip_ports.load().rotate_left(16))
            }
        };
        Tuple {
            source: Endpoint { address: addr(source), port: (ports >> 16) as u16 },
            destination: Endpoint { address: addr(destination), port: ports as u16 },
        }
    }

    /// The real server's address.
    #[inline(always)]
    pub fn real_address(&self) -> Addr {
        addr(&self.real)
    }

    /// The address that packets come to the real server from.
    #[inline(always)]
    pub fn local_address(&self) -> Addr {
        addr(&self.local)
    }

    /// Sets the outer source of a tunnel. A packet that is being wrapped may bear half of each, and
    /// its client sends it again.
    pub fn set_local_address(&self, address: Addr) {
        set(&self.local, address);
    }

    /// Sets the four ends. For the engine, while no index entry leads here.
    pub fn set_ends(&self, ends: &Ends) {
        let ports = |a: Endpoint, b: Endpoint| u32::from(a.port) << 16 | u32::from(b.port);
        self.client_vip_ports.store(ports(ends.client, ends.vip));
        self.local_real_ports.store(ports(ends.local, ends.real));
        set(&self.client, ends.client.address);
        set(&self.vip, ends.vip.address);
        set(&self.local, ends.local.address);
        set(&self.real, ends.real.address);
    }

    /// The four ends.
    pub fn ends(&self) -> Ends {
        let inbound = self.translated(Direction::Inbound);
        let outbound = self.translated(Direction::Outbound);
        Ends {
            client: outbound.destination,
            vip: outbound.source,
            local: inbound.source,
            real: inbound.destination,
        }
    }
}

impl Ends {
    /// The tuple of segments that arrive from the client.
    #[must_use]
    pub const fn inbound(&self) -> Tuple {
        Tuple { source: self.client, destination: self.vip }
    }

    /// The tuple of segments that arrive from the real server.
    #[must_use]
    pub const fn outbound(&self) -> Tuple {
        Tuple { source: self.real, destination: self.local }
    }
}

#[inline(always)]
fn same(cells: &[Cell64; 2], address: Addr) -> bool {
    cells[1].load() == address.0[1] && cells[0].load() == address.0[0]
}

#[inline(always)]
fn addr(cells: &[Cell64; 2]) -> Addr {
    Addr([cells[0].load(), cells[1].load()])
}

fn set(cells: &[Cell64; 2], address: Addr) {
    for (cell, word) in cells.iter().zip(address.0) {
        cell.store(word);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ends, Kept, Preface, Scales, Slot, Word, flag};
    use crate::options::Timestamps;
    use crate::state::{Direction, TcpState};
    use crate::tuple::{Addr, Endpoint, Transport};

    #[test]
    fn words_survive_both_ways() {
        let word =
            Word { state: TcpState::LastAck, flags: flag::PROXIED | flag::RESCALE, d: 0xdead_beef };
        assert_eq!(Word::from_bits(word.to_bits()), word);
        let scales = Scales { client: 14, ours: 7, real_server: super::NO_SCALE };
        assert_eq!(Scales::from_bits(scales.to_bits()), scales);
    }

    #[test]
    fn what_a_handshake_leaves_to_the_next_engine_survives_both_ways() {
        let slot = Slot::default();
        assert_eq!(slot.preface(), None);
        let clocks = Timestamps { value: u32::MAX, echo: 1 << 31 };
        for timestamps in [Some(clocks), Some(Timestamps::default()), None] {
            let kept = Kept { window: 70_000, timestamps };
            let preface = Some(Preface { version: 2, mss: u16::MAX, clocks: timestamps });
            slot.keep(&kept);
            slot.set_preface(preface);
            assert_eq!((slot.kept(), slot.preface()), (kept, preface));
        }
        slot.forget_kept();
        slot.set_preface(None);
        assert_eq!(slot.kept(), Kept { window: 0, timestamps: None });
        assert_eq!(slot.preface(), None);
    }

    #[test]
    fn a_slot_proves_who_it_is() {
        let end = |address, port| Endpoint { address: Addr::v4(address), port };
        let ends =
            Ends { client: end(1, 1001), vip: end(2, 80), local: end(3, 5003), real: end(4, 8080) };
        let slot = Slot::default();
        slot.set_ends(&ends);
        assert_eq!(slot.ends(), ends);
        assert!(slot.matches(Transport::Tcp, &ends.inbound(), Direction::Inbound));
        assert!(slot.matches(Transport::Tcp, &ends.outbound(), Direction::Outbound));
        assert!(!slot.matches(Transport::Tcp, &ends.inbound(), Direction::Outbound));
        assert!(!slot.matches(Transport::Udp, &ends.inbound(), Direction::Inbound));
        let mut other = ends.inbound();
        other.source.port += 1;
        assert!(!slot.matches(Transport::Tcp, &other, Direction::Inbound));
        let mut other = ends.outbound();
        other.destination.address = Addr::v4(9);
        assert!(!slot.matches(Transport::Tcp, &other, Direction::Outbound));
        let inbound = slot.translated(Direction::Inbound);
        assert_eq!((inbound.source, inbound.destination), (ends.local, ends.real));
        let outbound = slot.translated(Direction::Outbound);
        assert_eq!((outbound.source, outbound.destination), (ends.vip, ends.client));
    }
}
