//! What both tables hold: services, sessions in every state, and settings that change.

use seawall_datapath::clock;
use seawall_datapath::netlink::{Netlink, VethSpec};
use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{
    Ends, Entry, InterfaceEntry, NO_SCALE, ServiceEntry, Tunnel, Word, Wrapping, flag, switch, tag,
};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Addr, Direction, Endpoint, TcpState};
use seawall_wire::ethernet::{MacAddr, Tags};

use crate::FAMILY;
use crate::pair::SESSIONS;
use crate::support::packet::Ip;
use crate::support::random::Random;
use crate::support::splice::Numbers;
use crate::support::world::{
    CLIENT, DATAGRAMS, DEFERRED, HOP_IN, HOP_OUT, INSIDE_MAC, LOCAL, OUTSIDE_MAC, PROXIED, REAL,
    Session, UNPROXIED, UNUSABLE, VIP, World,
};

/// Sessions in the buckets of the index, and in its stash.
const IN_BUCKETS: u32 = 44;
const IN_STASH: u32 = 4;

/// Without the proxy, and without a usable real server.
pub(crate) const UNPROXIED_UNUSABLE: (Ip, u16) = (VIP, 87);
/// With real servers that have as many connections as they may, with and without the proxy.
pub(crate) const OVERLOADED: [(Ip, u16); 2] = [(VIP, 88), (VIP, 89)];
/// A port that has no service of its own; the VIP has one for all such.
pub(crate) const ANY_PORT: (Ip, u16) = (VIP, 7_000);

/// A neighbour whose MAC is not known, and neighbours behind an MTU that is less than IP allows and
/// one that is less than frames are.
const HOP_UNKNOWN: u32 = 3;
const HOP_NARROW: u32 = 4;
const NARROW_MTU: u32 = 60;
const HOP_SMALL: u32 = 7;
const SMALL_MTU: u32 = 1_300;
/// Neighbours in VLANs, one and two tags deep.
const HOPS_TAGGED: [(u32, Tags); 2] = [
    (5, Tags { outer: 0x8100_0064, inner: 0 }),
    (6, Tags { outer: 0x88a8_6007, inner: 0x8100_0008 }),
];

/// The interfaces that frames come in on; the kernel wants real ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interfaces {
    pub(crate) outside: u32,
    pub(crate) inside: u32,
}

impl Interfaces {
    /// Makes them, in the calling thread's namespace.
    pub(crate) fn new() -> Self {
        let mut netlink = Netlink::open().unwrap();
        let spec = VethSpec {
            name: "outside",
            mac: None,
            peer_name: "inside",
            peer_mac: None,
            peer_netns: None,
        };
        netlink.add_veth(&spec).unwrap();
        let mut index = |name| netlink.link(name).unwrap().unwrap().index;
        Self { outside: index("outside"), inside: index("inside") }
    }
}

/// The native tables, and the sessions in them with their slots.
pub(crate) fn build(random: &mut Random, interfaces: Interfaces) -> (World, Vec<(Session, u32)>) {
    let world = World::new();
    let memory = &world.tables.memory;
    world.tables.interfaces.borrow_mut().clear();
    for (hop, interface, mac) in
        [(HOP_IN, interfaces.inside, INSIDE_MAC), (HOP_OUT, interfaces.outside, OUTSIDE_MAC)]
    {
        memory.next_hops()[hop as usize].interface.store(interface);
        let entry = InterfaceEntry::new(MacAddr(mac));
        world.tables.interfaces.borrow_mut().insert(interface, entry);
    }
    memory.next_hops()[HOP_UNKNOWN as usize].mtu.store(1_500);
    for (number, mtu) in [(HOP_NARROW, NARROW_MTU), (HOP_SMALL, SMALL_MTU)] {
        let hop = &memory.next_hops()[number as usize];
        hop.set_destination(Some(MacAddr([2, 0, 0, 0, 0, 0x51])));
        hop.interface.store(interfaces.inside);
        hop.mtu.store(mtu);
    }
    for (number, tags) in HOPS_TAGGED {
        let hop = &memory.next_hops()[number as usize];
        hop.set_destination(Some(MacAddr([2, 0, 0, 0, 0, 0x61])));
        hop.set_source(MacAddr(INSIDE_MAC));
        hop.set_tags(tags);
        hop.interface.store(if number == 5 { interfaces.inside } else { interfaces.outside });
        hop.mtu.store(1_500);
    }
    let proxied = ServiceEntry::SYNPROXY | ServiceEntry::USABLE;
    for (port, refused) in [
        (84, ServiceEntry::NO_SACK),
        (85, ServiceEntry::NO_WINDOW_SCALE),
        (86, ServiceEntry::NO_TIMESTAMP),
        (88, ServiceEntry::TOA),
    ] {
        world.add_service((VIP, port), proxied | refused);
    }

    world.add_service(UNPROXIED_UNUSABLE, 0);
    world.add_service(OVERLOADED[0], ServiceEntry::SYNPROXY | ServiceEntry::OVERLOADED);
    world.add_service(OVERLOADED[1], ServiceEntry::OVERLOADED);
    world.add_service((VIP, 0), proxied);
    world.add_udp_service((VIP, 0), ServiceEntry::USABLE);

    let mut sessions = Vec::new();
    for number in 0..IN_BUCKETS {
        let session = session(random, number);
        sessions.push((session, world.session(&session)));
    }
    for number in IN_BUCKETS..IN_BUCKETS + IN_STASH {
        let session = session(random, number);
        sessions.push((session, stash(&world, &session, SESSIONS - number)));
    }
    // A session of two versions of IP; the engine makes none without a tunnel.
    let slot = world.slot(sessions[0].1);
    let other = match FAMILY {
        Version::V4 => Addr([1, 2]),
        Version::V6 => Addr::v4(7),
    };
    let real = Endpoint { address: other, port: REAL.1 };
    slot.set_ends(&Ends { real, ..slot.ends() });
    (world, sessions)
}

fn session(random: &mut Random, number: u32) -> Session {
    let client = (CLIENT.0 + number % 16, 1_024 + number as u16);
    let nat = random.below(3) == 0;
    // Every fourth is one of UDP; what TCP sends to its ends then belongs to nobody, and likewise.
    let udp = number % 4 == 3;
    let vips = [PROXIED, PROXIED, PROXIED, UNPROXIED, UNUSABLE, DEFERRED, ANY_PORT];
    let way = way(random);
    let mut scale = || random.pick(&[0, 1, 7, 13, 14, 20, NO_SCALE]);
    let scales = (scale(), scale(), scale());
    let session = Session {
        client,
        vip: if udp { DATAGRAMS } else { random.pick(&vips) },
        local: if nat { client } else { (LOCAL.0, 5_000 + number as u16) },
        real: (REAL.0 + random.below(3) as u32, REAL.1),
        state: TcpState::Established,
        numbers: Numbers {
            d: random.u32(),
            f: random.u32(),
            a: random.u32(),
            b: random.u32(),
            flags: if udp { flag::UDP } else { random.below(8) as u32 },
            scales,
        },
        cookie: random.u32(),
        known_in: (random.u32(), random.u32() >> 12),
        known_out: (random.u32(), random.u32() >> 12),
    };
    match way {
        Some(way) if number > 0 => way.taken_by(session),
        _ => session,
    }
}

/// How packets reach a real server that answers the client itself.
struct OneWay {
    tunnel: Option<Tunnel>,
    /// The outer packet's version.
    outer: Version,
}

/// Of some sessions.
fn way(random: &mut Random) -> Option<OneWay> {
    let wrapping = random.pick(&[Wrapping::Ipip, Wrapping::Gue, Wrapping::Gre]);
    let tunnel = Tunnel { wrapping, checksum: random.below(2) == 0, port: 6_080 };
    let tunnel = random.pick(&[None, Some(tunnel), Some(tunnel), Some(tunnel)]);
    let outer = random.pick(&[Version::V4, Version::V6]);
    (random.below(3) == 0).then_some(OneWay { tunnel, outer })
}

impl OneWay {
    fn taken_by(self, session: Session) -> Session {
        let mut session = Session { local: session.client, ..session };
        session.numbers.flags |= flag::ONE_WAY;
        if let Some(tunnel) = self.tunnel {
            session.numbers.flags |= flag::TUNNEL;
            session.numbers.a = tunnel.to_bits();
            let (local, real) = match self.outer {
                Version::V4 => (Ip::v4(0x0a01_0001), Ip::v4(0x0a01_0002)),
                Version::V6 => (Ip(0xfd00 << 112 | 1), Ip(0xfd00 << 112 | 2)),
            };
            (session.local.0, session.real.0) = (local, real);
        }
        session
    }
}

/// Installs a session by the index's stash alone.
fn stash(world: &World, session: &Session, index: u32) -> u32 {
    let slot = world.slot(index);
    session.fill(slot);
    slot.generation.store(index);
    let settings = world.tables.memory.settings();
    let bucket = settings.bucket_mask.load() + 1;
    let ends = slot.ends();
    let both = [(ends.inbound(), Direction::Inbound), (ends.outbound(), Direction::Outbound)];
    let ways = if session.numbers.flags & flag::ONE_WAY == 0 { 2 } else { 1 };
    for (tuple, direction) in both.into_iter().take(ways) {
        let entry = Entry {
            tag: tag(world.hash(slot.state().transport(), &tuple)),
            direction,
            slot: index,
        };
        assert!(world.put(bucket, entry), "the stash is full");
        settings.stashed.fetch_add(1);
    }
    index
}

/// Changes settings and sessions as the engine and the administrator do, and more.
pub(crate) fn shake(random: &mut Random, world: &World, sessions: &[(Session, u32)]) {
    let now = clock::monotonic_ms();
    let settings = world.tables.memory.settings();
    let policy = switch::SACK | switch::TIMESTAMP | switch::UDP_DROP | switch::FRAGMENT_DROP;
    let any = random.u32();
    settings.switches.store(random.pick(&[any, any | policy]));
    settings.heartbeat.store(if random.below(8) == 0 { now - 60_000 } else { now });
    settings.init_mss.store(random.pick(&[536, 1_440, 1_452, 1_460]));
    settings.window_scale.store(random.pick(&[0, 7, 14, NO_SCALE.into()]));
    settings.early_data.store(random.pick(&[0, 12_000, 1 << 20]));
    settings.ttl.store(random.pick(&[1, 64, 255]));
    settings.ack_storm_threshold.store(random.pick(&[0, 1, 10]));
    settings.epoch_ends.store(random.pick(&[u64::MAX, u64::MAX, now + 1_000, now + 60_000]));
    if random.below(8) == 0 {
        world.next_epoch();
    }
    for (session, index) in sessions {
        let slot = world.slot(*index);
        if random.below(3) == 0 {
            let state = TcpState::from_bits(random.below(9) as u8);
            let flags = session.numbers.flags
                & random.pick(&[!0, !0, !flag::PROXIED, !flag::TIMESTAMPS, !flag::RESCALE]);
            let flags =
                flags | random.pick(&[0, 0, 0, 0, flag::OPENING, flag::NO_SERVER, flag::ANSWERED]);
            let introduced = random.pick(&[0, 0, flag::TOA, flag::TOA, flag::INTRODUCING]);
            let flags = flags | introduced;
            slot.word.store(Word { state, flags, d: session.numbers.d }.to_bits());
            slot.inbound.punted.store(random.pick(&[0, 30, 32]));
            slot.outbound.punted.store(random.pick(&[0, 30, 32]));
            slot.inbound.syn_seq.store(session.cookie);
            slot.inbound.syn_forwarded.store(now - random.pick(&[10, 60_000]));
            // Also none, and one beyond the table.
            let hops = [
                HOP_IN,
                HOP_IN,
                HOP_IN,
                HOP_OUT,
                HOP_UNKNOWN,
                HOP_NARROW,
                HOP_SMALL,
                5,
                6,
                0,
                5_000,
            ];
            slot.next_hop_in.store(random.pick(&hops));
            let hops =
                [HOP_OUT, HOP_OUT, HOP_OUT, HOP_IN, HOP_UNKNOWN, HOP_NARROW, HOP_SMALL, 5, 6];
            slot.next_hop_out.store(random.pick(&hops));
            for (flow, (ack, window)) in
                [(&slot.inbound, session.known_in), (&slot.outbound, session.known_out)]
            {
                flow.ack.store(ack);
                flow.window.store(window);
                flow.last_seen.store(random.pick(&[now, now, now - 1_000]));
                flow.repeats.store(random.pick(&[0, 1, 10]));
                flow.data.store(random.pick(&[0, 0, 0, 3]));
                flow.answered.store(0);
            }
        }
    }
}
