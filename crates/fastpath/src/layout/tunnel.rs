//! How packets to a real server are wrapped; in a slot, one word.

/// What stands between the outer IP header and the packet. The numbers are IPVS's
/// (`IP_VS_CONN_F_TUNNEL_TYPE_*`, `linux/ip_vs.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Wrapping {
    /// Nothing (RFC 2003; RFC 2473; RFC 4213, section 3).
    #[default]
    Ipip = 0,
    /// A UDP header and one of Generic UDP Encapsulation, version 0 (draft-ietf-intarea-gue).
    Gue = 1,
    /// A header of Generic Routing Encapsulation (RFC 2784).
    Gre = 2,
}

/// How packets are wrapped: ipvsadm's `--tun-type`, `--tun-port` and `--tun-csum`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tunnel {
    /// What with.
    pub wrapping: Wrapping,
    /// Whether UDP's or GRE's checksum is there; IPIP has none.
    pub checksum: bool,
    /// The UDP port of GUE; 0 for the others.
    pub port: u16,
}

const CHECKSUM: u32 = 1 << 8;

impl Tunnel {
    /// Bytes between the outer IP header and the packet.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self.wrapping {
            Wrapping::Ipip => 0,
            Wrapping::Gue => 12,
            Wrapping::Gre if self.checksum => 8,
            Wrapping::Gre => 4,
        }
    }

    /// As it stands in [`super::Slot::ts_in`].
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        let checksum = if self.checksum { CHECKSUM } else { 0 };
        (self.port as u32) << 16 | checksum | self.wrapping as u32
    }

    /// The inverse of [`Tunnel::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        let wrapping = match bits & 0xff {
            1 => Wrapping::Gue,
            2 => Wrapping::Gre,
            _ => Wrapping::Ipip,
        };
        Self { wrapping, checksum: bits & CHECKSUM != 0, port: (bits >> 16) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Tunnel, Wrapping};

    #[test]
    fn a_tunnel_survives_both_ways() {
        for wrapping in [Wrapping::Ipip, Wrapping::Gue, Wrapping::Gre] {
            for checksum in [false, true] {
                let tunnel = Tunnel { wrapping, checksum, port: 0xfedc };
                assert_eq!(Tunnel::from_bits(tunnel.to_bits()), tunnel);
            }
        }
    }
}
