//! ICMP and ICMPv6 errors about sessions (SPEC C2; RFC 5508, section 4; RFC 5927, section 4.1).

use seawall_fastpath::TcpState::{self, Established, FinWait, SynSent};
use seawall_fastpath::family::Version;
use seawall_fastpath::{Direction, Reason};

use crate::FAMILY;
use crate::support::icmp::Error;
use crate::support::packet::{Ip, Mac, Segment};
use crate::support::world::{
    INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, REAL_MAC, ROUTER_MAC, Session, World, host,
};

/// A router on either side.
const ROUTER: Ip = host(0x0909_0909);

/// "Fragmentation needed" of RFC 1191, or "packet too big" of RFC 4443, section 3.2, with an MTU
/// of 1,280.
const TOO_BIG: (u8, u8) = match FAMILY {
    Version::V4 => (3, 4),
    Version::V6 => (2, 0),
};

fn error(about: &Segment, quote: usize) -> Error {
    let (kind, code) = TOO_BIG;
    Error { from: ROUTER, to: about.source.0, kind, code, rest: 1_280, ttl: 60, quote }
}

/// A side from which errors come: about what we sent there.
#[derive(Clone, Copy, Debug)]
struct Case {
    direction: Direction,
    ingress: (u32, Mac),
    egress: (u32, Mac, Mac),
    reason: Reason,
}

const CASES: [Case; 2] = [
    Case {
        direction: Direction::Inbound,
        ingress: (OUTSIDE, OUTSIDE_MAC),
        egress: (INSIDE, REAL_MAC, INSIDE_MAC),
        reason: Reason::IcmpIn,
    },
    Case {
        direction: Direction::Outbound,
        ingress: (INSIDE, INSIDE_MAC),
        egress: (OUTSIDE, ROUTER_MAC, OUTSIDE_MAC),
        reason: Reason::IcmpOut,
    },
];

impl Case {
    /// The segment as we sent it, and as its sender did.
    fn segments(&self, session: &Session) -> (Segment, Segment) {
        let numbers = &session.numbers;
        match self.direction {
            Direction::Inbound => {
                let sent = session.sent_to_client();
                let original = Segment {
                    source: session.real,
                    destination: session.local,
                    seq: sent.seq.wrapping_sub(numbers.d),
                    ack: sent.ack.wrapping_add(numbers.f),
                    ..sent.clone()
                };
                (sent, original)
            }
            Direction::Outbound => {
                let sent = session.sent_to_real_server();
                let original = Segment {
                    source: session.client,
                    destination: session.vip,
                    seq: sent.seq.wrapping_sub(numbers.f),
                    ack: sent.ack.wrapping_add(numbers.d),
                    ..sent.clone()
                };
                (sent, original)
            }
        }
    }

    fn send(&self, world: &World, about: &Segment, quote: usize) -> crate::support::world::Ran {
        world.run(self.ingress.0, &error(about, quote).bytes(self.ingress.1, about))
    }
}

/// Byte for byte what the router would have said to the segment's sender, however much it quotes.
#[test]
fn an_error_reaches_whom_it_concerns() {
    for case in CASES {
        for quote in [8, 12, 16, 20, 28, 120] {
            let session = Session::established();
            let world = World::new();
            let slot = world.session(&session);
            let (sent, original) = case.segments(&session);
            let ran = case.send(&world, &sent, quote);
            assert_eq!(ran.reason(), case.reason, "{case:?} {quote}");
            let (interface, to, from) = case.egress;
            assert_eq!(ran.verdict.action, seawall_fastpath::Action::Send { interface });
            let wanted = Error {
                from: original.destination.0,
                to: original.source.0,
                ttl: 59,
                ..error(&sent, quote)
            };
            // A header that is not whole keeps its acknowledgment number: it has no checksum
            // with it that could be put right.
            let original =
                if quote < 20 { Segment { ack: sent.ack, ..original } } else { original };
            let mut wanted = wanted.bytes(to, &original);
            wanted[6..12].copy_from_slice(&from);
            assert_eq!(ran.bytes, wanted, "{case:?} {quote}");
            let slot = world.slot(slot);
            assert_eq!(slot.state().state, Established, "errors are soft");
            assert_eq!((slot.inbound.packets.load(), slot.outbound.packets.load()), (0, 0));
        }
    }
}

/// Under NAT nothing hides: the router is the real server's to know (IPVS, `ip_vs_nat_icmp`).
#[test]
fn under_nat_the_router_keeps_its_name() {
    let session = Session { local: Session::established().client, ..Session::established() };
    let world = World::new();
    world.session(&session);
    let case = CASES[0];
    let (sent, original) = case.segments(&session);
    let ran = case.send(&world, &sent, 40);
    let wanted =
        Error { to: original.source.0, ttl: 59, ..error(&sent, 40) }.bytes(REAL_MAC, &original);
    assert_eq!(ran.bytes[12..], wanted[12..]);
}

/// RFC 5927, section 4.1: only what may be in flight is believed.
#[test]
fn a_number_out_of_flight_is_not_believed() {
    for case in CASES {
        let session = Session::established();
        let (window, slack) = (60_000u32, 0xffffu32);
        for (by, believed) in [
            (0, true),
            (window, true),
            (window + 1, false),
            (slack.wrapping_neg(), true),
            (slack.wrapping_neg() - 1, false),
            (1 << 31, false),
        ] {
            let world = World::new();
            world.session(&session);
            let (sent, _) = case.segments(&session);
            let about = Segment { seq: sent.seq.wrapping_add(by), ..sent };
            let reason = if believed { case.reason } else { Reason::IcmpInvalid };
            assert_eq!(case.send(&world, &about, 40).reason(), reason, "{case:?} {by}");
        }
    }
}

#[test]
fn everything_else_is_the_kernels() {
    for case in CASES {
        let session = Session::established();
        let (sent, _) = case.segments(&session);
        let world = World::new();
        assert_eq!(case.send(&world, &sent, 40).reason(), Reason::PassNotOurs, "no session");
        world.session(&session);
        // Too short for the ports and the sequence number.
        assert_eq!(case.send(&world, &sent, 7).reason(), Reason::PassNotOurs);
        let other_port = Segment { source: (sent.source.0, sent.source.1 ^ 1), ..sent.clone() };
        assert_eq!(case.send(&world, &other_port, 40).reason(), Reason::PassNotOurs);
        let elsewhere = Error { to: host(7), ..error(&sent, 40) }.bytes(case.ingress.1, &sent);
        assert_eq!(world.run(case.ingress.0, &elsewhere).reason(), Reason::PassNotOurs);
        let errors: &[u8] = match FAMILY {
            Version::V4 => &[3, 4, 11, 12],
            Version::V6 => &[1, 2, 3, 4],
        };
        for kind in 0..=u8::MAX {
            let frame = Error { kind, ..error(&sent, 40) }.bytes(case.ingress.1, &sent);
            let reason = if errors.contains(&kind) { case.reason } else { Reason::PassNotOurs };
            assert_eq!(world.run(case.ingress.0, &frame).reason(), reason, "{kind}");
        }
    }
}

#[test]
fn states_macs_and_limits_hold() {
    let wanted = |state: TcpState, case: &Case| match state {
        SynSent => Reason::PassNotOurs,
        _ => case.reason,
    };
    for case in CASES {
        for state in [SynSent, Established, FinWait] {
            let session = Session { state, ..Session::established() };
            let world = World::new();
            world.session(&session);
            let (sent, _) = case.segments(&session);
            assert_eq!(case.send(&world, &sent, 40).reason(), wanted(state, &case));
        }
        let session = Session::established();
        let (sent, _) = case.segments(&session);
        let world = World::new();
        world.session(&session);
        let wrong = error(&sent, 40).bytes([2, 9, 9, 9, 9, 9], &sent);
        assert_eq!(world.run(case.ingress.0, &wrong).reason(), Reason::NotOurMac);
        let old = Error { ttl: 1, ..error(&sent, 40) }.bytes(case.ingress.1, &sent);
        assert_eq!(world.run(case.ingress.0, &old).reason(), Reason::TtlExceeded);
        let mut cut = error(&sent, 40).bytes(case.ingress.1, &sent);
        cut.truncate(cut.len() - 1);
        assert_eq!(world.run(case.ingress.0, &cut).reason(), Reason::IpMalformed);
    }
}

/// A tagged network's errors are found too, and leave as the other side's tags want.
#[test]
fn tags_do_not_hide_an_error() {
    for case in CASES {
        let session = Session::established();
        let world = World::new();
        world.session(&session);
        let (sent, _) = case.segments(&session);
        let untagged = case.send(&world, &sent, 40);
        let tagged = Segment { tags: vec![0x88a8_0001, 0x8100_0002], ..sent };
        let ran = case.send(&world, &tagged, 40);
        assert_eq!((ran.reason(), ran.bytes), (case.reason, untagged.bytes));
    }
}
