//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Zero and 0xffff stand for the same sum. Every function here returns the form that computing
//! the checksum plainly over a packet with a non-zero sum returns (never 0xffff), which is what
//! IPv4 and TCP want.

/// A plain sum of 16-bit words under construction.
///
/// Holds at most 2^48 words without overflow, more than any packet has.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a 16-bit word.
    #[inline(always)]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit word at an even offset.
    #[inline(always)]
    pub const fn dword(self, dword: u32) -> Self {
        Self(self.0 + (dword >> 16) as u64 + (dword & 0xffff) as u64)
    }

    /// Adds a 64-bit word at an even offset.
    #[inline(always)]
    pub const fn qword(self, qword: u64) -> Self {
        self.dword((qword >> 32) as u32).dword(qword as u32)
    }

    /// Adds a run of bytes that starts at an even offset; an odd last byte is padded with zero.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self;
        let mut pairs = bytes.chunks_exact(2);
        for pair in &mut pairs {
            if let [high, low] = pair {
                sum = sum.word(u16::from_be_bytes([*high, *low]));
            }
        }
        match pairs.remainder() {
            [last] => sum.word(u16::from_be_bytes([*last, 0])),
            _ => sum,
        }
    }

    /// The checksum: the ones' complement of the folded sum.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }
}

/// What a set of field changes does to a checksum (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Update(u64);

impl Update {
    /// No change.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit word at an even offset went from `old` to `new`.
    #[inline(always)]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// A 32-bit word at an even offset went from `old` to `new`.
    #[inline(always)]
    pub const fn dword(self, old: u32, new: u32) -> Self {
        let old = !old;
        Self(
            self.0
                + (old >> 16) as u64
                + (old & 0xffff) as u64
                + (new >> 16) as u64
                + (new & 0xffff) as u64,
        )
    }

    /// A 64-bit word at an even offset went from `old` to `new`.
    #[inline(always)]
    pub const fn qword(self, old: u64, new: u64) -> Self {
        self.dword((old >> 32) as u32, (new >> 32) as u32).dword(old as u32, new as u32)
    }

    /// A 32-bit word at offset `at`, even or odd, went from `old` to `new`. At an odd one its
    /// bytes count in the other half of the 16-bit words, which in ones' complement is a swap
    /// (RFC 1071, section 2 (B)).
    #[inline(always)]
    pub const fn dword_at(self, at: usize, old: u32, new: u32) -> Self {
        let turn = (at as u32 & 1) * 8;
        self.dword(old.rotate_left(turn), new.rotate_left(turn))
    }

    /// A byte at offset `at`, even or odd, went from `old` to `new`.
    #[inline(always)]
    pub const fn byte_at(self, at: usize, old: u8, new: u8) -> Self {
        let turn = (!at as u32 & 1) * 8;
        self.word((old as u16) << turn, (new as u16) << turn)
    }

    /// The checksum that stood as `checksum` before the changes.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }
}

#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::{Sum, Update};
    use proptest::prelude::*;

    /// RFC 1071 done plainly, byte by byte, with the carry folded at once.
    fn oracle(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for (at, byte) in bytes.iter().enumerate() {
            sum += u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&bytes).finish(), !0xddf2);
    }

    #[test]
    fn a_qword_is_two_dwords() {
        let (old, new) = (0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_0000_ffff_u64);
        assert_eq!(Sum::new().qword(old).finish(), oracle(&old.to_be_bytes()));
        let before = oracle(&old.to_be_bytes());
        assert_eq!(Update::new().qword(old, new).apply(before), oracle(&new.to_be_bytes()));
    }

    proptest! {
        #[test]
        fn sum_is_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::new().bytes(&bytes).finish(), oracle(&bytes));
        }

        #[test]
        fn update_is_recomputing(
            mut bytes in proptest::collection::vec(any::<u8>(), 24..64),
            at in 0usize..20,
            new in any::<u32>(),
            word in any::<u16>(),
        ) {
            // A packet with a pseudo-header never sums to zero, so neither does this.
            bytes[22] = 1;
            let before = oracle(&bytes);
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let old_word = u16::from_be_bytes(bytes[20..22].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            // A write over the first bytes of the word changes what it was.
            let old_word = if at > 16 { u16::from_be_bytes(bytes[20..22].try_into().unwrap()) } else { old_word };
            bytes[20..22].copy_from_slice(&word.to_be_bytes());
            let update = Update::new().word(old_word, word);
            let update = update.dword_at(at, old, new);
            prop_assert_eq!(update.apply(before), oracle(&bytes));
            let old = std::mem::replace(&mut bytes[at], word as u8);
            prop_assert_eq!(update.byte_at(at, old, word as u8).apply(before), oracle(&bytes));
        }
    }
}
