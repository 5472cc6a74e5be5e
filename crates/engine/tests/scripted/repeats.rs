//! Segments that come more than once, or from a connection of the past (SPEC A1, A6).

use seawall_engine::{Counter, Forwarding};
use seawall_fastpath::Reason;

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::stage::{answer, clock_of, data};

in_each_family! {
    the_third_ack_comes_again,
    the_syn_comes_again,
    a_syn_ack_comes_again_at_every_point,
    a_bare_ack_of_a_past_connection,
    a_syn_on_an_established_session,
    bare_acks_without_end_do_not_loop,
    a_real_server_that_forgot_the_session,
}

fn each_setup(family: Family) -> [Setup; 2] {
    [Forwarding::Nat, Forwarding::FullNat]
        .map(|forwarding| Setup { forwarding, ..Setup::of(family) })
}

/// Before the engine has seen the first, before the real server answers, and after.
fn the_third_ack_comes_again(family: Family) {
    for setup in each_setup(family) {
        let mut talk = Conversation::begin(&setup, Offer::CLIENT);
        for _ in 0..3 {
            talk.stage.client(&talk.first.clone());
        }
        talk.stage.round();
        assert!(talk.stage.to_servers.is_empty(), "one SYN, not four");
        assert_eq!(talk.stage.balancer.engine.session_count(), 1);
        talk.establish(Offer::SERVER);
        let first = talk.first.clone();
        let heard = talk.client_sends(&first);
        assert_eq!(heard.flags, ACK, "a duplicate ACK, nothing more");
        talk.client_says(ACK, b"abc");
        talk.stage.client(&first);
        talk.stage.round();
        assert_eq!(talk.stage.one_to_server().seq, talk.syn.seq.wrapping_add(1));
        talk.server_says(ACK, b"def");
        talk.close(family);
    }
}

/// The client has not heard our SYN/ACK: the answer is the same cookie, and either ACK is good.
fn the_syn_comes_again(family: Family) {
    let mut stage = crate::support::stage::Stage::new(&Setup::of(family));
    let syn = stage.client_says(PORT, SYN, 7, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    stage.client(&syn);
    assert_eq!(stage.one_to_client().seq, cookie.seq);
    let first = stage.client_says(PORT, ACK, 8, cookie.seq.wrapping_add(1));
    stage.client(&first);
    stage.round();
    stage.one_to_server();
    // Late, while the real server is asked: answered too, and nothing changes.
    stage.client(&syn);
    stage.round();
    assert_eq!(stage.one_to_client().seq, cookie.seq);
    assert_eq!(stage.balancer.engine.session_count(), 1);
    assert!(stage.to_servers.is_empty());
}

/// Never forwarded: the client would drop a SYN/ACK, and a server that speaks first would hang.
fn a_syn_ack_comes_again_at_every_point(family: Family) {
    for setup in each_setup(family) {
        for point in 0..5 {
            let mut talk = Conversation::begin(&setup, Offer::CLIENT);
            let accept = talk.accepts(Offer::SERVER);
            talk.stage.server(&accept);
            if point == 0 {
                talk.stage.server(&accept);
            }
            talk.stage.round();
            talk.stage.to_servers.truncate(1);
            let kept = talk.stage.one_to_server();
            let first = talk.first.clone();
            talk.hears_at_server(&first, &kept);
            if point >= 2 {
                talk.client_says(ACK, b"abc");
            }
            if point >= 3 {
                talk.client_says(FIN | ACK, b"");
            }
            if point >= 4 {
                talk.server_says(FIN | ACK, b"");
            }
            talk.stage.server(&accept);
            talk.stage.round();
            assert!(talk.stage.to_client.is_empty(), "forwarded at point {point}");
            let again = talk.stage.one_to_server();
            assert_eq!((again.flags, again.ack), (ACK, accept.seq.wrapping_add(1)));
            assert_eq!(again.seq, talk.syn.seq.wrapping_add(1));
            let (value, echo) = clock_of(&again).expect("timestamps");
            assert_eq!(echo, clock_of(&accept).unwrap().0, "TSecr exactly");
            assert!(value.wrapping_sub(talk.server.heard) as i32 <= 0, "no newer than what it had");
            talk.end();
        }
    }
}

/// An RS in TIME_WAIT whose number is above ours, or ESTABLISHED on the tuple: a RST takes it
/// away, the SYN goes again at once; after a second one from another port (FULLNAT).
fn a_bare_ack_of_a_past_connection(family: Family) {
    for setup in each_setup(family) {
        let mut talk = Conversation::begin(&setup, Offer::CLIENT);
        let early = data(&talk.first, 0, b"abc");
        talk.stage.client(&early);
        talk.stage.server(&answer(&talk.syn, ACK, 77, 0x0bad_0000));
        talk.stage.round();
        let sent = std::mem::take(&mut talk.stage.to_servers);
        assert_eq!((sent[0].flags, sent[0].seq), (RST, 0x0bad_0000));
        assert_eq!(
            (sent[1].flags, sent[1].seq, &sent[1].options),
            (SYN, talk.syn.seq, &talk.syn.options)
        );
        assert_eq!(sent.len(), 2);
        // The old connection is gone; this one opens as any other, its early data intact.
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        let sent = std::mem::take(&mut talk.stage.to_servers);
        assert_eq!(sent.last().unwrap().payload, b"abc");
        assert!(talk.stage.to_client.is_empty(), "the client never hears of it");
        talk.end();
    }
}

/// A real server that answers every SYN so is asked a bounded number of times.
fn bare_acks_without_end_do_not_loop(family: Family) {
    for setup in each_setup(family) {
        let mut talk = Conversation::begin(&setup, Offer::CLIENT);
        talk.stage.to_servers.push(talk.syn.clone());
        let mut asked = 0;
        while talk.stage.to_client.is_empty() {
            assert!(talk.stage.elapsed() < 200_000, "the client waits for ever");
            for sent in std::mem::take(&mut talk.stage.to_servers) {
                if sent.flags == SYN {
                    asked += 1;
                    talk.stage.server(&answer(&sent, ACK, 77, 0x0bad_0000));
                }
            }
            talk.stage.pass(100);
        }
        assert!(asked <= 12, "asked {asked} times");
        talk.stage.to_servers.clear();
        let reset = talk.stage.one_to_client();
        assert_eq!((reset.flags & RST, reset.seq), (RST, talk.client.expects));
        assert_eq!(talk.stage.balancer.engine.counter(Counter::RsError), 1);
        talk.end();
    }
}

/// One a second goes to the real server, translated; further ones are dropped and counted.
fn a_syn_on_an_established_session(family: Family) {
    for setup in each_setup(family) {
        let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
        let syn = Segment {
            flags: SYN,
            seq: 0x0bad_0bad,
            ack: 0,
            options: talk.client.offer.options(0),
            ..talk.first.clone()
        };
        for round in 0..3u64 {
            for _ in 0..10 {
                talk.stage.client(&syn);
                talk.stage.round();
            }
            let heard = talk.stage.one_to_server();
            assert_eq!((heard.flags, heard.ack), (SYN, 0));
            assert!(talk.stage.to_client.is_empty(), "no cookie");
            // The real server is in its right mind: a challenge ACK, which the client knows.
            talk.server_says(ACK, b"");
            talk.stage.pass(1_000);
            assert_eq!(talk.stage.balancer.reason(Reason::SynLimited), 9 * (round + 1));
        }
        talk.client_says(ACK, b"abc");
        talk.close(family);
    }
}

/// Both ends have lost their state: the real server answers the client's SYN with a RST. The
/// session is closed, and the client's next SYN gets a cookie.
fn a_real_server_that_forgot_the_session(family: Family) {
    for setup in each_setup(family) {
        let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
        let syn = Segment { flags: SYN, seq: 77, ack: 0, ..talk.first.clone() };
        talk.stage.client(&syn);
        let heard = talk.stage.one_to_server();
        // A blind one ends nothing.
        let refusal = answer(&heard, RST | ACK, 0, heard.seq.wrapping_add(1));
        talk.stage.server(&Segment { ack: heard.seq, ..refusal.clone() });
        talk.stage.round();
        talk.stage.client(&syn);
        assert_eq!(talk.stage.balancer.reason(Reason::SynLimited), 1, "still established");
        talk.stage.to_client.clear();
        talk.stage.server(&refusal);
        talk.stage.round();
        assert_eq!(talk.stage.balancer.reason(Reason::RsForgot), 1);
        assert!(talk.stage.to_client.is_empty());
        talk.stage.client(&syn);
        assert_eq!(talk.stage.one_to_client().flags, SYN | ACK);
        talk.end();
    }
}
