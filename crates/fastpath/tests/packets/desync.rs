//! Two ends that have lost step: the ACK storm (SPEC A14) and the session that only one of them
//! still knows (SPEC A1).

use seawall_fastpath::TcpState::{Close, Established};
use seawall_fastpath::layout::RecordKind;
use seawall_fastpath::{Direction, Reason};

use crate::support::packet::{ACK, Opt, RST, SYN, Segment};
use crate::support::world::{INSIDE, OUTSIDE, Session, World};

const THRESHOLD: u32 = 10;

struct Pair {
    world: World,
    client: Segment,
    server: Segment,
}

impl Pair {
    fn new(threshold: u32) -> Self {
        let world = World::new();
        use seawall_fastpath::native::Memory;
        world.tables.memory.settings().ack_storm_threshold.store(threshold);
        let session = Session::established();
        world.session(&session);
        let (client, server) = (session.client_segment(), session.real_server_segment());
        Self { world, client, server }
    }

    fn say(&self, direction: Direction) -> Reason {
        match direction {
            Direction::Inbound => self.world.run(OUTSIDE, &self.client.bytes()).reason(),
            Direction::Outbound => self.world.run(INSIDE, &self.server.bytes()).reason(),
        }
    }

    /// Both say the same again and again, `gap` milliseconds apart; gives how many passed.
    fn storm(&self, gap: u64, rounds: usize) -> usize {
        for round in 0..rounds {
            for direction in [Direction::Outbound, Direction::Inbound] {
                self.world.wait(gap);
                match self.say(direction) {
                    Reason::ForwardIn | Reason::ForwardOut => {}
                    Reason::AckStorm => {
                        return round * 2 + usize::from(direction == Direction::Inbound);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        rounds * 2
    }
}

#[test]
fn a_loop_is_cut_after_the_threshold() {
    let passed = Pair::new(THRESHOLD).storm(1, 1_000);
    assert!((2 * THRESHOLD as usize..2 * THRESHOLD as usize + 4).contains(&passed), "{passed}");
    assert_eq!(Pair::new(0).storm(1, 1_000), 2_000, "switched off");
}

/// Window probes and keep-alives repeat on both sides, a timer apart.
#[test]
fn what_a_timer_repeats_goes_on_for_ever() {
    assert_eq!(Pair::new(THRESHOLD).storm(101, 1_000), 2_000);
}

/// PEERS (c), alibaba/LVS and DPVS: eleven identical acknowledgments of one receiver are fast
/// retransmit at work (RFC 5681, section 3.2).
#[test]
fn duplicate_acknowledgments_of_a_receiver_pass() {
    for (receiver, sender) in
        [(Direction::Inbound, Direction::Outbound), (Direction::Outbound, Direction::Inbound)]
    {
        let mut pair = Pair::new(THRESHOLD);
        for segment in 0..1_000u32 {
            let data = match sender {
                Direction::Inbound => &mut pair.client,
                Direction::Outbound => &mut pair.server,
            };
            data.payload = vec![1; 100];
            data.seq = data.seq.wrapping_add(100);
            assert_ne!(pair.say(sender), Reason::AckStorm, "{segment}");
            assert_ne!(pair.say(receiver), Reason::AckStorm, "{segment}");
        }
    }
}

/// SACK blocks and windows that change are news, and so is data in between.
#[test]
fn whoever_has_news_is_heard() {
    let mut pair = Pair::new(THRESHOLD);
    for round in 0..100u16 {
        pair.client.window = 0x2000 + round;
        assert_eq!(pair.say(Direction::Inbound), Reason::ForwardIn);
        assert_eq!(pair.say(Direction::Outbound), Reason::ForwardOut);
    }
    for blocks in [vec![(1, 2)], vec![(1, 2), (5, 9)]] {
        let mut pair = Pair::new(THRESHOLD);
        let timestamps = Opt::Timestamps(1, 2);
        pair.client.options =
            vec![Opt::Nop, Opt::Nop, timestamps, Opt::Nop, Opt::Nop, Opt::Sack(blocks)];
        for _ in 0..100 {
            assert_eq!(pair.say(Direction::Inbound), Reason::ForwardIn);
            assert_eq!(pair.say(Direction::Outbound), Reason::ForwardOut);
        }
    }
    let mut pair = Pair::new(THRESHOLD);
    for round in 0..100 {
        pair.client.payload = vec![1; usize::from(round % 8 == 7)];
        assert_eq!(pair.say(Direction::Inbound), Reason::ForwardIn);
        assert_eq!(pair.say(Direction::Outbound), Reason::ForwardOut);
    }
}

/// Two bursts cross and each loses its first segment: both receivers repeat themselves for every
/// other one, and nobody has anything to send in between.
#[test]
fn two_receivers_that_both_miss_something_pass() {
    for (burst, late) in [(40, 0), (200, 150), (1_000, 900)] {
        let mut pair = Pair::new(THRESHOLD);
        let (client, server) = (pair.client.clone(), pair.server.clone());
        for number in 1..=burst {
            let data = |of: &Segment| Segment {
                seq: of.seq.wrapping_add(number * 100),
                payload: vec![1; 100],
                ..of.clone()
            };
            (pair.client, pair.server) = (data(&client), data(&server));
            pair.say(Direction::Inbound);
            pair.say(Direction::Outbound);
        }
        pair.world.wait(late / 100);
        (pair.client, pair.server) = (client, server);
        for number in 0..burst {
            assert_eq!(pair.say(Direction::Inbound), Reason::ForwardIn, "{burst} {number}");
            assert_eq!(pair.say(Direction::Outbound), Reason::ForwardOut, "{burst} {number}");
        }
        // Once everything is answered, the rest is a storm.
        assert!(pair.storm(1, 1_000) < 200);
    }
}

/// What one side said long ago does not count with what the other says now.
#[test]
fn an_old_run_is_no_answer() {
    let pair = Pair::new(THRESHOLD);
    for _ in 0..50 {
        assert_eq!(pair.say(Direction::Outbound), Reason::ForwardOut);
    }
    pair.world.wait(101);
    for _ in 0..50 {
        assert_eq!(pair.say(Direction::Inbound), Reason::ForwardIn);
    }
}

/// After a cut, and a moment of silence, both are heard again.
#[test]
fn a_cut_is_no_verdict() {
    let pair = Pair::new(THRESHOLD);
    assert!(pair.storm(1, 1_000) < 100);
    pair.world.wait(200);
    assert_eq!(pair.say(Direction::Inbound), Reason::ForwardIn);
    assert_eq!(pair.say(Direction::Outbound), Reason::ForwardOut);
}

/// A client that has lost its state sends a SYN on an established session, which the real server
/// has lost too: its refusal closes the session, and the next SYN gets a cookie.
#[test]
fn a_session_that_both_have_forgotten_is_closed() {
    forgotten(false);
    forgotten(true);
}

fn forgotten(listens: bool) {
    let world = World::new();
    let session = Session::established();
    let slot = world.session(&session);
    let options = vec![Opt::Mss(1_460)];
    let syn = Segment { flags: SYN, seq: 0xffff_ffff, ack: 0, options, ..session.client_segment() };
    assert_eq!(world.client_sends(&syn).reason(), Reason::SynEstablished);
    let refusal = Segment {
        flags: RST | ACK,
        seq: 0,
        ack: syn.seq.wrapping_add(session.numbers.f).wrapping_add(1),
        ..session.real_server_segment()
    };
    for other in [
        Segment { ack: refusal.ack ^ 1, ..refusal.clone() },
        Segment { flags: RST, ..refusal.clone() },
    ] {
        assert_eq!(world.real_server_sends(&other).reason(), Reason::ForwardOut);
        assert_eq!(world.slot(slot).state().state, Established);
    }
    // Listening again or not.
    world.wait(999);
    let forgets = if listens { Segment { flags: SYN | ACK, ..refusal } } else { refusal };
    assert_eq!(world.real_server_sends(&forgets).reason(), Reason::RsForgot);
    assert_eq!(world.slot(slot).state().state, Close);
    let record = world.records().pop().expect("the engine is told");
    assert_eq!((record.header.kind, record.header.slot), (RecordKind::StateChanged as u16, slot));
    assert_eq!(world.client_sends(&syn).reason(), Reason::Cookie);
}

/// Without a SYN a moment ago, nobody was refused.
#[test]
fn an_old_refusal_closes_nothing() {
    let world = World::new();
    let session = Session::established();
    let slot = world.session(&session);
    let syn = Segment { flags: SYN, seq: 5, ack: 0, ..session.client_segment() };
    assert_eq!(world.client_sends(&syn).reason(), Reason::SynEstablished);
    world.wait(1_000);
    let refusal = Segment {
        flags: RST | ACK,
        seq: 0,
        ack: session.numbers.f.wrapping_add(6),
        ..session.real_server_segment()
    };
    assert_eq!(world.real_server_sends(&refusal).reason(), Reason::ForwardOut);
    assert_eq!(world.slot(slot).state().state, Established);
}
