//! What a generator sends: bytes, and the fields that differ from frame to frame.

use super::ETHERNET;
use crate::flood_layout::Field;

/// What frames of a flood look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    /// The frame; all fields in it are 0.
    pub bytes: Vec<u8>,
    /// What differs from frame to frame.
    pub fields: Vec<Field>,
}

impl Template {
    /// Always the same frame.
    pub const fn fixed(bytes: Vec<u8>) -> Self {
        Self { bytes, fields: Vec::new() }
    }

    /// Overwrites bytes from an offset in the frame on; checksums stay as they are.
    ///
    /// # Panics
    ///
    /// When they lie outside of it.
    #[must_use]
    pub fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Overwrites bytes of an IPv4 header, and makes the checksum of its first 20 bytes right.
    ///
    /// # Panics
    ///
    /// When the frame has no such header.
    #[must_use]
    pub fn with_header(self, offset: usize, bytes: &[u8]) -> Self {
        const SUM: usize = ETHERNET + 10;
        let mut changed = self.with(offset, bytes).with(SUM, &[0, 0]);
        let right = !sum(&changed.bytes[ETHERNET..ETHERNET + 20]);
        changed.bytes[SUM..SUM + 2].copy_from_slice(&right.to_be_bytes());
        changed
    }

    /// Cuts the frame off after so many bytes; fields beyond are gone.
    #[must_use]
    pub fn cut(mut self, len: usize) -> Self {
        self.bytes.truncate(len);
        self.fields.retain(|field| (field.offset + field.width) as usize <= len);
        for sum in self.fields.iter_mut().flat_map(|field| &mut field.sums) {
            if *sum as usize + 2 > len {
                *sum = 0;
            }
        }
        self
    }
}

/// The sum of RFC 1071, not complemented.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        pair => u32::from(pair[0]) << 8,
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
