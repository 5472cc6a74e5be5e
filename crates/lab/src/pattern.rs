//! Bytes that anyone who knows the seed and the offset can compute: what a transfer should carry,
//! without keeping it.

/// Bytes of one generated word.
const WORD: usize = 8;

/// Fills `buffer` with the bytes from `offset` on of the stream named by `seed`.
///
/// The stream is SplitMix64 (Steele, Lea and Flood, 2014) in counter mode, little-endian: no two
/// places in it look alike, so a segment lost, doubled or moved cannot go unnoticed.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let mut word = offset / WORD as u64;
    let mut skip = (offset % WORD as u64) as usize;
    let mut rest = buffer;
    while !rest.is_empty() {
        let bytes = split_mix(seed, word).to_le_bytes();
        let length = (WORD - skip).min(rest.len());
        let (head, tail) = rest.split_at_mut(length);
        head.copy_from_slice(&bytes[skip..skip + length]);
        rest = tail;
        skip = 0;
        word = word.wrapping_add(1);
    }
}

const fn split_mix(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Compares a stream, as it arrives in pieces, with the pattern.
#[derive(Debug, Clone)]
pub struct Checker {
    seed: u64,
    offset: u64,
    first_difference: Option<u64>,
    expected: Vec<u8>,
}

impl Checker {
    /// A checker of the stream named by `seed`, from its first byte.
    pub const fn new(seed: u64) -> Self {
        Self { seed, offset: 0, first_difference: None, expected: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if self.first_difference.is_none() {
            self.expected.resize(bytes.len(), 0);
            fill(self.seed, self.offset, &mut self.expected);
            self.first_difference = bytes
                .iter()
                .zip(&self.expected)
                .position(|(found, expected)| found != expected)
                .map(|position| self.offset + position as u64);
        }
        self.offset += bytes.len() as u64;
    }

    /// Bytes taken so far.
    pub const fn length(&self) -> u64 {
        self.offset
    }

    /// The offset of the first byte that was not the pattern's.
    pub const fn first_difference(&self) -> Option<u64> {
        self.first_difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_a_piece_of_the_whole() {
        let mut whole = [0; 100];
        fill(7, 0, &mut whole);
        for start in 0..40 {
            for length in 0..60 {
                let mut piece = vec![0; length];
                fill(7, start as u64, &mut piece);
                assert_eq!(piece, whole[start..start + length]);
            }
        }
        let mut other = [0; 100];
        fill(8, 0, &mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn the_first_words_are_those_of_the_reference_generator() {
        // SplitMix64 from state 0, as published with the xoshiro generators.
        let mut bytes = [0; 16];
        fill(0, 0, &mut bytes);
        assert_eq!(bytes[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
        assert_eq!(bytes[8..], 0x6e78_9e6a_a1b9_65f4_u64.to_le_bytes());
    }

    #[test]
    fn the_checker_finds_the_first_wrong_byte() {
        let mut bytes = [0; 64];
        fill(1, 0, &mut bytes);
        let mut checker = Checker::new(1);
        checker.update(&bytes[..13]);
        checker.update(&bytes[13..40]);
        assert_eq!((checker.length(), checker.first_difference()), (40, None));
        bytes[45] ^= 1;
        bytes[50] ^= 1;
        checker.update(&bytes[40..]);
        assert_eq!((checker.length(), checker.first_difference()), (64, Some(45)));
    }
}
