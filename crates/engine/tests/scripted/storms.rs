//! The ACK storm (SPEC A14): the loop of two ends that have lost step is cut, and no legitimate
//! run of duplicate ACKs ever.

use seawall_fastpath::Reason;

use crate::conversation::{Conversation, Offer};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt, Segment};

in_each_family! {
    the_loop_of_two_ends_out_of_step_is_cut,
    duplicate_acks_while_the_other_side_sends_are_not,
    duplicate_acks_with_selective_blocks_are_not,
    probes_and_keep_alives_are_not,
}

fn open(family: Family, threshold: u16) -> Conversation {
    let mut setup = Setup::of(family);
    setup.config.ack_storm_threshold = threshold;
    let plain = |offer: Offer| Offer { clock: None, ..offer };
    let mut talk = Conversation::open(&setup, plain(Offer::CLIENT), plain(Offer::SERVER));
    talk.client_says(ACK, b"abc");
    talk.server_says(ACK, b"def");
    talk.client_says(ACK, b"");
    talk
}

fn cut(talk: &Conversation) -> u64 {
    talk.stage.balancer.reason(Reason::AckStorm)
}

/// Each end answers the other's acknowledgment, which it thinks is out of its window, with its own.
/// Gives how many segments went through before the loop ended, if it did.
fn loop_of(talk: &mut Conversation, most: u64, pause: u64) -> Option<u64> {
    let (mine, theirs) = (talk.client_segment(ACK, b""), talk.server_segment(ACK, b""));
    for passed in 0..most {
        let now = talk.stage.balancer.now();
        talk.stage.balancer.set_now(now + pause);
        let from_client = passed % 2 == 0;
        if from_client {
            talk.stage.client(&mine);
        } else {
            talk.stage.server(&theirs);
        }
        talk.stage.round();
        let heard =
            if from_client { &mut talk.stage.to_servers } else { &mut talk.stage.to_client };
        if heard.drain(..).count() == 0 {
            return Some(passed);
        }
    }
    None
}

fn the_loop_of_two_ends_out_of_step_is_cut(family: Family) {
    for threshold in [1, 2, 10, 100, 1_000] {
        for pause in [0, 1, 20] {
            let mut talk = open(family, threshold);
            let passed = loop_of(&mut talk, 5_000, pause).expect("the loop goes on for ever");
            assert!(passed <= 2 * u64::from(threshold) + 4, "{passed} of {threshold}");
            assert!(passed >= 2 * u64::from(threshold), "{passed} of {threshold}");
            assert_eq!(cut(&talk), 1);
            // Whoever has something to say says it, and the connection goes on.
            talk.client_says(ACK, b"more");
            talk.server_says(ACK, b"more");
            talk.client_says(ACK, b"");
            talk.close(family);
        }
    }
    assert_eq!(loop_of(&mut open(family, 0), 5_000, 1), None, "0 is off");
}

/// A receiver that misses one segment of a large window asks for it once a segment that arrives.
fn duplicate_acks_while_the_other_side_sends_are_not(family: Family) {
    let mut talk = open(family, 10);
    for _ in 0..1_000 {
        let same = talk.server_segment(ACK, b"");
        talk.server_sends(&same);
        talk.client_says(ACK, b"after the hole");
        talk.server.expects = same.ack;
    }
    for _ in 0..1_000 {
        let expects = talk.client.expects;
        talk.server_says(ACK, b"after the hole");
        talk.client.expects = expects;
        let same = talk.client_segment(ACK, b"");
        talk.client_sends(&same);
    }
    assert_eq!(cut(&talk), 0);
}

fn duplicate_acks_with_selective_blocks_are_not(family: Family) {
    let mut talk = open(family, 10);
    let hole = talk.server.expects;
    let left = hole.wrapping_add(1_000);
    for at in 0..1_000 {
        talk.client.next = talk.client.next.wrapping_add(1_000);
        talk.client_says(ACK, &[7; 1_000]);
        let mut same = Segment { ack: hole, ..talk.server_segment(ACK, b"") };
        same.options = vec![Opt::Sack(vec![(left, left.wrapping_add(at * 1_000))])];
        talk.server.expects = hole;
        talk.server_sends(&same);
    }
    assert_eq!(cut(&talk), 0);
}

/// They repeat on both sides, but no faster than a retransmission timer.
fn probes_and_keep_alives_are_not(family: Family) {
    for pause in [200, 1_000, 75_000] {
        let mut talk = open(family, 1);
        assert_eq!(loop_of(&mut talk, 400, pause), None, "every {pause} ms");
        assert_eq!(cut(&talk), 0);
    }
}
