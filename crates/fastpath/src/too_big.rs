//! Tells the sender of a packet that is larger than the next link what fits (SPEC C1): ICMP
//! "fragmentation needed" (RFC 792, RFC 1191, section 4) or ICMPv6 "packet too big" (RFC 4443,
//! section 3.2).
//!
//! As IPVS (Linux, `ip_vs_xmit.c`, `ensure_mtu_is_adequate`). But where IPVS has the kernel
//! fragment an IPv4 packet whose sender allows it, this one is dropped and counted: nothing that
//! speaks TCP leaves DF unset and sends more than its path takes.
//!
//! The error quotes the header of the packet and the 20 bytes behind it: what Linux, the
//! BSDs and Windows look for a connection by (RFC 792 asks for 8). It is smaller than what it is
//! about, and [`BURST_MS`] bounds how many there are.

use seawall_wire::checksum::Sum;
use seawall_wire::{Bytes, icmp};

use crate::decision::Decision;
use crate::family::{Family, OwnHeader, Version};
use crate::layout::Settings;
use crate::packet::Network;
use crate::{Addr, Frame, Reason};

/// Bytes quoted behind the IP header.
const QUOTED: usize = 20;

/// Errors are sent at one a millisecond; after a silence, as many at once as this. Linux limits
/// other errors to 1,000 a second and 50 at once (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
pub const BURST_MS: u64 = 200;

/// What fits, and who says so.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Largest packet that its sender may send, in bytes.
    pub(crate) mtu: u32,
    /// An address of ours that its sender knows.
    pub(crate) from: Addr,
}

/// Answers the packet `network` in `frame`, which came in on `ingress`, with the error, if there
/// may be one.
#[inline(always)]
pub(crate) fn answer<V: Family, F: Frame>(
    frame: &mut F,
    network: &Network,
    limit: Limit,
    settings: &Settings,
    ingress: u32,
    now: u64,
) -> Decision {
    if limit.mtu < V::MIN_MTU || V::may_be_fragmented(frame, network.l3) {
        return Decision::drop(Reason::MtuExceeded);
    }
    if !is_due(settings, now) {
        return Decision::drop(Reason::TooBigLimited);
    }
    match write::<V, F>(frame, network, limit, settings.ttl.load() as u8) {
        Ok(()) => Decision::send(ingress, Reason::TooBig),
        Err(reason) => Decision::drop(reason),
    }
}

/// Takes one of the errors that may be sent now. Of several CPUs that ask in one instant one gets
/// it: who is not told sends again.
#[inline(always)]
fn is_due(settings: &Settings, now: u64) -> bool {
    let due = settings.too_big_due.load();
    // Signed: another CPU may have read a later time.
    let ahead = due.wrapping_sub(now) as i64;
    let from = if ahead > 0 { due } else { now };
    ahead < BURST_MS as i64 && settings.too_big_due.replace_if(due, from.wrapping_add(1))
}

#[inline(always)]
fn write<V: Family, F: Frame>(
    frame: &mut F,
    network: &Network,
    limit: Limit,
    ttl: u8,
) -> Result<(), Reason> {
    let Network { link, ip, l3 } = *network;
    let head = V::HEADER_LEN + icmp::HEADER_LEN;
    if !V::has(limit.from) || !V::has(ip.source) {
        return Err(Reason::NotSetUp);
    }
    // The packet is longer than that: it is larger than any least MTU.
    if frame.resize(l3 + V::HEADER_LEN + QUOTED).is_none() {
        return Err(Reason::ResizeFailed);
    }
    if frame.grow_head(head as i32).is_none() {
        return Err(Reason::ResizeFailed);
    }
    let header = OwnHeader {
        source: limit.from,
        destination: ip.source,
        payload_len: (icmp::HEADER_LEN + V::HEADER_LEN + QUOTED) as u16,
        ttl,
        protocol: V::ICMP,
    };
    let written = link.reversed().write(frame, V::ETHERTYPE).is_some()
        && V::write(frame, l3, &header).is_some();
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
