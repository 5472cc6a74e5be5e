//! What is not TCP, and what a segment of a session needs beyond the ordinary: a program of its own
//! in the kernel, by tail call, so that the ordinary path is neither larger nor slower for it.
//!
//! [`crate::process_as`] sends a frame here when it is not TCP, or when it has decided that the segment
//! goes on, but cannot go the ordinary way; nothing in the frame has changed. Here the session is looked up
//! again, and what it may have become meanwhile holds.

use seawall_wire::ipv4::Protocol;

use crate::decision::Decision;
use crate::family::{Family, Shape};
use crate::layout::{Settings, Slot, flag};
use crate::packet::{Network, Packet};
use crate::process::decide_rest;
use crate::tables::{Tables, find};
use crate::too_big::{self, Limit};
use crate::{Addr, Direction, Frame, Reason, Transport, Tuple, Verdict, past};

/// Decides about the frame, of version `V`, for which [`crate::process_as`] gave no verdict;
/// changes it accordingly, and counts the one reason.
#[inline(always)]
pub fn detour_as<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    ingress: u32,
    tables: &T,
) -> Verdict {
    let verdict = match decide::<V, F, T>(frame, ingress, tables).verdict() {
        Some(verdict) => verdict,
        // There is no further way.
        None => Verdict { action: crate::Action::Drop, reason: Reason::NotSetUp },
    };
    tables.count(verdict.reason);
    verdict
}

#[inline(always)]
fn decide<V: Family, F: Frame, T: Tables>(frame: &mut F, ingress: u32, tables: &T) -> Decision {
    const LOST: Decision = Decision::drop(Reason::NotSetUp);
    let Some(network) = Network::read::<V, F>(frame) else { return LOST };
    let Some(settings) = tables.settings() else { return LOST };
    if network.ip.protocol != Protocol::TCP || network.ip.shape == Shape::Fragment {
        return decide_rest::<V, F, T>(frame, &network, ingress, settings, tables);
    }
    let packet = match network.segment::<V, F>(frame) {
        Ok(packet) => packet,
        Err(reason) => return Decision::drop(reason),
    };
    let hash = packet.tuple.hash(Transport::Tcp, settings.index_key.get());
    let found = find(tables, settings, Transport::Tcp, &packet.tuple, hash);
    let (index, direction) = match found {
        Some(hit) => (hit.index, hit.direction),
        None => return Decision::drop(Reason::TcpDrop),
    };
    let Some(slot) = tables.slot(index) else { return LOST };
    if slot.state().flags & flag::ONE_WAY != 0 {
        return past::segment::<V, F, T>(
            frame, &packet, hash, index, slot, settings, ingress, tables,
        );
    }
    too_big::<V, F, T>(frame, &network, &packet, direction, slot, settings, ingress, tables)
}

/// A segment that is larger than the link towards the other side.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "all that there is, and nothing that could be swapped"
)]
fn too_big<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    packet: &Packet,
    direction: Direction,
    slot: &Slot,
    settings: &Settings,
    ingress: u32,
    tables: &T,
) -> Decision {
    let Some(next_hop) = tables.next_hop(slot.next_hop(direction)) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let limit = Limit {
        mtu: next_hop.mtu.load(),
        from: ours(&packet.tuple, direction, slot),
        link: network.link.reversed(),
        interface: ingress,
    };
    let Network { ip, l3, .. } = network;
    too_big::answer::<V, F>(frame, ip, *l3, &limit, settings)
}

/// The address of ours that a packet was sent to, or that its sender knows behind it: under NAT
/// the real server's packets are for the client.
#[inline(always)]
pub(crate) fn ours(tuple: &Tuple, direction: Direction, slot: &Slot) -> Addr {
    let to = slot.translated(Direction::Outbound);
    let sent_to = tuple.destination.address;
    match direction {
        Direction::Outbound if to.destination.address == sent_to => to.source.address,
        Direction::Inbound | Direction::Outbound => sent_to,
    }
}
