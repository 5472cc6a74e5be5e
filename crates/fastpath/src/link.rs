//! The link layer: Ethernet with up to two VLAN tags.

use seawall_wire::Bytes;
use seawall_wire::ethernet::{self, EtherType, MAX_TAGS, MacAddr, TAG_LEN, Tags};

use crate::Frame;

/// Where the EtherType of an untagged frame stands: behind the two MACs.
const ETHERTYPE: usize = ethernet::HEADER_LEN - 2;

/// Length of the longest link header, in bytes.
pub const MAX_LINK_LEN: usize = ethernet::HEADER_LEN + MAX_TAGS * TAG_LEN;

/// Bounds the length of a link header for the verifier: no less than [`MAX_LINK_LEN`], all ones.
const LINK_LEN_MASK: usize = 0x1f;
const _: () = assert!(MAX_LINK_LEN <= LINK_LEN_MASK);

/// Who sends a frame to whom, and in which VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Whom the frame is for.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// Its VLAN tags.
    pub tags: Tags,
}

impl Link {
    /// Length of the header, in bytes: 14, 18 or 22.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        ethernet::HEADER_LEN + self.tags.len()
    }

    /// The offset of what follows the header. The verifier need not walk all that depends on it once
    /// for each number of tags.
    #[inline(always)]
    pub fn l3<F: Frame>(&self, frame: &F) -> usize {
        frame.opaque(self.header_len()) & LINK_LEN_MASK
    }

    /// The link header of an answer, which goes back the way this came.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { destination: self.source, source: self.destination, tags: self.tags }
    }

    /// Reads the header of `frame` and the EtherType of what it carries, which is that of a tag
    /// if there are more than [`MAX_TAGS`].
    #[inline(always)]
    pub fn read<F: Frame>(frame: &mut F) -> Option<(Self, EtherType)> {
        let header = frame
            .window::<{ ethernet::HEADER_LEN }>(0)
            .map(|bytes| ethernet::Header::read(&bytes))?;
        let mut tags = Tags::NONE;
        let mut ethertype = header.ethertype;
        if ethertype.is_tag() {
            let (tag, inside) = tag(frame, ethernet::HEADER_LEN, ethertype)?;
            tags.outer = tag;
            ethertype = inside;
            if ethertype.is_tag() {
                let (tag, inside) = self::tag(frame, ethernet::HEADER_LEN + TAG_LEN, ethertype)?;
                tags.inner = tag;
                ethertype = inside;
            }
        }
        let link = Self { destination: header.destination, source: header.source, tags };
        Some((link, ethertype))
    }

    /// Writes the header, and that the frame carries `ethertype`, to the start of `frame`.
    #[inline(always)]
    #[must_use]
    pub fn write<F: Frame>(&self, frame: &mut F, ethertype: EtherType) -> Option<()> {
        frame.window::<ETHERTYPE>(0).map(|mut bytes| {
            let (high, low) = self.destination.parts();
            bytes.set_u16(0, high);
            bytes.set_u32(2, low);
            let (high, low) = self.source.parts();
            bytes.set_u16(6, high);
            bytes.set_u32(8, low);
        })?;
        if self.tags.outer == 0 {
            frame.window::<2>(ETHERTYPE).map(|mut bytes| bytes.set_u16(0, ethertype.0))
        } else if self.tags.inner == 0 {
            frame.window::<{ 2 + TAG_LEN }>(ETHERTYPE).map(|mut bytes| {
                bytes.set_u32(0, self.tags.outer);
                bytes.set_u16(4, ethertype.0);
            })
        } else {
            frame.window::<{ 2 + 2 * TAG_LEN }>(ETHERTYPE).map(|mut bytes| {
                bytes.set_u32(0, self.tags.outer);
                bytes.set_u32(4, self.tags.inner);
                bytes.set_u16(8, ethertype.0);
            })
        }
    }
}

/// The tag whose control information stands at `at`, and the EtherType behind it.
#[inline(always)]
fn tag<F: Frame>(frame: &mut F, at: usize, ethertype: EtherType) -> Option<(u32, EtherType)> {
    let bytes = frame.window::<TAG_LEN>(at)?;
    Some((Tags::word(ethertype, bytes.u16(0)), EtherType(bytes.u16(2))))
}
