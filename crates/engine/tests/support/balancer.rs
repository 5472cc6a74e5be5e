//! Engine and native packet path around one memory, on a clock that the test turns.

use std::rc::Rc;

use seawall_engine::scheduler::{Flags, Kind};
use seawall_engine::{
    Adoption, Config, Desired, Engine, Epoch, Forwarding, Gateway, Interface, Introduction,
    LocalPool, Persistence, RealServerSpec, Request, Secrets, ServiceSpec, SharedEpoch,
    StoreLimits, Timeouts,
};
use seawall_fastpath::cookie::EPOCH_MS;
use seawall_fastpath::layout::{AddressEntry, AddressKey, InterfaceEntry, ServiceKey, switch};
use seawall_fastpath::native::{Buffer, Memory, NativeMemory, NativeTables};
use seawall_fastpath::siphash::Key;
use seawall_fastpath::{Action, Endpoint, Reason, TcpState, Transport, process};
use seawall_wire::ethernet::{MacAddr, Tags};

use super::family::Family;

pub(crate) const SERVER_PORT: u16 = 8080;
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The interface that clients are on.
pub(crate) const OUTSIDE: u32 = 1;

/// A secret that several balancers share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub(crate) secret: u64,
    /// Added to the balancer's clock gives its time of day.
    pub(crate) wall: u64,
}

impl Shared {
    fn epoch(self, now: u64) -> SharedEpoch {
        let wall = now + self.wall;
        let number = (wall / EPOCH_MS) as u32;
        SharedEpoch {
            number,
            keys: [number.wrapping_sub(1), number, number.wrapping_add(1)]
                .map(|number| Key(self.secret, u64::from(number))),
            ends: now + EPOCH_MS - wall % EPOCH_MS,
            timestamp_offset: self.wall,
        }
    }
}

/// What a balancer is set up as.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) family: Family,
    pub(crate) forwarding: Forwarding,
    pub(crate) synproxy: bool,
    pub(crate) transport: Transport,
    pub(crate) one_packet: bool,
    pub(crate) timeout: Option<u64>,
    pub(crate) scheduler: Kind,
    pub(crate) introduction: Introduction,
    pub(crate) one_armed: bool,
    /// Services on ports one after the other, with the same real servers.
    pub(crate) services: u16,
    pub(crate) servers: u32,
    pub(crate) persistence: Option<Persistence>,
    /// The one service has port 0.
    pub(crate) any_port: bool,
    /// The upper and lower threshold of each real server.
    pub(crate) thresholds: (u32, u32),
    pub(crate) sessions: u32,
    pub(crate) ports: (u16, u16),
    /// Whether the MACs of the real servers are known from the start.
    pub(crate) resolved: bool,
    pub(crate) config: Config,
    pub(crate) now: u64,
    pub(crate) key: u64,
    pub(crate) shared: Option<Shared>,
}

impl Default for Setup {
    fn default() -> Self {
        // As the configuration's defaults.
        let reuse = [
            TcpState::Close,
            TcpState::TimeWait,
            TcpState::FinWait,
            TcpState::CloseWait,
            TcpState::LastAck,
        ]
        .into_iter()
        .fold(0, |all, state| all | switch::reuse(state));
        Self {
            family: Family::V4,
            forwarding: Forwarding::FullNat,
            synproxy: true,
            transport: Transport::Tcp,
            one_packet: false,
            timeout: None,
            scheduler: Kind::RoundRobin,
            introduction: Introduction::None,
            one_armed: false,
            services: 1,
            servers: 2,
            persistence: None,
            any_port: false,
            thresholds: (0, 0),
            sessions: 64,
            ports: (5000, 65_535),
            resolved: true,
            config: Config {
                store: StoreLimits { segments: 16, bytes: 32_768, total_bytes: 1 << 20 },
                timeouts: Timeouts::default(),
                syn_retry: 3,
                switches: switch::SACK | switch::TIMESTAMP | reuse,
                ack_storm_threshold: 10,
                expire_nodest_conn: false,
                expire_quiescent_template: false,
                // Off, so that scripts may end in silence.
                conn_expire_tcp_rst: false,
                init_mss: 1452,
                window_scale: 7,
                ttl: 63,
                timestamp_offset: 123_456_789,
            },
            now: 1_000_000,
            key: 7,
            shared: None,
        }
    }
}

/// A frame and the interface that it leaves by or came in on.
pub(crate) type Framed = (u32, Vec<u8>);

pub(crate) struct Balancer {
    pub(crate) engine: Engine<Rc<NativeMemory>>,
    pub(crate) tables: NativeTables,
    pub(crate) memory: Rc<NativeMemory>,
    /// Every request that the engine has made.
    pub(crate) requests: Vec<Request>,
    /// Whether a request to resolve is answered at once.
    pub(crate) answers: bool,
    setup: Setup,
    now: u64,
    next_epoch: u64,
}

pub(crate) fn interface_mac(index: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0, index as u8]
}

pub(crate) fn server_mac(server: u32) -> [u8; 6] {
    [2, 0, 0, 0, 2, server as u8]
}

impl Setup {
    /// The usual one, with addresses of `family`.
    pub(crate) fn of(family: Family) -> Self {
        Self { family, ..Self::default() }
    }

    /// The interface that real servers are on.
    pub(crate) fn inside(&self) -> u32 {
        if self.one_armed { OUTSIDE } else { 2 }
    }

    fn gateway(&self, server: u32) -> Gateway {
        Gateway { interface: self.inside(), address: self.family.server(server).into() }
    }

    fn desired(&self) -> Desired {
        let pool = LocalPool {
            addresses: vec![self.family.local().into()],
            port_min: self.ports.0,
            port_max: self.ports.1,
        };
        let server_port = if self.any_port { 0 } else { SERVER_PORT };
        let real_servers = (0..self.servers).map(|server| RealServerSpec {
            address: Endpoint { address: self.family.server(server).into(), port: server_port },
            forwarding: self.forwarding,
            weight: 1,
            upper_threshold: self.thresholds.0,
            lower_threshold: self.thresholds.1,
            next_hop: 0,
        });
        let (vip, first_port) = self.family.vip();
        let port = |number| if self.any_port { 0 } else { first_port + number };
        let services = (0..self.services).map(|number| ServiceSpec {
            transport: self.transport,
            address: Endpoint { address: vip.into(), port: port(number) },
            persistence: self.persistence,
            scheduler: self.scheduler,
            scheduler_flags: Flags::default(),
            synproxy: self.synproxy,
            defer: false,
            one_packet: self.one_packet,
            timeout: self.timeout,
            introduction: self.introduction,
            pool: Some(0),
            real_servers: real_servers.clone().collect(),
        });
        Desired { pools: vec![pool], services: services.collect() }
    }
}

impl Balancer {
    pub(crate) fn new(setup: &Setup) -> Self {
        let memory = Rc::new(NativeMemory::new(setup.sessions));
        let tables = NativeTables::new(Rc::clone(&memory));
        let key = |number| Key(setup.key.wrapping_mul(0x9e37_79b9_7f4a_7c15), number);
        let mut secrets =
            Secrets { index: key(1), timestamp: key(2), isn: key(3), cookie: Epoch::Own(key(4)) };
        let mut next_epoch = setup.now + EPOCH_MS;
        if let Some(shared) = setup.shared {
            let epoch = shared.epoch(setup.now);
            next_epoch = epoch.ends;
            secrets.timestamp = Key(shared.secret, 0);
            secrets.cookie = Epoch::Shared(epoch);
        }
        let engine =
            Engine::new(Rc::clone(&memory), setup.config, setup.desired(), &secrets, setup.now);
        let (now, setup) = (setup.now, setup.clone());
        let mut balancer = Self {
            engine,
            tables,
            memory,
            requests: Vec::new(),
            answers: true,
            setup,
            now,
            next_epoch,
        };
        balancer.tables.set_now(now);
        balancer.connect();
        balancer
    }

    /// The engine dies, and another one takes over with the real servers `servers` of every service.
    pub(crate) fn restart(&mut self, servers: std::ops::Range<u32>) -> Adoption {
        let Desired { pools, services } = self.setup.desired();
        let memory = Rc::clone(&self.memory);
        let (engine, adoption) = Engine::adopt(memory, self.setup.config, pools, self.now);
        self.engine = engine;
        self.set_interfaces();
        self.engine.adopt_next_hops();
        for mut spec in services {
            let real_servers = std::mem::take(&mut spec.real_servers);
            let service = self.engine.add_service(spec);
            for number in servers.clone() {
                let hop = self.engine.next_hop(self.setup.gateway(number));
                let next_hop = hop.expect("room for next hops");
                let spec = RealServerSpec { next_hop, ..real_servers[number as usize] };
                self.engine.add_server(service, spec);
            }
        }
        self.engine.settle(self.now);
        adoption
    }

    fn set_interfaces(&mut self) {
        for index in [OUTSIDE, self.setup.inside()] {
            let mac = MacAddr(interface_mac(index));
            self.engine.set_interface(
                index,
                Interface { mac, mtu: 1500, device: index, tags: Tags::NONE },
            );
            self.tables.interfaces.borrow_mut().insert(index, InterfaceEntry::new(mac));
        }
    }

    fn connect(&mut self) {
        let setup = self.setup.clone();
        self.set_interfaces();
        let vip = AddressEntry { flags: AddressEntry::VIP, port_min: 0, port_max: 0 };
        let (port_min, port_max) = setup.ports;
        let local = AddressEntry { flags: AddressEntry::LOCAL, port_min, port_max };
        self.tables.addresses.borrow_mut().insert(AddressKey(setup.family.vip().0.into()), vip);
        self.tables.addresses.borrow_mut().insert(AddressKey(setup.family.local().into()), local);
        for server in 0..setup.servers {
            let hop = self.engine.next_hop(setup.gateway(server)).expect("room for next hops");
            for service in 0..setup.services {
                self.engine.set_route(service.into(), server, hop);
            }
            if setup.resolved {
                self.resolve(server);
            }
        }
        for service in 0..setup.services {
            self.set_service(service.into());
        }
    }

    /// Tells the engine the MAC of a real server.
    pub(crate) fn resolve(&mut self, server: u32) {
        let mac = MacAddr(server_mac(server));
        self.engine.set_neighbour(self.setup.gateway(server), mac);
    }

    fn set_service(&mut self, service: u32) {
        let key = self.engine.service_key(service);
        let Some((key, entry)) = key.zip(self.engine.service_entry(service)) else { return };
        self.tables.services.borrow_mut().insert(key, entry);
    }

    /// Takes a service from XDP, as the daemon does when it is removed.
    pub(crate) fn forget_service(&mut self, number: u16) {
        let (vip, first_port) = self.setup.family.vip();
        let address = Endpoint { address: vip.into(), port: first_port + number };
        let key = ServiceKey::of(self.setup.transport, address);
        self.tables.services.borrow_mut().remove(&key);
    }

    /// Takes the service of port 0 from XDP.
    pub(crate) fn forget_any_port(&mut self) {
        let vip = self.setup.family.vip().0.into();
        let key = ServiceKey::any(self.setup.transport, vip);
        self.tables.services.borrow_mut().remove(&key);
    }

    pub(crate) const fn now(&self) -> u64 {
        self.now
    }

    /// Turns the clock, never back.
    pub(crate) fn set_now(&mut self, now: u64) {
        assert!(now >= self.now);
        self.now = now;
        self.tables.set_now(now);
        self.engine.handle_heartbeat(now);
    }

    /// Gives XDP a frame; what it sends comes back, what it punts waits for [`Self::round`].
    pub(crate) fn receive(&mut self, interface: u32, frame: &[u8]) -> Option<Framed> {
        let mut bytes = [0u8; 4096];
        bytes[..frame.len()].copy_from_slice(frame);
        let mut buffer = Buffer::new(&mut bytes, frame.len());
        let verdict = process(&mut buffer, interface, &self.tables);
        match verdict.action {
            Action::Send { interface } => Some((interface, buffer.bytes().to_vec())),
            Action::Pass | Action::Drop | Action::Punt => None,
        }
    }

    /// Whether records wait for the engine.
    pub(crate) fn has_records(&self) -> bool {
        !self.tables.records.borrow().is_empty()
    }

    /// When [`Self::round`] is wanted if nothing comes.
    pub(crate) fn next_round(&self) -> u64 {
        self.engine.poll_timeout().unwrap_or(u64::MAX).min(self.next_epoch)
    }

    /// One round of the daemon; gives what it sends.
    pub(crate) fn round(&mut self) -> Vec<Framed> {
        let frames = self.work();
        self.engine.frames_sent();
        frames
    }

    /// A round up to the moment at which it sends the frames that it gives.
    pub(crate) fn work(&mut self) -> Vec<Framed> {
        let now = self.now;
        let records = std::mem::take(&mut *self.tables.records.borrow_mut());
        for record in records {
            self.engine.handle_record(now, &record.header, &record.frame);
        }
        self.engine.handle_timeout(now);
        self.engine.handle_statistics(now);
        self.engine.handle_heartbeat(now);
        if now >= self.next_epoch {
            let (epoch, ends) = match self.setup.shared {
                None => (Epoch::Own(Key(self.setup.key, now)), now + EPOCH_MS),
                Some(shared) => {
                    let epoch = shared.epoch(now);
                    (Epoch::Shared(epoch), epoch.ends)
                }
            };
            self.engine.handle_epoch(&epoch);
            self.next_epoch = ends;
        }
        while let Some(request) = self.engine.poll_request() {
            self.requests.push(request);
            match request {
                Request::Resolve(gateway) if self.answers => {
                    let server = (0..self.setup.servers)
                        .find(|server| self.setup.gateway(*server) == gateway)
                        .expect("a real server's address");
                    self.resolve(server);
                }
                Request::Resolve(_) => {}
                Request::ServiceChanged(service) => self.set_service(service),
            }
        }
        let mut frames = Vec::new();
        self.engine.take_frames(|interface, frame| frames.push((interface, frame.to_vec())));
        frames
    }

    /// The number of the cookie epoch.
    pub(crate) fn epoch(&self) -> u32 {
        self.memory.settings().epoch.load()
    }

    pub(crate) fn reason(&self, reason: Reason) -> u64 {
        self.tables.counter(reason)
    }

    /// Insists that nothing is left of any session.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.engine.session_count(), 0, "sessions left");
        assert_eq!(self.engine.early_bytes(), 0, "early data left");
        assert_eq!(self.memory.settings().stashed.load(), 0, "stash not empty");
        let entries = self.memory.index().iter().flat_map(|bucket| &bucket.entries);
        assert_eq!(entries.filter(|entry| entry.load() != 0).count(), 0, "index entries left");
        let filter = self.memory.filter().iter();
        assert!(filter.flat_map(|word| (0..8).map(|at| word.marks(at))).all(|marks| marks == 0));
        let words = self.memory.slots().iter().filter(|slot| slot.word.load() != 0);
        assert_eq!(words.count(), 0, "slots left");
        assert_eq!(self.engine.poll_timeout(), None, "timers left");
    }
}
