//! The session index: which slot a tuple may be in.
//!
//! Buckets of eight entries, two choices a tuple; the last bucket of the array is a stash that
//! is looked at only while something is in it. An entry names the direction, so one index
//! serves both. It only hints: [`super::Slot::matches`] decides.

use crate::cell::Cell64;
use crate::state::Direction;

/// Entries in a bucket: one cache line.
pub const ENTRIES_PER_BUCKET: usize = 8;

/// One cache line of entries.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// See [`Entry`]; zero is empty.
    pub entries: [Cell64; ENTRIES_PER_BUCKET],
}

/// What an index entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Upper half of the tuple's hash.
    pub tag: u32,
    /// Direction of the segments that carry this tuple.
    pub direction: Direction,
    /// The slot, 1 to 2^31 - 1; slot 0 is never used, so that no entry is zero.
    pub slot: u32,
}

impl Entry {
    /// As it stands in memory.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.tag as u64) << 32 | (self.direction as u64) << 31 | (self.slot & 0x7fff_ffff) as u64
    }

    /// The inverse of [`Entry::to_bits`], if there is an entry.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 {
            return None;
        }
        Some(Self {
            tag: (bits >> 32) as u32,
            direction: if bits >> 31 & 1 == 0 { Direction::Inbound } else { Direction::Outbound },
            slot: bits as u32 & 0x7fff_ffff,
        })
    }
}

/// The part of a hash that entries carry.
#[inline(always)]
#[must_use]
pub const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The first bucket of a hash; `mask` is the number of buckets, a power of two, less one.
#[inline(always)]
#[must_use]
pub const fn first_bucket(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// The second bucket of a hash.
#[inline(always)]
#[must_use]
pub const fn second_bucket(hash: u64, mask: u32) -> u32 {
    (hash as u32 ^ tag(hash).wrapping_mul(0x9e37_79b1)) & mask
}

/// How many buckets (a power of two, without the stash) hold the two entries of each of
/// `sessions` sessions at a load of at most one half.
#[must_use]
pub const fn bucket_count(sessions: u32) -> u32 {
    let entries = sessions as u64 * 2;
    let buckets = (entries * 2).div_ceil(ENTRIES_PER_BUCKET as u64);
    buckets.next_power_of_two() as u32
}

#[cfg(test)]
mod tests {
    use super::{Entry, bucket_count};
    use crate::state::Direction;

    #[test]
    fn entries_survive_both_ways() {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let entry = Entry { tag: 0xffff_fffe, direction, slot: 0x7fff_ffff };
            assert_eq!(Entry::from_bits(entry.to_bits()), Some(entry));
        }
        assert_eq!(Entry::from_bits(0), None);
    }

    #[test]
    fn load_is_at_most_one_half() {
        for sessions in [1, 1024, 1_000_000, 1 << 24] {
            let capacity = u64::from(bucket_count(sessions)) * 8;
            assert!(u64::from(sessions) * 2 * 2 <= capacity, "{sessions}");
        }
    }
}
