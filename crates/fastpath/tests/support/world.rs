//! Tables with services, addresses, interfaces, next hops and sessions in them.

use std::net::IpAddr;
use std::rc::Rc;

use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Entry, InterfaceEntry, Scales, ServiceEntry, ServiceKey, Slot, Word,
    first_bucket, flag, second_bucket, switch, tag,
};
use seawall_fastpath::native::{Buffer, Memory, NativeMemory, NativeTables, Record, put_entry};
use seawall_fastpath::siphash::Key;
use seawall_fastpath::{
    Action, Addr, Direction, Endpoint, Outcome, Reason, Tables, TcpState, Transport, Tuple,
    Verdict, process,
};
use seawall_wire::ethernet::MacAddr;

use super::packet::{IP, Ip, Mac, Segment, header_len};
use super::splice::Numbers;
use crate::FAMILY;

/// A host of the network that these tests are about, by its number: in IPv4 its address, in IPv6
/// the end of one in 2001:db8::/96.
pub(crate) const fn host(number: u32) -> Ip {
    match FAMILY {
        Version::V4 => Ip::v4(number),
        Version::V6 => Ip(0x2001_0db8 << 96 | number as u128),
    }
}

/// Offset of the TCP header in an untagged frame of this test's version.
pub(crate) const TCP: usize = IP + header_len(FAMILY);

pub(crate) const CLIENT: (Ip, u16) = (host(0xc000_0207), 40_000);
pub(crate) const VIP: Ip = host(0xc633_6401);
pub(crate) const PROXIED: (Ip, u16) = (VIP, 80);
pub(crate) const UNPROXIED: (Ip, u16) = (VIP, 81);
/// Proxied, without a usable real server.
pub(crate) const UNUSABLE: (Ip, u16) = (VIP, 82);
pub(crate) const DEFERRED: (Ip, u16) = (VIP, 83);
/// Services of UDP, one of them without a usable real server.
pub(crate) const DATAGRAMS: (Ip, u16) = (VIP, 53);
pub(crate) const DATAGRAMS_UNUSABLE: (Ip, u16) = (VIP, 54);
pub(crate) const LOCAL: (Ip, u16) = (host(0x0a01_0064), 5_000);
pub(crate) const REAL: (Ip, u16) = (host(0x0a01_0002), 8_080);

pub(crate) const OUTSIDE: u32 = 3;
pub(crate) const INSIDE: u32 = 4;
pub(crate) const OUTSIDE_MAC: Mac = [2, 0, 0, 0, 0, 0x30];
pub(crate) const INSIDE_MAC: Mac = [2, 0, 0, 0, 0, 0x40];
pub(crate) const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 0x31];
pub(crate) const REAL_MAC: Mac = [2, 0, 0, 0, 0, 0x41];
pub(crate) const HOP_IN: u32 = 1;
pub(crate) const HOP_OUT: u32 = 2;

pub(crate) const SERVICE_ID: u32 = 77;
pub(crate) const UDP_SERVICE_ID: u32 = 78;
pub(crate) const GENERATION: u32 = 9;
pub(crate) const START_MS: u64 = 10_000_000;
pub(crate) const EARLY_DATA: u32 = 12_000;

/// What became of a frame.
pub(crate) struct Ran {
    pub(crate) verdict: Verdict,
    pub(crate) bytes: Vec<u8>,
}

impl Ran {
    pub(crate) fn reason(&self) -> Reason {
        self.verdict.reason
    }

    /// The segment that was sent; fails if none was.
    pub(crate) fn sent(&self, interface: u32) -> Segment {
        assert_eq!(self.verdict.action, Action::Send { interface }, "{:?}", self.verdict.reason);
        Segment::read(&self.bytes)
    }
}

pub(crate) struct World {
    pub(crate) tables: NativeTables,
    packets: std::cell::Cell<u64>,
    next_slot: std::cell::Cell<u32>,
}

impl From<Ip> for Addr {
    fn from(ip: Ip) -> Self {
        IpAddr::from(ip).into()
    }
}

pub(crate) fn endpoint((address, port): (Ip, u16)) -> Endpoint {
    Endpoint { address: address.into(), port }
}

impl World {
    pub(crate) fn new() -> Self {
        let memory = Rc::new(NativeMemory::new(1024));
        let tables = NativeTables::new(memory.clone());
        let settings = memory.settings();
        settings.switches.store(
            switch::SACK
                | switch::TIMESTAMP
                | switch::UDP_DROP
                | switch::FRAGMENT_DROP
                | switch::reuse(TcpState::TimeWait)
                | switch::reuse(TcpState::Close),
        );
        settings.init_mss.store(1_452);
        settings.window_scale.store(7);
        settings.early_data.store(EARLY_DATA);
        settings.ttl.store(64);
        settings.timestamp_offset.store(123_456_789);
        settings.index_key.set(Key(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210));
        settings.timestamp_key.set(Key(0x1111_2222_3333_4444, 0x5555_6666_7777_8888));
        for (at, key) in settings.cookie_keys.iter().enumerate() {
            key.set(Key(0xa5a5_0000_ffff_0000 + at as u64, 0x5a5a_1234 << at));
        }
        settings.epoch.store(41);
        settings.epoch_ends.store(u64::MAX);
        for (hop, interface, to, from) in
            [(HOP_IN, INSIDE, REAL_MAC, INSIDE_MAC), (HOP_OUT, OUTSIDE, ROUTER_MAC, OUTSIDE_MAC)]
        {
            let entry = &memory.next_hops()[hop as usize];
            entry.set_destination(Some(MacAddr(to)));
            entry.set_source(MacAddr(from));
            entry.interface.store(interface);
            entry.mtu.store(1_500);
        }
        let world =
            Self { tables, packets: std::cell::Cell::new(0), next_slot: std::cell::Cell::new(1) };
        let proxied = ServiceEntry::SYNPROXY | ServiceEntry::USABLE;
        world.add_service(PROXIED, proxied);
        world.add_service(UNPROXIED, ServiceEntry::USABLE);
        world.add_service(UNUSABLE, ServiceEntry::SYNPROXY);
        world.add_service(DEFERRED, proxied | ServiceEntry::DEFER);
        world.add_udp_service(DATAGRAMS, ServiceEntry::USABLE);
        world.add_udp_service(DATAGRAMS_UNUSABLE, 0);
        world.add_address(VIP, AddressEntry { flags: AddressEntry::VIP, port_min: 0, port_max: 0 });
        let local = AddressEntry { flags: AddressEntry::LOCAL, port_min: 5_000, port_max: 60_000 };
        world.add_address(LOCAL.0, local);
        for (interface, mac) in [(OUTSIDE, OUTSIDE_MAC), (INSIDE, INSIDE_MAC)] {
            let entry = InterfaceEntry::new(MacAddr(mac));
            world.tables.interfaces.borrow_mut().insert(interface, entry);
        }
        world.set_now(START_MS);
        world
    }

    pub(crate) fn add_service(&self, at: (Ip, u16), flags: u32) {
        let key = ServiceKey::tcp(endpoint(at));
        self.tables.services.borrow_mut().insert(key, ServiceEntry { id: SERVICE_ID, flags });
    }

    pub(crate) fn add_udp_service(&self, at: (Ip, u16), flags: u32) {
        let key = ServiceKey::udp(endpoint(at));
        self.tables.services.borrow_mut().insert(key, ServiceEntry { id: UDP_SERVICE_ID, flags });
    }

    pub(crate) fn add_address(&self, address: Ip, entry: AddressEntry) {
        self.tables.addresses.borrow_mut().insert(AddressKey(address.into()), entry);
    }

    /// Sets the clock, the daemon's heartbeat with it.
    pub(crate) fn set_now(&self, now: u64) {
        self.tables.set_now(now);
        self.tables.memory.settings().heartbeat.store(now);
    }

    pub(crate) fn wait(&self, ms: u64) {
        self.set_now(self.tables.now() + ms);
    }

    pub(crate) fn next_epoch(&self) {
        let settings = self.tables.memory.settings();
        let epoch = settings.epoch.load() + 1;
        let key = Key(u64::from(epoch) * 0x1234_5677, 0x77);
        settings.cookie_keys[epoch as usize % settings.cookie_keys.len()].set(key);
        settings.epoch.store(epoch);
    }

    pub(crate) fn switches(&self, on: u32, off: u32) {
        let switches = &self.tables.memory.settings().switches;
        switches.store(switches.load() & !off | on);
    }

    /// Sends a frame through, and checks what holds for every frame: one reason is counted
    /// once, the action is what the reason says, and what passes is untouched.
    pub(crate) fn run(&self, ingress: u32, frame: &[u8]) -> Ran {
        let mut bytes = frame.to_vec();
        bytes.resize(frame.len() + 256, 0xee);
        let before: Vec<u64> = Reason::ALL.iter().map(|it| self.tables.counter(*it)).collect();
        let mut buffer = Buffer::new(&mut bytes, frame.len());
        let verdict = process(&mut buffer, ingress, &self.tables);
        let bytes = buffer.bytes().to_vec();
        self.packets.set(self.packets.get() + 1);
        for (reason, before) in Reason::ALL.iter().zip(&before) {
            let expected = before + u64::from(*reason == verdict.reason);
            assert_eq!(self.tables.counter(*reason), expected, "{reason:?}, {verdict:?}");
        }
        assert_eq!(before.iter().sum::<u64>() + 1, self.packets.get());
        let outcome = match verdict.action {
            Action::Pass => Outcome::Passed,
            Action::Drop => Outcome::Dropped,
            Action::Send { .. } | Action::Punt => Outcome::Served,
        };
        assert_eq!(verdict.reason.outcome(), outcome, "{verdict:?}");
        if verdict.action == Action::Pass || verdict.action == Action::Punt {
            assert_eq!(bytes, frame, "changed a frame that is not sent");
        }
        Ran { verdict, bytes }
    }

    pub(crate) fn client_sends(&self, segment: &Segment) -> Ran {
        self.run(OUTSIDE, &segment.bytes())
    }

    pub(crate) fn real_server_sends(&self, segment: &Segment) -> Ran {
        self.run(INSIDE, &segment.bytes())
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.tables.records.borrow_mut().drain(..).collect()
    }

    /// Installs a session in the next free slot and publishes both its index entries.
    pub(crate) fn session(&self, session: &Session) -> u32 {
        let index = self.next_slot.replace(self.next_slot.get() + 1);
        let slot = self.slot(index);
        session.fill(slot);
        slot.generation.store(GENERATION);
        let ends = slot.ends();
        self.publish(&ends.inbound(), Direction::Inbound, index);
        if session.numbers.flags & flag::ONE_WAY == 0 {
            self.publish(&ends.outbound(), Direction::Outbound, index);
        }
        index
    }

    pub(crate) fn slot(&self, index: u32) -> &Slot {
        &self.tables.memory.slots()[index as usize]
    }

    pub(crate) fn hash(&self, transport: Transport, tuple: &Tuple) -> u64 {
        tuple.hash(transport, self.tables.memory.settings().index_key.get())
    }

    /// Publishes an entry in the emptier of the tuple's buckets, as the engine does.
    pub(crate) fn publish(&self, tuple: &Tuple, direction: Direction, slot: u32) {
        let hash = self.hash(self.slot(slot).state().transport(), tuple);
        let mask = self.tables.memory.settings().bucket_mask.load();
        let entry = Entry { tag: tag(hash), direction, slot };
        let index = self.tables.memory.index();
        let load = |bucket: &u32| {
            let entries = &index[*bucket as usize].entries;
            entries.iter().filter(|cell| cell.load() != 0).count()
        };
        let buckets = [first_bucket(hash, mask), second_bucket(hash, mask)];
        let emptier = buckets.into_iter().min_by_key(load).expect("two buckets");
        assert!(self.put(emptier, entry), "both buckets are full");
    }

    /// Puts an entry into a bucket; says whether there was room.
    pub(crate) fn put(&self, bucket: u32, entry: Entry) -> bool {
        put_entry(&self.tables.memory, bucket, entry)
    }
}

/// A session to install.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) client: (Ip, u16),
    pub(crate) vip: (Ip, u16),
    pub(crate) local: (Ip, u16),
    pub(crate) real: (Ip, u16),
    pub(crate) state: TcpState,
    pub(crate) numbers: Numbers,
    pub(crate) cookie: u32,
    /// The highest acknowledgment seen and its window in bytes, of each direction, as the
    /// client counts.
    pub(crate) known_in: (u32, u32),
    pub(crate) known_out: (u32, u32),
}

impl Session {
    pub(crate) fn established() -> Self {
        Self {
            client: CLIENT,
            vip: PROXIED,
            local: LOCAL,
            real: REAL,
            state: TcpState::Established,
            numbers: Numbers::PLAIN,
            cookie: 0x1234_5678,
            known_in: (5_000_000, 60_000),
            known_out: (1_000_000, 60_000),
        }
    }

    pub(crate) fn fill(&self, slot: &Slot) {
        let numbers = &self.numbers;
        slot.set_ends(&seawall_fastpath::layout::Ends {
            client: endpoint(self.client),
            vip: endpoint(self.vip),
            local: endpoint(self.local),
            real: endpoint(self.real),
        });
        let word = Word { state: self.state, flags: numbers.flags, d: numbers.d };
        slot.word.store(word.to_bits());
        slot.allow_punts();
        slot.f.store(numbers.f);
        slot.ts_in.store(numbers.a);
        slot.ts_out.store(numbers.b);
        let (client, ours, real_server) = numbers.scales;
        slot.scales.store(Scales { client, ours, real_server }.to_bits());
        slot.next_hop_in.store(HOP_IN);
        slot.next_hop_out.store(HOP_OUT);
        slot.cookie.store(self.cookie);
        slot.prior_cookie.store(self.cookie);
        slot.inbound.syn_forwarded.store(0);
        for (flow, (ack, window)) in
            [(&slot.inbound, self.known_in), (&slot.outbound, self.known_out)]
        {
            flow.ack.store(ack);
            flow.window.store(window);
        }
    }

    /// A flow of UDP that has been confirmed.
    pub(crate) fn datagrams() -> Self {
        let numbers = Numbers { flags: flag::UDP | flag::ANSWERED, ..Numbers::PLAIN };
        Self { vip: DATAGRAMS, numbers, ..Self::established() }
    }

    /// A plain ACK from the client that lies in the window.
    pub(crate) fn client_segment(&self) -> Segment {
        let mut segment = from_client(self.vip);
        segment.source = self.client;
        segment.seq = self.known_out.0;
        segment.ack = self.known_in.0;
        segment
    }

    /// A segment as we sent it on to the client, which has not acknowledged it.
    pub(crate) fn sent_to_client(&self) -> Segment {
        Segment {
            source: self.vip,
            destination: self.client,
            seq: self.known_in.0,
            ack: self.known_out.0,
            payload: vec![7; 100],
            ..from_client(self.vip)
        }
    }

    /// A segment as we sent it on to the real server, which has not acknowledged it.
    pub(crate) fn sent_to_real_server(&self) -> Segment {
        Segment {
            source: self.local,
            destination: self.real,
            seq: self.known_out.0.wrapping_add(self.numbers.f),
            ack: self.known_in.0.wrapping_sub(self.numbers.d),
            ..self.sent_to_client()
        }
    }

    /// A plain ACK from the real server that lies in the window.
    pub(crate) fn real_server_segment(&self) -> Segment {
        Segment {
            source_mac: REAL_MAC,
            destination_mac: INSIDE_MAC,
            source: self.real,
            destination: self.local,
            seq: self.known_in.0.wrapping_sub(self.numbers.d),
            ack: self.known_out.0.wrapping_add(self.numbers.f),
            ..from_client(self.vip)
        }
    }
}

/// An ACK from the client to `to`.
pub(crate) fn from_client(to: (Ip, u16)) -> Segment {
    Segment {
        source_mac: ROUTER_MAC,
        destination_mac: OUTSIDE_MAC,
        tags: Vec::new(),
        tos: 0x02,
        ident: 0x4321,
        ttl: 57,
        source: CLIENT,
        destination: to,
        seq: 0x0102_0304,
        ack: 0x0a0b_0c0d,
        flags: super::packet::ACK,
        window: 0x2000,
        urgent: 0,
        options: Vec::new(),
        raw_options: None,
        payload: Vec::new(),
    }
}
