//! Sequence numbers around 2^31 and 2^32, at every place that has one of its own: the client's
//! ISN, the cookie, the ISN towards the real server, the real server's ISN, and their deltas.

use seawall_engine::Forwarding;

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt, PSH, SYN, Segment};
use crate::support::stage::Stage;

in_each_family! {
    isns_near_the_wraps,
    deltas_of_every_kind,
    cookies_near_the_wraps,
    our_isn_near_the_wraps,
}

/// Within a few segments of where signed and unsigned comparisons go wrong.
const NEAR: [u32; 6] = [0, 1, 0x7fff_ffff - 700, 0x8000_0000 - 1, 0xffff_ffff - 1_500, 0xffff_ffff];

/// Data across the wrap, both ways, with SACK blocks on both sides of it.
#[track_caller]
fn across(mut talk: Conversation, family: Family) {
    let (client, server) = ([7; 1_000], [9; 1_200]);
    for _ in 0..3 {
        talk.client_says(ACK | PSH, &client);
        talk.server_says(ACK, b"");
        talk.server_says(ACK | PSH, &server);
        // The client misses one and says so about the next.
        let lost = talk.server.next;
        talk.server.next = lost.wrapping_add(1_200);
        let late = talk.server_segment(ACK, &server);
        talk.server_sends(&late);
        let mut hole = talk.client_segment(ACK, b"");
        let left = talk.client.expects.wrapping_add(1_200);
        hole.options.push(Opt::Nop);
        hole.options.push(Opt::Nop);
        hole.options.push(Opt::Sack(vec![(left, left.wrapping_add(1_200))]));
        talk.client_sends(&hole);
        talk.server.next = lost;
        talk.server_says(ACK, &server);
        talk.client.expects = talk.client.expects.wrapping_add(1_200);
        talk.server.next = talk.server.next.wrapping_add(1_200);
        talk.client_says(ACK, b"");
    }
    talk.close(family);
}

fn isns_near_the_wraps(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, ..Setup::of(family) };
        for client in NEAR {
            for server in NEAR {
                let client = Offer { isn: client, ..Offer::CLIENT };
                let server = Offer { isn: server, ..Offer::SERVER };
                across(Conversation::open(&setup, client, server), family);
            }
        }
    }
}

/// `d` = cookie - real server's ISN is what the test makes it.
fn deltas_of_every_kind(family: Family) {
    for delta in NEAR.into_iter().chain([2, 0x8000_0000, 0xffff_fffe]) {
        let mut talk = Conversation::begin(&Setup::of(family), Offer::CLIENT);
        talk.establish(Offer { isn: talk.cookie.seq.wrapping_sub(delta), ..Offer::SERVER });
        across(talk, family);
    }
}

/// A client ISN whose cookie is within `reach` below `limit`. The option byte and the parity are
/// the cookie's highest bits, so the offer decides near which wrap it can be.
fn cookie_below(setup: &Setup, offer: Offer, limit: u32, reach: u32) -> u32 {
    let mut stage = Stage::new(setup);
    // Odd epochs have the parity bit set.
    while stage.balancer.epoch().is_multiple_of(2) {
        stage.pass(64_000);
    }
    (0..200_000)
        .find(|isn| {
            let syn = stage.client_says(PORT, SYN, *isn, 0);
            stage.client(&Segment { options: offer.options(0), ..syn });
            limit.wrapping_sub(stage.one_to_client().seq).wrapping_sub(1) < reach
        })
        .expect("one in a few thousand")
}

fn cookies_near_the_wraps(family: Family) {
    let setup = Setup::of(family);
    // No scale is 15, the largest MSS class is 7: all bits set but SACK, which is the highest.
    let offer = Offer { scale: None, mss: Some(9_000), clock: None, ..Offer::CLIENT };
    for (sack, limit) in [(true, 0), (false, 0x8000_0000)] {
        let offer = Offer { sack, ..offer };
        let isn = cookie_below(&setup, offer, limit, 3_000);
        let mut stage = Stage::new(&setup);
        while stage.balancer.epoch().is_multiple_of(2) {
            stage.pass(64_000);
        }
        let mut talk = Conversation::begin_on(stage, PORT, Offer { isn, ..offer });
        assert!(limit.wrapping_sub(talk.cookie.seq) <= 3_000, "{:x}", talk.cookie.seq);
        talk.establish(Offer::SERVER);
        across(talk, family);
    }
}

/// Under FULLNAT the real server sees an ISN of ours, 250 for each millisecond of the clock.
fn our_isn_near_the_wraps(family: Family) {
    let isn = |now| Conversation::begin(&Setup { now, ..Setup::of(family) }, Offer::CLIENT).syn.seq;
    let start = Setup::of(family).now;
    for limit in [0, 0x8000_0000u32] {
        let wait = limit.wrapping_sub(isn(start)).wrapping_sub(1_000) / 250;
        let now = start + u64::from(wait);
        assert!(limit.wrapping_sub(isn(now)) <= 1_250);
        let setup = Setup { now, ..Setup::of(family) };
        across(Conversation::open(&setup, Offer::CLIENT, Offer::SERVER), family);
    }
}
