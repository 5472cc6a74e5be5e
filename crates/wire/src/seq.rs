//! TCP sequence numbers: a 32-bit ring.

/// A point in the 32-bit sequence space of one direction (RFC 9293, section 3.4).
///
/// There is no `Ord`: on a ring "less than" only means something within half of it, so the
/// relations have names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The number `by` further on, wrapping.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, by: u32) -> Self {
        Self(self.0.wrapping_add(by))
    }

    /// The number `by` back, wrapping.
    #[inline(always)]
    #[must_use]
    pub const fn sub(self, by: u32) -> Self {
        Self(self.0.wrapping_sub(by))
    }

    /// How far `self` lies ahead of `origin`, modulo 2^32.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, origin: Self) -> u32 {
        self.0.wrapping_sub(origin.0)
    }

    /// Whether `self` lies strictly ahead of `other`, by less than half the ring.
    #[inline(always)]
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
    }

    /// Whether `self` lies in the `len` numbers that start at `start`.
    #[inline(always)]
    #[must_use]
    pub const fn is_within(self, start: Self, len: u32) -> bool {
        self.since(start) < len
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNumber;

    #[test]
    fn relations_hold_across_the_wrap() {
        let high = SeqNumber(u32::MAX - 1);
        let low = high.add(5);
        assert_eq!(low, SeqNumber(3));
        assert!(low.is_after(high) && !high.is_after(low) && !low.is_after(low));
        assert_eq!(low.since(high), 5);
        assert_eq!(low.sub(5), high);
        assert!(low.is_within(high, 6) && !low.is_within(high, 5));
        assert!(SeqNumber(0x8000_0000).is_after(SeqNumber(1)));
        assert!(!SeqNumber(0x8000_0001).is_after(SeqNumber(1)));
    }
}
