//! UDP: who is forwarded, who goes up, who is dropped, and what becomes of the checksum (RFC 768;
//! RFC 8200, section 8.1; SPEC B2, C2).

use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{RecordKind, Word, flag, switch};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Action, Reason, Ring, TcpState};

use crate::FAMILY;
use crate::support::icmp::Error;
use crate::support::packet::{IP, Segment, checksums_hold, ones_sum, seal_ip};
use crate::support::world::{
    DATAGRAMS_UNUSABLE, GENERATION, HOP_IN, INSIDE, INSIDE_MAC, LOCAL, OUTSIDE, OUTSIDE_MAC,
    PROXIED, REAL_MAC, ROUTER_MAC, Session, TCP, UDP_SERVICE_ID, VIP, World, from_client, host,
};

fn asks(session: &Session) -> Segment {
    Segment { source: session.client, payload: b"who?".to_vec(), ..from_client(session.vip) }
}

fn answers(session: &Session) -> Segment {
    Segment { payload: b"me".to_vec(), ..session.real_server_segment() }
}

/// Byte for byte what its sender would have sent, had it known better.
#[test]
fn a_flow_is_translated_both_ways() {
    let full_nat = Session::datagrams();
    let nat = Session { local: full_nat.client, ..full_nat };
    for session in [full_nat, nat] {
        let world = World::new();
        let slot = world.session(&session);
        let question = asks(&session);
        let ran = world.run(OUTSIDE, &question.datagram());
        assert_eq!(ran.reason(), Reason::ForwardIn);
        assert_eq!(ran.verdict.action, Action::Send { interface: INSIDE });
        let expected = Segment {
            destination_mac: REAL_MAC,
            source_mac: INSIDE_MAC,
            source: session.local,
            destination: session.real,
            ttl: question.ttl - 1,
            ..question.clone()
        };
        assert!(expected.is_datagram(&ran.bytes));
        let answer = answers(&session);
        let ran = world.run(INSIDE, &answer.datagram());
        assert_eq!(ran.reason(), Reason::ForwardOut);
        assert_eq!(ran.verdict.action, Action::Send { interface: OUTSIDE });
        let expected = Segment {
            destination_mac: ROUTER_MAC,
            source_mac: OUTSIDE_MAC,
            source: session.vip,
            destination: session.client,
            ttl: answer.ttl - 1,
            ..answer.clone()
        };
        assert!(expected.is_datagram(&ran.bytes));
        let slot = world.slot(slot);
        assert_eq!((slot.inbound.packets.load(), slot.outbound.packets.load()), (1, 1));
        let headers = (TCP - IP) as u64 + 8;
        assert_eq!(
            (slot.inbound.bytes.load(), slot.outbound.bytes.load()),
            (headers + 4, headers + 2)
        );
    }
}

/// One of each transport between the same four ends, each with its own session or none.
#[test]
fn tcp_and_udp_of_the_same_ends_are_two_sessions() {
    let udp = Session { vip: PROXIED, ..Session::datagrams() };
    let tcp = Session { local: (LOCAL.0, LOCAL.1 + 1), ..Session::established() };
    let world = World::new();
    let slot = world.session(&udp);
    assert_eq!(world.client_sends(&tcp.client_segment()).reason(), Reason::BadAck);
    assert_eq!(world.run(OUTSIDE, &asks(&udp).datagram()).reason(), Reason::ForwardIn);
    let other = world.session(&tcp);
    assert_eq!(world.client_sends(&tcp.client_segment()).sent(INSIDE).source, tcp.local);
    assert_eq!(world.run(OUTSIDE, &asks(&udp).datagram()).reason(), Reason::ForwardIn);
    assert_eq!(world.slot(slot).inbound.packets.load(), 2);
    assert_eq!(world.slot(other).inbound.packets.load(), 1);
}

/// Each side's word in turn: the answer alone confirms nothing, for anybody can make a real server
/// answer.
#[test]
fn only_a_conversation_confirms() {
    let world = World::new();
    let mut session = Session { state: TcpState::SynRecv, ..Session::datagrams() };
    session.numbers.flags = flag::UDP;
    session.numbers.d = 0;
    let slot = world.session(&session);
    let state = || world.slot(slot).state();
    let (question, answer) = (asks(&session).datagram(), answers(&session).datagram());
    for _ in 0..2 {
        assert_eq!(world.run(OUTSIDE, &question).reason(), Reason::ForwardIn);
        assert_eq!(state(), Word { state: TcpState::SynRecv, flags: flag::UDP, d: 0 });
    }
    for _ in 0..2 {
        assert_eq!(world.run(INSIDE, &answer).reason(), Reason::ForwardOut);
        let flags = flag::UDP | flag::ANSWERED;
        assert_eq!(state(), Word { state: TcpState::SynRecv, flags, d: 0 });
        assert!(world.records().is_empty());
    }
    for told in [1, 0] {
        assert_eq!(world.run(OUTSIDE, &question).reason(), Reason::ForwardIn);
        assert_eq!(state().state, TcpState::Established);
        let records = world.records();
        assert_eq!(records.len(), told, "the engine is told once");
        for record in records {
            let header = &record.header;
            assert_eq!(header.kind, RecordKind::StateChanged as u16);
            assert_eq!((header.slot, header.generation), (slot, GENERATION));
            assert!(record.frame.is_empty());
        }
    }
}

#[test]
fn the_first_datagram_of_a_flow_goes_up_the_unproven_ring() {
    let world = World::new();
    let frame = asks(&Session::datagrams()).datagram();
    let ran = world.run(OUTSIDE, &frame);
    assert_eq!((ran.verdict.action, ran.reason()), (Action::Punt, Reason::PuntDatagram));
    let record = world.records().pop().expect("a record");
    assert_eq!((record.ring, record.header.kind), (Ring::Unproven, RecordKind::Datagram as u16));
    assert_eq!((record.header.service, record.header.slot), (UDP_SERVICE_ID, 0));
    assert_eq!(record.frame, frame);
    // The daemon is gone: sessions go on, new ones must wait for it.
    let now = seawall_fastpath::Tables::now(&world.tables);
    world.tables.set_now(now + 5_001);
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::HeartbeatStale);
    world.session(&Session::datagrams());
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::ForwardIn);
}

#[test]
fn what_no_service_or_no_server_takes_is_dropped() {
    let world = World::new();
    let to = |destination| Segment { payload: vec![1; 9], ..from_client(destination) };
    let reason = |destination| world.run(OUTSIDE, &to(destination).datagram()).reason();
    assert_eq!(reason(DATAGRAMS_UNUSABLE), Reason::NoDestinationUnproxied);
    assert_eq!(reason((VIP, 80)), Reason::UdpDrop, "a TCP service is none of UDP's");
    assert_eq!(reason((LOCAL.0, LOCAL.1)), Reason::LocalNoSession);
    assert_eq!(reason((LOCAL.0, LOCAL.1 - 1)), Reason::PassNotOurs);
    assert_eq!(reason((host(0x0808_0808), 53)), Reason::PassNotOurs);
    world.switches(0, switch::UDP_DROP);
    assert_eq!(reason((VIP, 80)), Reason::PassNotOurs);
    let gone = Session::datagrams();
    let slot = world.session(&gone);
    let word = world.slot(slot).state();
    world.slot(slot).word.store(Word { flags: word.flags | flag::NO_SERVER, ..word }.to_bits());
    assert_eq!(world.run(OUTSIDE, &asks(&gone).datagram()).reason(), Reason::NoServer);
    assert_eq!(world.run(INSIDE, &answers(&gone).datagram()).reason(), Reason::ForwardOut);
}

/// RFC 768 for IPv4, RFC 8200, section 8.1, for IPv6.
#[test]
fn no_checksum_stays_none_or_is_no_datagram() {
    let world = World::new();
    let session = Session::datagrams();
    world.session(&session);
    let ran = world.run(OUTSIDE, &asks(&session).datagram_without_checksum());
    match FAMILY {
        Version::V4 => {
            assert_eq!(ran.reason(), Reason::ForwardIn);
            assert_eq!(ran.bytes[TCP + 6..TCP + 8], [0, 0]);
            assert_eq!(ones_sum(&[&ran.bytes[IP..TCP]]), 0xffff);
        }
        Version::V6 => assert_eq!(ran.reason(), Reason::UdpChecksumMissing),
    }
}

/// Of 65,536 payloads one sums to zero after translation, and must not look like none.
#[test]
fn a_checksum_that_becomes_zero_is_sent_as_all_ones() {
    let world = World::new();
    let session = Session::datagrams();
    world.session(&session);
    let with = |payload: u16| {
        let payload = payload.to_be_bytes().to_vec();
        world.run(OUTSIDE, &Segment { payload, ..asks(&session) }.datagram()).bytes
    };
    let checksum = |frame: &[u8]| u16::from_be_bytes([frame[TCP + 6], frame[TCP + 7]]);
    let zero = checksum(&with(0));
    let frame = with(zero);
    assert_eq!(checksum(&frame), 0xffff);
    assert!(checksums_hold(&frame));
}

/// SPEC B3: what came in corrupt leaves corrupt.
#[test]
fn corruption_stays_visible() {
    let world = World::new();
    let session = Session::datagrams();
    world.session(&session);
    let mut frame = asks(&session).datagram();
    *frame.last_mut().unwrap() ^= 0x10;
    let ran = world.run(OUTSIDE, &frame);
    assert_eq!(ran.reason(), Reason::ForwardIn);
    assert!(!checksums_hold(&ran.bytes));
}

#[test]
fn lengths_and_macs_are_checked() {
    let session = Session::datagrams();
    let world = World::new();
    world.session(&session);
    let whole = asks(&session).datagram();
    let with_len = |len: u16| {
        let mut frame = whole.clone();
        frame[TCP + 4..TCP + 6].copy_from_slice(&len.to_be_bytes());
        world.run(OUTSIDE, &frame).reason()
    };
    // Four bytes of payload.
    assert_eq!([0, 7, 13].map(with_len), [Reason::UdpMalformed; 3]);
    assert_eq!([8, 11, 12].map(with_len), [Reason::ForwardIn; 3]);
    let cut = |len: usize| world.run(OUTSIDE, &whole[..len]).reason();
    assert_eq!(cut(TCP + 7), Reason::UdpMalformed);
    assert_eq!(cut(TCP + 8), Reason::IpMalformed);
    let mut elsewhere = Segment { destination: (host(7), 53), ..asks(&session) }.datagram();
    elsewhere.truncate(TCP + 7);
    assert_eq!(world.run(OUTSIDE, &elsewhere).reason(), Reason::PassNotOurs);
    let wrong = Segment { destination_mac: [2, 9, 9, 9, 9, 9], ..asks(&session) };
    assert_eq!(world.run(OUTSIDE, &wrong.datagram()).reason(), Reason::NotOurMac);
    let old = Segment { ttl: 1, ..asks(&session) };
    assert_eq!(world.run(OUTSIDE, &old.datagram()).reason(), Reason::TtlExceeded);
    if FAMILY == Version::V4 {
        let mut frame = whole.clone();
        frame[IP + 10] ^= 1;
        assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::IpChecksum);
    }
}

/// SPEC B2: nothing is put together here, so a fragment is the switch's.
#[test]
fn fragments_to_a_udp_service_are_dropped_by_the_switch() {
    if FAMILY == Version::V6 {
        return;
    }
    let world = World::new();
    let session = Session::datagrams();
    world.session(&session);
    let mut frame = asks(&session).datagram();
    frame[IP + 6] = 0x20;
    seal_ip(&mut frame);
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::FragmentDrop);
    world.switches(0, switch::FRAGMENT_DROP);
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::UdpDrop);
    world.switches(0, switch::UDP_DROP);
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::PassNotOurs);
}

/// RFC 5508, section 4: byte for byte what would have been said of the sender's own datagram,
/// however much is quoted.
#[test]
fn an_error_about_a_datagram_reaches_its_sender() {
    let router = host(0x0909_0909);
    // "Port unreachable" (RFC 792; RFC 4443, section 3.1).
    let (kind, code) = if FAMILY == Version::V4 { (3, 3) } else { (1, 4) };
    for quote in [8, 9, 12, 40] {
        let world = World::new();
        let session = Session::datagrams();
        world.session(&session);
        let error = |to| Error { from: router, to, kind, code, rest: 0, ttl: 60, quote };
        // From the real server, about a question; from the client, about an answer.
        let asked = asks(&session);
        let sent = Segment {
            source: session.local,
            destination: session.real,
            ttl: asked.ttl - 1,
            ..asked.clone()
        };
        let answered =
            Segment { source: session.vip, destination: session.client, ..answers(&session) };
        let original =
            Segment { source: session.real, destination: session.local, ..answered.clone() };
        for (interface, mac, about, original, egress) in [
            (INSIDE, INSIDE_MAC, &sent, &Segment { ttl: sent.ttl, ..asked.clone() }, OUTSIDE),
            (OUTSIDE, OUTSIDE_MAC, &answered, &original, INSIDE),
        ] {
            let frame = error(about.source.0).about_datagram(mac, about);
            let ran = world.run(interface, &frame);
            assert_eq!(
                ran.verdict.action,
                Action::Send { interface: egress },
                "{:?}",
                ran.reason()
            );
            let wanted =
                Error { from: original.destination.0, ttl: 59, ..error(original.source.0) };
            let wanted = wanted.about_datagram(mac, original);
            assert_eq!(ran.bytes[12..], wanted[12..], "{quote}");
        }
        // Of TCP between the same ends nothing is known.
        let frame = error(sent.source.0).bytes(INSIDE_MAC, &sent);
        assert_eq!(world.run(INSIDE, &frame).reason(), Reason::PassNotOurs);
    }
}

/// SPEC C1, as TCP's: whoever sent it hears what fits, unless it may be cut into pieces.
#[test]
fn a_datagram_too_big_for_the_next_link_is_answered() {
    for may_be_cut in [false, true] {
        let world = World::new();
        let session = Session::datagrams();
        world.session(&session);
        world.tables.memory.next_hops()[HOP_IN as usize].mtu.store(1_300);
        let mut frame = Segment { payload: vec![7; 1_300], ..asks(&session) }.datagram();
        if may_be_cut && FAMILY == Version::V4 {
            frame[IP + 6] = 0;
            seal_ip(&mut frame);
            assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::MtuExceeded);
            continue;
        }
        let ran = world.run(OUTSIDE, &frame);
        assert_eq!(ran.reason(), Reason::TooBig);
        assert_eq!(ran.verdict.action, Action::Send { interface: OUTSIDE });
        assert_eq!(ran.bytes[TCP + 8..TCP + 8 + TCP - IP], frame[IP..TCP], "quotes its header");
    }
}
