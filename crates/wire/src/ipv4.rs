//! IPv4 (RFC 791).

use crate::Bytes;
use crate::checksum::Sum;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// The smallest MTU of a link, in bytes (RFC 791, section 3.2).
pub const MIN_MTU: u32 = 68;

/// What the header carries (IANA protocol numbers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// IPv6 hop-by-hop options (RFC 8200, section 4.3).
    pub const HOP_BY_HOP: Self = Self(0);
    /// IPv6 routing header (RFC 8200, section 4.4).
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header (RFC 8200, section 4.5).
    pub const FRAGMENT: Self = Self(44);
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: Self = Self(4);
    /// IPv6 in IP (RFC 2473; RFC 4213).
    pub const IPV6: Self = Self(41);
    /// GRE (RFC 2784).
    pub const GRE: Self = Self(47);
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// IPv6 destination options (RFC 8200, section 4.6).
    pub const DESTINATION_OPTIONS: Self = Self(60);

    /// Whether this is an IPv6 extension header that hides what follows it, fragment headers
    /// aside: of those that IANA lists, all but AH and ESP (51 and 50), which are protocols of
    /// their own to us.
    #[inline(always)]
    #[must_use]
    pub const fn is_extension(self) -> bool {
        matches!(self.0, 0 | 43 | 60 | 135 | 139 | 140 | 253 | 254)
    }
}

/// The "don't fragment" bit of [`Header::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The "more fragments" bit and the offset of [`Header::fragment`]: any set means a fragment.
pub const FRAGMENT_MASK: u16 = 0x3fff;

/// The fixed part of an IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Version; 4 in a header that is one.
    pub version: u8,
    /// Header length with options, in bytes (a multiple of 4, at most 60).
    pub header_len: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Length of header and payload, in bytes.
    pub total_len: u16,
    /// Identification.
    pub ident: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: Protocol,
    /// Header checksum as it stands in the packet.
    pub checksum: u16,
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
}

impl Header {
    /// Reads the fixed part from a run of at least [`HEADER_LEN`] bytes. Nothing is checked.
    #[inline(always)]
    pub fn read(bytes: &(impl Bytes + ?Sized)) -> Self {
        let first = bytes.u8(0);
        Self {
            version: first >> 4,
            header_len: (first & 0xf) << 2,
            tos: bytes.u8(1),
            total_len: bytes.u16(2),
            ident: bytes.u16(4),
            fragment: bytes.u16(6),
            ttl: bytes.u8(8),
            protocol: Protocol(bytes.u8(9)),
            checksum: bytes.u16(10),
            source: bytes.u32(12),
            destination: bytes.u32(16),
        }
    }

    /// Writes a header without options to a run of at least [`HEADER_LEN`] bytes and computes
    /// its checksum; `version`, `header_len` and `checksum` of `self` are not used.
    #[inline(always)]
    pub fn write(&self, bytes: &mut (impl Bytes + ?Sized)) {
        let checksum = Sum::new()
            .word(0x4500 | self.tos as u16)
            .word(self.total_len)
            .word(self.ident)
            .word(self.fragment)
            .word((self.ttl as u16) << 8 | self.protocol.0 as u16)
            .dword(self.source)
            .dword(self.destination)
            .finish();
        bytes.set_u8(0, 0x45);
        bytes.set_u8(1, self.tos);
        bytes.set_u16(2, self.total_len);
        bytes.set_u16(4, self.ident);
        bytes.set_u16(6, self.fragment);
        bytes.set_u8(8, self.ttl);
        bytes.set_u8(9, self.protocol.0);
        bytes.set_u16(10, checksum);
        bytes.set_u32(12, self.source);
        bytes.set_u32(16, self.destination);
    }

    /// Whether this is a part of a packet (RFC 791, section 3.2).
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment & FRAGMENT_MASK != 0
    }

    /// Whether the checksum of a header without options is right.
    #[inline(always)]
    #[must_use]
    pub fn checksum_holds(bytes: &(impl Bytes + ?Sized)) -> bool {
        Sum::new()
            .dword(bytes.u32(0))
            .dword(bytes.u32(4))
            .dword(bytes.u32(8))
            .dword(bytes.u32(12))
            .dword(bytes.u32(16))
            .finish()
            == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Header, Protocol};

    /// 192.168.0.1 to 192.168.0.199, UDP, 115 bytes, DF; a header whose checksum is published.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn a_header_by_hand() {
        let header = Header::read(&HEADER[..]);
        assert_eq!((header.version, header.header_len, header.total_len), (4, 20, 0x73));
        assert_eq!((header.protocol, header.ttl, header.checksum), (Protocol::UDP, 64, 0xb861));
        assert_eq!((header.source, header.destination), (0xc0a8_0001, 0xc0a8_00c7));
        assert!(!header.is_fragment());
        assert!(Header::checksum_holds(&HEADER[..]));
        let mut out = [0u8; 20];
        header.write(&mut out[..]);
        assert_eq!(out, HEADER);
    }

    #[test]
    fn one_wrong_bit_breaks_the_checksum() {
        for bit in 0..160 {
            let mut header = HEADER;
            header[bit / 8] ^= 1 << (bit % 8);
            assert!(!Header::checksum_holds(&header[..]), "bit {bit}");
        }
    }
}
