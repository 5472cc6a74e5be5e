//! A router between us and a real server behind a tunnel says that a wrapped packet is too big for
//! it (SPEC C1). It says so to the tunnel's source, which is ours; what it means is for the client
//! whose packet that was, less what wrapping adds (IPVS: `ip_vs_in_icmp`, of the cases that it knows
//! for IPIP, GRE and GUE the one that path-MTU discovery stands on; the others are the kernel's).
//!
//! The router must quote the client's headers too, as all do that follow RFC 1812, section 4.3.2.3.
//! Anybody can send such an error, so both addresses of the tunnel must be those of a session's, and the
//! number of a segment one of the last [`one_way::LEAP`] that its client has sent (RFC 5927, section 4.1).
//! Nothing is kept: each client that sends too much is told, as often as the router does.

use seawall_wire::ethernet::EtherType;
use seawall_wire::ipv4::Protocol;
use seawall_wire::{Bytes, SeqNumber, gre, icmp};

use crate::decision::Decision;
use crate::family::{Family, Shape, V4, V6, Version};
use crate::layout::{Settings, flag};
use crate::link::Link;
use crate::packet::Network;
use crate::tables::{Hit, Tables, find};
use crate::too_big::{self, Limit};
use crate::tunnel::{GUE_LEN, UDP_LEN, inner_protocol};
use crate::{Addr, Direction, Endpoint, Frame, Reason, Transport, Tuple, one_way};

const PASS: Decision = Decision::pass(Reason::PassNotOurs);

/// The wrapped packet.
#[derive(Clone, Copy)]
struct Outer {
    source: Addr,
    destination: Addr,
    /// What the router's link takes, in bytes.
    mtu: u32,
    /// Where in the frame the client's packet begins.
    inner: usize,
}

/// What to do with an error of version `O` that says that a packet around another is too big.
#[inline(always)]
pub(crate) fn decide<O: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    ingress: u32,
    settings: &Settings,
    tables: &T,
) -> Decision {
    let at = network.l3 + O::HEADER_LEN;
    // RFC 1191, section 4: half a word; RFC 4443, section 3.2: a word. What is beside the half is 0,
    // or a length (RFC 4884), which is none of ours.
    let Some(mtu) = frame.window::<{ icmp::HEADER_LEN }>(at).map(|bytes| match O::VERSION {
        Version::V4 => bytes.u16(6) as u32,
        Version::V6 => bytes.u32(4),
    }) else {
        return PASS;
    };
    let quoted = at + icmp::HEADER_LEN;
    let Some(ip) = O::read(frame, quoted) else { return PASS };
    let behind = quoted + O::HEADER_LEN;
    let Some((version, header_len)) = inside(frame, ip.protocol, behind) else { return PASS };
    let outer = Outer {
        source: ip.source,
        destination: ip.destination,
        mtu,
        inner: frame.opaque(behind + header_len) & 0xff,
    };
    if network.check::<O, F>(frame, tables.interface(ingress)).is_err() {
        return PASS;
    }
    match version {
        Version::V4 => relay::<V4, F, T>(frame, &outer, settings, tables),
        Version::V6 => relay::<V6, F, T>(frame, &outer, settings, tables),
    }
}

/// The version of the packet behind the outer IP header, and the bytes between.
#[inline(always)]
fn inside<F: Frame>(frame: &mut F, protocol: Protocol, at: usize) -> Option<(Version, usize)> {
    if protocol == inner_protocol(Version::V4) {
        return Some((Version::V4, 0));
    }
    if protocol == inner_protocol(Version::V6) {
        return Some((Version::V6, 0));
    }
    if protocol == Protocol::GRE {
        let bytes = frame.window::<{ gre::HEADER_LEN }>(at)?;
        let (flags, ethertype) = (bytes.u16(0), EtherType(bytes.u16(2)));
        let len = if flags == 0 {
            gre::HEADER_LEN
        } else if flags == gre::CHECKSUM {
            gre::HEADER_LEN + gre::CHECKSUM_LEN
        } else {
            return None;
        };
        return version_of(ethertype == V4::ETHERTYPE, ethertype == V6::ETHERTYPE, len);
    }
    let bytes = frame.window::<{ UDP_LEN + GUE_LEN }>(at)?;
    let (first, next) = (bytes.u8(8), Protocol(bytes.u8(9)));
    if first != 0 || bytes.u16(10) != 0 {
        return None;
    }
    let (v4, v6) = (inner_protocol(Version::V4), inner_protocol(Version::V6));
    version_of(next == v4, next == v6, UDP_LEN + GUE_LEN)
}

#[inline(always)]
const fn version_of(is_v4: bool, is_v6: bool, len: usize) -> Option<(Version, usize)> {
    if is_v4 {
        Some((Version::V4, len))
    } else if is_v6 {
        Some((Version::V6, len))
    } else {
        None
    }
}

/// Tells the client whose packet, of version `V`, was wrapped.
#[inline(always)]
fn relay<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    outer: &Outer,
    settings: &Settings,
    tables: &T,
) -> Decision {
    let Some(ip) = V::read(frame, outer.inner) else { return PASS };
    let transport = match ip.protocol {
        Protocol::TCP => Transport::Tcp,
        Protocol::UDP => Transport::Udp,
        _ => return PASS,
    };
    if ip.shape != Shape::Whole {
        return PASS;
    }
    let l4 = outer.inner + V::HEADER_LEN;
    let Some((ports, seq)) =
        frame.window::<8>(l4).map(|bytes| (bytes.u32(0), SeqNumber(bytes.u32(4))))
    else {
        return PASS;
    };
    let tuple = Tuple {
        source: Endpoint { address: ip.source, port: (ports >> 16) as u16 },
        destination: Endpoint { address: ip.destination, port: ports as u16 },
    };
    let hash = tuple.hash(transport, settings.index_key.get());
    let Some(Hit { index, direction, .. }) = find(tables, settings, transport, &tuple, hash) else {
        return PASS;
    };
    let Some(slot) = tables.slot(index) else { return PASS };
    if direction != Direction::Inbound
        || slot.state().flags & flag::TUNNEL == 0
        || slot.local_address() != outer.source
        || slot.real_address() != outer.destination
    {
        return PASS;
    }
    let stands = SeqNumber(slot.outbound.ack.load());
    let is_tcp = matches!(transport, Transport::Tcp);
    if is_tcp && seq.since(stands.sub(one_way::LEAP)) > one_way::LEAP {
        return Decision::drop(Reason::IcmpInvalid);
    }
    let Some(next_hop) = tables.next_hop(slot.next_hop_out.load()) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let Some(destination) = next_hop.destination() else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let limit = Limit {
        mtu: outer.mtu.saturating_sub(one_way::overhead(slot) as u32),
        from: ip.destination,
        link: Link { destination, source: next_hop.source(), tags: next_hop.tags() },
        interface: next_hop.interface.load(),
    };
    too_big::answer::<V, F>(frame, &ip, outer.inner, &limit, settings)
}
