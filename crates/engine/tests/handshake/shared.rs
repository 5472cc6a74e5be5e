//! Boxes behind one router that share a secret: one answers the SYN, another gets the ACK.

use seawall_engine::Counter;
use seawall_fastpath::Reason;
use seawall_fastpath::cookie::{EPOCH_MS, SKEW_MS};

use crate::support::balancer::{Setup, Shared};
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt, SYN, Segment};
use crate::support::stage::{
    CLIENT_CLOCK, CLIENT_ISN, CLIENT_PORT, SERVER_CLOCK, Stage, all_options, clock_of, data,
    syn_ack,
};

in_each_family! {
    another_box_finishes_the_handshake,
    a_box_with_another_secret_refuses,
    clocks_may_differ_by_the_skew,
    epochs_pass_on_both_boxes,
}

/// The time of day at which an epoch begins.
const MIDNIGHT: u64 = 27_500_000 * EPOCH_MS;

/// A box that was started at another time than others, with keys of its own beside the secret.
fn stage(family: Family, number: u64, secret: u64, wall: u64) -> Stage {
    let now = 1_000_000 + number * 77_777_777;
    let shared = Some(Shared { secret, wall: wall - now });
    Stage::new(&Setup { now, key: number, shared, ..Setup::of(family) })
}

/// The client's SYN and what it says to the SYN/ACK that `stage` gives.
fn answered(stage: &mut Stage, options: Vec<Opt>) -> Segment {
    let syn = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0);
    stage.client(&Segment { options, ..syn });
    let cookie = stage.one_to_client();
    let clock = clock_of(&cookie);
    let first = stage.client_says(CLIENT_PORT, ACK, cookie.ack, cookie.seq.wrapping_add(1));
    let echo = |(clock, _)| vec![Opt::Nop, Opt::Nop, Opt::Timestamps(CLIENT_CLOCK + 5, clock)];
    Segment { options: clock.map_or(Vec::new(), echo), ..first }
}

fn another_box_finishes_the_handshake(family: Family) {
    let (mut one, mut two) =
        (stage(family, 1, 9, MIDNIGHT + 30_000), stage(family, 2, 9, MIDNIGHT + 30_020));
    let first = answered(&mut one, all_options());
    two.client(&first);
    two.round();
    let syn = two.one_to_server();
    assert_eq!(two.balancer.engine.counter(Counter::OkAck), 1);
    let options = vec![
        Opt::Mss(1460),
        Opt::SackPermitted,
        Opt::Timestamps(SERVER_CLOCK, clock_of(&syn).expect("timestamps").0),
        Opt::Scale(7),
    ];
    two.server(&syn_ack(&syn, options.clone()));
    two.round();
    two.one_to_server();
    two.client(&data(&first, 0, b"GET"));
    assert_eq!(two.one_to_server().payload, b"GET");

    // What the client gets goes on where the other box's SYN/ACK left off.
    let accept = syn_ack(&syn, Vec::new());
    let echo = Opt::Timestamps(SERVER_CLOCK.wrapping_add(8), clock_of(&syn).expect("clock").0);
    two.server(&Segment {
        flags: ACK,
        seq: accept.seq.wrapping_add(1),
        options: vec![Opt::Nop, Opt::Nop, echo],
        payload: b"200".to_vec(),
        ..accept
    });
    let reply = two.one_to_client();
    assert_eq!((reply.seq, &reply.payload[..]), (first.ack, &b"200"[..]));
    let (_, told) = clock_of(&first).expect("timestamps");
    assert_eq!(clock_of(&reply), Some((told.wrapping_add(8), CLIENT_CLOCK + 5)));
    assert_eq!(one.balancer.engine.counter(Counter::Opened), 0);
}

fn a_box_with_another_secret_refuses(family: Family) {
    for options in [all_options(), vec![Opt::Mss(1460)]] {
        let (mut one, mut two) =
            (stage(family, 1, 9, MIDNIGHT + 30_000), stage(family, 2, 8, MIDNIGHT + 30_000));
        let first = answered(&mut one, options);
        two.client(&first);
        two.round();
        assert!(two.to_servers.is_empty() && two.to_client.is_empty());
        assert_eq!(two.balancer.reason(Reason::BadAck), 1);
        assert_eq!(two.balancer.engine.counter(Counter::OkAck), 0);
        // It is the secret, not the segment.
        one.client(&first);
        one.round();
        assert_eq!(one.balancer.engine.counter(Counter::OkAck), 1);
    }
}

/// At any moment of an epoch, whichever clock is ahead, with timestamps and without.
fn clocks_may_differ_by_the_skew(family: Family) {
    let skew = SKEW_MS as i64;
    for at in (0..EPOCH_MS).step_by(499).chain([EPOCH_MS - 1]) {
        for off in [-skew, 1 - skew, -1, 0, 1, skew - 1, skew] {
            let wall = MIDNIGHT + at;
            let (mut one, mut two) =
                (stage(family, 1, 9, wall), stage(family, 2, 9, wall.wrapping_add_signed(off)));
            for options in [all_options(), vec![Opt::Mss(1460)]] {
                let first = answered(&mut one, options);
                two.client(&first);
                two.round();
                let accepted = two.balancer.engine.counter(Counter::OkAck);
                assert_eq!(accepted, 1, "{at} ms into an epoch, {off} ms apart");
                two = stage(family, 2, 9, wall.wrapping_add_signed(off));
            }
        }
    }
}

/// A cookie of the other box lives as long as one of our own.
fn epochs_pass_on_both_boxes(family: Family) {
    for (later, accepted) in [(59_000, 1), (100_000, 0), (130_000, 0)] {
        // Both begin at the end of an epoch, so the cookie is as old as its epoch.
        let wall = MIDNIGHT + EPOCH_MS - 100;
        let (mut one, mut two) = (stage(family, 1, 9, wall), stage(family, 2, 9, wall));
        for _ in 0..3 {
            one.pass(EPOCH_MS);
            two.pass(EPOCH_MS);
        }
        let first = answered(&mut one, all_options());
        two.pass(later);
        two.client(&first);
        two.round();
        assert_eq!(two.balancer.engine.counter(Counter::OkAck), accepted, "{later} ms later");
    }
}
