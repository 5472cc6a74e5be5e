//! Ethernet II (IEEE 802.3).

use crate::Bytes;

/// Length of an untagged header in bytes.
pub const HEADER_LEN: usize = 14;

/// An EtherType (IEEE 802 numbers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
}

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address as its first two and its last four bytes, the form in which a header that
    /// starts at an even offset is read.
    #[inline(always)]
    #[must_use]
    pub const fn parts(self) -> (u16, u32) {
        let [a, b, c, d, e, f] = self.0;
        (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
    }

    /// The inverse of [`MacAddr::parts`].
    #[inline(always)]
    #[must_use]
    pub const fn from_parts(high: u16, low: u32) -> Self {
        let [a, b] = high.to_be_bytes();
        let [c, d, e, f] = low.to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl core::fmt::Display for MacAddr {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// An untagged Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whom the frame is for.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What it carries.
    pub ethertype: EtherType,
}

impl Header {
    /// Reads the header from a run of at least [`HEADER_LEN`] bytes.
    #[inline(always)]
    pub fn read(bytes: &(impl Bytes + ?Sized)) -> Self {
        Self {
            destination: MacAddr::from_parts(bytes.u16(0), bytes.u32(2)),
            source: MacAddr::from_parts(bytes.u16(6), bytes.u32(8)),
            ethertype: EtherType(bytes.u16(12)),
        }
    }

    /// Writes the header to a run of at least [`HEADER_LEN`] bytes.
    #[inline(always)]
    pub fn write(&self, bytes: &mut (impl Bytes + ?Sized)) {
        let (high, low) = self.destination.parts();
        bytes.set_u16(0, high);
        bytes.set_u32(2, low);
        let (high, low) = self.source.parts();
        bytes.set_u16(6, high);
        bytes.set_u32(8, low);
        bytes.set_u16(12, self.ethertype.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{EtherType, Header, MacAddr};

    #[test]
    fn a_frame_by_hand() {
        let bytes = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe, 8, 0];
        let header = Header::read(&bytes[..]);
        assert_eq!(header.destination, MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(header.source.to_string(), "02:00:00:00:00:fe");
        assert_eq!(header.ethertype, EtherType::IPV4);
        let mut out = [0u8; 14];
        header.write(&mut out[..]);
        assert_eq!(out, bytes);
    }
}
