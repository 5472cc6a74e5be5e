//! What becomes of packets of sessions whose answers go past us: of a client's segments and
//! datagrams, and of its errors about what the real server sent it. In the kernel it is part of the detour
//! ([`crate::detour_as`]).

use seawall_wire::tcp::Flags;

use crate::datagram::Datagram;
use crate::decision::Decision;
use crate::family::Family;
use crate::icmp::Subject;
use crate::layout::{Settings, Slot, flag};
use crate::one_way::{self, Way};
use crate::packet::{Network, Packet};
use crate::process::{Change, tell};
use crate::tables::Tables;
use crate::too_big::{self, Limit};
use crate::{Frame, Reason, TcpState};

/// A client's segment, for which [`crate::plan`] has said that it goes on.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "all that there is, and nothing that could be swapped"
)]
pub(crate) fn segment<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    hash: u64,
    index: u32,
    slot: &Slot,
    settings: &Settings,
    ingress: u32,
    tables: &T,
) -> Decision {
    let word = slot.state();
    if word.flags & flag::NO_SERVER != 0 {
        return Decision::drop(Reason::NoServer);
    }
    let Some(next_hop) = tables.next_hop(slot.next_hop_in.load()) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let now = tables.now();
    let way = Way { slot, next_hop, settings, hash };
    let syn = packet.tcp.flags.contains(Flags::SYN) && word.state == TcpState::Established;
    match one_way::forward_as::<V, F>(frame, packet, &way, now) {
        Ok(spliced) => {
            if let Some(state) = spliced.changed {
                tell(frame, tables, ingress, now, &Change { slot, index, state });
            }
            let reason = if syn { Reason::SynEstablished } else { Reason::ForwardIn };
            Decision::send(spliced.interface, reason)
        }
        Err(Reason::MtuExceeded) => {
            let limit = Limit {
                mtu: one_way::room(slot, next_hop),
                from: packet.tuple.destination.address,
                link: packet.link.reversed(),
                interface: ingress,
            };
            too_big::answer::<V, F>(frame, &packet.ip, packet.l3, &limit, settings)
        }
        Err(reason) => Decision::drop(reason),
    }
}

/// A client's datagram.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "all that there is, and nothing that could be swapped"
)]
pub(crate) fn datagram<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    datagram: &Datagram,
    hash: u64,
    slot: &Slot,
    settings: &Settings,
    ingress: u32,
    tables: &T,
    now: u64,
) -> Decision {
    let Some(next_hop) = tables.next_hop(slot.next_hop_in.load()) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let way = Way { slot, next_hop, settings, hash };
    let network = &datagram.network;
    match one_way::forward_datagram_as::<V, F>(frame, network, &way, now) {
        Ok(forwarded) => Decision::send(forwarded.interface, Reason::ForwardIn),
        Err(Reason::MtuExceeded) => {
            let limit = Limit {
                mtu: one_way::room(slot, next_hop),
                from: datagram.tuple.destination.address,
                link: network.link.reversed(),
                interface: ingress,
            };
            too_big::answer::<V, F>(frame, &network.ip, network.l3, &limit, settings)
        }
        Err(reason) => Decision::drop(reason),
    }
}

/// A client's error about what the real server sent it goes the way of the client's segments, as it
/// is (IPVS: `ip_vs_icmp_xmit`).
#[inline(always)]
pub(crate) fn error<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    about: &Subject,
    slot: &Slot,
    settings: &Settings,
    tables: &T,
) -> Decision {
    if !about.may_be_in_flight(slot) {
        return Decision::drop(Reason::IcmpInvalid);
    }
    let Some(next_hop) = tables.next_hop(slot.next_hop_in.load()) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let way = Way { slot, next_hop, settings, hash: about.hash };
    match one_way::carry::<V, F>(frame, network, &way) {
        Ok(interface) => Decision::send(interface, Reason::IcmpIn),
        Err(reason) => Decision::drop(reason),
    }
}
