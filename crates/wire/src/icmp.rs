//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the errors, which quote the packet that they are about.

use crate::Bytes;

/// Length of the part in front of the quoted packet, in bytes; the same in both versions.
pub const HEADER_LEN: usize = 8;

/// Type and code of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

impl Kind {
    /// Destination unreachable, fragmentation needed and DF set (RFC 792; RFC 1191).
    pub const FRAGMENTATION_NEEDED: Self = Self { kind: 3, code: 4 };
    /// ICMPv6's packet too big (RFC 4443, section 3.2).
    pub const PACKET_TOO_BIG: Self = Self { kind: 2, code: 0 };

    /// Reads type and code from a run of at least two bytes.
    #[inline(always)]
    pub fn read(bytes: &(impl Bytes + ?Sized)) -> Self {
        Self { kind: bytes.u8(0), code: bytes.u8(1) }
    }

    /// Whether this ICMP message quotes a packet: destination unreachable (with "fragmentation
    /// needed", RFC 1191), source quench, time exceeded or parameter problem. Redirects are not
    /// among them: they are for the host that gets them.
    #[inline(always)]
    #[must_use]
    pub const fn is_error_v4(self) -> bool {
        matches!(self.kind, 3 | 4 | 11 | 12)
    }

    /// Whether this ICMPv6 message quotes a packet: destination unreachable, packet too big, time
    /// exceeded or parameter problem (RFC 4443, section 2.1).
    #[inline(always)]
    #[must_use]
    pub const fn is_error_v6(self) -> bool {
        matches!(self.kind, 1..=4)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    /// RFC 792 and RFC 4443, section 2.1.
    #[test]
    fn errors_quote_a_packet() {
        let v4 = (0..=u8::MAX).filter(|kind| Kind { kind: *kind, code: 0 }.is_error_v4());
        assert_eq!(v4.collect::<Vec<_>>(), [3, 4, 11, 12]);
        let v6 = (0..=u8::MAX).filter(|kind| Kind { kind: *kind, code: 0 }.is_error_v6());
        assert_eq!(v6.collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
