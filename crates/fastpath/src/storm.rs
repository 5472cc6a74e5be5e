//! The ACK storm (SPEC A14): two ends that have lost step answer each other's acknowledgment with
//! their own, for ever, as fast as the path is long.
//!
//! It is told from everything legitimate by what both sides do at once: the same bare
//! acknowledgment (number, acknowledgment and window), over and over, each within
//! [`MAX_GAP_MS`] of the last, and none of them for a segment with data. A receiver that asks for
//! a lost segment repeats itself once for each that arrives (RFC 5681, section 3.2), so repetitions
//! are set off against the data that the other side has sent, of which at most [`MAX_CREDIT`]
//! segments can still be on their way. SACK blocks are news. Window probes and keep-alives, which
//! repeat on both sides, are at least a retransmission timeout apart (RFC 6298: 1 s; Linux:
//! 200 ms).
//!
//! Each side answers only what it gets, so the loop ends with the first segment that is dropped.

use seawall_wire::tcp::{self, Flags};

use crate::layout::{Flow, Slot};
use crate::packet::Packet;
use crate::{Direction, Frame, options};

/// Longest time between two segments of a storm, in milliseconds: less than any timer of a TCP.
pub const MAX_GAP_MS: u64 = 100;
/// Segments with data that may be unanswered at a time: 1.5 MB of full ones in flight.
pub const MAX_CREDIT: u32 = 1_024;

/// Notes the segment, and says whether it is one too many of a storm. `threshold` is LVS's
/// `synproxy_ack_storm_thresh`; 0 means never. Each direction writes its own [`Flow`] only.
#[inline(always)]
pub(crate) fn is_one_too_many<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    direction: Direction,
    slot: &Slot,
    threshold: u32,
    now: u64,
) -> bool {
    let flow = slot.flow(direction);
    let other = slot.opposite(direction);
    if packet.payload() != 0 {
        flow.data.store(flow.data.load().wrapping_add(1));
    }
    if threshold == 0 || !is_bare(frame, packet) {
        flow.repeats.store(0);
        return false;
    }
    let said = digest(packet);
    let again = said == flow.repeated.load() && is_recent(flow, now);
    let mut credit = other.data.load().wrapping_sub(flow.answered.load());
    if credit > MAX_CREDIT {
        credit = MAX_CREDIT;
    }
    credit = credit.saturating_sub(1);
    if !again || credit > 0 {
        flow.answered.store(other.data.load().wrapping_sub(credit));
        flow.repeated.store(said);
        flow.repeats.store(0);
        return false;
    }
    let repeats = flow.repeats.load().wrapping_add(1);
    flow.repeats.store(repeats);
    flow.answered.store(other.data.load());
    repeats > threshold && other.repeats.load() >= threshold && is_recent(other, now)
}

#[inline(always)]
fn is_recent(flow: &Flow, now: u64) -> bool {
    // Signed: the other direction's CPU may have read a later time.
    now.wrapping_sub(flow.last_seen.load()) as i64 <= MAX_GAP_MS as i64
}

/// Whether the segment says nothing but its numbers: no data, no SACK blocks, no other flags;
/// timestamps it may have.
#[inline(always)]
fn is_bare<F: Frame>(frame: &mut F, packet: &Packet) -> bool {
    const CONTROL: u16 = Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0 | Flags::ACK.0;
    packet.tcp.flags.0 & CONTROL == Flags::ACK.0
        && packet.payload() == 0
        && (packet.tcp.header_len as usize == tcp::HEADER_LEN
            || options::aligned_timestamps(frame, packet).is_some())
}

/// Tells acknowledgments apart; two that differ look alike once in 2^32.
#[inline(always)]
const fn digest(packet: &Packet) -> u32 {
    let window = (packet.tcp.window as u32).wrapping_mul(0xc2b2_ae35);
    packet.tcp.seq.0.wrapping_mul(0x9e37_79b1) ^ packet.tcp.ack.0.wrapping_mul(0x85eb_ca6b) ^ window
}
