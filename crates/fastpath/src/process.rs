//! The decision: what becomes of a frame.

use seawall_wire::ipv4::Protocol;
use seawall_wire::tcp::Flags;

use crate::decision::Decision;
use crate::embryo::{self, Admission};
use crate::family::{Family, Ip, Shape, V4, V6, Version};
use crate::layout::{
    AddressEntry, AddressKey, HEARTBEAT_LIMIT_MS, RecordHeader, RecordKind, ServiceEntry,
    ServiceKey, Settings, Slot, flag, switch,
};
use crate::packet::{self, Network, Packet};
use crate::plan::{self, Owner, Plan};
use crate::splice::{self, splice_as};
use crate::tables::{Ring, Tables, find};
use crate::{Direction, Endpoint, Frame, Reason, TcpState, Transport, Verdict};
use crate::{cookie, datagram, detour, icmp, options, storm, synack};

/// Decides about the frame that came in on interface `ingress`, changes it accordingly, and
/// counts the one reason.
pub fn process<F: Frame, T: Tables>(frame: &mut F, ingress: u32, tables: &T) -> Verdict {
    match packet::version(frame) {
        Some(Version::V6) => whole::<V6, F, T>(frame, ingress, tables),
        Some(Version::V4) | None => whole::<V4, F, T>(frame, ingress, tables),
    }
}

fn whole<V: Family, F: Frame, T: Tables>(frame: &mut F, ingress: u32, tables: &T) -> Verdict {
    match process_as::<V, F, T>(frame, ingress, tables) {
        Some(verdict) => verdict,
        None => detour::detour_as::<V, F, T>(frame, ingress, tables),
    }
}

/// [`process`] for a frame that is of version `V`, if it is IP at all. `None`: nothing has been
/// changed or counted, and [`detour::detour_as`] decides.
#[inline(always)]
pub fn process_as<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    ingress: u32,
    tables: &T,
) -> Option<Verdict> {
    let verdict = decide::<V, F, T>(frame, ingress, tables).verdict()?;
    tables.count(verdict.reason);
    Some(verdict)
}

/// One return for each thing that a frame can be; see [`crate::decision`].
#[inline(always)]
fn decide<V: Family, F: Frame, T: Tables>(frame: &mut F, ingress: u32, tables: &T) -> Decision {
    let Some(network) = Network::read::<V, F>(frame) else {
        return Decision::pass(Reason::PassNotIp);
    };
    let Some(settings) = tables.settings() else { return Decision::pass(Reason::PassNotOurs) };
    let ip = &network.ip;
    if ip.protocol != Protocol::TCP || ip.shape == Shape::Fragment {
        return Decision::detour();
    }
    match network.segment::<V, F>(frame) {
        Ok(packet) => decide_tcp::<V, F, T>(frame, &packet, ingress, settings, tables),
        Err(fault) => match tables.address(&AddressKey(ip.destination)) {
            Some(_) => Decision::drop(fault),
            None => Decision::pass(Reason::PassNotOurs),
        },
    }
}

/// What is not TCP in one piece: behind the detour, so that TCP does not pay for it.
#[inline(always)]
pub(crate) fn decide_rest<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    ingress: u32,
    settings: &Settings,
    tables: &T,
) -> Decision {
    let ip = &network.ip;
    if network.is_udp() {
        return datagram::decide::<V, F, T>(frame, network, ingress, settings, tables);
    }
    if ip.protocol == V::ICMP && ip.shape != Shape::Fragment {
        return icmp::decide::<V, F, T>(frame, network, ingress, settings, tables);
    }
    decide_other::<V, T>(ip, settings, tables)
}

/// Packets that are neither whole TCP segments or datagrams nor control messages: only the flood
/// policy concerns them (SPEC B2).
#[inline(always)]
fn decide_other<V: Family, T: Tables>(ip: &Ip, settings: &Settings, tables: &T) -> Decision {
    let Some(address) = tables.address(&AddressKey(ip.destination)) else {
        return Decision::pass(Reason::PassNotOurs);
    };
    let switches = settings.switches.load();
    let vip = address.flags & AddressEntry::VIP != 0;
    // A local address has no sessions whose packets could be put together again.
    let local = address.flags & AddressEntry::LOCAL != 0;
    // Routing protocols over IPv4 may fragment as they like (SPEC B4; LVS: OSPF excepted). What a
    // fragment of IPv6 belongs to only the first can say, and not for sure.
    let flood = V::VERSION == Version::V6
        || ip.protocol == Protocol::TCP
        || ip.protocol == Protocol::UDP
        || ip.protocol == Protocol::ICMP;
    match ip.shape {
        Shape::Fragment if flood => {
            if local || vip && switches & switch::FRAGMENT_DROP != 0 {
                return Decision::drop(Reason::FragmentDrop);
            }
        }
        Shape::Extended if V::VERSION == Version::V6 => {
            return Decision::drop(Reason::ExtensionHeader);
        }
        Shape::Fragment | Shape::Extended | Shape::Whole | Shape::Malformed => {}
    }
    if vip && ip.protocol == Protocol::UDP && switches & switch::UDP_DROP != 0 {
        return Decision::drop(Reason::UdpDrop);
    }
    Decision::pass(Reason::PassNotOurs)
}

#[inline(always)]
fn decide_tcp<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    ingress: u32,
    settings: &Settings,
    tables: &T,
) -> Decision {
    let hash = packet.tuple.hash(Transport::Tcp, settings.index_key.get());
    let mut owner = Owner::new(find(tables, settings, Transport::Tcp, &packet.tuple, hash));
    owner.set_service(tables.service(&ServiceKey::tcp(packet.tuple.destination)));
    if !owner.is_service
        && settings.switches.load() & switch::ANY_PORT != 0
        && (!owner.is_session() || owner.direction == Direction::Inbound)
    {
        let key = ServiceKey::any(Transport::Tcp, packet.tuple.destination.address);
        owner.set_service(tables.service(&key));
    }
    if !owner.is_service && !owner.is_session() {
        return decide_stray(packet.tuple.destination, tables);
    }
    if let Err(reason) = packet.check::<V, F>(frame, tables.interface(ingress)) {
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
                Some(slot) if plan::continues(packet, slot) => plan::onward(slot.state()),
                _ => Plan::Drop(reason),
            },
            Err(reason) => Plan::Drop(reason),
        };
    }
    match plan {
        Plan::Drop(reason) => Decision::drop(reason),
        Plan::Accept => Decision::drop(Reason::TcpDrop),
        Plan::Answer => answer::<V, F>(frame, packet, settings, owner.service, ingress, now),
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
        Plan::Forward => forward::<V, F, T>(frame, packet, settings, tables, ingress, now, &owner),
        Plan::OneWay => Decision::detour(),
        Plan::Close => close(frame, tables, ingress, now, &owner),
    }
}

/// What is for no service and no session: dropped on the ports that sessions use on a local
/// address, and nobody's business otherwise.
#[inline(always)]
pub(crate) fn decide_stray<T: Tables>(destination: Endpoint, tables: &T) -> Decision {
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
        now,
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
fn answer<V: Family, F: Frame>(
    frame: &mut F,
    packet: &Packet,
    settings: &Settings,
    service: ServiceEntry,
    ingress: u32,
    now: u64,
) -> Decision {
    if !heart_beats(settings, now) {
        return Decision::drop(Reason::SynHeartbeat);
    }
    match synack::answer::<V, F>(frame, packet, settings, service, now) {
        Ok(()) => Decision::send(ingress, Reason::Cookie),
        Err(reason) => Decision::drop(reason),
    }
}

/// What goes up a ring, but for the frame.
pub(crate) struct Record {
    pub(crate) kind: RecordKind,
    pub(crate) ingress: u32,
    pub(crate) owner: Owner,
    pub(crate) detail: u32,
    pub(crate) now: u64,
}

#[inline(always)]
pub(crate) fn punt<F: Frame, T: Tables>(
    frame: &mut F,
    settings: &Settings,
    tables: &T,
    record: &Record,
) -> Decision {
    let (ring, reason, full) = match record.kind {
        RecordKind::Unproxied | RecordKind::FromUnproxied => {
            (Ring::Unproven, Reason::PuntUnproxied, Reason::RingFullUnproven)
        }
        RecordKind::Datagram => (Ring::Unproven, Reason::PuntDatagram, Reason::RingFullUnproven),
        RecordKind::Accepted => (Ring::Proven, Reason::Accepted, Reason::RingFullProven),
        RecordKind::Embryo => (Ring::Proven, Reason::Embryo, Reason::RingFullProven),
        RecordKind::FromClient => (Ring::Proven, Reason::PuntClient, Reason::RingFullProven),
        RecordKind::FromRealServer | RecordKind::StateChanged => {
            (Ring::Proven, Reason::PuntRealServer, Reason::RingFullProven)
        }
    };
    let new = match record.kind {
        RecordKind::Unproxied
        | RecordKind::Datagram
        | RecordKind::Accepted
        | RecordKind::Embryo => true,
        RecordKind::FromClient
        | RecordKind::FromRealServer
        | RecordKind::FromUnproxied
        | RecordKind::StateChanged => false,
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
        if !new && slot.flow(record.owner.direction).punted.fetch_add(1) >= embryo::MAX_PUNTED {
            return Decision::drop(Reason::PuntLimited);
        }
        header.generation = slot.generation.load();
    }
    if tables.punt(ring, &header, frame) { Decision::punt(reason) } else { Decision::drop(full) }
}

#[inline(always)]
fn forward<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    settings: &Settings,
    tables: &T,
    ingress: u32,
    now: u64,
    owner: &Owner,
) -> Decision {
    let Some(slot) = tables.slot(owner.slot) else { return Decision::drop(Reason::NotSetUp) };
    let word = slot.state();
    if owner.direction == Direction::Inbound && word.flags & flag::NO_SERVER != 0 {
        return Decision::drop(Reason::NoServer);
    }
    let threshold = settings.ack_storm_threshold.load();
    if storm::is_one_too_many(frame, packet, owner.direction, slot, threshold, now) {
        return Decision::drop(Reason::AckStorm);
    }
    let (hop, reason) = match owner.direction {
        Direction::Inbound
            if packet.tcp.flags.contains(Flags::SYN) && word.state == TcpState::Established =>
        {
            (slot.next_hop_in.load(), Reason::SynEstablished)
        }
        Direction::Inbound => (slot.next_hop_in.load(), Reason::ForwardIn),
        Direction::Outbound => (slot.next_hop_out.load(), Reason::ForwardOut),
    };
    let Some(next_hop) = tables.next_hop(hop) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let spliced = match splice_as::<V, F>(frame, packet, owner.direction, slot, next_hop, now) {
        Ok(spliced) => spliced,
        // Found out before anything has changed.
        Err(Reason::MtuExceeded) => return Decision::detour(),
        Err(reason) => return Decision::drop(reason),
    };
    if let Some(state) = spliced.changed {
        tell(frame, tables, ingress, now, &Change { slot, index: owner.slot, state });
    }
    Decision::send(spliced.interface, reason)
}

/// The real server refuses a SYN on a session that the client has given up: neither of them knows
/// it any more. The refusal stays here, so that the client's next SYN starts anew.
#[inline(always)]
fn close<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ingress: u32,
    now: u64,
    owner: &Owner,
) -> Decision {
    let Some(slot) = tables.slot(owner.slot) else { return Decision::drop(Reason::NotSetUp) };
    if splice::close(slot) {
        let state = TcpState::Close;
        tell(frame, tables, ingress, now, &Change { slot, index: owner.slot, state });
    }
    Decision::drop(Reason::RsForgot)
}

/// A state that a session has just taken.
pub(crate) struct Change<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) index: u32,
    pub(crate) state: TcpState,
}

#[inline(always)]
pub(crate) fn tell<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ingress: u32,
    now: u64,
    change: &Change<'_>,
) {
    let header = RecordHeader {
        kind: RecordKind::StateChanged as u16,
        interface: ingress,
        slot: change.index,
        generation: change.slot.generation.load(),
        detail: change.state as u32,
        time: now,
        ..RecordHeader::default()
    };
    // A hint: when the ring is full the engine finds out when the session's timer fires.
    let _ = tables.punt(Ring::Proven, &header, frame);
}
