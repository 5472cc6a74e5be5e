//! IPv6 (RFC 8200).

use crate::Bytes;
use crate::ipv4::Protocol;

/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 40;

/// The smallest MTU of a link that carries IPv6, in bytes (RFC 8200, section 5).
pub const MIN_MTU: u32 = 1280;

/// An address as two words in host order, the network's first.
pub type Address = [u64; 2];

/// The fixed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Version; 6 in a header that is one.
    pub version: u8,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Length of what follows the fixed header, in bytes.
    pub payload_len: u16,
    /// What follows: an extension header or the payload.
    pub next_header: Protocol,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

impl Header {
    /// Reads the header from a run of at least [`HEADER_LEN`] bytes. Nothing is checked; the flow
    /// label is skipped.
    #[inline(always)]
    pub fn read(bytes: &(impl Bytes + ?Sized)) -> Self {
        let first = bytes.u16(0);
        Self {
            version: (first >> 12) as u8,
            traffic_class: (first >> 4) as u8,
            payload_len: bytes.u16(4),
            next_header: Protocol(bytes.u8(6)),
            hop_limit: bytes.u8(7),
            source: [bytes.u64(8), bytes.u64(16)],
            destination: [bytes.u64(24), bytes.u64(32)],
        }
    }

    /// Writes the header to a run of at least [`HEADER_LEN`] bytes, with flow label 0; `version`
    /// is not used.
    #[inline(always)]
    pub fn write(&self, bytes: &mut (impl Bytes + ?Sized)) {
        bytes.set_u32(0, 6 << 28 | (self.traffic_class as u32) << 20);
        bytes.set_u16(4, self.payload_len);
        bytes.set_u8(6, self.next_header.0);
        bytes.set_u8(7, self.hop_limit);
        write_address(bytes, 8, self.source);
        write_address(bytes, 24, self.destination);
    }
}

/// Writes `address` at `at`.
#[inline(always)]
pub fn write_address(bytes: &mut (impl Bytes + ?Sized), at: usize, address: Address) {
    bytes.set_u64(at, address[0]);
    bytes.set_u64(at + 8, address[1]);
}

#[cfg(test)]
mod tests {
    use super::Header;
    use crate::ipv4::Protocol;

    #[test]
    fn a_header_by_hand() {
        // 2001:db8::1 to 2001:db8::2, TCP, 20 bytes, traffic class 0xb8, hop limit 63.
        let mut bytes = [0u8; 40];
        bytes[..8].copy_from_slice(&[0x6b, 0x80, 0, 0, 0, 20, 6, 63]);
        bytes[8..12].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        bytes[23] = 1;
        bytes[24..28].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        bytes[39] = 2;
        let header = Header::read(&bytes[..]);
        assert_eq!((header.version, header.traffic_class, header.payload_len), (6, 0xb8, 20));
        assert_eq!((header.next_header, header.hop_limit), (Protocol::TCP, 63));
        assert_eq!(header.source, [0x2001_0db8_0000_0000, 1]);
        assert_eq!(header.destination, [0x2001_0db8_0000_0000, 2]);
        let mut out = [0xffu8; 40];
        header.write(&mut out[..]);
        assert_eq!(out, bytes);
    }
}
