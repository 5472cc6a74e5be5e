//! Requests of one to forty segments sent at once, before the real server has answered (SPEC A8).

use seawall_engine::{Counter, StoreLimits};
use seawall_fastpath::Reason;

use crate::conversation::{Conversation, Offer};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, PSH, Segment};
use crate::support::random::Random;
use crate::support::stage::data;

in_each_family! {
    every_byte_of_every_request_arrives_in_order,
    what_is_over_the_store_is_counted,
}

/// SPEC A8's defaults.
const STORE: StoreLimits = StoreLimits { segments: 16, bytes: 24 << 10, total_bytes: 64 << 20 };

fn setup(family: Family) -> Setup {
    let mut setup = Setup::of(family);
    setup.config.store = STORE;
    setup
}

fn pieces(talk: &Conversation, count: u32, len: u32) -> Vec<Segment> {
    (0..count)
        .map(|at| {
            let payload = vec![at as u8 + 1; len as usize];
            Segment { flags: ACK | PSH, ..data(&talk.first, at * len, &payload) }
        })
        .collect()
}

/// What the store did not take and XDP did not punt.
fn dropped(talk: &Conversation) -> u64 {
    talk.stage.balancer.engine.counter(Counter::QueueFull)
        + talk.stage.balancer.reason(Reason::PuntLimited)
}

/// Takes what the real server got into `got`, as a stack would: each byte once, in order, and
/// what lies beyond a hole is thrown away. Gives what it acknowledges.
fn receive(talk: &mut Conversation, got: &mut Vec<u8>) -> u32 {
    let start = talk.syn.seq.wrapping_add(1);
    for segment in talk.stage.to_servers.drain(..) {
        let at = segment.seq.wrapping_sub(start) as usize;
        if at <= got.len() && at + segment.payload.len() > got.len() {
            got.extend_from_slice(&segment.payload[got.len() - at..]);
        }
    }
    got.len() as u32
}

/// The client sends what was dropped again, as its stack would: from the acknowledged byte on.
fn every_byte_of_every_request_arrives_in_order(family: Family) {
    let mut random = Random(3);
    for count in 1..=40 {
        for (len, in_order) in [(1, true), (100, false), (1_000, true), (1_400, false)] {
            let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
            let pieces = pieces(&talk, count, len);
            let mut at_once: Vec<_> = pieces.iter().collect();
            if !in_order {
                for at in (1..at_once.len()).rev() {
                    at_once.swap(at, random.below(at + 1));
                }
            }
            for piece in at_once {
                talk.stage.client(piece);
                if random.below(4) == 0 {
                    talk.stage.round();
                }
            }
            talk.stage.round();
            assert!(talk.stage.to_servers.is_empty());
            let accept = talk.accepts(Offer::SERVER);
            talk.stage.server(&accept);
            talk.stage.round();
            assert!(
                talk.stage.to_servers.is_sorted_by_key(|sent| sent.seq.wrapping_sub(talk.syn.seq)),
                "what is kept is sent in order"
            );
            let mut got = Vec::new();
            let mut acked = receive(&mut talk, &mut got);
            let all = count * len;
            let mut tries = 0;
            while acked < all {
                tries += 1;
                assert!(tries <= 40, "{count} of {len}: no progress at {acked}");
                let first = acked / len;
                for piece in pieces.iter().skip(first as usize).take(4) {
                    talk.stage.client(piece);
                }
                talk.stage.round();
                acked = receive(&mut talk, &mut got);
            }
            let wanted: Vec<_> = pieces.iter().flat_map(|piece| piece.payload.clone()).collect();
            assert_eq!(got, wanted);
            assert_eq!(talk.stage.balancer.engine.early_bytes(), 0);
            talk.client.next = talk.client.next.wrapping_add(all);
            talk.server.expects = talk.server.expects.wrapping_add(all);
            talk.close(family);
        }
    }
}

/// The accepted ACK is one of the sixteen; 24 KiB hold what they hold; nobody loses count.
fn what_is_over_the_store_is_counted(family: Family) {
    for count in 1..=40 {
        for len in [1, 100, 1_400] {
            let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
            for piece in pieces(&talk, count, len) {
                talk.stage.client(&piece);
            }
            talk.stage.round();
            let ack = family.headers() as u32 + 12;
            let fits = (STORE.bytes as u32 - ack) / (ack + len);
            let kept = count.min(15).min(fits);
            let engine = &talk.stage.balancer.engine;
            assert_eq!(engine.counter(Counter::EarlyStored), u64::from(kept) + 1);
            assert_eq!(engine.early_bytes() as u32, ack + kept * (ack + len));
            assert_eq!(dropped(&talk), u64::from(count - kept), "{count} of {len}");
            let accept = talk.accepts(Offer::SERVER);
            talk.stage.server(&accept);
            talk.stage.round();
            assert_eq!(talk.stage.to_servers.len() as u32, kept + 1);
        }
    }
}
