//! SipHash-2-4 and SipHash-1-3 over whole 64-bit words (Aumasson and Bernstein, 2012).
//!
//! Inputs here are words, never strings, so there is no tail to pad; the length byte that the
//! paper folds into the last block is kept, so the results are the standard function of the
//! same bytes in little-endian order.

/// A 128-bit key.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Key(pub u64, pub u64);

/// Shows no key material.
impl core::fmt::Debug for Key {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("Key(..)")
    }
}

/// SipHash-2-4, for what an attacker may try to forge.
#[inline(always)]
#[must_use]
pub fn mac<const N: usize>(key: Key, words: [u64; N]) -> u64 {
    siphash::<2, 4, N>(key, words)
}

/// SipHash-1-3, for hash tables, where only collisions must not be predictable.
#[inline(always)]
#[must_use]
pub fn hash<const N: usize>(key: Key, words: [u64; N]) -> u64 {
    siphash::<1, 3, N>(key, words)
}

struct State(u64, u64, u64, u64);

impl State {
    #[inline(always)]
    fn rounds<const COUNT: usize>(&mut self) {
        let mut at = 0;
        while at < COUNT {
            self.0 = self.0.wrapping_add(self.1);
            self.2 = self.2.wrapping_add(self.3);
            self.1 = self.1.rotate_left(13) ^ self.0;
            self.3 = self.3.rotate_left(16) ^ self.2;
            self.0 = self.0.rotate_left(32);
            self.2 = self.2.wrapping_add(self.1);
            self.0 = self.0.wrapping_add(self.3);
            self.1 = self.1.rotate_left(17) ^ self.2;
            self.3 = self.3.rotate_left(21) ^ self.0;
            self.2 = self.2.rotate_left(32);
            at += 1;
        }
    }
}

#[inline(always)]
fn siphash<const C: usize, const D: usize, const N: usize>(key: Key, words: [u64; N]) -> u64 {
    let mut state = State(
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    );
    for word in words {
        state.3 ^= word;
        state.rounds::<C>();
        state.0 ^= word;
    }
    let last = (N as u64 * 8) << 56;
    state.3 ^= last;
    state.rounds::<C>();
    state.0 ^= last;
    state.2 ^= 0xff;
    state.rounds::<D>();
    state.0 ^ state.1 ^ state.2 ^ state.3
}

#[cfg(test)]
mod tests {
    use super::{Key, hash, mac};
    use core::hash::Hasher;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_published_function(k0 in any::<u64>(), k1 in any::<u64>(), words in any::<[u64; 3]>()) {
            let mut sip24 = siphasher::sip::SipHasher24::new_with_keys(k0, k1);
            let mut sip13 = siphasher::sip::SipHasher13::new_with_keys(k0, k1);
            for word in words {
                sip24.write(&word.to_le_bytes());
                sip13.write(&word.to_le_bytes());
            }
            prop_assert_eq!(mac(Key(k0, k1), words), sip24.finish());
            prop_assert_eq!(hash(Key(k0, k1), words), sip13.finish());
        }
    }
}
