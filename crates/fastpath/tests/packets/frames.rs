//! Anything at all: no frame makes the packet path panic, and each is counted once, which
//! [`World::run`] checks.

use std::collections::HashSet;

use proptest::prelude::*;
use seawall_fastpath::TcpState::{CloseWait, Established, SynRecv, SynSent, TimeWait};
use seawall_fastpath::family::Version;
use seawall_fastpath::{Action, Reason};

use super::syn::{layouts, syn};
use crate::FAMILY;
use crate::support::packet::{ACK, IP, Layout, Opt, Segment, checksums_hold, seal_ip, tcp_sum};
use crate::support::random::Random;
use crate::support::world::{CLIENT, INSIDE, LOCAL, OUTSIDE, Session, World, from_client};

fn sessions() -> Vec<Session> {
    [Established, SynSent, SynRecv, TimeWait, CloseWait]
        .iter()
        .enumerate()
        .map(|(at, state)| Session {
            client: (CLIENT.0, 30_000 + at as u16),
            local: (LOCAL.0, 7_000 + at as u16),
            state: *state,
            ..Session::established()
        })
        .collect()
}

fn world() -> World {
    let world = World::new();
    for session in sessions() {
        world.session(&session);
    }
    world
}

/// Frames that are right, to start from.
fn seeds() -> Vec<(u32, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (_, options) in layouts() {
        seeds.push((OUTSIDE, syn(&options).bytes()));
    }
    for port in 80..84 {
        seeds.push((OUTSIDE, from_client((crate::support::world::VIP, port)).bytes()));
    }
    let options =
        vec![Opt::Nop, Opt::Timestamps(1, 2), Opt::Nop, Opt::Sack(vec![(3, 4), (5, 6), (7, 8)])];
    for session in sessions() {
        for options in [vec![], options.clone()] {
            let payload = vec![5; 20];
            let (options, flags) = (options, ACK);
            let there = Segment { flags, options, payload, ..session.client_segment() };
            let back = session.real_server_segment();
            let back = Segment { options: there.options.clone(), ..back };
            seeds.push((OUTSIDE, there.bytes()));
            seeds.push((INSIDE, back.bytes()));
        }
    }
    seeds
}

#[test]
fn mutated_frames_are_counted_once() {
    let mut world = world();
    let seeds = seeds();
    let mut random = Random(5);
    let mut seen = HashSet::new();
    for round in 0..200_000 {
        if round % 500 == 0 {
            world = self::world();
        }
        let (interface, mut frame) = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(4) {
            let at = random.below(frame.len());
            frame[at] = random.u64() as u8;
        }
        match random.below(8) {
            0 => frame.truncate(random.below(frame.len() + 1)),
            1 => frame.extend(random.bytes(9)),
            _ => {}
        }
        let layout = Layout::find(&frame);
        if layout.is_some() && random.below(4) != 0 {
            seal_ip(&mut frame);
        }
        let ran = world.run(interface, &frame);
        seen.insert(ran.reason());
        if let Action::Send { .. } = ran.verdict.action {
            if ran.reason() == Reason::Cookie {
                assert!(checksums_hold(&ran.bytes));
            } else {
                assert_eq!(tcp_sum(&ran.bytes) % 0xffff, tcp_sum(&frame) % 0xffff);
                let tags = layout.expect("IP").ip - IP;
                assert_eq!(ran.bytes.len(), frame.len() - tags);
            }
        }
        if round % 100 == 0 {
            world.wait(random.below(700) as u64);
        }
    }
    let of_version: &[Reason] = match FAMILY {
        Version::V4 => &[Reason::IpChecksum, Reason::IpOptions],
        Version::V6 => &[Reason::ExtensionHeader],
    };
    // Unless the mutations reach most outcomes they prove little.
    let of_both = [
        Reason::Cookie,
        Reason::ForwardIn,
        Reason::ForwardOut,
        Reason::PuntClient,
        Reason::PuntRealServer,
        Reason::PuntUnproxied,
        Reason::BadAck,
        Reason::TcpDrop,
        Reason::FlagsImpossible,
        Reason::OptionsMalformed,
        Reason::IpMalformed,
        Reason::TcpMalformed,
        Reason::NotOurMac,
        Reason::LocalNoSession,
        Reason::FragmentDrop,
        Reason::UdpDrop,
        Reason::TtlExceeded,
        Reason::PassNotIp,
        Reason::PassNotOurs,
    ];
    for reason in of_both.iter().chain(of_version) {
        assert!(seen.contains(reason), "{reason:?} was never reached");
    }
}

#[test]
fn arbitrary_bytes_are_counted_once() {
    let world = world();
    let mut random = Random(6);
    let lengths = [0, 1, 13, 14, 33, 34, 53, 54, 60, 66, 94, 95, 200, 1_514];
    for _ in 0..50_000 {
        let len = random.pick(&lengths);
        let mut frame = random.bytes(len);
        if len > 14 && random.below(4) != 0 {
            let seed = Segment { flags: ACK, ..sessions()[0].client_segment() }.bytes();
            let keep = random.below(seed.len().min(len) + 1);
            frame[..keep].copy_from_slice(&seed[..keep]);
        }
        world.run(OUTSIDE, &frame);
    }
}

proptest! {
    /// The same, shrinking what fails.
    #[test]
    fn any_frame(bytes in prop::collection::vec(any::<u8>(), 0..120), keep in 0usize..54) {
        let seed = sessions()[0].client_segment().bytes();
        let mut frame = bytes;
        let keep = keep.min(frame.len()).min(seed.len());
        frame[..keep].copy_from_slice(&seed[..keep]);
        world().run(OUTSIDE, &frame);
    }
}

/// Frames without room to grow: the driver's buffer may end with the frame.
#[test]
fn a_syn_without_room_for_the_answer_is_dropped() {
    use seawall_fastpath::native::Buffer;
    let world = World::new();
    let mut frame = syn(&[]).bytes();
    let len = frame.len();
    let mut buffer = Buffer::new(&mut frame, len);
    let verdict = seawall_fastpath::process(&mut buffer, OUTSIDE, &world.tables);
    assert_eq!((verdict.action, verdict.reason), (Action::Drop, Reason::SynResizeFailed));
}
