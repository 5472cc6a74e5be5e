//! Segments that are larger than the link they must leave by: their sender is told what fits (SPEC
//! C1; RFC 1191, section 4; RFC 4443, section 3.2).

use seawall_fastpath::family::Version;
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Action, Direction, Reason};

use crate::FAMILY;
use crate::support::icmp::Error;
use crate::support::packet::{IP, Ip, Segment, seal_ip};
use crate::support::world::{
    HOP_IN, HOP_OUT, INSIDE, LOCAL, OUTSIDE, Ran, Session, TCP, VIP, World,
};

/// What the narrow links take.
const MTU: u32 = 1_400;

fn world(session: &Session, mtu: u32) -> (World, u32) {
    let world = World::new();
    let slot = world.session(session);
    for hop in [HOP_IN, HOP_OUT] {
        world.tables.memory.next_hops()[hop as usize].mtu.store(mtu);
    }
    (world, slot)
}

/// A segment from one side in a packet of `len` bytes.
fn of(session: &Session, direction: Direction, len: u32) -> Segment {
    let segment = match direction {
        Direction::Inbound => session.client_segment(),
        Direction::Outbound => session.real_server_segment(),
    };
    let headers = TCP - IP + 20;
    Segment { payload: vec![0x5a; len as usize - headers], ..segment }
}

const fn ingress(direction: Direction) -> u32 {
    match direction {
        Direction::Inbound => OUTSIDE,
        Direction::Outbound => INSIDE,
    }
}

fn send(world: &World, direction: Direction, segment: &Segment) -> Ran {
    world.run(ingress(direction), &segment.bytes())
}

/// The error that `segment` must get: from `from`, back where it came from.
fn expected(segment: &Segment, from: Ip, mtu: u32) -> Vec<u8> {
    let (kind, code) = match FAMILY {
        Version::V4 => (3, 4),
        Version::V6 => (2, 0),
    };
    let error = Error { from, to: segment.source.0, kind, code, rest: mtu, ttl: 64, quote: 20 };
    let mut frame = error.bytes(segment.source_mac, segment);
    frame[6..12].copy_from_slice(&segment.destination_mac);
    let ip = IP + 4 * segment.tags.len();
    if FAMILY == Version::V4 {
        // As our other packets: type of service 0, identification 0, DF.
        frame[ip + 1] = 0;
        frame[ip + 4..ip + 8].copy_from_slice(&[0, 0, 0x40, 0]);
        seal_ip(&mut frame);
    }
    frame
}

#[test]
fn the_sender_is_told_what_fits() {
    let session = Session::established();
    for (direction, from) in [(Direction::Inbound, VIP), (Direction::Outbound, LOCAL.0)] {
        for tags in [vec![], vec![0x8100_0005], vec![0x88a8_0005, 0x8100_0006]] {
            let (world, slot) = world(&session, MTU);
            let fits = of(&session, direction, MTU);
            let forwarded = send(&world, direction, &fits).reason();
            assert!([Reason::ForwardIn, Reason::ForwardOut].contains(&forwarded));
            let segment = Segment { tags: tags.clone(), ..of(&session, direction, MTU + 1) };
            let ran = send(&world, direction, &segment);
            assert_eq!(ran.reason(), Reason::TooBig, "{direction:?}");
            let interface = ingress(direction);
            assert_eq!(ran.verdict.action, Action::Send { interface });
            assert_eq!(ran.bytes, expected(&segment, from, MTU), "{direction:?} {tags:x?}");
            let flow = world.slot(slot).flow(direction);
            assert_eq!(flow.packets.load(), 1, "what did not go on is not counted as forwarded");
        }
    }
}

/// The client's address, to which it sent, is none of ours.
#[test]
fn under_nat_the_real_server_hears_it_from_the_vip() {
    let session = Session { local: Session::established().client, ..Session::established() };
    let (world, _) = world(&session, MTU);
    let segment = of(&session, Direction::Outbound, 1_500);
    let ran = send(&world, Direction::Outbound, &segment);
    assert_eq!((ran.reason(), ran.bytes), (Reason::TooBig, expected(&segment, VIP, MTU)));
}

/// IPVS has the kernel cut such a packet in pieces.
#[test]
fn a_packet_that_may_be_cut_in_pieces_is_dropped() {
    if FAMILY == Version::V6 {
        return;
    }
    let session = Session::established();
    let (world, _) = world(&session, MTU);
    let mut frame = of(&session, Direction::Inbound, 1_500).bytes();
    frame[IP + 6] &= !0x40;
    seal_ip(&mut frame);
    assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::MtuExceeded);
}

/// RFC 791, section 3.2; RFC 8200, section 5.
#[test]
fn no_sender_is_told_less_than_ip_allows() {
    let least = match FAMILY {
        Version::V4 => 68,
        Version::V6 => 1_280,
    };
    let session = Session::established();
    for (mtu, reason) in [(least, Reason::TooBig), (least - 1, Reason::MtuExceeded)] {
        let (world, _) = world(&session, mtu);
        let segment = of(&session, Direction::Inbound, 1_500);
        assert_eq!(send(&world, Direction::Inbound, &segment).reason(), reason, "{mtu}");
    }
}

/// Linux exempts these errors from `icmp_ratelimit` and `icmp_msgs_per_sec`.
#[test]
fn no_sender_uses_up_what_others_are_to_be_told() {
    let session = Session::established();
    let (world, _) = world(&session, MTU);
    let segment = of(&session, Direction::Inbound, 1_500);
    for _ in 0..2_000 {
        let ran = send(&world, Direction::Inbound, &segment);
        assert_eq!(ran.reason(), Reason::TooBig);
        assert!(ran.bytes.len() < segment.bytes().len(), "nobody gains by it");
    }
}
