//! The engine: what it holds, how records reach their handler, how sessions begin and end.

use std::collections::{HashMap, HashSet, VecDeque};

use seawall_fastpath::cell::Cell64;
use seawall_fastpath::cookie::{EPOCH_MS, Offer};
use seawall_fastpath::layout::{
    Ends, Kept, RecordHeader, RecordKind, Scales, ServiceEntry, ServiceKey, Word, flag, switch,
};
use seawall_fastpath::native::Memory;
use seawall_fastpath::packet::Packet;
use seawall_fastpath::siphash::Key;
use seawall_fastpath::{Addr, Direction, Endpoint, TcpState, Transport, Tuple};
use seawall_wire::SeqNumber;
use seawall_wire::ethernet::MacAddr;

use crate::accounts::{Counted, Service, Totals, totals_of};
use crate::change::change_flag;
use crate::counters::Counter;
use crate::desired::{
    Config, Desired, Forwarding, Introduction, LocalPool, RealServerSpec, Secrets,
};
use crate::epoch::Epoch;
use crate::handshake::Handshake;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::next_hops::{Gateway, Interface, NextHops, Sender};
use crate::outbox::Outbox;
use crate::ports::Ports;
use crate::preface::Preface;
use crate::send::parse;
use crate::statistics::Scan;
use crate::table::{Found, Table};
use crate::templates::Templates;
use crate::udp::AnswerKey;
use crate::wheel::Wheel;

/// What the engine asks of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Ask the kernel to resolve this neighbour; answer with [`Engine::set_neighbour`].
    Resolve(Gateway),
    /// What [`Engine::service_entry`] gives for this service has changed.
    ServiceChanged(u32),
}

/// Frames that one timer sends at most: a reset to each end, or one and a SYN.
const FRAMES_PER_TIMER: usize = 2;

/// Requests to resolve that wait at once; more are made again by the next connection.
const MAX_REQUESTS: usize = 1024;

/// What the engine knows of a session beside its slot.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) service: u32,
    pub(crate) server: u32,
    pub(crate) counted: Counted,
    pub(crate) transport: Transport,
    /// Counts towards the share of services without the proxy, or that of unconfirmed UDP.
    pub(crate) unproven: bool,
    /// When the client was last allowed to punt anew for what its real server said, in seconds.
    pub(crate) refilled: u32,
    /// Only for the answers to datagrams that are scheduled one by one.
    pub(crate) one_packet: bool,
    /// The template that it was made by.
    pub(crate) template: Option<u32>,
    /// What of its traffic its real server's totals have.
    pub(crate) folded: Totals,
    /// Its real server answers its client itself.
    pub(crate) one_way: bool,
    pub(crate) handshake: Option<Box<Handshake>>,
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
    pub(crate) live: Live,
    pub(crate) next_hops: NextHops,
    pub(crate) wheel: Wheel,
    pub(crate) templates: Templates,
    /// Templates of UDP services.
    pub(crate) udp_templates: u32,
    pub(crate) scan: Scan,
    pub(crate) outbox: Outbox,
    requests: VecDeque<Request>,
    pub(crate) ledger: Ledger,
    /// Bytes in the early-data stores of all sessions.
    pub(crate) early_bytes: usize,
    /// Sessions of services without the proxy that no client has confirmed.
    pub(crate) unproven: u32,
    /// Sessions of UDP, and those of them that are not confirmed.
    pub(crate) udp: u32,
    pub(crate) unconfirmed_udp: u32,
    /// The slots for answers to datagrams that are scheduled one by one; no more than there may be
    /// sessions of UDP.
    pub(crate) answers: HashMap<AnswerKey, u32>,
    /// Sessions whose real server answers the client itself.
    pub(crate) one_way: u32,
    /// Sessions whose packets go through the engine until the frames that are to be sent have been:
    /// slot, generation, and the flag for it.
    pub(crate) opening: Vec<(u32, u32, u32)>,
    /// Addresses of real servers of services with TOA, unless services, real servers or who has TOA have
    /// changed since that was last wanted.
    pub(crate) believers: Option<HashSet<Addr>>,
    /// Sessions that wait for a neighbour's MAC.
    pub(crate) waiting: Vec<(u32, u32)>,
    /// Sessions of another engine have been taken over, and no timer of theirs runs yet.
    pub(crate) adopting: bool,
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
    /// That of the session it replaces, or its own.
    pub(crate) prior_cookie: SeqNumber,
    pub(crate) client_isn: SeqNumber,
    pub(crate) f: u32,
    pub(crate) ts_in: u32,
    pub(crate) scales: Scales,
    pub(crate) word: Word,
    /// Only for answers: no packet of the client's leads to it.
    pub(crate) one_packet: bool,
    /// What the accepted ACK says, and what goes before it, for an engine that never saw it.
    pub(crate) kept: Option<(Kept, Option<Preface>)>,
}

impl<M: Memory> Engine<M> {
    /// An engine for `desired` around `memory`, at time `now`. Sets the settings and keys in
    /// `memory`; the packet path must not run yet.
    pub fn new(memory: M, config: Config, desired: Desired, secrets: &Secrets, now: u64) -> Self {
        let settings = memory.settings();
        settings.index_key.set(secrets.index);
        settings.timestamp_key.set(secrets.timestamp);
        settings.window_scale.store(u32::from(config.window_scale));
        settings.timestamp_offset.store(config.timestamp_offset);
        secrets.cookie.first(settings);
        settings.bucket_mask.store(memory.index().len() as u32 - 2);
        settings.heartbeat.store(now);
        memory.header().isn_key.set(secrets.isn);
        let mut engine = Self::empty(memory, config, desired.pools, now);
        engine.services = desired.services.into_iter().map(Service::new).collect();
        for service in 0..engine.services.len() as u32 {
            engine.enlist(service);
        }
        engine.publish();
        engine
    }

    /// An engine without services around `memory` as it is.
    pub(crate) fn empty(memory: M, config: Config, pools: Vec<LocalPool>, now: u64) -> Self {
        let (slots, templates) = (memory.slots().len(), memory.templates().len());
        let index_key = memory.settings().index_key.get();
        Self {
            config,
            isn_key: memory.header().isn_key.get(),
            table: Table::new(memory),
            services: Vec::new(),
            pools: pools.into_iter().map(Ports::new).collect(),
            sessions: (0..slots).map(|_| Session::default()).collect(),
            live: Live::new(slots),
            next_hops: NextHops::default(),
            wheel: Wheel::new(slots, now),
            templates: Templates::new(templates, index_key, now),
            udp_templates: 0,
            scan: Scan::new(now, 0),
            outbox: Outbox::default(),
            requests: VecDeque::new(),
            ledger: Ledger::default(),
            early_bytes: 0,
            unproven: 0,
            udp: 0,
            unconfirmed_udp: 0,
            answers: HashMap::new(),
            one_way: 0,
            opening: Vec::new(),
            believers: None,
            waiting: Vec::new(),
            adopting: false,
        }
    }

    /// Bytes that the engine keeps for each session, live or not, without early data.
    #[must_use]
    pub const fn bytes_per_session() -> usize {
        // Half of the sessions at most have an entry in `answers`, whose table is half empty.
        let answers = size_of::<(AnswerKey, u32)>() + 8;
        let kept = size_of::<Session>() + size_of::<Handshake>();
        kept + Live::BYTES + Wheel::BYTES_PER_TIMER + answers + 16
    }

    /// Bytes that the engine keeps for each persistence template, used or not.
    #[must_use]
    pub const fn bytes_per_template() -> usize {
        Templates::BYTES
    }

    /// How the packet path names a service; `None` if there is none of that number.
    #[must_use]
    pub fn service_key(&self, service: u32) -> Option<ServiceKey> {
        let found = self.services.get(service as usize).filter(|found| !found.removed);
        found.map(|service| service.spec.key())
    }

    /// Whether a service of `transport` takes what is sent to `destination`.
    pub(crate) fn serves(&self, service: u32, transport: Transport, destination: Endpoint) -> bool {
        let key = self.service_key(service);
        key.is_some_and(|key| {
            key == ServiceKey::of(transport, destination)
                || key == ServiceKey::any(transport, destination.address)
        })
    }

    /// What the packet path must know of a service.
    #[must_use]
    pub fn service_entry(&self, service: u32) -> Option<ServiceEntry> {
        let found = self.services.get(service as usize).filter(|found| !found.removed)?;
        let mut flags = found.refused;
        if found.spec.synproxy {
            flags |= ServiceEntry::SYNPROXY;
        }
        if found.cookie_epochs > 0 {
            flags |= ServiceEntry::WAS_PROXIED;
        }
        if found.spec.defer {
            flags |= ServiceEntry::DEFER;
        }
        if found.spec.introduction == Introduction::Toa {
            flags |= ServiceEntry::TOA;
        }
        flags |= found.takes(self.config.expire_quiescent_template);
        Some(ServiceEntry { id: service, flags })
    }

    /// Sets what interface `index` is: one that the packet path runs on, or a VLAN on one. Before
    /// the first frame from it, and when it changes.
    pub fn set_interface(&mut self, index: u32, interface: Interface) {
        self.next_hops.set_interface(self.table.memory().next_hops(), index, interface);
    }

    /// The next hop towards `gateway`, for [`RealServerSpec::next_hop`]; `None` if its
    /// interface is not set or the table is full.
    pub fn next_hop(&mut self, gateway: Gateway) -> Option<u32> {
        self.next_hops.gateway(self.table.memory().next_hops(), gateway)
    }

    /// What real server `server` of `service` is to be; `None` if there is none of these numbers.
    #[must_use]
    pub fn server_spec(&self, service: u32, server: u32) -> Option<RealServerSpec> {
        self.numbered(service, server).map(|server| server.spec)
    }

    /// Sends new sessions of real server `server` of `service` by that next hop from now on, the
    /// others after [`Engine::settle`]. Says whether it was another one.
    pub fn set_route(&mut self, service: u32, server: u32, next_hop: u32) -> bool {
        let found = self.services.get_mut(service as usize);
        let server = found.and_then(|found| found.servers.get_mut(server as usize));
        server.is_some_and(|server| {
            std::mem::replace(&mut server.spec.next_hop, next_hop) != next_hop
        })
    }

    /// Has packets to real server `server` of `service` sent from `source`, if they are wrapped: those
    /// of new sessions from now on, the others after [`Engine::settle`]. Says whether it was another.
    pub fn set_tunnel_source(&mut self, service: u32, server: u32, source: Addr) -> bool {
        let found = self.services.get_mut(service as usize);
        let server = found.and_then(|found| found.servers.get_mut(server as usize));
        match server.map(|server| &mut server.spec.forwarding) {
            Some(Forwarding::Tunnel { source: from, .. }) => {
                std::mem::replace(from, source) != source
            }
            _ => false,
        }
    }

    /// Takes note of a neighbour's MAC, gateway of ours or not, and sends what waited for it.
    pub fn set_neighbour(&mut self, gateway: Gateway, mac: MacAddr) {
        self.next_hops.heard(self.table.memory().next_hops(), gateway, mac);
        let Some(index) = self.next_hops.existing(gateway) else { return };
        if let Some(hop) = self.table.memory().next_hops().get(index as usize) {
            hop.set_destination(Some(mac));
        }
        for (session, generation) in std::mem::take(&mut self.waiting) {
            if self.generation(session) == Some(generation) {
                self.send_syn(session);
            }
        }
    }

    /// Forgets the MAC of a neighbour that the kernel has forgotten. What is sent to it goes where it
    /// went.
    pub fn forget_neighbour(&mut self, gateway: Gateway) {
        self.next_hops.forget(gateway);
    }

    /// The gateways in use and whether their MAC is known.
    pub fn gateways(&self) -> impl Iterator<Item = (Gateway, bool)> {
        let hops = self.table.memory().next_hops();
        self.next_hops.gateways().map(move |(gateway, index)| {
            (gateway, hops.get(index as usize).is_some_and(|hop| hop.destination().is_some()))
        })
    }

    /// Goes on to the next cookie epoch. Cookies of the one before it stay valid.
    pub fn handle_epoch(&mut self, epoch: &Epoch) {
        let before = self.table.settings().epoch.load();
        epoch.follow(self.table.settings());
        if self.table.settings().epoch.load() == before {
            // The time of day is a moment behind the timer that asked.
            return;
        }
        for service in 0..self.services.len() {
            let Some(found) = self.services.get_mut(service) else { continue };
            if found.cookie_epochs > 0 {
                found.cookie_epochs -= 1;
                if found.cookie_epochs == 0 {
                    self.request(Request::ServiceChanged(service as u32));
                }
            }
        }
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
        // Whoever sent it has given up, or will send it again.
        if now.saturating_sub(header.time) > EPOCH_MS {
            return self.count(Counter::RecordStale);
        }
        if kind == RecordKind::StateChanged {
            if self.generation(header.slot) == Some(header.generation) {
                self.state_changed(now, header.slot);
            }
            return;
        }
        if kind == RecordKind::Datagram {
            return self.handle_datagram(now, header, frame);
        }
        let Some(packet) = parse(frame) else { return self.count(Counter::RecordInvalid) };
        let arrived = Arrived {
            packet,
            frame,
            interface: header.interface,
            service: header.service,
            detail: header.detail,
            found: self.table.find(Transport::Tcp, &packet.tuple),
        };
        let new = matches!(kind, RecordKind::Accepted | RecordKind::Unproxied);
        if new && !self.serves(header.service, Transport::Tcp, packet.tuple.destination) {
            // Removed while the record was on its way.
            self.count(Counter::NoDestination);
            if kind == RecordKind::Accepted {
                self.refuse(&arrived);
            }
            return;
        }
        match kind {
            RecordKind::Accepted => self.handle_accepted(now, &arrived),
            RecordKind::Embryo | RecordKind::FromClient | RecordKind::FromUnproxied => {
                self.handle_client(now, &arrived);
            }
            RecordKind::FromRealServer => self.handle_real_server(now, &arrived),
            RecordKind::Unproxied => self.handle_unproxied(now, &arrived),
            RecordKind::StateChanged | RecordKind::Datagram => {}
        }
    }

    /// Fires the timers that are due, as long as what they have to say can be sent; the rest are due
    /// still.
    pub fn handle_timeout(&mut self, now: u64) {
        self.expire_templates(now);
        while self.outbox.has_room(FRAMES_PER_TIMER)
            && let Some(session) = self.wheel.pop_due(now)
        {
            let Some(slot) = self.table.slot(session) else { continue };
            let Word { state, flags, .. } = slot.state();
            if state == TcpState::SynSent {
                self.handshake_timeout(now, session);
                continue;
            }
            // The hint may have been lost.
            self.follow(now, session);
            let Some(slot) = self.table.slot(session) else { continue };
            let lost = flags & flag::NO_SERVER != 0 || self.is_server_down(session);
            if lost && self.ends_with_server(state) {
                self.count(Counter::ExpiredNoServer);
                self.reset_both(session);
                self.retire(now, session);
                continue;
            }
            if self.preface(session).is_some() {
                self.preface_timeout(now, session);
                continue;
            }
            let (deadline, pressed) =
                (self.deadline(session, slot, state), self.pressed_deadline(session));
            if deadline.min(pressed) <= now {
                self.count(Counter::Expired);
                if deadline > now {
                    self.count(Counter::ExpiredUnconfirmed);
                }
                if state == TcpState::Established && self.config.conn_expire_tcp_rst {
                    self.reset_both(session);
                }
                self.retire(now, session);
            } else {
                self.wheel.arm(session, deadline.min(pressed).min(self.next_look(now, session)));
            }
        }
    }

    /// When [`Engine::handle_timeout`] is next wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let deadlines = self.wheel.next_deadline().into_iter();
        deadlines.chain(self.templates.next_deadline()).min()
    }

    /// Gives every frame that is to be sent to `send`, with the interface it leaves by.
    /// [`Engine::frames_sent`] must follow.
    pub fn take_frames(&mut self, send: impl FnMut(u32, &[u8])) {
        self.outbox.drain(send);
    }

    /// What [`Engine::take_frames`] gave is on its way: clients whose early data was among it, and both
    /// sides of a session whose real server has heard who its client is, may go on past the engine.
    /// Before, their next segments would overtake it, and the other side would take what comes late
    /// for a segment that was lost.
    ///
    /// What waits in the ring by then is overtaken all the same, by what comes after: it is sent once,
    /// when its record is taken, and its receiver puts it in order as it does what a network delays. The
    /// state and what is acknowledged only move on, so it takes neither back, and by then the real server
    /// has been told whatever it had to be. What both count at that moment may count as one packet.
    pub fn frames_sent(&mut self) {
        for (session, generation, flag) in self.opening.drain(..) {
            if let Some(slot) = self.table.slot(session) {
                change_flag(slot, generation, flag, false);
            }
        }
    }

    /// A session's real server has heard who its client is, or nobody needs to tell it any more.
    pub(crate) fn introduced(&mut self, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        if slot.state().flags & flag::INTRODUCING != 0 {
            self.opening.push((index, slot.generation.load(), flag::INTRODUCING));
        }
    }

    /// The next request to the world.
    pub fn poll_request(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        if let Request::ServiceChanged(service) = request
            && let Some(found) = self.services.get_mut(service as usize)
        {
            found.told = false;
            found.advertised = found.takes(self.config.expire_quiescent_template);
        }
        Some(request)
    }

    /// The value of `counter`.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.table.memory().header().counters.get(counter as usize).map_or(0, Cell64::load)
    }

    /// Bytes that the early-data stores of all sessions hold (SPEC A8).
    #[must_use]
    pub const fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    pub(crate) fn count(&mut self, counter: Counter) {
        if let Some(cell) = self.table.memory().header().counters.get(counter as usize) {
            cell.store(cell.load().wrapping_add(1));
        }
    }

    pub(crate) fn request(&mut self, request: Request) {
        match request {
            Request::Resolve(_) => {
                if self.requests.len() < MAX_REQUESTS && !self.requests.contains(&request) {
                    self.requests.push_back(request);
                }
            }
            // Nobody makes this one again, so there is always room for it: one a service.
            Request::ServiceChanged(service) => {
                let found = self.services.get_mut(service as usize);
                if found.is_some_and(|found| !std::mem::replace(&mut found.told, true)) {
                    self.requests.push_back(request);
                }
            }
        }
    }

    /// How real servers of a service learn who their client is.
    pub(crate) fn introduction(&self, service: u32) -> Introduction {
        let found = self.services.get(service as usize);
        found.map_or(Introduction::None, |found| found.spec.introduction)
    }

    pub(crate) fn generation(&self, session: u32) -> Option<u32> {
        self.table.slot(session).map(|slot| slot.generation.load())
    }

    /// What the real server will see as the client of a new connection. Under NAT that is the client
    /// itself, and a connection of its own by another service may stand in the way: one that is over
    /// gives way, as it would for its own service (SPEC A12).
    pub(crate) fn local_end(
        &mut self,
        now: u64,
        service: u32,
        spec: &RealServerSpec,
        client: Endpoint,
        sender: Sender,
    ) -> Result<Endpoint, Counter> {
        let real = spec.address;
        match spec.forwarding {
            Forwarding::Dr => Ok(client),
            Forwarding::Tunnel { source, .. } => {
                Ok(Endpoint { address: source, port: client.port })
            }
            Forwarding::Nat => {
                let tuple = Tuple { source: real, destination: client };
                let Some(found) = self.table.find(Transport::Tcp, &tuple) else {
                    return Ok(client);
                };
                let Some(slot) = self.table.slot(found.index) else { return Ok(client) };
                let Word { state, flags, .. } = slot.state();
                let over = matches!(state, TcpState::TimeWait | TcpState::Close);
                // Anybody can send the SYN of somebody else (SPEC B6).
                let trusted = sender == Sender::Proven || flags & flag::PROXIED == 0;
                let outbound = found.direction == Direction::Outbound;
                if !over || !trusted || !outbound || !self.is_reusable(state) {
                    return Err(Counter::Conflict);
                }
                self.reuse(now, found.index, state);
                Ok(client)
            }
            Forwarding::FullNat => self.local_port(Transport::Tcp, service, real),
        }
    }

    /// The same for a flow of UDP. One of another service stands in the way until it has expired;
    /// slots for answers of its own do not, should the service have sent datagrams one by one.
    pub(crate) fn local_end_udp(
        &mut self,
        now: u64,
        service: u32,
        spec: &RealServerSpec,
        client: Endpoint,
    ) -> Result<Endpoint, Counter> {
        let real = spec.address;
        match spec.forwarding {
            Forwarding::Nat => {
                let tuple = Tuple { source: real, destination: client };
                let Some(found) = self.table.find(Transport::Udp, &tuple) else {
                    return Ok(client);
                };
                let session = self.sessions.get(found.index as usize);
                if session.is_none_or(|own| own.service != service || !own.one_packet) {
                    return Err(Counter::Conflict);
                }
                self.retire(now, found.index);
                Ok(client)
            }
            Forwarding::FullNat => self.local_port(Transport::Udp, service, real),
            Forwarding::Dr => Ok(client),
            Forwarding::Tunnel { source, .. } => {
                Ok(Endpoint { address: source, port: client.port })
            }
        }
    }

    fn local_port(
        &mut self,
        transport: Transport,
        service: u32,
        real: Endpoint,
    ) -> Result<Endpoint, Counter> {
        let table = &self.table;
        let is_free =
            |local| table.find(transport, &Tuple { source: real, destination: local }).is_none();
        let pool = self.services.get(service as usize).and_then(|found| found.spec.pool);
        let ports = pool.and_then(|pool| self.pools.get_mut(pool));
        let free = ports.and_then(|ports| ports.allocate(transport, real, is_free));
        free.ok_or(Counter::PortsExhausted)
    }

    /// A session between these ends no longer has its local port.
    pub(crate) fn port_freed(&mut self, transport: Transport, ends: &Ends) {
        for pool in &mut self.pools {
            pool.port_freed(transport, ends.real, ends.local);
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
        let clock = now.wrapping_add(self.table.settings().timestamp_offset.load());
        (clock as u32).wrapping_add(offset)
    }

    /// Takes a slot, fills it and publishes it.
    pub(crate) fn open(&mut self, now: u64, opening: &Opening) -> Result<u32, Counter> {
        let hop = self.server(opening.service, opening.server).map(|spec| spec.next_hop);
        let Some(index) = self.table.allocate(now) else { return Err(Counter::Exceeded) };
        let Some(slot) = self.table.slot(index) else { return Err(Counter::Exceeded) };
        slot.set_ends(&opening.ends);
        slot.f.store(opening.f);
        slot.ts_in.store(opening.ts_in);
        slot.ts_out.store(0);
        slot.scales.store(opening.scales.to_bits());
        slot.next_hop_in.store(hop.unwrap_or_default());
        slot.next_hop_out.store(opening.next_hop_out);
        slot.service.store(opening.service);
        slot.real_server.store(opening.server);
        slot.cookie.store(opening.cookie.0);
        slot.prior_cookie.store(opening.prior_cookie.0);
        slot.client_isn.store(opening.client_isn.0);
        slot.inbound.begin(now, opening.cookie.add(1).0);
        slot.outbound.begin(now, opening.client_isn.add(1).0);
        if let Some((kept, preface)) = &opening.kept {
            slot.keep(kept);
            slot.set_preface(preface.map(|preface| preface.left()));
        }
        slot.word.publish(opening.word.to_bits());
        let (inbound, outbound) = (opening.ends.inbound(), opening.ends.outbound());
        if !opening.one_packet && !self.table.insert(&inbound, index, Direction::Inbound) {
            self.table.release(index, now);
            return Err(Counter::IndexFull);
        }
        let one_way = opening.word.flags & flag::ONE_WAY != 0;
        if !one_way && !self.table.insert(&outbound, index, Direction::Outbound) {
            self.table.remove(&inbound, index, Direction::Inbound);
            self.table.release(index, now);
            return Err(Counter::IndexFull);
        }
        if let Some(session) = self.sessions.get_mut(index as usize) {
            let Opening { service, server, .. } = *opening;
            *session = Session {
                service,
                server,
                transport: opening.word.transport(),
                one_packet: opening.one_packet,
                one_way,
                ..Session::default()
            };
            self.udp += u32::from(session.transport == Transport::Udp);
        }
        self.one_way += u32::from(one_way);
        self.count_in(index, opening.word.state);
        self.tally_connection(index);
        self.count(Counter::Opened);
        Ok(index)
    }

    /// Ends a session: its entries, its counts, its timer, its handshake.
    pub(crate) fn retire(&mut self, now: u64, index: u32) {
        if self.sessions.get(index as usize).is_none_or(|live| live.counted == Counted::Not) {
            return;
        }
        let Some(slot) = self.table.slot(index) else { return };
        let (ends, totals) = (slot.ends(), totals_of(slot));
        self.port_freed(slot.state().transport(), &ends);
        self.table.remove(&ends.inbound(), index, Direction::Inbound);
        self.table.remove(&ends.outbound(), index, Direction::Outbound);
        self.fold(index);
        self.tally_settled(index, &totals);
        self.count_as(index, Counted::Not);
        self.uncontrol(index);
        self.end_handshake(index);
        self.confirm(index);
        self.forget_udp(index);
        let live = self.sessions.get_mut(index as usize);
        if live.is_some_and(|live| std::mem::take(&mut live.one_way)) {
            self.one_way = self.one_way.saturating_sub(1);
        }
        self.wheel.cancel(index);
        self.table.release(index, now);
    }

    /// A session no longer counts towards the share of services without the proxy, or that of
    /// unconfirmed UDP. Says whether it did.
    fn confirm(&mut self, index: u32) -> bool {
        let Some(session) = self.sessions.get_mut(index as usize) else { return false };
        let unproven = std::mem::take(&mut session.unproven);
        let share = match session.transport {
            Transport::Tcp => &mut self.unproven,
            Transport::Udp => &mut self.unconfirmed_udp,
        };
        *share = share.saturating_sub(u32::from(unproven));
        unproven
    }

    /// Follows a session into the state that its slot is in, and gives it that state's time.
    pub(crate) fn state_changed(&mut self, now: u64, index: u32) {
        if let Some(state) = self.follow(now, index)
            && self.preface(index).is_none()
        {
            self.wheel.arm(index, now + self.timeout(index, state));
        }
    }

    /// Follows a session into the state that its slot is in, if that is one of a session that goes on.
    fn follow(&mut self, now: u64, index: u32) -> Option<TcpState> {
        let slot = self.table.slot(index)?;
        let state = slot.state().state;
        let live = self.sessions.get(index as usize);
        if state == TcpState::None
            || state == TcpState::SynSent
            || live.is_none_or(|live| live.counted == Counted::Not)
        {
            return None;
        }
        if state == TcpState::Close && !live.is_some_and(|live| live.unproven) {
            // Who is reset asks for no introduction. (While a client has not proved its address, a
            // reset to a late segment of another connection does not end this one.)
            self.end_handshake(index);
            self.introduced(index);
        }
        if state == TcpState::Established && self.confirm(index) {
            self.assure_template(now, index);
        }
        self.count_in(index, state);
        Some(state)
    }

    /// Whether a session in `state` may make room for a new one of the same tuple.
    pub(crate) const fn is_reusable(&self, state: TcpState) -> bool {
        self.config.switches & switch::reuse(state) != 0
    }
}

/// The offer that an accepted ACK's record carries.
pub(crate) const fn offer(detail: u32) -> Offer {
    Offer::from_byte(detail as u8)
}
