//! The engine: what it holds, how records reach their handler, how sessions begin and end.

use std::collections::VecDeque;

use seawall_fastpath::cookie::Offer;
use seawall_fastpath::layout::{
    COOKIE_KEYS, Ends, RecordHeader, RecordKind, Scales, ServiceEntry, Slot, Word, switch,
};
use seawall_fastpath::native::{Buffer, Memory};
use seawall_fastpath::packet::{Network, Packet};
use seawall_fastpath::segment::{self, Link, Segment, SynOptions};
use seawall_fastpath::siphash::Key;
use seawall_fastpath::splice::splice;
use seawall_fastpath::{Addr, Direction, Endpoint, TcpState, Tuple};
use seawall_wire::SeqNumber;
use seawall_wire::ethernet::MacAddr;
use seawall_wire::tcp::Flags;

use crate::counters::{Counter, Counters};
use crate::desired::{Config, Desired, Forwarding, RealServerSpec, Secrets, ServiceSpec};
use crate::handshake::Handshake;
use crate::next_hops::{Gateway, Interface, NextHops};
use crate::outbox::{MAX_FRAME, Outbox};
use crate::ports::Ports;
use crate::scheduler::{Candidate, Scheduler};
use crate::table::{Found, Table};
use crate::wheel::Wheel;

/// What the engine asks of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Ask the kernel to resolve this neighbour; answer with [`Engine::set_neighbour`].
    Resolve(Gateway),
    /// What [`Engine::service_entry`] gives for this service has changed.
    ServiceChanged(u32),
}

/// Requests that wait at once; more are made again by the next connection.
const MAX_REQUESTS: usize = 1024;

/// Packets, bytes and connections of finished sessions (IPVS: `ip_vs_kstats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
        self.out_packets += other.out_packets;
        self.out_bytes += other.out_bytes;
    }
}

/// A real server as it is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerReport {
    /// What was asked for.
    pub spec: RealServerSpec,
    /// Established sessions.
    pub active: u32,
    /// Other sessions.
    pub inactive: u32,
    /// Packets and bytes.
    pub totals: Totals,
}

/// A service as it is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceReport {
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Its real servers.
    pub servers: Vec<ServerReport>,
    /// Packets and bytes over all of them.
    pub totals: Totals,
}

/// A session as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionReport {
    /// Its four ends.
    pub ends: Ends,
    /// Its state.
    pub state: TcpState,
    /// How packets reach its real server.
    pub forwarding: Forwarding,
    /// Milliseconds since its last packet.
    pub idle: u64,
    /// Milliseconds until it expires if nothing more comes.
    pub expires: u64,
    /// Its packets and bytes.
    pub totals: Totals,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) spec: RealServerSpec,
    active: u32,
    inactive: u32,
    totals: Totals,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    scheduler: Box<dyn Scheduler>,
    pub(crate) servers: Vec<Server>,
    candidates: Vec<Candidate>,
    /// Options that a real server has refused: `ServiceEntry::NO_*`.
    pub(crate) refused: u32,
}

/// What the engine knows of a session beside its slot.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) service: u32,
    pub(crate) server: u32,
    counted: Counted,
    /// Counts towards the share of services without the proxy.
    pub(crate) unproven: bool,
    pub(crate) handshake: Option<Box<Handshake>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Counted {
    #[default]
    Not,
    Inactive,
    Active,
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Engine<M> {
    pub(crate) config: Config,
    pub(crate) isn_key: Key,
    pub(crate) table: Table<M>,
    pub(crate) services: Vec<Service>,
    pub(crate) pools: Vec<Ports>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) next_hops: NextHops,
    pub(crate) wheel: Wheel,
    pub(crate) outbox: Outbox,
    requests: VecDeque<Request>,
    counters: Counters,
    /// Bytes in the early-data stores of all sessions.
    pub(crate) early_bytes: usize,
    /// Sessions of services without the proxy that no client has confirmed.
    pub(crate) unproven: u32,
    /// Sessions that wait for a neighbour's MAC.
    pub(crate) waiting: Vec<(u32, u32)>,
}

/// A segment that came up a ring.
pub(crate) struct Arrived<'a> {
    pub(crate) packet: Packet,
    pub(crate) frame: &'a [u8],
    pub(crate) interface: u32,
    pub(crate) service: u32,
    pub(crate) detail: u32,
    pub(crate) found: Option<Found>,
}

/// What a new session starts with.
pub(crate) struct Opening {
    pub(crate) service: u32,
    pub(crate) server: u32,
    pub(crate) ends: Ends,
    pub(crate) next_hop_out: u32,
    pub(crate) cookie: SeqNumber,
    pub(crate) client_isn: SeqNumber,
    pub(crate) f: u32,
    pub(crate) ts_in: u32,
    pub(crate) scales: Scales,
    pub(crate) word: Word,
}

/// What our own segment to a real server or client says; the rest follows from the session.
pub(crate) struct Says {
    pub(crate) flags: Flags,
    pub(crate) seq: SeqNumber,
    pub(crate) ack: SeqNumber,
    pub(crate) window: u16,
    pub(crate) syn: Option<SynOptions>,
    pub(crate) timestamps: Option<seawall_fastpath::options::Timestamps>,
}

impl Says {
    /// A reset.
    pub(crate) const fn reset(seq: SeqNumber) -> Self {
        let (ack, flags) = (SeqNumber(0), Flags::RST);
        Self { flags, seq, ack, window: 0, syn: None, timestamps: None }
    }
}

impl<M: Memory> Engine<M> {
    /// An engine for `desired` around `memory`, at time `now`. Sets the settings and keys in
    /// `memory`; the packet path must not run yet.
    pub fn new(memory: M, config: Config, desired: Desired, secrets: &Secrets, now: u64) -> Self {
        let settings = memory.settings();
        settings.index_key.set(secrets.index);
        settings.timestamp_key.set(secrets.timestamp);
        for key in &settings.cookie_keys {
            key.set(secrets.cookie);
        }
        settings.switches.store(config.switches);
        settings.init_mss.store(u32::from(config.init_mss));
        settings.window_scale.store(u32::from(config.window_scale));
        settings.ttl.store(u32::from(config.ttl));
        settings.early_data.store(u32::try_from(config.store.bytes).unwrap_or(u32::MAX));
        settings.timestamp_offset.store(config.timestamp_offset);
        settings.bucket_mask.store(memory.index().len() as u32 - 2);
        settings.heartbeat.store(now);
        let slots = memory.slots().len();
        Self {
            config,
            isn_key: secrets.isn,
            table: Table::new(memory),
            services: desired.services.into_iter().map(Service::new).collect(),
            pools: desired.pools.into_iter().map(Ports::new).collect(),
            sessions: (0..slots).map(|_| Session::default()).collect(),
            next_hops: NextHops::default(),
            wheel: Wheel::new(slots, now),
            outbox: Outbox::default(),
            requests: VecDeque::new(),
            counters: Counters::new(),
            early_bytes: 0,
            unproven: 0,
            waiting: Vec::new(),
        }
    }

    /// Bytes that the engine keeps for each session, live or not, without early data.
    #[must_use]
    pub const fn bytes_per_session() -> usize {
        size_of::<Session>() + size_of::<Handshake>() + Wheel::BYTES_PER_TIMER + 16
    }

    /// Where a service is.
    #[must_use]
    pub fn service_address(&self, service: u32) -> Option<Endpoint> {
        self.services.get(service as usize).map(|service| service.spec.address)
    }

    /// What the packet path must know of a service.
    #[must_use]
    pub fn service_entry(&self, service: u32) -> Option<ServiceEntry> {
        let found = self.services.get(service as usize)?;
        let mut flags = found.refused;
        if found.spec.synproxy {
            flags |= ServiceEntry::SYNPROXY;
        }
        if found.spec.defer {
            flags |= ServiceEntry::DEFER;
        }
        if found.servers.iter().any(|server| server.spec.weight > 0) {
            flags |= ServiceEntry::USABLE;
        }
        Some(ServiceEntry { id: service, flags })
    }

    /// Sets what interface `index` is. Before the first frame from it, and when it changes.
    pub fn set_interface(&mut self, index: u32, interface: Interface) {
        self.next_hops.set_interface(self.table.memory().next_hops(), index, interface);
    }

    /// The next hop towards `gateway`, for [`RealServerSpec::next_hop`]; `None` if its
    /// interface is not set or the table is full.
    pub fn next_hop(&mut self, gateway: Gateway) -> Option<u32> {
        self.next_hops.gateway(self.table.memory().next_hops(), gateway)
    }

    /// Sends real server `server` of `service` by another next hop from now on.
    pub fn set_route(&mut self, service: u32, server: u32, next_hop: u32) {
        let found = self.services.get_mut(service as usize);
        if let Some(server) = found.and_then(|found| found.servers.get_mut(server as usize)) {
            server.spec.next_hop = next_hop;
        }
    }

    /// Takes note of a neighbour's MAC, and sends what waited for it.
    pub fn set_neighbour(&mut self, now: u64, gateway: Gateway, mac: MacAddr) {
        let Some(index) = self.next_hops.existing(gateway) else { return };
        if let Some(hop) = self.table.memory().next_hops().get(index as usize) {
            hop.set_destination(Some(mac));
        }
        for (session, generation) in std::mem::take(&mut self.waiting) {
            if self.generation(session) == Some(generation) {
                self.send_syn(now, session);
            }
        }
    }

    /// The gateways in use and whether their MAC is known.
    pub fn gateways(&self) -> impl Iterator<Item = (Gateway, bool)> {
        let hops = self.table.memory().next_hops();
        self.next_hops.gateways().map(move |(gateway, index)| {
            (gateway, hops.get(index as usize).is_some_and(|hop| hop.destination().is_some()))
        })
    }

    /// Starts the next cookie epoch with `key`. Cookies of the current one stay valid.
    pub fn handle_epoch(&mut self, key: Key) {
        let settings = self.table.settings();
        let next = settings.epoch.load().wrapping_add(1);
        if let Some(cell) = settings.cookie_keys.get(next as usize % COOKIE_KEYS) {
            cell.set(key);
        }
        settings.epoch.publish(next);
    }

    /// Tells the packet path that somebody takes what it punts.
    pub fn handle_heartbeat(&mut self, now: u64) {
        self.table.settings().heartbeat.store(now);
    }

    /// Takes a record from a ring.
    pub fn handle_record(&mut self, now: u64, header: &RecordHeader, frame: &[u8]) {
        let Some(kind) = RecordKind::from_bits(header.kind) else {
            return self.count(Counter::RecordInvalid);
        };
        if kind == RecordKind::StateChanged {
            if self.generation(header.slot) == Some(header.generation) {
                self.state_changed(now, header.slot);
            }
            return;
        }
        let Some(packet) = parse(frame) else { return self.count(Counter::RecordInvalid) };
        let arrived = Arrived {
            packet,
            frame,
            interface: header.interface,
            service: header.service,
            detail: header.detail,
            found: self.table.find(&packet.tuple),
        };
        match kind {
            RecordKind::Accepted => self.handle_accepted(now, &arrived),
            RecordKind::Embryo | RecordKind::FromClient => self.handle_client(now, &arrived),
            RecordKind::FromRealServer => self.handle_real_server(now, &arrived),
            RecordKind::Unproxied => self.handle_unproxied(now, &arrived),
            RecordKind::StateChanged => {}
        }
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: u64) {
        while let Some(session) = self.wheel.pop_due(now) {
            let Some(slot) = self.table.slot(session) else { continue };
            let state = slot.state().state;
            if state == TcpState::SynSent {
                self.handshake_timeout(now, session);
                continue;
            }
            let deadline = self.deadline(slot, state);
            if deadline <= now {
                self.count(Counter::Expired);
                self.retire(now, session);
            } else {
                self.wheel.arm(session, deadline);
            }
        }
    }

    /// When [`Engine::handle_timeout`] is next wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.wheel.next_deadline()
    }

    /// Gives every frame that is to be sent to `send`, with the interface it leaves by.
    pub fn take_frames(&mut self, send: impl FnMut(u32, &[u8])) {
        self.outbox.drain(send);
    }

    /// The next request to the world.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The value of `counter`.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }

    /// Live sessions, by slot, from slot `from` on, at most `limit`.
    pub fn sessions(&self, now: u64, from: u32, limit: usize) -> Vec<(u32, SessionReport)> {
        let live = (from..self.sessions.len() as u32).filter_map(|index| {
            let slot = self.table.slot(index)?;
            let state = slot.state().state;
            let session = self.sessions.get(index as usize)?;
            if state == TcpState::None || session.counted == Counted::Not {
                return None;
            }
            let expires = self.deadline(slot, state);
            let report = SessionReport {
                ends: slot.ends(),
                state,
                forwarding: self.server(session.service, session.server)?.forwarding,
                idle: (now + self.config.timeouts.get(state)).saturating_sub(expires),
                expires: expires.saturating_sub(now),
                totals: totals_of(slot),
            };
            Some((index, report))
        });
        live.take(limit).collect()
    }

    /// Number of live sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        let servers = self.services.iter().flat_map(|service| &service.servers);
        servers.map(|server| (server.active + server.inactive) as usize).sum()
    }

    /// Bytes that the early-data stores of all sessions hold (SPEC A8).
    #[must_use]
    pub const fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    /// Every service as it is doing; looks at every live session.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceReport> {
        let mut reports: Vec<_> = self.services.iter().map(Service::report).collect();
        for (index, session) in self.sessions.iter().enumerate() {
            if session.counted == Counted::Not {
                continue;
            }
            let Some(slot) = self.table.slot(index as u32) else { continue };
            let server = reports
                .get_mut(session.service as usize)
                .and_then(|report| report.servers.get_mut(session.server as usize));
            if let Some(server) = server {
                server.totals.add(&totals_of(slot));
            }
        }
        for report in &mut reports {
            for server in &report.servers {
                report.totals.add(&server.totals);
            }
        }
        reports
    }

    pub(crate) fn count(&mut self, counter: Counter) {
        self.counters.add(counter);
    }

    pub(crate) fn request(&mut self, request: Request) {
        if self.requests.len() < MAX_REQUESTS && !self.requests.contains(&request) {
            self.requests.push_back(request);
        }
    }

    pub(crate) fn generation(&self, session: u32) -> Option<u32> {
        self.table.slot(session).map(|slot| slot.generation.load())
    }

    /// Chooses a real server of `service`, never `excluded`.
    pub(crate) fn schedule(&mut self, service: u32, excluded: Option<u32>) -> Option<u32> {
        let service = self.services.get_mut(service as usize)?;
        for (at, (candidate, server)) in
            service.candidates.iter_mut().zip(&service.servers).enumerate()
        {
            candidate.weight = server.spec.weight;
            candidate.excluded = excluded == Some(at as u32);
        }
        service.scheduler.schedule(&service.candidates).map(|at| at as u32)
    }

    /// The real server's spec.
    pub(crate) fn server(&self, service: u32, server: u32) -> Option<RealServerSpec> {
        self.services
            .get(service as usize)
            .and_then(|found| found.servers.get(server as usize))
            .map(|server| server.spec)
    }

    /// What the real server will see as the client of a new connection.
    pub(crate) fn local_end(
        &mut self,
        service: u32,
        spec: &RealServerSpec,
        client: Endpoint,
    ) -> Result<Endpoint, Counter> {
        let real = spec.address;
        let table = &self.table;
        let is_free = |local| table.find(&Tuple { source: real, destination: local }).is_none();
        match spec.forwarding {
            Forwarding::Nat if is_free(client) => Ok(client),
            Forwarding::Nat => Err(Counter::Conflict),
            Forwarding::FullNat => {
                let pool = self.services.get(service as usize).and_then(|found| found.spec.pool);
                let ports = pool.and_then(|pool| self.pools.get_mut(pool));
                ports.and_then(|ports| ports.allocate(is_free)).ok_or(Counter::PortsExhausted)
            }
        }
    }

    /// Our ISN towards a real server: a clock of 4 microseconds plus a keyed hash of the tuple,
    /// so that it only grows for a tuple (RFC 6528, section 3).
    pub(crate) fn isn(&self, tuple: &Tuple, now: u64) -> SeqNumber {
        let offset = tuple.mac(self.isn_key, [0; 3]) as u32;
        SeqNumber((now as u32).wrapping_mul(250).wrapping_add(offset))
    }

    /// The timestamp clock of a local address (SPEC A7, C6).
    pub(crate) fn local_clock(&self, local: Addr, now: u64) -> u32 {
        let endpoint = Endpoint { address: local, port: 0 };
        let tuple = Tuple { source: endpoint, destination: endpoint };
        let offset = tuple.mac(self.isn_key, [1, 0, 0]) as u32;
        (now.wrapping_add(self.config.timestamp_offset) as u32).wrapping_add(offset)
    }

    /// Takes a slot, fills it and publishes it.
    pub(crate) fn open(&mut self, now: u64, opening: &Opening) -> Result<u32, Counter> {
        let hop = self.server(opening.service, opening.server).map(|spec| spec.next_hop);
        let Some(index) = self.table.allocate(now) else { return Err(Counter::Exceeded) };
        let Some(slot) = self.table.slot(index) else { return Err(Counter::Exceeded) };
        slot.set_ends(&opening.ends);
        slot.punted.store(0);
        slot.f.store(opening.f);
        slot.ts_in.store(opening.ts_in);
        slot.ts_out.store(0);
        slot.scales.store(opening.scales.to_bits());
        slot.next_hop_in.store(hop.unwrap_or_default());
        slot.next_hop_out.store(opening.next_hop_out);
        slot.service.store(opening.service);
        slot.real_server.store(opening.server);
        slot.cookie.store(opening.cookie.0);
        slot.client_isn.store(opening.client_isn.0);
        for flow in [&slot.inbound, &slot.outbound] {
            flow.packets.store(0);
            flow.bytes.store(0);
            flow.last_seen.store(now);
            flow.syn_forwarded.store(0);
            flow.window.store(0);
        }
        slot.inbound.ack.store(opening.cookie.add(1).0);
        slot.outbound.ack.store(opening.client_isn.add(1).0);
        slot.word.publish(opening.word.to_bits());
        let (inbound, outbound) = (opening.ends.inbound(), opening.ends.outbound());
        if !self.table.insert(&inbound, index, Direction::Inbound) {
            self.table.release(index, now);
            return Err(Counter::IndexFull);
        }
        if !self.table.insert(&outbound, index, Direction::Outbound) {
            self.table.remove(&inbound, index, Direction::Inbound);
            self.table.release(index, now);
            return Err(Counter::IndexFull);
        }
        if let Some(session) = self.sessions.get_mut(index as usize) {
            *session =
                Session { service: opening.service, server: opening.server, ..Session::default() };
        }
        self.count_as(index, Counted::Inactive);
        self.tally(index, &Totals { connections: 1, ..Totals::default() });
        self.count(Counter::Opened);
        Ok(index)
    }

    /// Ends a session: its entries, its counts, its timer, its handshake.
    pub(crate) fn retire(&mut self, now: u64, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let (ends, totals) = (slot.ends(), totals_of(slot));
        self.table.remove(&ends.inbound(), index, Direction::Inbound);
        self.table.remove(&ends.outbound(), index, Direction::Outbound);
        self.tally(index, &totals);
        self.count_as(index, Counted::Not);
        self.end_handshake(index);
        self.confirm(index);
        self.wheel.cancel(index);
        self.table.release(index, now);
    }

    /// A session no longer counts towards the share of services without the proxy.
    fn confirm(&mut self, index: u32) {
        if let Some(session) = self.sessions.get_mut(index as usize)
            && std::mem::take(&mut session.unproven)
        {
            self.unproven = self.unproven.saturating_sub(1);
        }
    }

    /// Follows a session into the state that its slot is in.
    pub(crate) fn state_changed(&mut self, now: u64, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let state = slot.state().state;
        if state == TcpState::None || state == TcpState::SynSent {
            return;
        }
        if state == TcpState::Established {
            self.confirm(index);
            self.count_as(index, Counted::Active);
        } else {
            self.count_as(index, Counted::Inactive);
        }
        self.wheel.arm(index, now + self.config.timeouts.get(state));
    }

    /// Sends a segment of a session on its way, translated, as the packet path would have.
    pub(crate) fn pass_on(&mut self, now: u64, found: Found, frame: &[u8]) {
        let mut bytes = [0u8; MAX_FRAME];
        let Some((mut buffer, packet)) = copy(&mut bytes, frame) else {
            return self.count(Counter::RecordInvalid);
        };
        let memory = self.table.memory();
        let Some(slot) = memory.slots().get(found.index as usize) else { return };
        let hop = match found.direction {
            Direction::Inbound => slot.next_hop_in.load(),
            Direction::Outbound => slot.next_hop_out.load(),
        };
        let spliced = memory
            .next_hops()
            .get(hop as usize)
            .and_then(|hop| splice(&mut buffer, &packet, found.direction, slot, hop, now).ok());
        let Some(spliced) = spliced else { return self.count(Counter::PassOnFailed) };
        if self.outbox.push(spliced.interface, buffer.bytes()) {
            self.count(Counter::PassedOn);
        } else {
            self.count(Counter::PassOnFailed);
        }
        if spliced.changed.is_some() {
            self.state_changed(now, found.index);
        }
    }

    /// Sends a segment of our own on behalf of one end of a session to the other.
    pub(crate) fn say(&mut self, index: u32, direction: Direction, says: &Says) -> bool {
        let memory = self.table.memory();
        let Some(slot) = memory.slots().get(index as usize) else { return false };
        let hop = match direction {
            Direction::Inbound => slot.next_hop_in.load(),
            Direction::Outbound => slot.next_hop_out.load(),
        };
        let Some(hop) = memory.next_hops().get(hop as usize) else { return false };
        let Some(destination) = hop.destination() else { return false };
        let link = Link { source: hop.source(), destination };
        let (tuple, interface) = (slot.translated(direction), hop.interface.load());
        self.say_to(interface, link, tuple, says)
    }

    /// Answers a segment that has no session with a reset (RFC 9293, section 3.10.7.1).
    pub(crate) fn refuse(&mut self, arrived: &Arrived<'_>) {
        let Packet { ethernet, tcp, tuple, .. } = &arrived.packet;
        let link = Link { source: ethernet.destination, destination: ethernet.source };
        let tuple = Tuple { source: tuple.destination, destination: tuple.source };
        let says = if tcp.flags.contains(Flags::ACK) {
            Says::reset(tcp.ack)
        } else {
            Says {
                flags: Flags::RST.with(Flags::ACK),
                ack: tcp.seq.add(arrived.packet.sequence_len()),
                ..Says::reset(SeqNumber(0))
            }
        };
        self.say_to(arrived.interface, link, tuple, &says);
    }

    fn say_to(&mut self, interface: u32, link: Link, tuple: Tuple, says: &Says) -> bool {
        let mut bytes = [0u8; 128];
        let mut buffer = Buffer::new(&mut bytes, 0);
        let segment = Segment {
            link,
            tuple,
            seq: says.seq,
            ack: says.ack,
            flags: says.flags,
            window: says.window,
            ttl: self.config.ttl,
            syn: says.syn,
            timestamps: says.timestamps,
        };
        segment::write(&mut buffer, &segment).is_some()
            && self.outbox.push(interface, buffer.bytes())
    }

    /// Whether a session in `state` may make room for a new one of the same tuple.
    pub(crate) const fn is_reusable(&self, state: TcpState) -> bool {
        self.config.switches & switch::reuse(state) != 0
    }

    fn deadline(&self, slot: &Slot, state: TcpState) -> u64 {
        let last = slot.inbound.last_seen.load().max(slot.outbound.last_seen.load());
        last + self.config.timeouts.get(state)
    }

    fn count_as(&mut self, index: u32, to: Counted) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let from = std::mem::replace(&mut session.counted, to);
        let server = self
            .services
            .get_mut(session.service as usize)
            .and_then(|service| service.servers.get_mut(session.server as usize));
        let Some(server) = server else { return };
        match from {
            Counted::Not => {}
            Counted::Inactive => server.inactive = server.inactive.saturating_sub(1),
            Counted::Active => server.active = server.active.saturating_sub(1),
        }
        match to {
            Counted::Not => {}
            Counted::Inactive => server.inactive += 1,
            Counted::Active => server.active += 1,
        }
    }

    /// Moves a session to another real server of its service.
    pub(crate) fn move_to(&mut self, index: u32, server: u32) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let counted = session.counted;
        self.count_as(index, Counted::Not);
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.server = server;
        }
        self.count_as(index, counted);
        self.tally(index, &Totals { connections: 1, ..Totals::default() });
    }

    fn tally(&mut self, index: u32, totals: &Totals) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let server = self
            .services
            .get_mut(session.service as usize)
            .and_then(|service| service.servers.get_mut(session.server as usize));
        if let Some(server) = server {
            server.totals.add(totals);
        }
    }
}

impl Service {
    fn new(spec: ServiceSpec) -> Self {
        let servers: Vec<_> = spec
            .real_servers
            .iter()
            .map(|spec| Server { spec: *spec, active: 0, inactive: 0, totals: Totals::default() })
            .collect();
        let candidates = vec![Candidate { weight: 0, excluded: false }; servers.len()];
        Self { scheduler: spec.scheduler.build(), spec, servers, candidates, refused: 0 }
    }

    fn report(&self) -> ServiceReport {
        let servers = self.servers.iter().map(|server| ServerReport {
            spec: server.spec,
            active: server.active,
            inactive: server.inactive,
            totals: server.totals,
        });
        let (spec, servers) = (self.spec.clone(), servers.collect());
        ServiceReport { spec, servers, totals: Totals::default() }
    }
}

fn totals_of(slot: &Slot) -> Totals {
    Totals {
        connections: 0,
        in_packets: slot.inbound.packets.load(),
        in_bytes: slot.inbound.bytes.load(),
        out_packets: slot.outbound.packets.load(),
        out_bytes: slot.outbound.bytes.load(),
    }
}

/// The offer that an accepted ACK's record carries.
pub(crate) const fn offer(detail: u32) -> Offer {
    Offer::from_byte(detail as u8)
}

/// `frame` in a buffer with room to grow, and its headers if it is a TCP segment whose lengths
/// hold.
pub(crate) fn copy<'b>(bytes: &'b mut [u8], frame: &[u8]) -> Option<(Buffer<'b>, Packet)> {
    bytes.get_mut(..frame.len())?.copy_from_slice(frame);
    let mut buffer = Buffer::new(bytes, frame.len());
    let packet = read(&mut buffer, frame.len())?;
    Some((buffer, packet))
}

fn parse(frame: &[u8]) -> Option<Packet> {
    // The headers that are read end before this.
    let mut bytes = [0u8; 128];
    let head = frame.get(..frame.len().min(bytes.len()))?;
    bytes.get_mut(..head.len())?.copy_from_slice(head);
    read(&mut Buffer::new(&mut bytes, head.len()), frame.len())
}

fn read(buffer: &mut Buffer<'_>, len: usize) -> Option<Packet> {
    let network = Network::read(buffer)?;
    let packet = if network.is_segment() { network.segment(buffer).ok()? } else { return None };
    packet.lengths_hold(len).ok().map(|()| packet)
}
