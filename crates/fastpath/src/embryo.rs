//! The moment between an accepted ACK and its session.
//!
//! When XDP punts an ACK with a valid cookie it notes the handshake, because the client's next
//! segments follow within microseconds and only those that start at the first byte would pass
//! the cookie check themselves. One word a handshake, direct-mapped: a collision costs the older
//! one a retransmission, never more. One table for all CPUs, because not every driver keeps a
//! flow on its CPU: veth runs where the sender runs.
//!
//! A handshake is its tuple and the acknowledgment number. Until the client has heard more than
//! our SYN/ACK, all its segments acknowledge the cookie and nothing else; a client that uses its
//! port again has another cookie, and what is left of its last connection has acknowledged more.

use seawall_wire::SeqNumber;

use crate::cell::Cell64;

/// Words in the table.
pub const EMBRYOS: u32 = 1 << 16;
/// How long a note holds, in milliseconds: longer than the engine ever takes, shorter than a
/// client's first retransmission timeout (RFC 6298: 1 s).
pub const LIFE_MS: u32 = 500;
/// Frames punted for one note, and for one session between changes of state (SPEC B6).
pub const MAX_PUNTED: u32 = 32;

/// The hash of a handshake: `hash` is its tuple's.
#[inline(always)]
#[must_use]
pub const fn handshake(hash: u64, ack: SeqNumber) -> u64 {
    hash ^ (ack.0 as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The word that `hash` maps to.
#[inline(always)]
#[must_use]
pub const fn index(hash: u64) -> u32 {
    (hash >> 20) as u32 & (EMBRYOS - 1)
}

/// Notes that the handshake of `hash` was accepted at `now`.
#[inline(always)]
pub fn note(word: &Cell64, hash: u64, now: u64) {
    word.store(pack(hash, 1, now));
}

/// What the table says of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It was not accepted a moment ago.
    Unknown,
    /// It was, and may punt this frame.
    Admitted,
    /// It was, and has punted as many frames as it may.
    Limited,
}

/// Looks the handshake of `hash` up, and counts the frame if it may be punted.
#[inline(always)]
pub fn admit(word: &Cell64, hash: u64, now: u64) -> Admission {
    let bits = word.load();
    let count = bits >> 32 & 0xff;
    let age = (now as u32).wrapping_sub(bits as u32);
    if bits >> 40 != hash >> 40 || age > LIFE_MS || count == 0 {
        return Admission::Unknown;
    }
    if count >= MAX_PUNTED as u64 {
        return Admission::Limited;
    }
    word.store((bits & !(0xff << 32)) | (count + 1) << 32);
    Admission::Admitted
}

const fn pack(hash: u64, count: u64, now: u64) -> u64 {
    (hash >> 40) << 40 | count << 32 | (now & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::{Admission, LIFE_MS, MAX_PUNTED, admit, note};
    use crate::cell::Cell64;

    #[test]
    fn a_note_holds_for_a_moment_and_a_few_frames() {
        let (word, hash, now) = (Cell64::default(), 0xabcd_ef01_2345_6789, u64::from(u32::MAX));
        assert_eq!(admit(&word, hash, now), Admission::Unknown, "an empty word admits nothing");
        note(&word, hash, now);
        assert_eq!(admit(&word, !hash, now), Admission::Unknown, "another tuple");
        assert_eq!(admit(&word, hash, now + u64::from(LIFE_MS)), Admission::Admitted);
        assert_eq!(admit(&word, hash, now + u64::from(LIFE_MS) + 1), Admission::Unknown);
        note(&word, hash, now);
        for _ in 1..MAX_PUNTED {
            assert_eq!(admit(&word, hash, now), Admission::Admitted);
        }
        assert_eq!(admit(&word, hash, now), Admission::Limited);
    }
}
