//! Timestamps: PAWS (RFC 7323, section 5) holds at both ends, TSecr is exactly what was sent.

use seawall_engine::Forwarding;

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, Opt, SYN};
use crate::support::stage::{clock_of, data};

in_each_family! {
    both_clocks_run_on_in_their_own_time,
    clocks_wrap,
    a_syn_sent_again_repeats_its_clock,
    a_second_real_server_hears_no_older_clock,
    clocks_go_on_after_session_reuse,
    timestamps_on_one_side_only,
}

/// A few turns in which both clocks run, at different speeds.
fn turns(talk: &mut Conversation) {
    for turn in 0..20 {
        talk.client.tick(turn);
        talk.client_says(ACK, b"a");
        talk.server.tick(turn * 7 % 5);
        talk.server_says(ACK, b"b");
        talk.server.tick(1);
        talk.server_says(ACK, b"c");
    }
}

fn both_clocks_run_on_in_their_own_time(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, ..Setup::of(family) };
        let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
        turns(&mut talk);
        talk.close(family);
    }
}

/// The client's clock, the real server's, and ours pass zero and half.
fn clocks_wrap(family: Family) {
    for near in [0, 0x8000_0000u32] {
        let near = near.wrapping_sub(20);
        for (client, server) in [(near, 5), (5, near), (near, near)] {
            for now in [1 << 20, (1 << 32) - 10, (1 << 31) - 10] {
                let mut setup = Setup { now, ..Setup::of(family) };
                setup.config.timestamp_offset = 0;
                let client = Offer { clock: Some(client), ..Offer::CLIENT };
                let server = Offer { clock: Some(server), ..Offer::SERVER };
                let mut talk = Conversation::open(&setup, client, server);
                turns(&mut talk);
                talk.close(family);
            }
        }
    }
}

fn a_syn_sent_again_repeats_its_clock(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, ..Setup::of(family) };
        let mut talk = Conversation::begin(&setup, Offer::CLIENT);
        for wait in [1_100, 2_100, 4_100] {
            talk.stage.pass(wait);
            let again = talk.stage.one_to_server();
            assert_eq!((again.flags, &again.options), (SYN, &talk.syn.options));
        }
        // Early data of later clocks must not be older than the SYN, nor the first ACK newer.
        let mut early = data(&talk.first, 0, b"early");
        early.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(9_000, talk.client.heard)];
        talk.stage.client(&early);
        talk.stage.round();
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        let sent = std::mem::take(&mut talk.stage.to_servers);
        let clocks: Vec<_> = sent.iter().map(|segment| clock_of(segment).unwrap()).collect();
        let (syn, server) = (clock_of(&talk.syn).unwrap().0, talk.server.clock.unwrap());
        let first = clock_of(&talk.first).unwrap().0;
        assert_eq!(clocks, [(syn, server), (syn.wrapping_add(9_000 - first), server)]);
    }
}

fn a_second_real_server_hears_no_older_clock(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, ..Setup::of(family) };
        let mut talk = Conversation::begin(&setup, Offer::CLIENT);
        let (server, clock) = (talk.syn.destination, clock_of(&talk.syn));
        loop {
            talk.stage.pass(1_000);
            let sent = std::mem::take(&mut talk.stage.to_servers);
            if let Some(syn) =
                sent.into_iter().find(|sent| sent.flags == SYN && sent.destination != server)
            {
                talk.syn = syn;
                break;
            }
        }
        let (before, now) = (clock.unwrap().0, clock_of(&talk.syn).unwrap().0);
        assert!(now.wrapping_sub(before) < 1 << 31, "{forwarding:?}: {before} {now}");
        assert!(forwarding == Forwarding::FullNat || now == before, "the client's own clock");
        talk.establish(Offer::SERVER);
        turns(&mut talk);
        talk.close(family);
    }
}

/// A new connection from the same port: under FULLNAT the local address has one clock for all, so
/// the real server never sees it step back, whatever local port is taken; and the client sees ours
/// go on too.
fn clocks_go_on_after_session_reuse(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, servers: 1, ports: (5000, 5001), ..Setup::of(family) };
        let mut stage = crate::support::stage::Stage::new(&setup);
        let (mut to_server, mut to_client) = (None, None);
        for round in 0..6u32 {
            let begin = 1_000 + round * 400;
            let client = Offer { isn: 0x100_0000 * round, clock: Some(begin), ..Offer::CLIENT };
            // Every clock here runs in milliseconds.
            let server = Offer { clock: Some(begin.wrapping_add(0x7fff_0000)), ..Offer::SERVER };
            let mut talk = Conversation::begin_on(stage, PORT, client);
            let seen = (clock_of(&talk.syn).unwrap().0, clock_of(&talk.cookie).unwrap().0);
            let no_older = |last: Option<u32>, now: u32| {
                assert!(last.is_none_or(|last| now.wrapping_sub(last) < 1 << 31), "{last:?} {now}");
            };
            no_older(to_server, seen.0);
            no_older(to_client, seen.1);
            assert_eq!(talk.resets.len(), usize::from(round > 0));
            talk.establish(server);
            for _ in 0..10 {
                talk.stage.pass(20);
                talk.client.tick(20);
                talk.server.tick(20);
                talk.client_says(ACK, b"a");
                talk.server_says(ACK, b"b");
            }
            talk.client_says(FIN | ACK, b"");
            talk.server_says(FIN | ACK, b"");
            let last = talk.client_says(ACK, b"");
            to_server = clock_of(&last).map(|clock| clock.0);
            to_client = Some(talk.client.heard);
            // TIME_WAIT: the next handshake finds the session and takes its place.
            talk.stage.pass(195);
            stage = talk.stage;
        }
        let reused = stage.balancer.engine.counter(seawall_engine::Counter::ReusedTimeWait);
        assert_eq!(reused, 5, "{forwarding:?}");
    }
}

/// A client without timestamps meets a real server with them, and the other way round: the first
/// client of a service is offered what its real server then refuses (SPEC A7).
fn timestamps_on_one_side_only(family: Family) {
    let without = |offer: Offer| Offer { clock: None, ..offer };
    let mut talk = Conversation::open(&Setup::of(family), without(Offer::CLIENT), Offer::SERVER);
    assert_eq!(clock_of(&talk.cookie), None);
    assert_eq!(clock_of(&talk.syn), None);
    talk.client_says(ACK, b"a");
    talk.server_says(ACK, b"b");
    talk.close(family);

    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, without(Offer::SERVER));
    // The client believes they are in use; its option passes as it is.
    let mut said = talk.client_segment(ACK, b"a");
    said.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(1_005, talk.client.heard)];
    assert_eq!(talk.client_sends(&said).options, said.options);
    talk.server_says(ACK, b"b");
    // The next client is not offered them.
    let next = Conversation::begin_on(talk.stage, PORT + 1, Offer::CLIENT);
    assert_eq!((clock_of(&next.cookie), clock_of(&next.syn)), (None, None));
}
