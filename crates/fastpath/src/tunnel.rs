//! Wraps a packet for a real server behind a tunnel, as IPVS does (Linux, `ip_vs_xmit.c`,
//! `ip_vs_tunnel_xmit`): time to live and type of service are the packet's own, and so is DF of
//! IPv4 in IPv4; around IPv6 it is not set.
//!
//! Where there is a checksum, the packet is not summed up for it: its own checksum says what it
//! comes to (Linux, `Documentation/networking/checksum-offloads.rst`, "LCO"). One that came in
//! corrupt is dropped by whoever unwraps it, instead of by who gets it then. A datagram over IPv4 without a
//! checksum is wrapped without one too.

use seawall_wire::checksum::Sum;
use seawall_wire::ethernet::EtherType;
use seawall_wire::ipv4::{DONT_FRAGMENT, Protocol};
use seawall_wire::{Bytes, gre};

use crate::family::{Family, OwnHeader, Version};
use crate::layout::{Tunnel, Wrapping};
use crate::link::Link;
use crate::one_way::Way;
use crate::packet::Network;
use crate::{Frame, Reason};

/// UDP's header (RFC 768), in bytes.
pub(crate) const UDP_LEN: usize = 8;
/// GUE's header without options (draft-ietf-intarea-gue, section 3.1), in bytes.
pub(crate) const GUE_LEN: usize = 4;
/// The lowest port that GUE is sent from (draft-ietf-intarea-gue, section 5.11); the rest is the
/// hash of the flow, for routers with several paths.
const FIRST_PORT: u16 = 0xc000;

/// What a packet of version `V` is called by an IP header and by an EtherType.
#[inline(always)]
pub(crate) const fn inner_protocol(version: Version) -> Protocol {
    match version {
        Version::V4 => Protocol::IPIP,
        Version::V6 => Protocol::IPV6,
    }
}

/// Whether a packet of this protocol may be one that [`wrap`] has made.
#[inline(always)]
pub(crate) const fn may_wrap(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::IPIP | Protocol::IPV6 | Protocol::GRE | Protocol::UDP)
}

/// Wraps the packet `network` of version `V`, whose time to live is `ttl` by now, into one of
/// version `O` for the session's real server, and gives it the link header `link`.
///
/// # Errors
/// The reason to drop it; the frame may have changed.
#[inline(always)]
pub(crate) fn wrap<V: Family, O: Family, F: Frame>(
    frame: &mut F,
    network: &Network,
    ttl: u8,
    link: Link,
    way: &Way<'_>,
) -> Result<(), Reason> {
    let slot = way.slot;
    let tunnel = Tunnel::from_bits(slot.ts_in.load());
    let tunnel =
        Tunnel { checksum: tunnel.checksum && has_checksum::<V, F>(frame, network), ..tunnel };
    let (source, destination) = (slot.local_address(), slot.real_address());
    if !O::has(source) || !O::has(destination) {
        return Err(Reason::NotSetUp);
    }
    let Some(marks) = V::marks(frame, network.l3) else { return Err(Reason::IpMalformed) };
    let header_len = tunnel.header_len();
    let more = O::HEADER_LEN + header_len;
    let inner = if tunnel.checksum { sum::<V, F>(frame, network)? } else { Sum::new() };
    let grow = (link.header_len() + more) as i32 - network.l3 as i32;
    if frame.grow_head(grow).is_none() {
        return Err(Reason::ResizeFailed);
    }
    let l3 = link.l3(frame);
    let payload_len = (header_len as u32).wrapping_add(network.ip.len) as u16;
    let outer = OwnHeader {
        source,
        destination,
        payload_len,
        ttl,
        tos: marks.tos,
        fragment: marks.fragment,
        ident: if marks.fragment == DONT_FRAGMENT || O::VERSION == Version::V6 {
            0
        } else {
            way.settings.ident.fetch_add(1) as u16
        },
        protocol: match tunnel.wrapping {
            Wrapping::Ipip => inner_protocol(V::VERSION),
            Wrapping::Gue => Protocol::UDP,
            Wrapping::Gre => Protocol::GRE,
        },
    };
    let written =
        link.write(frame, O::ETHERTYPE).is_some() && O::write(frame, l3, &outer).is_some();
    let at = l3 + O::HEADER_LEN;
    let done = match tunnel.wrapping {
        Wrapping::Ipip => Some(()),
        Wrapping::Gre => write_gre(frame, at, V::ETHERTYPE, tunnel.checksum, inner),
        Wrapping::Gue => {
            let pseudo = O::sum_addresses(inner, &outer).word(Protocol::UDP.0 as u16);
            let next = inner_protocol(V::VERSION);
            write_gue(frame, at, tunnel, next, payload_len, way.hash, pseudo)
        }
    };
    if written && done.is_some() { Ok(()) } else { Err(Reason::IpMalformed) }
}

/// Whether a packet says what it comes to. Only a datagram over IPv4 may not (RFC 768).
#[inline(always)]
fn has_checksum<V: Family, F: Frame>(frame: &mut F, network: &Network) -> bool {
    V::VERSION == Version::V6
        || network.ip.protocol != Protocol::UDP
        || frame
            .window::<UDP_LEN>(network.l3 + V::HEADER_LEN)
            .is_some_and(|bytes| bytes.u16(6) != 0)
}

/// The sum of a whole packet, by its headers alone.
#[inline(always)]
fn sum<V: Family, F: Frame>(frame: &mut F, network: &Network) -> Result<Sum, Reason> {
    let ip = &network.ip;
    let Some(header) = V::sum_header(frame, network.l3) else { return Err(Reason::IpMalformed) };
    if V::VERSION == Version::V4 && ip.protocol == V::ICMP {
        // It has no pseudo-header: with its checksum it comes to nothing.
        return Ok(header);
    }
    let pseudo = OwnHeader {
        source: ip.source,
        destination: ip.destination,
        payload_len: (ip.len as usize).wrapping_sub(V::HEADER_LEN) as u16,
        ttl: 0,
        tos: 0,
        fragment: 0,
        ident: 0,
        protocol: ip.protocol,
    };
    let payload = V::sum_addresses(Sum::new(), &pseudo)
        .word(ip.protocol.0 as u16)
        .word(pseudo.payload_len)
        .finish();
    Ok(header.word(payload))
}

#[inline(always)]
fn write_gre<F: Frame>(
    frame: &mut F,
    at: usize,
    protocol: EtherType,
    checksum: bool,
    inner: Sum,
) -> Option<()> {
    if !checksum {
        return frame.window::<{ gre::HEADER_LEN }>(at).map(|mut bytes| {
            bytes.set_u16(0, 0);
            bytes.set_u16(2, protocol.0);
        });
    }
    let sum = inner.word(gre::CHECKSUM).word(protocol.0).finish();
    frame.window::<{ gre::HEADER_LEN + gre::CHECKSUM_LEN }>(at).map(|mut bytes| {
        bytes.set_u16(0, gre::CHECKSUM);
        bytes.set_u16(2, protocol.0);
        bytes.set_u16(4, sum);
        bytes.set_u16(6, 0);
    })
}

/// UDP and GUE headers; `pseudo` is what else is in UDP's checksum but for its length.
#[inline(always)]
fn write_gue<F: Frame>(
    frame: &mut F,
    at: usize,
    tunnel: Tunnel,
    next: Protocol,
    len: u16,
    hash: u64,
    pseudo: Sum,
) -> Option<()> {
    let source = FIRST_PORT | (hash as u16 & !FIRST_PORT);
    // Twice: in the pseudo-header too.
    let sum =
        pseudo.word(len).word(source).word(tunnel.port).word(len).word(next.0 as u16).finish();
    // Zero stands for "none" (RFC 768).
    let sum = if !tunnel.checksum {
        0
    } else if sum == 0 {
        0xffff
    } else {
        sum
    };
    frame.window::<{ UDP_LEN + GUE_LEN }>(at).map(|mut bytes| {
        bytes.set_u16(0, source);
        bytes.set_u16(2, tunnel.port);
        bytes.set_u16(4, len);
        bytes.set_u16(6, sum);
        // Version 0, no options, data; what it is; no flags.
        bytes.set_u16(8, next.0 as u16);
        bytes.set_u16(10, 0);
    })
}
