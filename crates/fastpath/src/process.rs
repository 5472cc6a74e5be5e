//! The decision: what becomes of a frame.

use seawall_wire::ipv4::{self, Protocol};
use seawall_wire::tcp::Flags;

use crate::cookie;
use crate::decision::Decision;
use crate::embryo::{self, Admission};
use crate::layout::{
    AddressEntry, AddressKey, HEARTBEAT_LIMIT_MS, RecordHeader, RecordKind, ServiceEntry,
    ServiceKey, Settings, switch,
};
use crate::options;
use crate::packet::{Network, Packet};
use crate::plan::{self, Owner, Plan};
use crate::splice::splice;
use crate::tables::{Ring, Tables, find};
use crate::{Addr, Direction, Frame, Reason, TcpState, Verdict, synack};

/// Decides about the frame that came in on interface `ingress`, changes it accordingly, and
/// counts the one reason.
#[inline(always)]
pub fn process<F: Frame, T: Tables>(frame: &mut F, ingress: u32, tables: &T) -> Verdict {
    let verdict = decide(frame, ingress, tables).verdict();
    tables.count(verdict.reason);
    verdict
}

/// One return for each thing that a frame can be; see [`crate::decision`].
#[inline(always)]
fn decide<F: Frame, T: Tables>(frame: &mut F, ingress: u32, tables: &T) -> Decision {
    let Some(network) = Network::read(frame) else { return Decision::pass(Reason::PassNotIp) };
    if !network.is_segment() {
        return decide_other(&network.ip, tables);
    }
    match network.segment(frame) {
        Ok(packet) => decide_tcp(frame, &packet, ingress, tables),
        Err(fault) => match tables.address(&AddressKey(Addr::v4(network.ip.destination))) {
            Some(_) => Decision::drop(fault),
            None => Decision::pass(Reason::PassNotOurs),
        },
    }
}

/// Packets that are not whole TCP segments: only the flood policy concerns them (SPEC B2).
#[inline(always)]
fn decide_other<T: Tables>(ip: &ipv4::Header, tables: &T) -> Decision {
    let Some(address) = tables.address(&AddressKey(Addr::v4(ip.destination))) else {
        return Decision::pass(Reason::PassNotOurs);
    };
    let Some(settings) = tables.settings() else { return Decision::pass(Reason::PassNotOurs) };
    let switches = settings.switches.load();
    let vip = address.flags & AddressEntry::VIP != 0;
    let flood = ip.protocol == Protocol::TCP
        || ip.protocol == Protocol::UDP
        || ip.protocol == Protocol::ICMP;
    if vip && ip.is_fragment() && flood && switches & switch::FRAGMENT_DROP != 0 {
        return Decision::drop(Reason::FragmentDrop);
    }
    if vip && ip.protocol == Protocol::UDP && switches & switch::UDP_DROP != 0 {
        return Decision::drop(Reason::UdpDrop);
    }
    Decision::pass(Reason::PassNotOurs)
}

#[inline(always)]
fn decide_tcp<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    ingress: u32,
    tables: &T,
) -> Decision {
    let Some(settings) = tables.settings() else { return Decision::pass(Reason::PassNotOurs) };
    let service = tables.service(&ServiceKey::tcp(packet.tuple.destination));
    let hash = packet.tuple.hash(settings.index_key.get());
    let owner = Owner::new(service, find(tables, settings, &packet.tuple, hash));
    if !owner.is_service && !owner.is_session() {
        return decide_stray(packet, tables);
    }
    if let Err(reason) = packet.check(frame, tables.interface(ingress)) {
        return Decision::drop(reason);
    }
    if !packet.tcp.flags.are_possible() {
        return Decision::drop(Reason::FlagsImpossible);
    }
    let now = tables.now();
    let mut plan = if owner.is_session() {
        let Some(slot) = tables.slot(owner.slot) else {
            return Decision::drop(Reason::NotSetUp);
        };
        plan::of_session(packet, settings, now, &owner, slot)
    } else {
        plan::newcomer(packet, owner.service)
    };
    let mut detail = 0;
    let handshake = embryo::handshake(hash, packet.tcp.ack);
    if let Plan::Accept = plan {
        plan = match admit(frame, packet, settings, tables, handshake, now) {
            Ok(_) if owner.service.has(ServiceEntry::DEFER) && packet.payload() == 0 => {
                Plan::Drop(Reason::NullAck)
            }
            Ok((kind, offer)) => {
                detail = offer;
                Plan::Punt(kind)
            }
            Err(reason) if owner.is_session() => match tables.slot(owner.slot) {
                Some(slot) if plan::is_near(packet, slot) => Plan::Forward,
                _ => Plan::Drop(reason),
            },
            Err(reason) => Plan::Drop(reason),
        };
    }
    match plan {
        Plan::Drop(reason) => Decision::drop(reason),
        Plan::Accept => Decision::drop(Reason::TcpDrop),
        Plan::Answer => answer(frame, packet, settings, owner.service, ingress, now),
        Plan::Punt(kind) => {
            let record = Record { kind, ingress, owner, detail, now };
            let decision = punt(frame, settings, tables, &record);
            // Only now: a client whose ACK was lost here must be able to prove itself again.
            if decision.reason == Reason::Accepted
                && let Some(word) = tables.embryo(handshake)
            {
                embryo::note(word, handshake, now);
            }
            decision
        }
        Plan::Forward => forward(frame, packet, tables, ingress, now, &owner),
    }
}

/// TCP that is for no service and no session: dropped on the ports that sessions use on a local
/// address, and nobody's business otherwise.
#[inline(always)]
fn decide_stray<T: Tables>(packet: &Packet, tables: &T) -> Decision {
    let destination = packet.tuple.destination;
    match tables.address(&AddressKey(destination.address)) {
        Some(entry)
            if entry.flags & AddressEntry::LOCAL != 0
                && destination.port >= entry.port_min
                && destination.port <= entry.port_max =>
        {
            Decision::drop(Reason::LocalNoSession)
        }
        _ => Decision::pass(Reason::PassNotOurs),
    }
}

/// Whether a client that sent this ACK has proved its address, now or a moment ago, and if now,
/// by which offer.
#[inline(always)]
fn admit<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    settings: &Settings,
    tables: &T,
    handshake: u64,
    now: u64,
) -> Result<(RecordKind, u32), Reason> {
    if let Some(word) = tables.embryo(handshake) {
        match embryo::admit(word, handshake, now) {
            Admission::Admitted => return Ok((RecordKind::Embryo, 0)),
            Admission::Limited => return Err(Reason::PuntLimited),
            Admission::Unknown => {}
        }
    }
    let Ok(options) = options::parse(frame, packet) else {
        return Err(Reason::OptionsMalformed);
    };
    let offer = cookie::check(
        settings,
        &packet.tuple,
        packet.tcp.ack.sub(1),
        packet.tcp.seq.sub(1),
        options.timestamps.is_some(),
    );
    let in_time = match options.timestamps {
        Some(timestamps) => cookie::echoes_clock(settings, &packet.tuple, now, timestamps),
        None => true,
    };
    match offer {
        Some(offer) if in_time => Ok((RecordKind::Accepted, offer.to_byte() as u32)),
        _ => Err(Reason::BadAck),
    }
}

#[inline(always)]
fn heart_beats(settings: &Settings, now: u64) -> bool {
    // Signed: the worker may have written a later time since this packet's clock was read.
    now.wrapping_sub(settings.heartbeat.load()) as i64 <= HEARTBEAT_LIMIT_MS as i64
}

#[inline(always)]
fn answer<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    settings: &Settings,
    service: ServiceEntry,
    ingress: u32,
    now: u64,
) -> Decision {
    if !heart_beats(settings, now) {
        return Decision::drop(Reason::HeartbeatStale);
    }
    match synack::answer(frame, packet, settings, service, now) {
        Ok(()) => Decision::send(ingress, Reason::Cookie),
        Err(reason) => Decision::drop(reason),
    }
}

struct Record {
    kind: RecordKind,
    ingress: u32,
    owner: Owner,
    detail: u32,
    now: u64,
}

#[inline(always)]
fn punt<F: Frame, T: Tables>(
    frame: &mut F,
    settings: &Settings,
    tables: &T,
    record: &Record,
) -> Decision {
    let (ring, reason, full) = match record.kind {
        RecordKind::Unproxied => (Ring::Unproven, Reason::PuntUnproxied, Reason::RingFullUnproven),
        RecordKind::Accepted => (Ring::Proven, Reason::Accepted, Reason::RingFullProven),
        RecordKind::Embryo => (Ring::Proven, Reason::Embryo, Reason::RingFullProven),
        RecordKind::FromClient => (Ring::Proven, Reason::PuntClient, Reason::RingFullProven),
        RecordKind::FromRealServer | RecordKind::StateChanged => {
            (Ring::Proven, Reason::PuntRealServer, Reason::RingFullProven)
        }
    };
    let new = match record.kind {
        RecordKind::Unproxied | RecordKind::Accepted | RecordKind::Embryo => true,
        RecordKind::FromClient | RecordKind::FromRealServer | RecordKind::StateChanged => false,
    };
    if new && !heart_beats(settings, record.now) {
        return Decision::drop(Reason::HeartbeatStale);
    }
    let mut header = RecordHeader {
        kind: record.kind as u16,
        frame_len: 0,
        interface: record.ingress,
        service: if new { record.owner.service.id } else { 0 },
        slot: record.owner.slot,
        generation: 0,
        detail: record.detail,
        time: record.now,
    };
    if record.owner.is_session()
        && let Some(slot) = tables.slot(record.owner.slot)
    {
        if !new && slot.punted.fetch_add(1) >= embryo::MAX_PUNTED {
            return Decision::drop(Reason::PuntLimited);
        }
        header.generation = slot.generation.load();
    }
    if tables.punt(ring, &header, frame) { Decision::punt(reason) } else { Decision::drop(full) }
}

#[inline(always)]
fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    ingress: u32,
    now: u64,
    owner: &Owner,
) -> Decision {
    let Some(slot) = tables.slot(owner.slot) else { return Decision::drop(Reason::NotSetUp) };
    let (hop, reason) = match owner.direction {
        Direction::Inbound
            if packet.tcp.flags.contains(Flags::SYN)
                && slot.state().state == TcpState::Established =>
        {
            (slot.next_hop_in.load(), Reason::SynEstablished)
        }
        Direction::Inbound => (slot.next_hop_in.load(), Reason::ForwardIn),
        Direction::Outbound => (slot.next_hop_out.load(), Reason::ForwardOut),
    };
    let Some(next_hop) = tables.next_hop(hop) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let spliced = match splice(frame, packet, owner.direction, slot, next_hop, now) {
        Ok(spliced) => spliced,
        Err(reason) => return Decision::drop(reason),
    };
    if let Some(state) = spliced.changed {
        let header = RecordHeader {
            kind: RecordKind::StateChanged as u16,
            interface: ingress,
            slot: owner.slot,
            generation: slot.generation.load(),
            detail: state as u32,
            time: now,
            ..RecordHeader::default()
        };
        // A hint: when the ring is full the engine finds out when the session's timer fires.
        let _ = tables.punt(Ring::Proven, &header, frame);
    }
    Decision::send(spliced.interface, reason)
}
