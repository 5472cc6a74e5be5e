//! TCP (RFC 9293).

use crate::{Bytes, SeqNumber};

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header, in bytes.
pub const MAX_HEADER_LEN: usize = 60;

/// The control bits, `AE` (RFC 9768's name for the former NS) to `FIN`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// Last segment of the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field counts.
    pub const ACK: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline(always)]
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets of bits.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a TCP may send this: exactly a SYN, a SYN/ACK, a RST, or an ACK with or without
    /// FIN (RFC 9293, section 3.10). Null, Xmas and SYN+FIN probes are not; the ECN bits, `PSH`
    /// and `URG` do not matter.
    #[inline(always)]
    #[must_use]
    pub const fn are_possible(self) -> bool {
        let control = self.0 & 0x17;
        // One bit for each of the 32 values of URG-less ACK, RST, SYN, FIN; bit n stands for
        // `control == n`.
        const POSSIBLE: u32 = 1 << 0x02 | 1 << 0x12 | 1 << 0x04 | 1 << 0x14 | 1 << 0x10 | 1 << 0x11;
        POSSIBLE >> control & 1 != 0
    }
}

/// The fixed part of a TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first byte (or of the SYN).
    pub seq: SeqNumber,
    /// Acknowledgment number; means something only with [`Flags::ACK`].
    pub ack: SeqNumber,
    /// Header length with options, in bytes (a multiple of 4, at most 60).
    pub header_len: u8,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, unscaled.
    pub window: u16,
    /// Checksum as it stands in the header.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

impl Header {
    /// Reads the fixed part from a run of at least [`HEADER_LEN`] bytes. Nothing is checked.
    #[inline(always)]
    pub fn read(bytes: &(impl Bytes + ?Sized)) -> Self {
        let offset_flags = bytes.u16(12);
        Self {
            source_port: bytes.u16(0),
            destination_port: bytes.u16(2),
            seq: SeqNumber(bytes.u32(4)),
            ack: SeqNumber(bytes.u32(8)),
            header_len: ((offset_flags >> 12) << 2) as u8,
            flags: Flags(offset_flags & 0x1ff),
            window: bytes.u16(14),
            checksum: bytes.u16(16),
            urgent: bytes.u16(18),
        }
    }

    /// Writes the fixed part to a run of at least [`HEADER_LEN`] bytes, the checksum as given.
    #[inline(always)]
    pub fn write(&self, bytes: &mut (impl Bytes + ?Sized)) {
        bytes.set_u16(0, self.source_port);
        bytes.set_u16(2, self.destination_port);
        bytes.set_u32(4, self.seq.0);
        bytes.set_u32(8, self.ack.0);
        bytes.set_u16(12, (self.header_len as u16) << 10 | self.flags.0);
        bytes.set_u16(14, self.window);
        bytes.set_u16(16, self.checksum);
        bytes.set_u16(18, self.urgent);
    }
}

/// Kinds and lengths of the options that Seawall knows.
pub mod option {
    /// End of the option list (RFC 9293, section 3.1).
    pub const END: u8 = 0;
    /// No operation, for alignment.
    pub const NOP: u8 = 1;
    /// Maximum segment size.
    pub const MSS: u8 = 2;
    /// Length of [`MSS`].
    pub const MSS_LEN: u8 = 4;
    /// Window scale (RFC 7323, section 2).
    pub const WINDOW_SCALE: u8 = 3;
    /// Length of [`WINDOW_SCALE`].
    pub const WINDOW_SCALE_LEN: u8 = 3;
    /// SACK permitted (RFC 2018, section 2).
    pub const SACK_PERMITTED: u8 = 4;
    /// Length of [`SACK_PERMITTED`].
    pub const SACK_PERMITTED_LEN: u8 = 2;
    /// SACK (RFC 2018, section 3): 2 bytes and 8 a block, 1 to 4 blocks.
    pub const SACK: u8 = 5;
    /// Timestamps (RFC 7323, section 3).
    pub const TIMESTAMPS: u8 = 8;
    /// Length of [`TIMESTAMPS`].
    pub const TIMESTAMPS_LEN: u8 = 10;
    /// NOP, NOP and the timestamps option as most stacks send it (RFC 7323, appendix A).
    pub const ALIGNED_TIMESTAMPS: u32 = 0x0101_080a;
    /// TOA: port and address of an IPv4 client (alibaba/LVS, `toa.h`).
    pub const TOA_V4: u8 = 254;
    /// TOA: port and address of an IPv6 client (alibaba/LVS, `toa.h`).
    pub const TOA_V6: u8 = 253;
    /// The greatest shift of a window (RFC 7323, section 2.3).
    pub const MAX_WINDOW_SCALE: u8 = 14;
}

#[cfg(test)]
mod tests {
    use super::{Flags, Header};
    use crate::SeqNumber;

    #[test]
    fn a_header_by_hand() {
        let bytes = [
            0x1f, 0x90, 0x00, 0x50, 0, 0, 0, 1, 0x80, 0, 0, 2, 0x81, 0x12, 0xff, 0xfe, 0xab, 0xcd,
            0, 7,
        ];
        let header = Header::read(&bytes[..]);
        assert_eq!((header.source_port, header.destination_port), (8080, 80));
        assert_eq!((header.seq, header.ack), (SeqNumber(1), SeqNumber(0x8000_0002)));
        assert_eq!(header.header_len, 32);
        assert_eq!(header.flags, Flags(0x100).with(Flags::SYN).with(Flags::ACK));
        assert_eq!((header.window, header.checksum, header.urgent), (0xfffe, 0xabcd, 7));
        let mut out = [0u8; 20];
        header.write(&mut out[..]);
        assert_eq!(out, bytes);
    }

    /// RFC 9293, section 3.10: every combination of FIN, SYN, RST and ACK.
    #[test]
    fn possible_flags() {
        let possible = [
            Flags::SYN,
            Flags::SYN.with(Flags::ACK),
            Flags::RST,
            Flags::RST.with(Flags::ACK),
            Flags::ACK,
            Flags::ACK.with(Flags::FIN),
        ];
        for bits in 0..0x200u16 {
            let control = Flags(bits & 0x17);
            assert_eq!(Flags(bits).are_possible(), possible.contains(&control), "{bits:#x}");
        }
    }
}
