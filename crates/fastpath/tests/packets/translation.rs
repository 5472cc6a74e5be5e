//! Segments of a session become the same segments of the other side (SPEC A7; DESIGN, "Splice
//! arithmetic"), compared byte for byte with what a plain builder makes of the expected fields.

use proptest::prelude::*;
use seawall_fastpath::layout::{NO_SCALE, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Direction, Reason};

use crate::support::packet::{
    ACK, FIN, IP, Opt, PSH, RST, SYN, Segment, checksums_hold, read_options, tcp_sum,
};
use crate::support::splice::{Numbers, expected};
use crate::support::world::{HOP_IN, HOP_OUT, INSIDE, OUTSIDE, Ran, Session, TCP, World};

/// Numbers that like to lie near the wrap.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0u32..4,
        (u32::MAX - 3)..=u32::MAX,
        0x7fff_fffe_u32..0x8000_0002,
        Just(0xffff_0000),
    ]
}

fn scale() -> impl Strategy<Value = u8> {
    prop_oneof![4 => 0u8..=14, 1 => Just(NO_SCALE)]
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let flags = prop_oneof![
        Just(flag::PROXIED),
        Just(flag::PROXIED | flag::TIMESTAMPS),
        Just(flag::PROXIED | flag::TIMESTAMPS | flag::RESCALE),
        Just(flag::RESCALE),
    ];
    (number(), number(), number(), number(), flags, (scale(), scale(), scale()))
        .prop_map(|(d, f, a, b, flags, scales)| Numbers { d, f, a, b, flags, scales })
}

fn option() -> impl Strategy<Value = Opt> {
    prop_oneof![
        4 => Just(Opt::Nop),
        3 => (number(), number()).prop_map(|(value, echo)| Opt::Timestamps(value, echo)),
        3 => prop::collection::vec((number(), number()), 1..=4).prop_map(Opt::Sack),
        1 => (prop_oneof![Just(9u8), Just(30), Just(34), Just(253), Just(254), Just(255)],
              prop::collection::vec(any::<u8>(), 0..7)).prop_map(|(kind, value)| Opt::Other(kind, value)),
        1 => any::<u16>().prop_map(Opt::Mss),
        1 => any::<u8>().prop_map(Opt::Scale),
        // Timestamps of a wrong length are not timestamps.
        1 => prop::collection::vec(any::<u8>(), 3..7).prop_map(|value| Opt::Other(8, value)),
        1 => Just(Opt::End),
    ]
}

/// As many of the options as fit into a header.
fn options() -> impl Strategy<Value = Vec<Opt>> {
    let aligned = (number(), number())
        .prop_map(|(value, echo)| vec![Opt::Nop, Opt::Nop, Opt::Timestamps(value, echo)]);
    let any = prop::collection::vec(option(), 0..10).prop_map(|all| {
        let mut len = 0;
        let mut fitting = Vec::new();
        for option in all {
            let next = len + option.bytes().len();
            if next <= 40 {
                len = next;
                fitting.push(option);
            }
        }
        fitting
    });
    prop_oneof![1 => aligned, 4 => any]
}

prop_compose! {
    /// A segment of an established session that is forwarded.
    fn segment()(
        (seq, ack) in (number(), number()),
        control in prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN, ACK | FIN | PSH, RST, RST | ACK]),
        others in prop::sample::select(vec![0u16, 0x20, 0x40, 0x80, 0x100, 0x1e0]),
        window in prop_oneof![any::<u16>(), Just(0), Just(1), Just(u16::MAX)],
        (urgent, ident, tos, ttl) in (any::<u16>(), any::<u16>(), any::<u8>(), 2u8..=255),
        options in options(),
        payload in prop::collection::vec(any::<u8>(), 0..90),
    ) -> Segment {
        let base = Session::established().client_segment();
        Segment { seq, ack, flags: control | others, window, urgent, ident, tos, ttl, options, payload, ..base }
    }
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)]
}

fn towards(direction: Direction, session: &Session, segment: &Segment) -> Segment {
    let base = match direction {
        Direction::Inbound => session.client_segment(),
        Direction::Outbound => session.real_server_segment(),
    };
    Segment {
        source_mac: base.source_mac,
        destination_mac: base.destination_mac,
        source: base.source,
        destination: base.destination,
        ..segment.clone()
    }
}

fn run(world: &World, direction: Direction, frame: &[u8]) -> Ran {
    match direction {
        Direction::Inbound => world.run(OUTSIDE, frame),
        Direction::Outbound => world.run(INSIDE, frame),
    }
}

fn out_of(direction: Direction) -> u32 {
    match direction {
        Direction::Inbound => INSIDE,
        Direction::Outbound => OUTSIDE,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn every_field_is_translated(
        numbers in numbers(), segment in segment(), direction in direction(),
    ) {
        let world = World::new();
        let session = Session { numbers, ..Session::established() };
        world.session(&session);
        let segment = towards(direction, &session, &segment);
        let ran = run(&world, direction, &segment.bytes());
        let expected = expected(&segment, direction, &session);
        prop_assert_eq!(ran.sent(out_of(direction)), Segment::read(&expected.bytes()));
        prop_assert_eq!(ran.bytes, expected.bytes());
    }

    /// SPEC B3: corruption on the way in stays visible to the receiver.
    #[test]
    fn a_corrupt_segment_stays_as_corrupt(
        numbers in numbers(), segment in segment(), direction in direction(), error in 1u16..0xffff,
    ) {
        let world = World::new();
        let session = Session { numbers, ..Session::established() };
        world.session(&session);
        let mut frame = towards(direction, &session, &segment).bytes();
        let checksum = u16::from_be_bytes([frame[TCP + 16], frame[TCP + 17]]);
        frame[TCP + 16..TCP + 18].copy_from_slice(&(checksum ^ error).to_be_bytes());
        // 0x0000 and 0xffff are one value: such an error is none.
        prop_assume!(tcp_sum(&frame) != 0xffff);
        let ran = run(&world, direction, &frame);
        prop_assert_eq!(ran.reason(), match direction {
            Direction::Inbound => Reason::ForwardIn,
            Direction::Outbound => Reason::ForwardOut,
        });
        prop_assert!(!checksums_hold(&ran.bytes));
        prop_assert_eq!(tcp_sum(&ran.bytes) % 0xffff, tcp_sum(&frame) % 0xffff);
    }

    /// Through a session and then through its mirror image, a segment is what it was.
    #[test]
    fn the_inverse_gives_the_original(
        numbers in numbers(), segment in segment(), direction in direction(),
    ) {
        prop_assume!(segment.ttl > 2);
        let numbers = Numbers { flags: numbers.flags & !flag::RESCALE, ..numbers };
        let session = Session { numbers, ..Session::established() };
        let world = World::new();
        world.session(&session);
        let segment = towards(direction, &session, &segment);
        let mut there = run(&world, direction, &segment.bytes()).bytes;
        let mirror = Session {
            client: session.local, vip: session.real, local: session.client, real: session.vip,
            numbers: Numbers {
                d: numbers.d.wrapping_neg(), f: numbers.f.wrapping_neg(),
                a: numbers.a.wrapping_neg(), b: numbers.b.wrapping_neg(), ..numbers
            },
            ..session
        };
        let world = World::new();
        world.session(&mirror);
        there[..12].copy_from_slice(&segment.bytes()[..12]);
        let back = run(&world, direction, &there).bytes;
        let mut original = Segment { ttl: segment.ttl - 2, ..segment }.bytes();
        original[..12].copy_from_slice(&back[..12]);
        prop_assert_eq!(back, original);
    }

    /// Any bytes for options: dropped exactly if one runs over the header.
    #[test]
    fn malformed_options_are_dropped(
        words in 1usize..=10, bytes in prop::collection::vec(
            prop_oneof![2 => 0u8..12, 1 => any::<u8>()], 40),
        direction in direction(), payload in 0usize..20,
    ) {
        let raw = bytes[..words * 4].to_vec();
        let world = World::new();
        let session = Session::established();
        world.session(&session);
        let segment = Segment {
            raw_options: Some(raw.clone()), payload: vec![2; payload], ..session.client_segment()
        };
        let ran = run(&world, direction, &towards(direction, &session, &segment).bytes());
        let malformed = ran.reason() == Reason::OptionsMalformed;
        prop_assert_eq!(malformed, read_options(&raw).is_none(), "{:?}", ran.reason());
        if !malformed {
            prop_assert!(checksums_hold(&ran.bytes));
        }
    }
}

/// RFC 2018, section 3: one to four blocks, at each alignment, with and without timestamps.
#[test]
fn sack_blocks_at_every_offset() {
    let session = Session {
        numbers: Numbers { d: 0x8000_0001, f: 0xffff_fff0, ..Numbers::PLAIN },
        ..Session::established()
    };
    for blocks in 1..=4u32 {
        for nops in 0..4 {
            for timestamps in [false, true] {
                let mut options = vec![Opt::Nop; nops];
                let edges = (0..blocks)
                    .map(|at| ((u32::MAX - 2).wrapping_add(at * 4), at * 4 + 1))
                    .collect();
                options.push(Opt::Sack(edges));
                if timestamps {
                    options.push(Opt::Timestamps(u32::MAX, 3));
                }
                if options.iter().map(|it| it.bytes().len()).sum::<usize>() > 40 {
                    continue;
                }
                for direction in [Direction::Inbound, Direction::Outbound] {
                    let world = World::new();
                    world.session(&session);
                    let plain = Segment { options: options.clone(), ..session.client_segment() };
                    let segment = towards(direction, &session, &plain);
                    let ran = run(&world, direction, &segment.bytes());
                    assert_eq!(ran.bytes, expected(&segment, direction, &session).bytes());
                }
            }
        }
    }
}

fn windowed(direction: Direction, scales: (u8, u8, u8), flags: u16, window: u16) -> u16 {
    let numbers = Numbers { scales, flags: flag::PROXIED | flag::RESCALE, ..Numbers::PLAIN };
    let session = Session { numbers, ..Session::established() };
    let world = World::new();
    world.session(&session);
    let segment = Segment { window, flags, ..session.client_segment() };
    let ran = run(&world, direction, &towards(direction, &session, &segment).bytes());
    ran.sent(out_of(direction)).window
}

/// SPEC A7 by hand: shifts are the client's, ours, the real server's.
#[test]
fn windows_by_hand() {
    use Direction::{Inbound, Outbound};
    for (direction, scales, window, result) in [
        (Outbound, (7, 7, 7), 501, 501),
        (Outbound, (7, 7, 9), 501, 2_004),
        (Outbound, (7, 7, 5), 501, 125),
        (Outbound, (7, 7, 14), 512, 65_535),
        (Outbound, (7, 7, 14), 511, 65_408),
        (Outbound, (7, 0, 14), 65_535, 65_535),
        (Outbound, (7, 14, 0), 65_535, 3),
        (Outbound, (7, 7, NO_SCALE), 65_535, 511),
        (Outbound, (NO_SCALE, NO_SCALE, 7), 500, 64_000),
        (Outbound, (NO_SCALE, NO_SCALE, NO_SCALE), 500, 500),
        (Inbound, (7, 7, 9), 501, 501),
        (Inbound, (7, 7, NO_SCALE), 501, 64_128),
        (Inbound, (7, 7, NO_SCALE), 512, 65_535),
        (Inbound, (14, 7, NO_SCALE), 65_535, 65_535),
        (Inbound, (0, 7, NO_SCALE), 501, 501),
        (Inbound, (7, 7, NO_SCALE), 0, 0),
    ] {
        let seen = windowed(direction, scales, ACK, window);
        assert_eq!(seen, result, "{direction:?} {scales:?} {window}");
    }
}

/// RFC 7323, section 2.2: the window of a SYN is never scaled.
#[test]
fn windows_of_syns_are_left_alone() {
    assert_eq!(windowed(Direction::Inbound, (7, 7, NO_SCALE), SYN, 501), 501);
}

/// Bytes of payload that fill a packet of 1,500.
pub(crate) const FULL: usize = 1_500 + IP - TCP - 20;

#[test]
fn lengths_ttl_and_next_hops_are_kept() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let session = Session::established();
        let hop = if direction == Direction::Inbound { HOP_IN } else { HOP_OUT };
        let base = towards(direction, &session, &session.client_segment());
        let fresh = || {
            let world = World::new();
            let slot = world.session(&session);
            (world, slot)
        };
        for (ttl, reason) in [(0, Reason::TtlExceeded), (1, Reason::TtlExceeded)] {
            let (world, slot) = fresh();
            let ran = run(&world, direction, &Segment { ttl, ..base.clone() }.bytes());
            assert_eq!(ran.reason(), reason);
            assert_eq!(world.slot(slot).flow(direction).packets.load(), 0);
        }
        let (world, slot) = fresh();
        let full = Segment { payload: vec![9; FULL], ..base.clone() };
        assert_eq!(
            run(&world, direction, &full.bytes()).sent(out_of(direction)).payload.len(),
            FULL
        );
        let flow = world.slot(slot).flow(direction);
        assert_eq!((flow.packets.load(), flow.bytes.load()), (1, 1_500));
        let larger = Segment { payload: vec![9; FULL + 1], ..base.clone() };
        assert_eq!(run(&world, direction, &larger.bytes()).reason(), Reason::TooBig);
        world.tables.memory.next_hops()[hop as usize].set_destination(None);
        assert_eq!(run(&world, direction, &full.bytes()).reason(), Reason::NextHopMissing);
        world.slot(slot).next_hop_in.store(0);
        world.slot(slot).next_hop_out.store(u32::MAX);
        assert_eq!(run(&world, direction, &full.bytes()).reason(), Reason::NextHopMissing);
        assert_eq!(flow.packets.load(), 1, "drops are not counted as forwarded");
    }
}

/// Ethernet pads short frames; what lies behind the packet is no part of it.
#[test]
fn trailing_bytes_are_not_touched() {
    let session = Session::established();
    let world = World::new();
    world.session(&session);
    let segment = session.client_segment();
    let mut frame = segment.bytes();
    frame.resize(TCP + 26, 0x5a);
    let ran = world.run(OUTSIDE, &frame);
    let mut wanted = expected(&segment, Direction::Inbound, &session).bytes();
    wanted.resize(TCP + 26, 0x5a);
    assert_eq!(ran.bytes, wanted);
}
