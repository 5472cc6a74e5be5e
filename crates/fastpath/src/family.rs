//! The IP version as a type, so that one source serves both and the packet path never asks.
//!
//! In the kernel each version is a program of its own (`bpf/src/seawall`): together they would be
//! more than the verifier of Linux 6.1 walks.

use seawall_wire::checksum::{Sum, Update};
use seawall_wire::ethernet::EtherType;
use seawall_wire::ipv4::{self, DONT_FRAGMENT, Protocol};
use seawall_wire::{Bytes, icmp, ipv6};

use crate::{Addr, Frame};

/// An IP version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The version of `address`.
    #[inline(always)]
    #[must_use]
    pub const fn of(address: Addr) -> Self {
        if address.as_v4().is_some() { Self::V4 } else { Self::V6 }
    }
}

/// What an IP header says of its packet as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// The payload follows the fixed header.
    Whole,
    /// A part of a packet (RFC 791, section 3.2; RFC 8200, section 4.5).
    Fragment,
    /// IPv4 options or IPv6 extension headers stand between header and payload.
    Extended,
    /// Version or header length are wrong, or an address is one that no IPv6 packet may have.
    Malformed,
}

/// An IP header, as far as both versions have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Length of the whole packet, header included, in bytes.
    pub len: u32,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// What it carries; for [`Shape::Extended`] in IPv6, the first extension header.
    pub protocol: Protocol,
    /// See [`Shape`].
    pub shape: Shape,
    /// The header checksum of IPv4 as it stands in the packet; 0 in IPv6.
    pub checksum: u16,
}

/// The header of a packet of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnHeader {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Length of what follows the header, in bytes.
    pub payload_len: u16,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// What follows.
    pub protocol: Protocol,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// IPv4's fragment field.
    pub fragment: u16,
    /// IPv4's identification.
    pub ident: u16,
}

/// What a packet shares with the one it is wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// Type of service, or traffic class.
    pub tos: u8,
    /// The fragment field of an IPv4 header around it: "don't fragment", or nothing.
    pub fragment: u16,
}

/// Where a packet goes from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readdress {
    /// Its new source.
    pub source: Addr,
    /// Its new destination.
    pub destination: Addr,
    /// Its new time to live, or hop limit.
    pub ttl: u8,
}

/// An IP version; see the module's documentation. All headers are without options or extensions.
pub trait Family: Copy {
    /// Which it is.
    const VERSION: Version;
    /// How frames name it.
    const ETHERTYPE: EtherType;
    /// Length of its fixed header, in bytes.
    const HEADER_LEN: usize;
    /// Its control messages.
    const ICMP: Protocol;
    /// MSS classes of the cookie, rising; a client's MSS is rounded down to one. The lowest is
    /// Linux's `tcp_min_snd_mss`, so that a real server is never told more than the client can
    /// take (SPEC A3).
    const MSS_CLASSES: [u16; 8];
    /// Length of the TOA option for a client of this version, in bytes.
    const TOA_LEN: usize;
    /// The MSS of a client that names none (RFC 9293, section 3.7.1).
    const DEFAULT_MSS: u16;
    /// The least that every link takes, in bytes of packet (RFC 791, section 3.2; RFC 8200, section
    /// 5).
    const MIN_MTU: u32;
    /// Says that a packet is larger than the next link.
    const TOO_BIG: icmp::Kind;

    /// Whether `address` is of this version.
    fn has(address: Addr) -> bool;
    /// Whether a host may send from `address`: no group, no broadcast, no loopback, not "this one"
    /// (RFC 1122, section 3.2.1.3; RFC 4291, sections 2.5 and 2.7). A SYN from any other must be
    /// ignored (RFC 9293, section 3.9.2.3).
    fn is_source(address: Addr) -> bool;
    /// Reads the header at `l3`.
    fn read<F: Frame>(frame: &mut F, l3: usize) -> Option<Ip>;
    /// Whether the header at `l3` is intact, as far as it says.
    fn is_intact<F: Frame>(frame: &mut F, l3: usize) -> bool;
    /// Whether routers may cut the packet whose header is at `l3` in pieces.
    fn may_be_fragmented<F: Frame>(frame: &mut F, l3: usize) -> bool;
    /// What the packet whose header is at `l3` shares with one around it.
    fn marks<F: Frame>(frame: &mut F, l3: usize) -> Option<Marks>;
    /// The sum of the header at `l3`.
    fn sum_header<F: Frame>(frame: &mut F, l3: usize) -> Option<Sum>;
    /// Writes the header of a packet of our own at `l3`.
    #[must_use]
    fn write<F: Frame>(frame: &mut F, l3: usize, header: &OwnHeader) -> Option<()>;
    /// `sum` with the addresses of `header` added.
    fn sum_addresses(sum: Sum, header: &OwnHeader) -> Sum;
    /// What new addresses do to a checksum over the pseudo-header.
    fn update(update: Update, ip: &Ip, to: &Readdress) -> Update;
    /// Writes the new addresses and time to live of the header `ip` at `l3`. Gives what that does
    /// to a checksum over the header itself, which is nothing where it has one of its own.
    #[must_use]
    fn readdress<F: Frame>(frame: &mut F, l3: usize, ip: &Ip, to: &Readdress) -> Option<()>;
    /// Whether a control message of this kind quotes a packet.
    fn is_error(kind: icmp::Kind) -> bool;
    /// What new addresses of the quoted packet `ip` do to the checksum of the message.
    fn update_quoted(update: Update, ip: &Ip, to: &Readdress) -> Update;
    /// What new addresses of the message itself do to its checksum.
    fn update_message(update: Update, ip: &Ip, to: &Readdress) -> Update;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

/// An address that is known to be IPv4.
#[inline(always)]
const fn v4(address: Addr) -> u32 {
    address.0[1] as u32
}

/// The checksum of an IPv4 header after [`Family::readdress`].
#[inline(always)]
fn readdressed(ip: &Ip, to: &Readdress) -> u16 {
    let protocol = ip.protocol.0 as u16;
    let (old, new) = ((ip.ttl as u16) << 8 | protocol, (to.ttl as u16) << 8 | protocol);
    V4::update(Update::new(), ip, to).word(old, new).apply(ip.checksum)
}

impl Family for V4 {
    const VERSION: Version = Version::V4;
    const ETHERTYPE: EtherType = EtherType::IPV4;
    const HEADER_LEN: usize = ipv4::HEADER_LEN;
    const ICMP: Protocol = Protocol::ICMP;
    const MSS_CLASSES: [u16; 8] = [48, 536, 1220, 1360, 1400, 1440, 1460, 8960];
    const TOA_LEN: usize = 8;
    const DEFAULT_MSS: u16 = 536;
    const MIN_MTU: u32 = ipv4::MIN_MTU;
    const TOO_BIG: icmp::Kind = icmp::Kind::FRAGMENTATION_NEEDED;

    #[inline(always)]
    fn has(address: Addr) -> bool {
        address.as_v4().is_some()
    }

    #[inline(always)]
    fn is_source(address: Addr) -> bool {
        let network = v4(address) >> 24;
        network != 0 && network != 127 && network < 224
    }

    #[inline(always)]
    fn read<F: Frame>(frame: &mut F, l3: usize) -> Option<Ip> {
        let header =
            frame.window::<{ ipv4::HEADER_LEN }>(l3).map(|bytes| ipv4::Header::read(&bytes))?;
        let header_len = header.header_len as usize;
        let shape = if header.is_fragment() {
            Shape::Fragment
        } else if header.version != 4 || header_len < ipv4::HEADER_LEN {
            Shape::Malformed
        } else if header_len > ipv4::HEADER_LEN {
            Shape::Extended
        } else {
            Shape::Whole
        };
        Some(Ip {
            source: Addr::v4(header.source),
            destination: Addr::v4(header.destination),
            len: header.total_len as u32,
            ttl: header.ttl,
            protocol: header.protocol,
            shape,
            checksum: header.checksum,
        })
    }

    #[inline(always)]
    fn is_intact<F: Frame>(frame: &mut F, l3: usize) -> bool {
        match frame.window::<{ ipv4::HEADER_LEN }>(l3) {
            Some(bytes) => ipv4::Header::checksum_holds(&bytes),
            None => false,
        }
    }

    #[inline(always)]
    fn may_be_fragmented<F: Frame>(frame: &mut F, l3: usize) -> bool {
        match frame.window::<{ ipv4::HEADER_LEN }>(l3) {
            Some(bytes) => bytes.u16(6) & DONT_FRAGMENT == 0,
            None => true,
        }
    }

    #[inline(always)]
    fn marks<F: Frame>(frame: &mut F, l3: usize) -> Option<Marks> {
        frame
            .window::<{ ipv4::HEADER_LEN }>(l3)
            .map(|bytes| Marks { tos: bytes.u8(1), fragment: bytes.u16(6) & DONT_FRAGMENT })
    }

    #[inline(always)]
    fn sum_header<F: Frame>(frame: &mut F, l3: usize) -> Option<Sum> {
        frame
            .window::<{ ipv4::HEADER_LEN }>(l3)
            .map(|bytes| Sum::new().qword(bytes.u64(0)).qword(bytes.u64(8)).dword(bytes.u32(16)))
    }

    #[inline(always)]
    fn write<F: Frame>(frame: &mut F, l3: usize, header: &OwnHeader) -> Option<()> {
        let mut bytes = frame.window::<{ ipv4::HEADER_LEN }>(l3)?;
        ipv4::Header {
            version: 4,
            header_len: ipv4::HEADER_LEN as u8,
            tos: header.tos,
            total_len: (ipv4::HEADER_LEN as u16).wrapping_add(header.payload_len),
            ident: header.ident,
            fragment: header.fragment,
            ttl: header.ttl,
            protocol: header.protocol,
            checksum: 0,
            source: v4(header.source),
            destination: v4(header.destination),
        }
        .write(&mut bytes);
        Some(())
    }

    #[inline(always)]
    fn sum_addresses(sum: Sum, header: &OwnHeader) -> Sum {
        sum.dword(v4(header.source)).dword(v4(header.destination))
    }

    #[inline(always)]
    fn update(update: Update, ip: &Ip, to: &Readdress) -> Update {
        update.dword(v4(ip.source), v4(to.source)).dword(v4(ip.destination), v4(to.destination))
    }

    #[inline(always)]
    fn readdress<F: Frame>(frame: &mut F, l3: usize, ip: &Ip, to: &Readdress) -> Option<()> {
        let mut bytes = frame.window::<{ ipv4::HEADER_LEN }>(l3)?;
        bytes.set_u8(8, to.ttl);
        bytes.set_u16(10, readdressed(ip, to));
        bytes.set_u32(12, v4(to.source));
        bytes.set_u32(16, v4(to.destination));
        Some(())
    }

    #[inline(always)]
    fn is_error(kind: icmp::Kind) -> bool {
        kind.is_error_v4()
    }

    #[inline(always)]
    fn update_quoted(update: Update, ip: &Ip, to: &Readdress) -> Update {
        Self::update(update, ip, to).word(ip.checksum, readdressed(ip, to))
    }

    #[inline(always)]
    fn update_message(update: Update, _: &Ip, _: &Readdress) -> Update {
        // ICMP has no pseudo-header.
        update
    }
}

impl Family for V6 {
    const VERSION: Version = Version::V6;
    const ETHERTYPE: EtherType = EtherType::IPV6;
    const HEADER_LEN: usize = ipv6::HEADER_LEN;
    const ICMP: Protocol = Protocol::ICMPV6;
    const MSS_CLASSES: [u16; 8] = [48, 536, 1220, 1340, 1380, 1420, 1440, 8940];
    const TOA_LEN: usize = 20;
    const DEFAULT_MSS: u16 = 1220;
    const MIN_MTU: u32 = ipv6::MIN_MTU;
    const TOO_BIG: icmp::Kind = icmp::Kind::PACKET_TOO_BIG;

    #[inline(always)]
    fn has(address: Addr) -> bool {
        address.as_v4().is_none()
    }

    #[inline(always)]
    fn is_source(address: Addr) -> bool {
        let [high, low] = address.0;
        high >> 56 != 0xff && (high != 0 || low > 1)
    }

    #[inline(always)]
    fn read<F: Frame>(frame: &mut F, l3: usize) -> Option<Ip> {
        let header =
            frame.window::<{ ipv6::HEADER_LEN }>(l3).map(|bytes| ipv6::Header::read(&bytes))?;
        let (source, destination) = (Addr(header.source), Addr(header.destination));
        let shape = if header.version != 6 || !Self::has(source) || !Self::has(destination) {
            // A mapped address stands for an IPv4 one in our tables: on the wire it would pass
            // for another's (RFC 4942, section 2.2).
            Shape::Malformed
        } else if header.next_header == Protocol::FRAGMENT {
            Shape::Fragment
        } else if header.next_header.is_extension() {
            Shape::Extended
        } else {
            Shape::Whole
        };
        Some(Ip {
            source,
            destination,
            len: header.payload_len as u32 + ipv6::HEADER_LEN as u32,
            ttl: header.hop_limit,
            protocol: header.next_header,
            shape,
            checksum: 0,
        })
    }

    #[inline(always)]
    fn is_intact<F: Frame>(_: &mut F, _: usize) -> bool {
        true
    }

    #[inline(always)]
    fn may_be_fragmented<F: Frame>(_: &mut F, _: usize) -> bool {
        false
    }

    #[inline(always)]
    fn marks<F: Frame>(frame: &mut F, l3: usize) -> Option<Marks> {
        let bytes = frame.window::<{ ipv6::HEADER_LEN }>(l3)?;
        // Whoever sends IPv6 leaves it whole; around it IPVS leaves IPv4 free.
        Some(Marks { tos: (bytes.u16(0) >> 4) as u8, fragment: 0 })
    }

    #[inline(always)]
    fn sum_header<F: Frame>(frame: &mut F, l3: usize) -> Option<Sum> {
        frame.window::<{ ipv6::HEADER_LEN }>(l3).map(|bytes| {
            let source = Sum::new().qword(bytes.u64(0)).qword(bytes.u64(8)).qword(bytes.u64(16));
            source.qword(bytes.u64(24)).qword(bytes.u64(32))
        })
    }

    #[inline(always)]
    fn write<F: Frame>(frame: &mut F, l3: usize, header: &OwnHeader) -> Option<()> {
        let mut bytes = frame.window::<{ ipv6::HEADER_LEN }>(l3)?;
        ipv6::Header {
            version: 6,
            traffic_class: header.tos,
            payload_len: header.payload_len,
            next_header: header.protocol,
            hop_limit: header.ttl,
            source: header.source.0,
            destination: header.destination.0,
        }
        .write(&mut bytes);
        Some(())
    }

    #[inline(always)]
    fn sum_addresses(sum: Sum, header: &OwnHeader) -> Sum {
        let (a, b) = (header.source.0, header.destination.0);
        sum.qword(a[0]).qword(a[1]).qword(b[0]).qword(b[1])
    }

    #[inline(always)]
    fn update(update: Update, ip: &Ip, to: &Readdress) -> Update {
        let update = changed(update, ip.source, to.source);
        changed(update, ip.destination, to.destination)
    }

    #[inline(always)]
    fn readdress<F: Frame>(frame: &mut F, l3: usize, _: &Ip, to: &Readdress) -> Option<()> {
        let mut bytes = frame.window::<{ ipv6::HEADER_LEN }>(l3)?;
        bytes.set_u8(7, to.ttl);
        ipv6::write_address(&mut bytes, 8, to.source.0);
        ipv6::write_address(&mut bytes, 24, to.destination.0);
        Some(())
    }

    #[inline(always)]
    fn is_error(kind: icmp::Kind) -> bool {
        kind.is_error_v6()
    }

    #[inline(always)]
    fn update_quoted(update: Update, ip: &Ip, to: &Readdress) -> Update {
        Self::update(update, ip, to)
    }

    #[inline(always)]
    fn update_message(update: Update, ip: &Ip, to: &Readdress) -> Update {
        Self::update(update, ip, to)
    }
}

#[inline(always)]
fn changed(update: Update, from: Addr, to: Addr) -> Update {
    let (a, b) = (from.0, to.0);
    update.qword(a[0], b[0]).qword(a[1], b[1])
}
