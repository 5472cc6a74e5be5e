//! ACKs that answer a cookie, and ACKs that only pretend to (SPEC A4, A5, B6).

use seawall_fastpath::layout::{RecordKind, ServiceEntry};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Reason, Ring};

use super::syn::{layouts, offered, syn};
use crate::support::packet::{ACK, FIN, Opt, PSH, RST, Segment};
use crate::support::random::Random;
use crate::support::world::{
    CLIENT, DEFERRED, OUTSIDE, PROXIED, SERVICE_ID, TCP, UNUSABLE, World, from_client,
};

/// The ACK that completes the handshake `syn` began.
pub(crate) fn ack_of(world: &World, syn: &Segment) -> Segment {
    let answer = world.client_sends(syn).sent(OUTSIDE);
    let timestamps = answer.options.iter().find_map(|option| match option {
        Opt::Timestamps(value, _) => Some(Opt::Timestamps(0x1122_3345, *value)),
        _ => None,
    });
    let options = timestamps.map_or(vec![], |it| vec![Opt::Nop, Opt::Nop, it]);
    let (seq, ack) = (syn.seq.wrapping_add(1), answer.seq.wrapping_add(1));
    Segment { flags: ACK, seq, ack, options, payload: vec![], ..syn.clone() }
}

fn accepted(world: &World, ack: &Segment) -> u32 {
    assert_eq!(world.client_sends(ack).reason(), Reason::Accepted, "{ack:?}");
    let records = world.records();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.ring, &record.frame), (Ring::Proven, &ack.bytes()));
    let header = &record.header;
    assert_eq!((header.kind, header.service), (RecordKind::Accepted as u16, SERVICE_ID));
    assert_eq!((header.interface, header.slot, header.generation), (OUTSIDE, 0, 0));
    assert_eq!(usize::from(header.frame_len), record.frame.len());
    header.detail
}

#[test]
fn every_stack_is_accepted() {
    for (name, options) in layouts() {
        for seq in [7, u32::MAX, u32::MAX - 1] {
            let world = World::new();
            let ack = ack_of(&world, &Segment { seq, ..syn(&options) });
            let detail = accepted(&world, &ack);
            let offered = offered(&options);
            let scale = offered.scale.map_or(15, u32::from);
            assert_eq!(detail >> 3, u32::from(offered.sack) << 4 | scale, "{name}");
            assert_eq!(detail, (ack.ack.wrapping_sub(1)) >> 24, "{name}");
        }
    }
}

/// The first data segment proves as much as the bare ACK, and so does a FIN (SPEC A4, A11).
#[test]
fn data_and_fin_are_accepted() {
    for (flags, payload) in [(ACK | PSH, 500), (ACK | FIN, 0), (ACK | FIN | PSH, 9)] {
        let world = World::new();
        let ack = ack_of(&world, &syn(&layouts()[2].1));
        accepted(&world, &Segment { flags, payload: vec![b'x'; payload], ..ack });
    }
}

/// B1: a RST or SYN/ACK is never taken, whatever it acknowledges.
#[test]
fn a_reset_with_a_cookie_is_dropped() {
    let world = World::new();
    let ack = ack_of(&world, &syn(&[]));
    for flags in [RST, RST | ACK, ACK | 2] {
        let reason = world.client_sends(&Segment { flags, ..ack.clone() }).reason();
        assert_eq!(reason, Reason::TcpDrop);
    }
}

#[test]
fn one_wrong_bit_is_one_too_many() {
    for (name, options) in layouts() {
        let world = World::new();
        let ack = ack_of(&world, &syn(&options));
        let rejected = |ack: Segment| {
            assert_eq!(world.client_sends(&ack).reason(), Reason::BadAck, "{name}: {ack:?}");
        };
        for bit in 0..32 {
            rejected(Segment { ack: ack.ack ^ 1 << bit, ..ack.clone() });
            rejected(Segment { seq: ack.seq ^ 1 << bit, ..ack.clone() });
            let other = CLIENT.0 ^ 1 << bit;
            // One bit makes it a group, from which nobody sends.
            if other.as_v4().is_none_or(|address| address >> 28 != 0xe) {
                rejected(Segment { source: (other, CLIENT.1), ..ack.clone() });
            }
            let destination = (PROXIED.0 ^ 1 << bit, PROXIED.1);
            world.add_service(destination, ServiceEntry::SYNPROXY | ServiceEntry::USABLE);
            rejected(Segment { destination, ..ack.clone() });
        }
        for bit in 0..16 {
            rejected(Segment { source: (CLIENT.0, CLIENT.1 ^ 1 << bit), ..ack.clone() });
            let destination = (PROXIED.0, PROXIED.1 ^ 1 << bit);
            world.add_service(destination, ServiceEntry::SYNPROXY | ServiceEntry::USABLE);
            rejected(Segment { destination, ..ack.clone() });
        }
        // Whether timestamps are in use is covered too.
        let options = match ack.options.is_empty() {
            true => vec![Opt::Nop, Opt::Nop, Opt::Timestamps(1, 2)],
            false => vec![],
        };
        rejected(Segment { options, ..ack.clone() });
        accepted(&world, &ack);
    }
}

#[test]
fn a_cookie_lives_for_one_to_two_epochs() {
    for first in [0, 1, 2, 3, u32::MAX] {
        for (epochs, reason) in [
            (0, Reason::Accepted),
            (1, Reason::Accepted),
            (2, Reason::BadAck),
            (3, Reason::BadAck),
            (4, Reason::BadAck),
        ] {
            let world = World::new();
            world.tables.memory.settings().epoch.store(first.min(1_000_000));
            let ack = ack_of(&world, &syn(&[]));
            for _ in 0..epochs {
                world.next_epoch();
            }
            assert_eq!(world.client_sends(&ack).reason(), reason, "{epochs} after {first}");
        }
    }
}

/// DESIGN, "Cookie": TSecr must fall within the cookie's life, give or take the skew.
#[test]
fn an_echo_must_be_of_this_handshake() {
    let reason = |off: u32| {
        let world = World::new();
        let mut ack = ack_of(&world, &syn(&layouts()[2].1));
        let Some(Opt::Timestamps(_, echo)) = ack.options.last_mut() else { panic!("{ack:?}") };
        *echo = echo.wrapping_add(off);
        world.client_sends(&ack).reason()
    };
    for (off, expected) in [
        (0, Reason::Accepted),
        (5_000, Reason::Accepted),
        (5_001, Reason::BadAck),
        (133_000u32.wrapping_neg(), Reason::Accepted),
        (133_001u32.wrapping_neg(), Reason::BadAck),
        (1 << 31, Reason::BadAck),
    ] {
        assert_eq!(reason(off), expected, "{off}");
    }
}

/// 2^20 blind ACKs: 0.125 are expected to pass, so four are beyond any luck.
#[test]
fn blind_acks_do_not_pass() {
    let world = World::new();
    let mut random = Random(1);
    let mut frame = from_client(PROXIED).bytes();
    let mut passed = 0;
    for _ in 0..1 << 20 {
        frame[TCP + 4..TCP + 8].copy_from_slice(&random.u32().to_be_bytes());
        frame[TCP + 8..TCP + 12].copy_from_slice(&random.u32().to_be_bytes());
        match world.run(OUTSIDE, &frame).reason() {
            Reason::BadAck => {}
            Reason::Accepted => {
                passed += 1;
                world.wait(501);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(passed < 4, "{passed}");
}

/// SPEC B6 and DESIGN, "The session array": what follows an accepted ACK at once goes up, at
/// most 32 frames with it, and for a moment only.
#[test]
fn followers_go_up_for_a_moment() {
    let world = World::new();
    let ack = ack_of(&world, &syn(&[]));
    accepted(&world, &ack);
    let follower = |by: u32| Segment { seq: ack.seq + by, payload: vec![1; 100], ..ack.clone() };
    for at in 1..32 {
        assert_eq!(world.client_sends(&follower(at * 100)).reason(), Reason::Embryo, "{at}");
    }
    assert_eq!(world.client_sends(&follower(5_000)).reason(), Reason::PuntLimited);
    assert_eq!(world.client_sends(&ack).reason(), Reason::PuntLimited);
    let records = world.records();
    assert_eq!(records.len(), 31);
    for record in &records {
        let header = &record.header;
        assert_eq!((header.kind, header.slot), (RecordKind::Embryo as u16, 0));
        assert_eq!((record.ring, header.service), (Ring::Proven, SERVICE_ID));
    }
    let neighbour = Segment { source: (CLIENT.0, CLIENT.1 + 1), ..follower(100) };
    assert_eq!(world.client_sends(&neighbour).reason(), Reason::BadAck);
    world.wait(501);
    assert_eq!(world.client_sends(&follower(100)).reason(), Reason::BadAck);
    accepted(&world, &ack);
}

#[test]
fn a_follower_just_in_time() {
    let world = World::new();
    let ack = ack_of(&world, &syn(&[]));
    accepted(&world, &ack);
    world.wait(500);
    let follower = Segment { seq: ack.seq + 1, ..ack };
    assert_eq!(world.client_sends(&follower).reason(), Reason::Embryo);
}

/// An ACK that found the ring full was not taken: sent again, it must count as the first.
#[test]
fn an_ack_that_found_the_ring_full_is_accepted_later() {
    let world = World::new();
    let ack = ack_of(&world, &syn(&[]));
    let mut filler = ack_of(&world, &Segment { source: (CLIENT.0, 1), ..syn(&[]) });
    filler.payload = vec![0];
    accepted(&world, &filler);
    while world.tables.records.borrow().len() < seawall_fastpath::native::RING_RECORDS {
        let record = seawall_fastpath::native::Record {
            ring: Ring::Proven,
            header: seawall_fastpath::layout::RecordHeader::default(),
            frame: vec![],
        };
        world.tables.records.borrow_mut().push_back(record);
    }
    assert_eq!(world.client_sends(&ack).reason(), Reason::RingFullProven);
    world.records();
    accepted(&world, &ack);
}

/// SPEC A5.
#[test]
fn deferred_services_wait_for_data() {
    let world = World::new();
    let ack = ack_of(&world, &Segment { destination: DEFERRED, ..syn(&[]) });
    assert_eq!(world.client_sends(&ack).reason(), Reason::NullAck);
    let wrong = Segment { ack: ack.ack + 1, ..ack.clone() };
    assert_eq!(world.client_sends(&wrong).reason(), Reason::BadAck, "still no note");
    assert_eq!(world.client_sends(&ack).reason(), Reason::NullAck);
    accepted(&world, &Segment { payload: vec![1], ..ack });
}

#[test]
fn a_padded_ack_has_no_data() {
    let world = World::new();
    let ack = ack_of(&world, &Segment { destination: DEFERRED, ..syn(&[]) });
    let mut frame = ack.bytes();
    frame.resize(TCP + 26, 0);
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::NullAck);
}

#[test]
fn without_a_real_server_nothing_is_answered() {
    let world = World::new();
    let syn = Segment { destination: UNUSABLE, ..syn(&[]) };
    assert_eq!(world.client_sends(&syn).reason(), Reason::NoDestination);
}

/// SPEC E: when the daemon is gone, new connections are refused.
#[test]
fn a_stale_heartbeat_stops_new_connections() {
    let world = World::new();
    let ack = ack_of(&world, &syn(&[]));
    let now = crate::support::world::START_MS;
    let heartbeat = &world.tables.memory.settings().heartbeat;
    heartbeat.store(now - 5_001);
    assert_eq!(world.client_sends(&syn(&[])).reason(), Reason::SynHeartbeat);
    assert_eq!(world.client_sends(&ack).reason(), Reason::HeartbeatStale);
    let unproxied = Segment { destination: crate::support::world::UNPROXIED, ..syn(&[]) };
    assert_eq!(world.client_sends(&unproxied).reason(), Reason::HeartbeatStale);
    heartbeat.store(now - 5_000);
    assert_eq!(world.client_sends(&unproxied).reason(), Reason::PuntUnproxied);
    assert_eq!(world.client_sends(&syn(&[])).reason(), Reason::Cookie);
    world.records();
    accepted(&world, &ack);
}

/// The worker may write its heartbeat after this packet read the clock.
#[test]
fn a_heartbeat_from_the_next_millisecond_is_not_stale() {
    let world = World::new();
    let now = crate::support::world::START_MS;
    world.tables.memory.settings().heartbeat.store(now + 1);
    assert_eq!(world.client_sends(&syn(&[])).reason(), Reason::Cookie);
}
