//! The decision: what becomes of a frame.

use seawall_wire::ipv4::{self, Protocol};
use seawall_wire::tcp::Flags;

use crate::cookie;
use crate::decision::Decision;
use crate::embryo::{self, Admission};
use crate::layout::{
    AddressEntry, AddressKey, HEARTBEAT_LIMIT_MS, RecordHeader, RecordKind, ServiceEntry,
    ServiceKey, Settings, flag, switch,
};
use crate::options;
use crate::packet::{Network, Packet};
use crate::splice::splice;
use crate::tables::{Hit, Ring, Tables, find};
use crate::{Addr, Direction, Frame, Reason, TcpState, Verdict, synack};

/// How often a SYN on an established session goes to the real server, in milliseconds (SPEC A1).
const SYN_INTERVAL_MS: u64 = 1_000;

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

/// What is to be done with a TCP segment, once it is clear whose it is.
enum Plan<'a> {
    /// This, at once.
    Decided(Decision),
    /// Answer the SYN with a cookie.
    Answer(ServiceEntry),
    /// Take the ACK if its cookie is right. With a session: it is over, and if the cookie is
    /// wrong the segment still belongs to it.
    Accept(ServiceEntry, Option<Hit<'a>>),
    /// Give it to the engine.
    Punt(RecordKind, ServiceEntry, Option<Hit<'a>>),
    /// Translate and send.
    Forward(Hit<'a>),
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
    let hit = find(tables, settings, &packet.tuple, hash);
    if service.is_none() && hit.is_none() {
        return decide_stray(packet, tables);
    }
    if let Err(reason) = packet.check(frame, tables.interface(ingress)) {
        return Decision::drop(reason);
    }
    if !packet.tcp.flags.are_possible() {
        return Decision::drop(Reason::FlagsImpossible);
    }
    let now = tables.now();
    let mut plan = match (hit, service) {
        (Some(hit), service) => plan_session(packet, settings, now, hit, service),
        (None, Some(service)) => plan_newcomer(packet, service),
        (None, None) => Plan::Decided(Decision::pass(Reason::PassNotOurs)),
    };
    let mut detail = 0;
    if let Plan::Accept(service, over) = plan {
        match admit(frame, packet, settings, tables, hash, now) {
            Ok((kind, offer)) => {
                detail = offer;
                plan = if service.has(ServiceEntry::DEFER) && packet.payload() == 0 {
                    Plan::Decided(Decision::drop(Reason::NullAck))
                } else {
                    Plan::Punt(kind, service, over)
                };
            }
            Err(reason) => {
                plan = match over {
                    Some(hit) => Plan::Forward(hit),
                    None => Plan::Decided(Decision::drop(reason)),
                };
            }
        }
    }
    match plan {
        Plan::Decided(decision) => decision,
        Plan::Accept(..) => Decision::drop(Reason::TcpDrop),
        Plan::Answer(service) => answer(frame, packet, settings, service, ingress, now),
        Plan::Punt(kind, service, hit) => {
            if kind == RecordKind::Accepted
                && let Some(word) = tables.embryo(hash)
            {
                embryo::note(word, hash, now);
            }
            punt(frame, settings, tables, &Record { kind, ingress, service, hit, detail, now })
        }
        Plan::Forward(hit) => forward(frame, packet, tables, ingress, now, hit),
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

/// A segment to a service that belongs to no session.
#[inline(always)]
fn plan_newcomer<'a>(packet: &Packet, service: ServiceEntry) -> Plan<'a> {
    let flags = packet.tcp.flags;
    let syn = flags.contains(Flags::SYN);
    let ack = flags.contains(Flags::ACK);
    if syn && !ack {
        return plan_syn(service, None);
    }
    if service.has(ServiceEntry::SYNPROXY) && ack && !syn && !flags.contains(Flags::RST) {
        return Plan::Accept(service, None);
    }
    Plan::Decided(Decision::drop(Reason::TcpDrop))
}

#[inline(always)]
fn plan_syn(service: ServiceEntry, hit: Option<Hit<'_>>) -> Plan<'_> {
    if !service.has(ServiceEntry::USABLE) {
        Plan::Decided(Decision::drop(Reason::NoDestination))
    } else if service.has(ServiceEntry::SYNPROXY) {
        Plan::Answer(service)
    } else {
        Plan::Punt(RecordKind::Unproxied, service, hit)
    }
}

/// A segment that belongs to a session.
#[inline(always)]
fn plan_session<'a>(
    packet: &Packet,
    settings: &Settings,
    now: u64,
    hit: Hit<'a>,
    service: Option<ServiceEntry>,
) -> Plan<'a> {
    let word = hit.slot.state();
    let flags = packet.tcp.flags;
    let syn = flags.contains(Flags::SYN);
    let none = ServiceEntry { id: 0, flags: 0 };
    match hit.direction {
        Direction::Outbound => {
            let handshake =
                syn && (word.flags & flag::PROXIED != 0 || word.state == TcpState::SynRecv);
            if word.state == TcpState::SynSent || handshake {
                return Plan::Punt(RecordKind::FromRealServer, none, Some(hit));
            }
            Plan::Forward(hit)
        }
        Direction::Inbound if syn => match (word.state, service) {
            (TcpState::Established, _) => {
                let last = &hit.slot.inbound.syn_forwarded;
                if now.wrapping_sub(last.load()) < SYN_INTERVAL_MS {
                    return Plan::Decided(Decision::drop(Reason::SynLimited));
                }
                last.store(now);
                Plan::Forward(hit)
            }
            (TcpState::SynRecv, _) => Plan::Forward(hit),
            (_, Some(service)) => plan_syn(service, Some(hit)),
            (_, None) => Plan::Decided(Decision::drop(Reason::TcpDrop)),
        },
        Direction::Inbound => {
            if word.state == TcpState::SynSent {
                return Plan::Punt(RecordKind::FromClient, none, Some(hit));
            }
            let reusable = settings.switches.load() & switch::reuse(word.state) != 0;
            let acks = flags.contains(Flags::ACK) && !flags.contains(Flags::RST);
            match service {
                Some(service)
                    if reusable
                        && acks
                        && service.has(ServiceEntry::SYNPROXY)
                        && packet.tcp.ack.0.wrapping_sub(1) != hit.slot.cookie.load() =>
                {
                    Plan::Accept(service, Some(hit))
                }
                _ => Plan::Forward(hit),
            }
        }
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
    hash: u64,
    now: u64,
) -> Result<(RecordKind, u32), Reason> {
    if let Some(word) = tables.embryo(hash) {
        match embryo::admit(word, hash, now) {
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
    now.wrapping_sub(settings.heartbeat.load()) <= HEARTBEAT_LIMIT_MS
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

struct Record<'a> {
    kind: RecordKind,
    ingress: u32,
    service: ServiceEntry,
    hit: Option<Hit<'a>>,
    detail: u32,
    now: u64,
}

#[inline(always)]
fn punt<F: Frame, T: Tables>(
    frame: &mut F,
    settings: &Settings,
    tables: &T,
    record: &Record<'_>,
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
        service: record.service.id,
        slot: 0,
        generation: 0,
        detail: record.detail,
        time: record.now,
    };
    if let Some(hit) = record.hit {
        if !new && hit.slot.punted.fetch_add(1) >= embryo::MAX_PUNTED {
            return Decision::drop(Reason::PuntLimited);
        }
        header.slot = hit.index;
        header.generation = hit.slot.generation.load();
    }
    if tables.punt(ring, &header, frame) {
        Decision::punt(reason)
    } else {
        Decision::drop(full)
    }
}

#[inline(always)]
fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    ingress: u32,
    now: u64,
    hit: Hit<'_>,
) -> Decision {
    let (hop, reason) = match hit.direction {
        Direction::Inbound => (hit.slot.next_hop_in.load(), Reason::ForwardIn),
        Direction::Outbound => (hit.slot.next_hop_out.load(), Reason::ForwardOut),
    };
    let Some(next_hop) = tables.next_hop(hop) else { return Decision::drop(Reason::NextHopMissing) };
    let spliced = match splice(frame, packet, hit.direction, hit.slot, next_hop, now) {
        Ok(spliced) => spliced,
        Err(reason) => return Decision::drop(reason),
    };
    if let Some(state) = spliced.changed {
        let header = RecordHeader {
            kind: RecordKind::StateChanged as u16,
            interface: ingress,
            slot: hit.index,
            generation: hit.slot.generation.load(),
            detail: state as u32,
            time: now,
            ..RecordHeader::default()
        };
        // A hint: when the ring is full the engine finds out when the session's timer fires.
        let _ = tables.punt(Ring::Proven, &header, frame);
    }
    Decision::send(spliced.interface, reason)
}
