//! A client that takes its port back at once, in every state of its old connection (SPEC A12).

use seawall_engine::{Counter, Forwarding};
use seawall_fastpath::layout::switch;
use seawall_fastpath::{Reason, TcpState};

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};

in_each_family! {
    a_port_is_used_again_in_every_state,
    a_state_without_its_switch_is_not_reused,
    an_established_session_is_never_reused,
    a_segment_that_overtakes_the_new_ack_stays_here,
    a_late_ack_of_an_earlier_connection_opens_nothing,
}

const STATES: [TcpState; 4] =
    [TcpState::Close, TcpState::TimeWait, TcpState::FinWait, TcpState::CloseWait];

fn setup(family: Family, forwarding: Forwarding) -> Setup {
    let mut setup = Setup { forwarding, servers: 1, ..Setup::of(family) };
    for state in STATES {
        setup.config.switches |= switch::reuse(state);
    }
    setup
}

/// A session brought into `state`.
fn over(setup: &Setup, state: TcpState) -> Conversation {
    let mut talk = Conversation::open(setup, Offer::CLIENT, Offer::SERVER);
    talk.client_says(ACK, b"abc");
    talk.server_says(ACK, b"def");
    talk.client_says(ACK, b"");
    if matches!(state, TcpState::CloseWait | TcpState::TimeWait) {
        talk.client_says(FIN | ACK, b"");
        talk.server_says(ACK, b"");
    }
    if matches!(state, TcpState::FinWait | TcpState::TimeWait) {
        talk.server_says(FIN | ACK, b"");
        talk.client_says(ACK, b"");
    }
    if state == TcpState::Close {
        talk.client_says(RST | ACK, b"");
    }
    let now = talk.stage.balancer.now();
    assert_eq!(talk.stage.balancer.engine.sessions(now, 0, 1)[0].1.state, state);
    talk
}

/// The old half is reset with the number that the real server expects, the new connection has
/// numbers and a local port of its own, and what is late of the old one disturbs nothing.
fn a_port_is_used_again_in_every_state(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        for state in STATES {
            let old = over(&setup(family, forwarding), state);
            let late = old.server_segment(ACK, b"late");
            let (expects, source) = (old.server.expects, old.syn.source);
            let client = Offer { isn: 0x9999_9999, clock: Some(50_000), ..Offer::CLIENT };
            let mut new = Conversation::begin_on(old.stage, PORT, client);
            let resets = usize::from(state != TcpState::Close);
            assert_eq!(new.resets.len(), resets, "{state:?}");
            assert!(new.resets.iter().all(|reset| reset.seq == expects), "{state:?}");
            if forwarding == Forwarding::FullNat {
                assert_ne!(new.syn.source, source, "a fresh local port");
                new.stage.server(&late);
                assert_eq!(new.stage.balancer.reason(Reason::LocalNoSession), 1);
            }
            new.establish(Offer { isn: 0x2222_2222, ..Offer::SERVER });
            new.client_says(ACK, b"new");
            new.server_says(ACK, b"new too");
            let engine = &new.stage.balancer.engine;
            assert_eq!(engine.counter(Counter::Reused), 1);
            assert_eq!(engine.session_count(), 1);
            new.close(family);
        }
    }
}

fn a_state_without_its_switch_is_not_reused(family: Family) {
    for state in STATES {
        let mut setup = setup(family, Forwarding::FullNat);
        setup.config.switches &= !switch::reuse(state);
        let mut old = over(&setup, state);
        let syn = Segment { flags: SYN, seq: 1, ack: 0, ..old.first.clone() };
        old.stage.client(&syn);
        let cookie = old.stage.one_to_client();
        let clock = crate::support::stage::clock_of(&cookie).unwrap().0;
        let mut ack = old.client_segment(ACK, b"");
        (ack.seq, ack.ack) = (2, cookie.seq.wrapping_add(1));
        ack.options = vec![crate::support::packet::Opt::Timestamps(2_000, clock)];
        old.stage.client(&ack);
        old.stage.round();
        let sent = std::mem::take(&mut old.stage.to_servers);
        assert!(sent.iter().all(|sent| sent.flags & SYN == 0), "{state:?}");
        assert_eq!(old.stage.balancer.engine.counter(Counter::Reused), 0);
        old.end();
    }
}

/// Its SYN is not answered with a cookie, and a cookie from before opens nothing.
fn an_established_session_is_never_reused(family: Family) {
    let mut talk =
        Conversation::open(&setup(family, Forwarding::FullNat), Offer::CLIENT, Offer::SERVER);
    let syn = Segment { flags: SYN, seq: 5, ack: 0, ..talk.first.clone() };
    talk.stage.client(&syn);
    assert!(talk.stage.to_client.is_empty());
    assert_eq!(talk.stage.one_to_server().flags, SYN);
    talk.client_says(ACK, b"abc");
    assert_eq!(talk.stage.balancer.engine.counter(Counter::Opened), 1);
    talk.close(family);
}

/// Simulation, seed 156237: the new connection's ISN is near the old numbers, its acknowledgment
/// number is not. The old real server would answer with a reset that the client accepts.
fn a_segment_that_overtakes_the_new_ack_stays_here(family: Family) {
    for state in [TcpState::Close, TcpState::TimeWait] {
        let mut old = over(&setup(family, Forwarding::FullNat), state);
        let isn = old.client.next.wrapping_add(20_000);
        let syn = Segment { flags: SYN, seq: isn, ack: 0, ..old.first.clone() };
        old.stage.client(&Segment { options: Vec::new(), ..syn.clone() });
        let cookie = old.stage.one_to_client();
        let next = Segment {
            flags: ACK,
            seq: isn.wrapping_add(101),
            ack: cookie.seq.wrapping_add(1),
            options: Vec::new(),
            ..syn
        };
        old.stage.client(&next);
        old.stage.round();
        assert!(old.stage.to_servers.is_empty(), "{state:?}: {:?}", old.stage.to_servers);
    }
}

/// Simulation, seeds 139624 and 133703: a duplicate of an earlier connection's third ACK has a
/// valid cookie, but not a new one (SPEC A12).
fn a_late_ack_of_an_earlier_connection_opens_nothing(family: Family) {
    for state in STATES {
        let one = over(&setup(family, Forwarding::FullNat), TcpState::TimeWait);
        let late = one.first.clone();
        let client = Offer { isn: 0x9999_9999, clock: Some(50_000), ..Offer::CLIENT };
        let mut two = Conversation::begin_on(one.stage, PORT, client);
        two.establish(Offer::SERVER);
        if matches!(state, TcpState::CloseWait | TcpState::TimeWait) {
            two.client_says(FIN | ACK, b"");
        }
        if matches!(state, TcpState::FinWait | TcpState::TimeWait) {
            two.server_says(FIN | ACK, b"");
        }
        if state == TcpState::Close {
            two.client_says(RST | ACK, b"");
        }
        // The note that the first was accepted is forgotten by now.
        two.stage.pass(600);
        two.stage.client(&late);
        two.stage.round();
        let sent = &two.stage.to_servers;
        assert!(sent.iter().all(|sent| sent.flags & (SYN | RST) == 0), "{state:?}: {sent:?}");
        assert_eq!(two.stage.balancer.engine.counter(Counter::Reused), 1, "{state:?}");
    }
}
