//! Tells the sender of a packet that is larger than the next link what fits (SPEC C1): ICMP
//! "fragmentation needed" (RFC 792, RFC 1191, section 4) or ICMPv6 "packet too big" (RFC 4443,
//! section 3.2).
//!
//! As IPVS (Linux, `ip_vs_xmit.c`, `ensure_mtu_is_adequate`). But where IPVS has the kernel
//! fragment an IPv4 packet whose sender allows it, this one is dropped and counted: nothing here
//! cuts packets in pieces. Hardly anything that speaks TCP leaves DF unset; a sender of UDP may, and
//! is not told. The links on both sides should have one MTU.
//!
//! The error quotes the header of the packet and the 20 bytes behind it: what Linux, the
//! BSDs and Windows look for a connection by (RFC 792 asks for 8). There is one for each such packet
//! of a session and it is smaller, so nobody gains by asking for it. No rate limits it, as in Linux
//! (`icmpv4_mask_allow` in `net/ipv4/icmp.c`, `icmpv6_mask_allow` in `net/ipv6/icmp.c`): what one
//! sender uses up would be a black hole to the others.

use seawall_wire::checksum::Sum;
use seawall_wire::ipv4::DONT_FRAGMENT;
use seawall_wire::{Bytes, icmp};

use crate::decision::Decision;
use crate::detour::ours;
use crate::family::{Family, Ip, OwnHeader, V4, V6, Version};
use crate::layout::{Settings, Slot};
use crate::link::Link;
use crate::packet::{self, Network};
use crate::{Action, Addr, Direction, Endpoint, Frame, Reason, Tuple, Verdict};

/// Bytes quoted behind the IP header.
const QUOTED: usize = 20;

/// What fits, who says so, and how the error leaves.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Largest packet that its sender may send, in bytes.
    pub(crate) mtu: u32,
    /// An address of ours that its sender knows.
    pub(crate) from: Addr,
    /// The link header towards the sender.
    pub(crate) link: Link,
    /// The interface towards the sender.
    pub(crate) interface: u32,
}

/// Makes of `frame`, in which the packet `ip` begins at `at`, the error about that packet, if there
/// may be one.
#[inline(always)]
pub(crate) fn answer<V: Family, F: Frame>(
    frame: &mut F,
    ip: &Ip,
    at: usize,
    limit: &Limit,
    settings: &Settings,
) -> Decision {
    if limit.mtu < V::MIN_MTU || V::may_be_fragmented(frame, at) {
        return Decision::drop(Reason::MtuExceeded);
    }
    match write::<V, F>(frame, ip, at, limit, settings.ttl.load() as u8) {
        Ok(()) => Decision::send(limit.interface, Reason::TooBig),
        Err(reason) => Decision::drop(reason),
    }
}

/// The same for a packet that the engine was to send on: makes of `frame`, which goes `direction` in
/// the session in `slot` and whose next hop takes `mtu` bytes, the error for its sender.
///
/// # Errors
/// The reason to drop it; the frame may have changed.
pub fn tell<F: Frame>(
    frame: &mut F,
    direction: Direction,
    slot: &Slot,
    mtu: u32,
    settings: &Settings,
) -> Result<(), Reason> {
    match packet::version(frame) {
        Some(Version::V4) => tell_as::<V4, F>(frame, direction, slot, mtu, settings),
        Some(Version::V6) => tell_as::<V6, F>(frame, direction, slot, mtu, settings),
        None => Err(Reason::IpMalformed),
    }
}

fn tell_as<V: Family, F: Frame>(
    frame: &mut F,
    direction: Direction,
    slot: &Slot,
    mtu: u32,
    settings: &Settings,
) -> Result<(), Reason> {
    let Some(network) = Network::read::<V, F>(frame) else { return Err(Reason::IpMalformed) };
    let end = |address| Endpoint { address, port: 0 };
    let tuple = Tuple { source: end(network.ip.source), destination: end(network.ip.destination) };
    let from = ours(&tuple, direction, slot);
    let limit = Limit { mtu, from, link: network.link.reversed(), interface: 0 };
    match answer::<V, F>(frame, &network.ip, network.l3, &limit, settings).verdict() {
        Some(Verdict { action: Action::Send { .. }, .. }) => Ok(()),
        Some(Verdict { reason, .. }) => Err(reason),
        None => Err(Reason::MtuExceeded),
    }
}

#[inline(always)]
fn write<V: Family, F: Frame>(
    frame: &mut F,
    ip: &Ip,
    at: usize,
    limit: &Limit,
    ttl: u8,
) -> Result<(), Reason> {
    let head = V::HEADER_LEN + icmp::HEADER_LEN;
    if !V::has(limit.from) || !V::has(ip.source) {
        return Err(Reason::NotSetUp);
    }
    let len = at + V::HEADER_LEN + QUOTED;
    let grow = (limit.link.header_len() + head) as i32 - at as i32;
    // Only of a packet that an error quotes there may be less.
    if frame.len() < len {
        return Err(Reason::IpMalformed);
    }
    if frame.resize(len).is_none() || frame.grow_head(grow).is_none() {
        return Err(Reason::ResizeFailed);
    }
    let l3 = limit.link.l3(frame);
    let header = OwnHeader {
        source: limit.from,
        destination: ip.source,
        payload_len: (icmp::HEADER_LEN + V::HEADER_LEN + QUOTED) as u16,
        ttl,
        protocol: V::ICMP,
        tos: 0,
        fragment: DONT_FRAGMENT,
        ident: 0,
    };
    let written =
        limit.link.write(frame, V::ETHERTYPE).is_some() && V::write(frame, l3, &header).is_some();
    let Some(quoted) = V::sum_header(frame, l3 + head) else { return Err(Reason::IpMalformed) };
    let Some(quoted) = frame.window::<QUOTED>(l3 + head + V::HEADER_LEN).map(|bytes| {
        let (first, last) = (quoted.qword(bytes.u64(0)), bytes.u32(16));
        first.qword(bytes.u64(8)).dword(last)
    }) else {
        return Err(Reason::IpMalformed);
    };
    let kind = V::TOO_BIG;
    let word = (kind.kind as u16) << 8 | kind.code as u16;
    let checksum = pseudo::<V>(quoted, &header).word(word).dword(limit.mtu).finish();
    let done = frame.window::<{ icmp::HEADER_LEN }>(l3 + V::HEADER_LEN).map(|mut bytes| {
        bytes.set_u16(0, word);
        bytes.set_u16(2, checksum);
        bytes.set_u32(4, limit.mtu);
    });
    if written && done.is_some() { Ok(()) } else { Err(Reason::IpMalformed) }
}

/// The pseudo-header, which only ICMPv6 has (RFC 4443, section 2.3).
#[inline(always)]
fn pseudo<V: Family>(sum: Sum, header: &OwnHeader) -> Sum {
    match V::VERSION {
        Version::V4 => sum,
        Version::V6 => {
            V::sum_addresses(sum, header).word(V::ICMP.0 as u16).word(header.payload_len)
        }
    }
}
