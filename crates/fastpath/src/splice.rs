//! A segment of a session on its way: translated, counted, and the state moved on.

use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::family::{Family, V4, V6, Version};
use crate::layout::{NextHop, Slot, Word, flag};
use crate::packet::Packet;
use crate::translate::{translate, window_bytes};
use crate::{Direction, Event, Frame, Reason, TcpState};

/// How often a change of state is tried against the other side's before it is left to the next
/// packet.
const STATE_TRIES: u32 = 4;

/// What became of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spliced {
    /// Interface to leave by.
    pub interface: u32,
    /// The state that it moved the session to, if it did.
    pub changed: Option<TcpState>,
}

/// Translates the checked segment `packet` in `frame` for the session in `slot`, addresses it to
/// `next_hop`, counts it, and moves the session's state on.
///
/// # Errors
/// The reason to drop it; the frame may have changed, the session has not.
pub fn splice<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    direction: Direction,
    slot: &Slot,
    next_hop: &NextHop,
    now: u64,
) -> Result<Spliced, Reason> {
    match packet.version() {
        Version::V4 => splice_as::<V4, F>(frame, packet, direction, slot, next_hop, now),
        Version::V6 => splice_as::<V6, F>(frame, packet, direction, slot, next_hop, now),
    }
}

/// [`splice`] for a segment over version `V`.
///
/// # Errors
/// As [`splice`].
#[inline(always)]
pub fn splice_as<V: Family, F: Frame>(
    frame: &mut F,
    packet: &Packet,
    direction: Direction,
    slot: &Slot,
    next_hop: &NextHop,
    now: u64,
) -> Result<Spliced, Reason> {
    let interface = translate::<V, F>(frame, packet, direction, slot, slot.state(), next_hop)?;
    record(packet, direction, slot, now);
    Ok(Spliced { interface, changed: advance(packet, direction, slot) })
}

/// Counts a forwarded segment and notes how far it acknowledges.
#[inline(always)]
fn record(packet: &Packet, direction: Direction, slot: &Slot, now: u64) {
    let flow = slot.flow(direction);
    flow.count(packet.ip.len, now);
    if packet.tcp.flags.contains(Flags::ACK) && !packet.tcp.flags.contains(Flags::RST) {
        let ack = match direction {
            Direction::Inbound => packet.tcp.ack,
            Direction::Outbound => packet.tcp.ack.sub(slot.f.load()),
        };
        // No further than the other side can have sent: a segment of another time, or a forged
        // one, must not move what later segments are held against.
        let reach = flow.window.load().wrapping_add(0xffff);
        if ack.since(SeqNumber(flow.ack.load())) <= reach {
            flow.ack.store(ack.0);
            flow.window.store(window_bytes(packet, direction, slot));
        }
    }
}

/// Moves the session's state on (SPEC C5): by IPVS's table, and for RST and FIN only if the
/// segment lies in the window that the other side is known to have open, so that a blind
/// attacker cannot end a session. Gives the new state if it changed.
#[inline(always)]
fn advance(packet: &Packet, direction: Direction, slot: &Slot) -> Option<TcpState> {
    let event = event_of(packet.tcp.flags);
    if event == Event::Syn {
        // IPVS's table leads to SYN_SENT and SYN_RECV, which here only the engine begins: what a
        // SYN says cannot be held against any window, and anybody can send one.
        return None;
    }
    let mut tries = 0;
    while tries < STATE_TRIES {
        tries += 1;
        let bits = slot.word.load();
        let word = Word::from_bits(bits);
        let next = word.state.next(direction, event);
        if next == word.state || word.state == TcpState::None {
            // A slot without a state was given back a moment ago.
            return None;
        }
        if word.state == TcpState::SynRecv
            && event == Event::Ack
            && !is_proof(packet, direction, slot, word)
        {
            return None;
        }
        if (event == Event::Rst || event == Event::Fin) && !in_window(packet, direction, slot, word)
        {
            return None;
        }
        if slot.word.replace_if(bits, Word { state: next, ..word }.to_bits()) {
            slot.allow_punts();
            return Some(next);
        }
    }
    None
}

/// What a segment with these flags is to the state machine.
#[inline(always)]
pub(crate) const fn event_of(flags: Flags) -> Event {
    if flags.contains(Flags::RST) {
        Event::Rst
    } else if flags.contains(Flags::SYN) {
        Event::Syn
    } else if flags.contains(Flags::FIN) {
        Event::Fin
    } else {
        Event::Ack
    }
}

/// Closes an established session; says whether this call did.
#[inline(always)]
pub(crate) fn close(slot: &Slot) -> bool {
    let bits = slot.word.load();
    let word = Word::from_bits(bits);
    if word.state != TcpState::Established {
        return false;
    }
    let closed = slot.word.replace_if(bits, Word { state: TcpState::Close, ..word }.to_bits());
    if closed {
        slot.allow_punts();
    }
    closed
}

/// Whether the segment shows that the client of a service without the proxy has heard the real
/// server: two blind packets must not make an established session (SPEC B6).
#[inline(always)]
fn is_proof(packet: &Packet, direction: Direction, slot: &Slot, word: Word) -> bool {
    let first = SeqNumber(slot.cookie.load()).add(1);
    word.flags & flag::ANSWERED != 0
        && direction == Direction::Inbound
        && packet.tcp.ack.is_within(first, 1 << 16)
}

/// Whether the segment's end lies in the window that the other side last offered.
#[inline(always)]
fn in_window(packet: &Packet, direction: Direction, slot: &Slot, word: Word) -> bool {
    if word.state == TcpState::SynRecv {
        // Nothing is known yet; the real server's own RST to our SYN arrives here.
        return true;
    }
    let seq = match direction {
        Direction::Inbound => packet.tcp.seq,
        Direction::Outbound => packet.tcp.seq.add(word.d),
    };
    let known = slot.opposite(direction);
    let end = seq.add(packet.sequence_len());
    let open = known.window.load().wrapping_add(1);
    end.since(SeqNumber(known.ack.load())) <= open
}
