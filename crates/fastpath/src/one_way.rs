//! Sessions of which we see one direction (SPEC C1): by DR and TUNNEL a client's packets go on as
//! they are, and the real server answers the client itself.
//!
//! The state goes by IPVS's table for that case ([`TcpState::next_input_only`]). What the real
//! server says is not known, so what a segment is held against is where the client itself stands:
//! `outbound.ack` of the slot is the highest number that the client has sent, and what the client
//! acknowledges is only noted. As there:
//!
//! - The client's first ACK establishes the session. That he has heard the real server cannot be
//!   known; here he must go on where his SYN stood.
//! - IPVS believes every RST. Here it must lie within 65,535 of where the client stands, so that
//!   one in 32,768 of an attacker who guesses does. Neither ends the session: it goes on in CLOSE, with
//!   CLOSE's timeout.
//! - A FIN must not lie further ahead than [`LEAP`].

use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::datagram::{Datagram, Forwarded};
use crate::family::{Family, Readdress, V4, V6, Version};
use crate::layout::{NextHop, Settings, Slot, Tunnel, Word, flag};
use crate::packet::{Network, Packet};
use crate::splice::{Spliced, event_of};
use crate::translate::{onward, relink, window_bytes};
use crate::{Direction, Event, Frame, Reason, TcpState, tunnel};

/// How far from where the client stands its RST may be, and how far behind its FIN, in bytes.
const REACH: u32 = 0xffff;
/// How far ahead of where the client stood its next segment may be when those between were lost
/// before they came here, in bytes.
pub const LEAP: u32 = 1 << 20;
/// How often a change of state is tried against the engine's changes.
const STATE_TRIES: u32 = 4;

/// What the way of a packet is made of.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The session.
    pub slot: &'a Slot,
    /// Where the real server is reached.
    pub next_hop: &'a NextHop,
    /// The box.
    pub settings: &'a Settings,
    /// The hash of the session's tuple: of what goes one way, all has one.
    pub hash: u64,
}

/// The largest packet of a client that fits, wrapped as it will be, in bytes.
#[inline(always)]
pub fn room(slot: &Slot, next_hop: &NextHop) -> u32 {
    next_hop.mtu.load().saturating_sub(overhead(slot) as u32)
}

/// What wrapping adds to a packet of the session, in bytes.
#[inline(always)]
pub(crate) fn overhead(slot: &Slot) -> usize {
    if slot.state().flags & flag::TUNNEL == 0 {
        return 0;
    }
    let outer = match Version::of(slot.real_address()) {
        Version::V4 => V4::HEADER_LEN,
        Version::V6 => V6::HEADER_LEN,
    };
    outer + Tunnel::from_bits(slot.ts_in.load()).header_len()
}

/// Sends the packet `network` in `frame` on to the real server. Gives the interface to leave by.
///
/// # Errors
/// The reason to drop it; the frame may have changed, but not for [`Reason::MtuExceeded`].
#[inline(always)]
pub(crate) fn carry<V: Family, F: Frame>(
    frame: &mut F,
    network: &Network,
    way: &Way<'_>,
) -> Result<u32, Reason> {
    let Network { ip, l3, .. } = *network;
    let link = onward(&ip, way.next_hop)?;
    if ip.len > room(way.slot, way.next_hop) {
        return Err(Reason::MtuExceeded);
    }
    let ttl = ip.ttl.wrapping_sub(1);
    let same = Readdress { source: ip.source, destination: ip.destination, ttl };
    if !V::has(same.source) || !V::has(same.destination) {
        return Err(Reason::NotSetUp);
    }
    let Some(()) = V::readdress(frame, l3, &ip, &same) else { return Err(Reason::IpMalformed) };
    if way.slot.state().flags & flag::TUNNEL == 0 {
        relink::<V, F>(frame, l3, link)?;
    } else {
        match Version::of(way.slot.real_address()) {
            Version::V4 => tunnel::wrap::<V, V4, F>(frame, network, ttl, link, way)?,
            Version::V6 => tunnel::wrap::<V, V6, F>(frame, network, ttl, link, way)?,
        }
    }
    Ok(way.next_hop.interface.load())
}

/// Sends the checked segment `packet` of a client on, counts it, and moves the session's state on:
/// what [`crate::splice::splice`] is for sessions that come back through us.
///
/// # Errors
/// As for [`crate::splice::splice`].
pub fn forward<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    way: &Way<'_>,
    now: u64,
) -> Result<Spliced, Reason> {
    match packet.version() {
        Version::V4 => forward_as::<V4, F>(frame, packet, way, now),
        Version::V6 => forward_as::<V6, F>(frame, packet, way, now),
    }
}

/// [`forward`] for a segment over version `V`.
#[inline(always)]
pub(crate) fn forward_as<V: Family, F: Frame>(
    frame: &mut F,
    packet: &Packet,
    way: &Way<'_>,
    now: u64,
) -> Result<Spliced, Reason> {
    let network = Network { link: packet.link, ip: packet.ip, l3: packet.l3 };
    let interface = carry::<V, F>(frame, &network, way)?;
    Ok(Spliced { interface, changed: account(packet, way.slot, now) })
}

/// Sends the checked `datagram` of a client on and counts it: what [`crate::datagram::forward`] is for
/// sessions that come back through us. Nothing ever confirms such a session, for what would do so is
/// the real server's answer.
///
/// # Errors
/// As for [`crate::datagram::forward`].
pub fn forward_datagram<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    way: &Way<'_>,
    now: u64,
) -> Result<Forwarded, Reason> {
    let network = &datagram.network;
    match Version::of(network.ip.source) {
        Version::V4 => forward_datagram_as::<V4, F>(frame, network, way, now),
        Version::V6 => forward_datagram_as::<V6, F>(frame, network, way, now),
    }
}

/// [`forward_datagram`] for one in a packet of version `V`.
#[inline(always)]
pub(crate) fn forward_datagram_as<V: Family, F: Frame>(
    frame: &mut F,
    network: &Network,
    way: &Way<'_>,
    now: u64,
) -> Result<Forwarded, Reason> {
    let interface = carry::<V, F>(frame, network, way)?;
    way.slot.inbound.count(network.ip.len, now);
    Ok(Forwarded { interface, confirmed: false })
}

/// Counts a segment of the client's that was sent on, notes where the client stands, and moves the
/// state on. Gives the new state if it changed.
#[inline(always)]
fn account(packet: &Packet, slot: &Slot, now: u64) -> Option<TcpState> {
    let (flow, sent) = (&slot.inbound, &slot.outbound.ack);
    flow.count(packet.ip.len, now);
    let event = event_of(packet.tcp.flags);
    if event == Event::Syn {
        // As for other sessions, only the engine begins anew.
        return None;
    }
    let stands = SeqNumber(sent.load());
    let end = packet.tcp.seq.add(packet.sequence_len());
    let is_next = end.since(stands.sub(REACH)) <= REACH + LEAP;
    if event != Event::Rst && end.since(stands) <= LEAP {
        sent.store(end.0);
    }
    let believed = match event {
        Event::Rst => end.since(stands.sub(REACH)) <= 2 * REACH,
        Event::Fin | Event::Ack | Event::Syn => is_next,
    };
    let mut tries = 0;
    while tries < STATE_TRIES {
        tries += 1;
        let bits = slot.word.load();
        let word = Word::from_bits(bits);
        let opening = word.state == TcpState::SynRecv;
        if believed && event != Event::Rst && packet.tcp.flags.contains(Flags::ACK) {
            note_acknowledged(packet, slot, opening);
        }
        let next = word.state.next_input_only(event);
        if !believed || next == word.state || word.state == TcpState::None {
            return None;
        }
        if slot.word.replace_if(bits, Word { state: next, ..word }.to_bits()) {
            slot.allow_punts();
            return Some(next);
        }
    }
    None
}

/// Notes how far the client acknowledges, which errors about the real server's segments are held
/// against. The first time it may be anything.
#[inline(always)]
fn note_acknowledged(packet: &Packet, slot: &Slot, first: bool) {
    let flow = &slot.inbound;
    let reach = flow.window.load().wrapping_add(REACH);
    if first || packet.tcp.ack.since(SeqNumber(flow.ack.load())) <= reach {
        flow.ack.store(packet.tcp.ack.0);
        flow.window.store(window_bytes(packet, Direction::Inbound, slot));
    }
}
