//! TOA: the client's port and address as a TCP option of its first segments (SPEC C7; alibaba/LVS,
//! `tcp_opt_add_toa` and `toa.h`).
//!
//! The real server's module reads it from the segment that completes its handshake, whichever that
//! is: the ACK, or, if that is lost, the first data. So every segment of the client bears it until
//! the real server shows by data of its own, or by acknowledging the client's, that it has accepted
//! the connection. Until then both sides go through the engine ([`flag::INTRODUCING`]); LVS's rule is
//! nearly the same (until the client acknowledges data), but an upload would bear it to its end. A
//! SYN bears none, as in DPVS: the module does not look there, and its options are full.
//!
//! It is the first of the options, for the module takes the first it finds; those that a client
//! forged have become NOPs before. The module believes them in every connection to its host, so they
//! become NOPs in all sessions to the address of a real server of any service with TOA. Where the header has no room, all other options but timestamps
//! are left away: nothing that a connection needs is among them before data has come. Where the
//! packet has no room, which for clients that respect the MSS they were told is never, a bare ACK
//! with the option goes first; one that has no room without it either is answered with what fits, as
//! the packet path answers it.

use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{Slot, Word, flag};
use seawall_fastpath::native::{Buffer, Memory};
use seawall_fastpath::options::Timestamps;
use seawall_fastpath::packet::Packet;
use seawall_fastpath::{Addr, Direction, Endpoint};
use seawall_wire::tcp::option::{ALIGNED_TIMESTAMPS, MSS, MSS_LEN, NOP, TOA_V4, TOA_V6};
use seawall_wire::tcp::{Flags, HEADER_LEN};
use seawall_wire::{Bytes, SeqNumber};

use crate::desired::Introduction;
use crate::engine::{Arrived, Engine};
use crate::lengthen::{self, MAX_OPTIONS};
use crate::table::Found;

/// Bytes of the longest option, that of IPv6.
const MAX_LEN: usize = 20;
/// Bytes of aligned timestamps.
const TIMESTAMPS_LEN: usize = 12;

/// A TOA option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Toa {
    bytes: [u8; MAX_LEN],
    len: usize,
}

/// How the option got into a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Put {
    /// Beside what was there.
    Beside,
    /// In place of other options.
    InPlace,
}

impl Toa {
    /// The option for this client: kind, length, port, address.
    pub(crate) fn new(client: Endpoint) -> Self {
        let mut bytes = [0; MAX_LEN];
        let len = len(client.address);
        let kind = match Version::of(client.address) {
            Version::V4 => TOA_V4,
            Version::V6 => TOA_V6,
        };
        let [high, low] = client.address.0;
        let address = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        let head = [kind, len as u8].into_iter().chain(client.port.to_be_bytes());
        // Of an IPv4 address, which is mapped, the last four bytes.
        let address = address.into_iter().skip(MAX_LEN - len);
        for (to, from) in bytes.iter_mut().zip(head.chain(address)) {
            *to = from;
        }
        Self { bytes, len }
    }

    /// The option that a segment with `flags` going `direction` is to bear, if any.
    pub(crate) fn wanted(
        slot: &Slot,
        word: Word,
        direction: Direction,
        flags: Flags,
    ) -> Option<Self> {
        let both = flag::INTRODUCING | flag::BEARS_TOA;
        let due = direction == Direction::Inbound && word.flags & both == both;
        (due && !flags.intersects(Flags::SYN.with(Flags::RST)))
            .then(|| Self::new(slot.ends().client))
    }

    /// Whether the segment `packet` with the option is at most `mtu` bytes.
    pub(crate) fn fits(&self, packet: &Packet, timestamps: Option<Timestamps>, mtu: u32) -> bool {
        let (len, _) = self.options_len(packet, timestamps);
        let old = u32::from(packet.tcp.header_len) - HEADER_LEN as u32;
        packet.ip.len + len as u32 - old <= mtu
    }

    /// Length of a segment's options with this one, and how it gets among them.
    fn options_len(&self, packet: &Packet, timestamps: Option<Timestamps>) -> (usize, Put) {
        let old = usize::from(packet.tcp.header_len) - HEADER_LEN;
        if old + self.len <= MAX_OPTIONS {
            return (old + self.len, Put::Beside);
        }
        let clocks = if timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        (old.max(self.len + clocks), Put::InPlace)
    }

    /// Puts the option into the segment `packet` in `frame`, whose timestamps are those. `None` if the
    /// buffer is full; then it must not be sent.
    pub(crate) fn put(
        &self,
        frame: &mut Buffer<'_>,
        packet: &Packet,
        timestamps: Option<Timestamps>,
    ) -> Option<Put> {
        let (len, put) = self.options_len(packet, timestamps);
        let rest = match put {
            Put::Beside => lengthen::options_of(frame, packet),
            Put::InPlace => only(timestamps),
        };
        let own = self.bytes.iter().take(self.len);
        let mut options = [NOP; MAX_OPTIONS];
        for (to, from) in options.iter_mut().zip(own.chain(&rest)) {
            *to = *from;
        }
        lengthen::set_options(frame, packet, options.get(..len)?)?;
        Some(put)
    }
}

impl<M: Memory> Engine<M> {
    /// Whether a real server at `address` believes TOA options.
    pub(crate) fn believes_toa(&mut self, address: Addr) -> bool {
        let services = &self.services;
        let believers = self.believers.get_or_insert_with(|| {
            let with_toa = services
                .iter()
                .filter(|it| !it.removed && it.spec.introduction == Introduction::Toa);
            let servers = with_toa.flat_map(|service| &service.servers);
            servers.filter(|it| !it.removed).map(|it| it.spec.address.address).collect()
        });
        believers.contains(&address)
    }

    /// What a real server says once it has accepted.
    pub(crate) fn hear(&mut self, now: u64, found: Found, arrived: &Arrived<'_>) {
        if self.preface(found.index).is_some() {
            return self.hear_preface(now, found, arrived);
        }
        let Some(slot) = self.table.slot(found.index) else { return };
        if slot.state().flags & flag::INTRODUCING != 0 {
            let first = SeqNumber(slot.client_isn.load()).add(slot.f.load()).add(1);
            let (tcp, speaks) = (&arrived.packet.tcp, arrived.packet.sequence_len() > 0);
            let resets = tcp.flags.contains(Flags::RST) || !tcp.flags.contains(Flags::ACK);
            if !resets && (speaks || tcp.ack.is_after(first)) {
                // The connection is there, and so is the option of the segment that made it.
                self.introduced(found.index);
            }
            self.refill(now, found.index);
        }
        self.pass_on(now, found, arrived.frame);
    }

    /// A real server has spoken that is to hear yet who its client is: it may punt anew, and once a
    /// second so may the client, or it could draw an answer with each segment and have no limit.
    pub(crate) fn refill(&mut self, now: u64, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        slot.outbound.punted.store(0);
        let second = (now / 1_000) as u32;
        let session = self.sessions.get_mut(index as usize);
        if session.is_some_and(|it| std::mem::replace(&mut it.refilled, second) != second) {
            slot.inbound.punted.store(0);
        }
    }
}

/// Length of the option for a client at `address`.
pub(crate) fn len(address: Addr) -> usize {
    match Version::of(address) {
        Version::V4 => 8,
        Version::V6 => 20,
    }
}

/// Timestamps, if there are any, and NOPs.
fn only(timestamps: Option<Timestamps>) -> [u8; MAX_OPTIONS] {
    let mut options = [NOP; MAX_OPTIONS];
    if let Some(Timestamps { value, echo }) = timestamps {
        let words = [ALIGNED_TIMESTAMPS, value, echo].into_iter().flat_map(u32::to_be_bytes);
        for (to, from) in options.iter_mut().zip(words) {
            *to = from;
        }
    }
    options
}

/// Makes the MSS that the SYN/ACK `packet` in `frame` offers the client smaller by the option of its
/// first segments (LVS: `fullnat_mss_adjust_entry`).
pub(crate) fn leave_room(frame: &mut Buffer<'_>, packet: &Packet, client: Addr) -> Option<()> {
    let mut options = lengthen::options_of(frame, packet);
    let options = options.get_mut(..usize::from(packet.tcp.header_len) - HEADER_LEN)?;
    let at = lengthen::find(options, MSS, MSS_LEN)?;
    let mss = options.get_mut(at + 2..at + 4)?;
    let new = mss.u16(0).saturating_sub(len(client) as u16);
    mss.set_u16(0, new);
    lengthen::set_options(frame, packet, options)
}
