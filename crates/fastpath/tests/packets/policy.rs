//! The flood policy: what is dropped, what passes, and under which counter (SPEC B).

use seawall_fastpath::layout::{RecordKind, ServiceEntry, switch};
use seawall_fastpath::{Action, Reason, Ring};

use crate::support::packet::{ACK, FIN, IP, Ip, RST, SYN, Segment, seal_ip};
use crate::support::world::{
    CLIENT, GENERATION, INSIDE, LOCAL, OUTSIDE, PROXIED, REAL, SERVICE_ID, Session, TCP, UNPROXIED,
    VIP, World, from_client, host,
};

/// RFC 9293, section 3.10: what a TCP sends; the other five bits do not matter.
fn possible(flags: u16) -> bool {
    let control = flags & (SYN | ACK | FIN | RST);
    [SYN, SYN | ACK, ACK, ACK | FIN, RST, RST | ACK].contains(&control)
}

const PROXIED_STRANGER: fn(u16) -> Reason = |flags| match flags & (SYN | ACK | RST) {
    _ if !possible(flags) => Reason::FlagsImpossible,
    SYN => Reason::Cookie,
    ACK => Reason::BadAck,
    _ => Reason::TcpDrop,
};

const UNPROXIED_STRANGER: fn(u16) -> Reason = |flags| match flags & (SYN | ACK | RST) {
    _ if !possible(flags) => Reason::FlagsImpossible,
    SYN => Reason::PuntUnproxied,
    _ => Reason::TcpDrop,
};

const INBOUND: fn(u16) -> Reason = |flags| match flags & (SYN | ACK) {
    _ if !possible(flags) => Reason::FlagsImpossible,
    SYN => Reason::SynEstablished,
    0x12 => Reason::TcpDrop,
    _ => Reason::ForwardIn,
};

const OUTBOUND: fn(u16) -> Reason = |flags| match flags & SYN {
    _ if !possible(flags) => Reason::FlagsImpossible,
    SYN => Reason::PuntRealServer,
    _ => Reason::ForwardOut,
};

#[test]
fn all_512_flag_combinations() {
    let session = Session::established();
    for flags in 0..512 {
        let world = World::new();
        let strange = |to| Segment { flags, ..from_client(to) };
        let reason = world.client_sends(&strange(PROXIED)).reason();
        assert_eq!(reason, PROXIED_STRANGER(flags), "{flags:#x}");
        let reason = world.client_sends(&strange(UNPROXIED)).reason();
        assert_eq!(reason, UNPROXIED_STRANGER(flags), "{flags:#x}");
        world.session(&session);
        let segment = Segment { flags, ..session.client_segment() };
        assert_eq!(world.client_sends(&segment).reason(), INBOUND(flags), "{flags:#x}");
        let world = World::new();
        world.session(&session);
        let segment = Segment { flags, ..session.real_server_segment() };
        assert_eq!(world.real_server_sends(&segment).reason(), OUTBOUND(flags), "{flags:#x}");
        // To no service at all: the kernel's business.
        let other = Segment { flags, ..from_client((VIP, 22)) };
        assert_eq!(world.client_sends(&other).reason(), Reason::PassNotOurs, "{flags:#x}");
    }
}

#[test]
fn a_syn_to_an_unproxied_service_goes_up() {
    let world = World::new();
    let syn = Segment { flags: SYN, ack: 0, ..from_client(UNPROXIED) };
    let ran = world.client_sends(&syn);
    assert_eq!((ran.verdict.action, ran.reason()), (Action::Punt, Reason::PuntUnproxied));
    let record = world.records().pop().expect("a record");
    assert_eq!((record.ring, record.header.kind), (Ring::Unproven, RecordKind::Unproxied as u16));
    assert_eq!((record.header.service, record.header.slot), (SERVICE_ID, 0));
    world.add_service(UNPROXIED, 0);
    assert_eq!(world.client_sends(&syn).reason(), Reason::NoDestinationUnproxied);
}

/// SPEC B6, for each side by itself: what a client sends early must not make its real server's
/// answer wait.
#[test]
fn sessions_that_are_not_established_go_up_at_most_32_times_a_side() {
    use seawall_fastpath::TcpState::SynSent;
    let world = World::new();
    let session = Session { state: SynSent, ..Session::established() };
    let slot = world.session(&session);
    let client = || world.client_sends(&session.client_segment());
    let real_server = || world.real_server_sends(&session.real_server_segment());
    for _ in 0..32 {
        let ran = client();
        assert_eq!((ran.verdict.action, ran.reason()), (Action::Punt, Reason::PuntClient));
    }
    assert_eq!(client().reason(), Reason::PuntLimited);
    for _ in 0..32 {
        assert_eq!(real_server().reason(), Reason::PuntRealServer);
    }
    assert_eq!(real_server().reason(), Reason::PuntLimited);
    let records = world.records();
    assert_eq!(records.len(), 64);
    for (at, record) in records.iter().enumerate() {
        let kind = [RecordKind::FromClient, RecordKind::FromRealServer][at / 32] as u16;
        let header = &record.header;
        assert_eq!((header.kind, header.slot, header.generation), (kind, slot, GENERATION));
        assert_eq!(record.ring, Ring::Proven);
    }
    world.slot(slot).inbound.punted.store(0);
    assert_eq!(client().reason(), Reason::PuntClient);
}

/// SPEC A6: a SYN/ACK of an established session stays with us.
#[test]
fn a_syn_ack_sent_again_goes_to_the_engine() {
    let world = World::new();
    let session = Session::established();
    let slot = world.session(&session);
    let again = Segment { flags: SYN | ACK, ..session.real_server_segment() };
    assert_eq!(world.real_server_sends(&again).reason(), Reason::PuntRealServer);
    let record = world.records().pop().expect("a record");
    assert_eq!((record.header.slot, record.frame), (slot, again.bytes()));
}

fn with_protocol(protocol: u8, to: Ip, fragment: u16) -> Vec<u8> {
    let mut frame = Segment { destination: (to, 9_999), ..from_client(PROXIED) }.bytes();
    frame[IP + 6..IP + 8].copy_from_slice(&fragment.to_be_bytes());
    frame[IP + 9] = protocol;
    seal_ip(&mut frame);
    frame
}

const ELSEWHERE: Ip = host(0x0808_0808);

/// SPEC B2 and B4, by protocol number.
#[test]
fn other_protocols_by_address_and_switch() {
    let (tcp, udp, icmp) = (6, 17, 1);
    let both = switch::UDP_DROP | switch::FRAGMENT_DROP;
    for switches in [0, switch::UDP_DROP, switch::FRAGMENT_DROP, both] {
        let world = World::new();
        world.switches(switches, both);
        for protocol in 0..=255 {
            for fragment in [0x4000, 0, 0x2000, 1, 0x1fff, 0x2001] {
                let part = fragment & 0x3fff != 0;
                if protocol == tcp && !part {
                    continue;
                }
                let flood = [tcp, udp, icmp].contains(&protocol);
                let reason = if part && flood && switches & switch::FRAGMENT_DROP != 0 {
                    Reason::FragmentDrop
                } else if protocol == udp && switches & switch::UDP_DROP != 0 {
                    Reason::UdpDrop
                } else {
                    Reason::PassNotOurs
                };
                let ran = world.run(OUTSIDE, &with_protocol(protocol, VIP, fragment));
                assert_eq!(ran.reason(), reason, "{protocol} {fragment:#x} {switches}");
                let ran = world.run(OUTSIDE, &with_protocol(protocol, ELSEWHERE, fragment));
                assert_eq!(ran.reason(), Reason::PassNotOurs, "{protocol} {fragment:#x}");
                // Nothing puts together what a session's packets were cut into.
                let reason = match (part, flood) {
                    (true, true) => Reason::FragmentDrop,
                    (false, true) if protocol == udp => Reason::LocalNoSession,
                    _ => Reason::PassNotOurs,
                };
                let ran = world.run(INSIDE, &with_protocol(protocol, LOCAL.0, fragment));
                assert_eq!(ran.reason(), reason, "{protocol} {fragment:#x}");
            }
        }
    }
}

#[test]
fn what_is_not_ip_passes() {
    let world = World::new();
    let frame = Segment { flags: SYN, ..from_client(PROXIED) }.bytes();
    for ethertype in [0x0806u16, 0x8100, 0x88a8, 0x88cc, 0x0000] {
        let mut frame = frame.clone();
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::PassNotIp, "{ethertype:#x}");
    }
    for len in 0..TCP {
        assert_eq!(world.run(OUTSIDE, &frame[..len]).reason(), Reason::PassNotIp, "{len}");
    }
    for len in TCP..TCP + 20 {
        assert_eq!(world.run(OUTSIDE, &frame[..len]).reason(), Reason::TcpMalformed, "{len}");
    }
}

/// SPEC B3: each fault has its own reason, and is only looked for in what is ours.
#[test]
fn malformed_packets_by_reason() {
    type Damage = (&'static str, fn(&mut Vec<u8>), Reason);
    let damages: [Damage; 12] = [
        ("MAC", |it| it[5] ^= 1, Reason::NotOurMac),
        ("broadcast", |it| it[..6].fill(0xff), Reason::NotOurMac),
        ("total length over", |it| total_len(it, |len| len + 1), Reason::IpMalformed),
        ("total length huge", |it| total_len(it, |_| 0xffff), Reason::IpMalformed),
        ("total length zero", |it| total_len(it, |_| 0), Reason::IpMalformed),
        ("total length 19", |it| total_len(it, |_| 19), Reason::IpMalformed),
        ("no room for TCP", |it| total_len(it, |_| 39), Reason::TcpMalformed),
        ("data offset over", |it| it[TCP + 12] = 0xf0, Reason::TcpMalformed),
        ("data offset under", |it| it[TCP + 12] = 0x40, Reason::TcpMalformed),
        ("checksum", |it| it[IP + 10] ^= 0x10, Reason::IpChecksum),
        (
            "version",
            |it| {
                it[IP] = 0x65;
                seal_ip(it)
            },
            Reason::IpMalformed,
        ),
        (
            "header length",
            |it| {
                it[IP] = 0x44;
                seal_ip(it)
            },
            Reason::IpMalformed,
        ),
    ];
    let session = Session::established();
    for (name, damage, reason) in damages {
        for segment in [
            Segment { flags: SYN, ..from_client(PROXIED) },
            Segment { flags: SYN, ..from_client(UNPROXIED) },
            from_client(PROXIED),
            session.client_segment(),
        ] {
            let world = World::new();
            world.session(&session);
            let mut frame = segment.bytes();
            damage(&mut frame);
            assert_eq!(world.run(OUTSIDE, &frame).reason(), reason, "{name} {segment:?}");
        }
        let world = World::new();
        let mut frame = Segment { destination: (ELSEWHERE, 80), ..from_client(PROXIED) }.bytes();
        damage(&mut frame);
        assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::PassNotOurs, "{name}");
    }
    let world = World::new();
    let frame = Segment { flags: SYN, ..from_client(PROXIED) }.bytes();
    assert_eq!(world.run(99, &frame).reason(), Reason::NotOurMac, "an unknown interface");
    assert_eq!(world.run(INSIDE, &frame).reason(), Reason::NotOurMac, "another of our MACs");
}

fn total_len(frame: &mut [u8], change: fn(u16) -> u16) {
    let len = change(u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]));
    frame[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    seal_ip(frame);
}

#[test]
fn ip_options_are_dropped_where_they_matter() {
    let world = World::new();
    for (to, reason) in [(VIP, Reason::IpOptions), (ELSEWHERE, Reason::PassNotOurs)] {
        let mut frame = Segment { destination: (to, 80), ..from_client(PROXIED) }.bytes();
        frame.splice(TCP..TCP, [1, 1, 1, 1]);
        frame[IP] = 0x46;
        assert_eq!(world.run(OUTSIDE, &frame).reason(), reason);
    }
}

/// Late segments of a real server must not make the kernel answer with a RST.
#[test]
fn ports_of_the_pool_are_closed_to_strangers() {
    let world = World::new();
    for (port, reason) in [
        (4_999, Reason::PassNotOurs),
        (5_000, Reason::LocalNoSession),
        (60_000, Reason::LocalNoSession),
        (60_001, Reason::PassNotOurs),
    ] {
        let late = Segment {
            source: REAL,
            destination: (LOCAL.0, port),
            ..Session::established().real_server_segment()
        };
        assert_eq!(world.real_server_sends(&late).reason(), reason, "{port}");
    }
}

/// A flood on a service cannot be told from its clients by anything but the proof.
#[test]
fn a_service_taken_away_leaves_its_sessions() {
    let world = World::new();
    let session = Session::established();
    world.session(&session);
    world.tables.services.borrow_mut().clear();
    assert_eq!(world.client_sends(&session.client_segment()).reason(), Reason::ForwardIn);
    let stranger = Segment { source: (CLIENT.0, 9), ..session.client_segment() };
    assert_eq!(world.client_sends(&stranger).reason(), Reason::PassNotOurs);
    world.add_service(PROXIED, ServiceEntry::SYNPROXY | ServiceEntry::USABLE);
    assert_eq!(world.client_sends(&stranger).reason(), Reason::BadAck);
}
