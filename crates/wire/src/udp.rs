//! UDP (RFC 768).

use crate::Bytes;
use crate::checksum::Update;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// What stands for a checksum that was computed as zero; zero itself stands for none (RFC 768).
const ZERO: u16 = 0xffff;

/// The header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length of header and data, in bytes.
    pub len: u16,
    /// Checksum as it stands in the packet; 0 is none.
    pub checksum: u16,
}

impl Header {
    /// Reads the header from a run of at least [`HEADER_LEN`] bytes. Nothing is checked.
    #[inline(always)]
    pub fn read(bytes: &(impl Bytes + ?Sized)) -> Self {
        Self {
            source_port: bytes.u16(0),
            destination_port: bytes.u16(2),
            len: bytes.u16(4),
            checksum: bytes.u16(6),
        }
    }
}

/// The checksum that stood as `checksum` before the changes of `update`: none stays none.
#[inline(always)]
#[must_use]
pub const fn update_checksum(checksum: u16, update: Update) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match update.apply(checksum) {
        0 => ZERO,
        updated => updated,
    }
}

#[cfg(test)]
mod tests {
    use super::{Header, update_checksum};
    use crate::checksum::Update;

    #[test]
    fn a_header_by_hand() {
        let header = Header::read(&[0x00, 0x35, 0xc0, 0x01, 0x00, 0x21, 0xab, 0xcd][..]);
        assert_eq!((header.source_port, header.destination_port), (53, 0xc001));
        assert_eq!((header.len, header.checksum), (33, 0xabcd));
    }

    /// RFC 768: "If the computed checksum is zero, it is transmitted as all ones. An all zero
    /// transmitted checksum value means that the transmitter generated no checksum."
    #[test]
    fn zero_is_none_and_a_computed_zero_is_all_ones() {
        assert_eq!(update_checksum(0, Update::new().word(1, 2)), 0);
        assert_eq!(update_checksum(5, Update::new().word(0, 5)), 0xffff);
        assert_eq!(update_checksum(0xffff, Update::new().word(1, 2)), 0xfffe);
        assert_eq!(update_checksum(5, Update::new().word(1, 2)), 4);
    }
}
