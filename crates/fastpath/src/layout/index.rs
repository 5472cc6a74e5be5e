//! The session index: which slot a tuple may be in.
//!
//! Buckets of eight entries, two choices a tuple; the last bucket of the array is a stash that
//! is looked at only while something is in it. An entry names the direction, so one index
//! serves both. It only hints: [`super::Slot::matches`] decides.
//!
//! Most segments of a flood belong to no session, and a bucket that nobody has touched lately is a
//! miss in every cache and in the TLB. So there is a [`Filter`], a byte a bucket, small enough to
//! stay in a core's cache: a bit of it is set while an entry of the bucket has a tag of that
//! [`mark`], and a bucket is read only if the bit of the wanted tag is set. Whoever puts an entry
//! into a bucket sets its bit first; whoever takes one out clears the bit afterwards.

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

impl Bucket {
    /// The [`mark`]s of the entries, together.
    #[must_use]
    pub fn marks(&self) -> u8 {
        let marks = self.entries.iter().filter_map(|cell| Entry::from_bits(cell.load()));
        marks.fold(0, |marks, entry| marks | mark(entry.tag))
    }
}

/// Buckets that share a word of the filter.
const BUCKETS_PER_WORD: u32 = 8;

/// The marks of eight buckets, a byte each; see the module's text. Changed by the engine only.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Filter(Cell64);

impl Filter {
    /// Words for `buckets` buckets, the stash included.
    #[must_use]
    pub const fn words(buckets: u32) -> u32 {
        buckets.div_ceil(BUCKETS_PER_WORD)
    }

    /// The number of the word that `bucket` is in.
    #[inline(always)]
    #[must_use]
    pub const fn word(bucket: u32) -> u32 {
        bucket / BUCKETS_PER_WORD
    }

    /// 1 if an entry with `tag` may be in `bucket`, which is one of this word's; 0 if not.
    #[inline(always)]
    pub fn held(&self, bucket: u32, tag: u32) -> u32 {
        (self.0.load() >> Self::shift(bucket) >> (tag & 7)) as u32 & 1
    }

    /// The marks of `bucket`, which is one of this word's.
    pub fn marks(&self, bucket: u32) -> u8 {
        (self.0.load() >> Self::shift(bucket)) as u8
    }

    /// Sets the marks of `bucket`, which is one of this word's.
    pub fn set_marks(&self, bucket: u32, marks: u8) {
        let shift = Self::shift(bucket);
        self.0.publish(self.0.load() & !(0xff << shift) | (marks as u64) << shift);
    }

    #[inline(always)]
    const fn shift(bucket: u32) -> u32 {
        bucket % BUCKETS_PER_WORD * 8
    }
}

/// The bit of a bucket's byte in the filter that stands for entries with `tag`.
#[inline(always)]
#[must_use]
pub const fn mark(tag: u32) -> u8 {
    1 << (tag & 7)
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
    use super::{Bucket, Entry, Filter, bucket_count, mark};
    use crate::state::Direction;

    #[test]
    fn a_word_of_the_filter_tells_its_eight_buckets_apart() {
        let filter = Filter::default();
        filter.set_marks(17, mark(5));
        filter.set_marks(18, mark(0) | mark(7));
        let held = (16..24).flat_map(|bucket| (0..8).map(move |tag| (bucket, tag)));
        let held: Vec<_> = held.filter(|(bucket, tag)| filter.held(*bucket, *tag) == 1).collect();
        assert_eq!(held, [(17, 5), (18, 0), (18, 7)]);
        filter.set_marks(17, 0);
        assert_eq!((filter.marks(17), filter.marks(18)), (0, mark(0) | mark(7)));
        assert_eq!((Filter::word(17), Filter::words(17), Filter::words(16)), (2, 3, 2));
    }

    #[test]
    fn a_bucket_marks_what_is_in_it() {
        let bucket = Bucket::default();
        assert_eq!(bucket.marks(), 0);
        for (at, tag) in [(0, 8), (3, 0xffff_ffff), (7, 8)] {
            let entry = Entry { tag, direction: Direction::Outbound, slot: 1 };
            bucket.entries[at].store(entry.to_bits());
        }
        assert_eq!(bucket.marks(), mark(0) | mark(7));
    }

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
