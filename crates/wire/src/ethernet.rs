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
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// A service VLAN tag, the outer of two (IEEE 802.1ad).
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// Whether a VLAN tag stands here.
    #[inline(always)]
    #[must_use]
    pub const fn is_tag(self) -> bool {
        self.0 == Self::VLAN.0 || self.0 == Self::SERVICE_VLAN.0
    }
}

/// Length of a VLAN tag in bytes.
pub const TAG_LEN: usize = 4;
/// VLAN tags that a frame may have here.
pub const MAX_TAGS: usize = 2;

/// Up to [`MAX_TAGS`] VLAN tags, the outer one first; each its EtherType and its control
/// information (priority, DEI, VLAN identifier) in one word, 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tags {
    /// The outer tag.
    pub outer: u32,
    /// The inner tag; 0 where there is no outer one.
    pub inner: u32,
}

impl Tags {
    /// No tag.
    pub const NONE: Self = Self { outer: 0, inner: 0 };

    /// The word of a tag.
    #[inline(always)]
    #[must_use]
    pub const fn word(ethertype: EtherType, control: u16) -> u32 {
        (ethertype.0 as u32) << 16 | control as u32
    }

    /// How many bytes they take.
    #[inline(always)]
    #[must_use]
    pub const fn len(self) -> usize {
        ((self.outer != 0) as usize + (self.inner != 0) as usize) * TAG_LEN
    }

    /// Whether there is none.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.outer == 0
    }

    /// The same without priorities: which VLAN it is.
    #[must_use]
    pub const fn identity(self) -> Self {
        const WITHOUT_PRIORITY: u32 = 0xffff_0fff;
        Self { outer: self.outer & WITHOUT_PRIORITY, inner: self.inner & WITHOUT_PRIORITY }
    }

    /// These tags around one more on the inside; `None` if there are too many.
    #[must_use]
    pub const fn with(self, tag: u32) -> Option<Self> {
        if self.outer == 0 {
            Some(Self { outer: tag, inner: 0 })
        } else if self.inner == 0 {
            Some(Self { outer: self.outer, inner: tag })
        } else {
            None
        }
    }
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
    use super::{EtherType, Header, MacAddr, Tags};

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

    #[test]
    fn tags_nest() {
        let service = Tags::word(EtherType::SERVICE_VLAN, 0x6064);
        let customer = Tags::word(EtherType::VLAN, 0x0005);
        let one = Tags::NONE.with(service).unwrap();
        let two = one.with(customer).unwrap();
        assert_eq!((Tags::NONE.len(), one.len(), two.len()), (0, 4, 8));
        assert_eq!((two.outer, two.inner), (0x88a8_6064, 0x8100_0005));
        assert_eq!(two.identity().outer, 0x88a8_0064);
        assert_eq!(two.with(customer), None);
        assert!(EtherType::VLAN.is_tag() && !EtherType::IPV6.is_tag());
    }
}
