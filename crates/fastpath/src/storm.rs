//! The ACK storm (SPEC A14): two ends that have lost step answer each other's acknowledgment with
//! their own, for ever, as fast as the path is long.
//!
//! It is told from everything legitimate by what both sides do at once: the same bare
//! acknowledgment (number, acknowledgment and window), over and over, each within
//! [`MAX_GAP_MS`] of the last. A receiver that asks for a lost segment repeats itself while the
//! other side sends data; window probes and keep-alives, which repeat on both sides, are at least
//! a retransmission timeout apart (RFC 6298: 1 s; Linux: 200 ms).
//!
//! Each side answers only what it gets, so the loop ends with the first segment that is dropped.

use seawall_wire::tcp::Flags;

use crate::Direction;
use crate::layout::Slot;
use crate::packet::Packet;

/// Longest time between two segments of a storm, in milliseconds: less than any timer of a TCP.
pub const MAX_GAP_MS: u64 = 100;

/// Notes the segment, and says whether it is one too many of a storm. `threshold` is LVS's
/// `synproxy_ack_storm_thresh`; 0 means never.
#[inline(always)]
pub(crate) fn is_one_too_many(
    packet: &Packet,
    direction: Direction,
    slot: &Slot,
    threshold: u32,
    now: u64,
) -> bool {
    let flow = slot.flow(direction);
    let control = packet.tcp.flags.0 & CONTROL;
    if threshold == 0 || control != Flags::ACK.0 || packet.payload() != 0 {
        // Data on one side is what makes the other's repetitions legitimate.
        flow.repeats.store(0);
        return false;
    }
    let said = ((packet.tcp.seq.0 as u64) << 32 | packet.tcp.ack.0 as u64)
        ^ (packet.tcp.window as u64) << 24;
    let again =
        said == flow.repeated.load() && now.wrapping_sub(flow.last_seen.load()) <= MAX_GAP_MS;
    if !again {
        flow.repeated.store(said);
        flow.repeats.store(0);
        return false;
    }
    let repeats = flow.repeats.load().wrapping_add(1);
    flow.repeats.store(repeats);
    repeats > threshold && slot.opposite(direction).repeats.load() >= threshold
}

/// The flags that make a segment more than a bare acknowledgment: SYN, FIN, RST; and ACK itself.
const CONTROL: u16 = Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0 | Flags::ACK.0;
