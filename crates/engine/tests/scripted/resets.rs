//! RST from either side at every point of a connection's life (SPEC A10, A11, C5).

use seawall_engine::{Counter, Forwarding};
use seawall_fastpath::{Reason, TcpState};

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::stage::{Stage, answer, data};

in_each_family! {
    a_client_resets_before_its_ack,
    a_client_resets_while_the_real_server_is_asked,
    a_client_resets_in_the_moment_the_real_server_answers,
    a_real_server_refuses_and_no_ghost_is_sent,
    a_real_server_accepts_and_resets_at_once,
    resets_after_the_handshake_end_the_session,
    blind_resets_end_nothing,
}

fn state(talk: &Conversation) -> Option<TcpState> {
    let now = talk.stage.balancer.now();
    let sessions = talk.stage.balancer.engine.sessions(now, 0, 10);
    sessions.first().map(|(_, session)| session.state)
}

fn each_setup(family: Family) -> [Setup; 2] {
    [Forwarding::Nat, Forwarding::FullNat]
        .map(|forwarding| Setup { forwarding, ..Setup::of(family) })
}

/// There is no state to reset; a client that goes on regardless is served.
fn a_client_resets_before_its_ack(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let syn = stage.client_says(PORT, SYN, 7, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    for flags in [RST, RST | ACK, FIN] {
        let reset = stage.client_says(PORT, flags, 8, cookie.seq.wrapping_add(1));
        stage.client(&reset);
    }
    stage.round();
    let dropped = [Reason::TcpDrop, Reason::FlagsImpossible, Reason::BadAck];
    let dropped: u64 = dropped.iter().map(|reason| stage.balancer.reason(*reason)).sum();
    assert_eq!(dropped, 3);
    stage.balancer.assert_empty();
    let ack = stage.client_says(PORT, ACK, 8, cookie.seq.wrapping_add(1));
    stage.client(&ack);
    stage.round();
    assert_eq!(stage.one_to_server().flags, SYN);
}

fn a_client_resets_while_the_real_server_is_asked(family: Family) {
    for setup in each_setup(family) {
        for (flags, with_data) in [(RST, false), (RST | ACK, true)] {
            let mut talk = Conversation::begin(&setup, Offer::CLIENT);
            let mut at = 0;
            if with_data {
                talk.stage.client(&data(&talk.first, 0, b"abc"));
                at = 3;
            }
            talk.stage.client(&Segment { flags, ..data(&talk.first, at, b"") });
            talk.stage.round();
            let reset = talk.stage.one_to_server();
            assert_eq!((reset.flags & RST, reset.seq), (RST, talk.syn.seq.wrapping_add(1)));
            assert_eq!(talk.stage.balancer.engine.counter(Counter::ClientAborted), 1);
            // The real server's SYN/ACK that crossed the reset is nobody's.
            let accept = talk.accepts(Offer::SERVER);
            talk.stage.server(&accept);
            talk.stage.round();
            talk.end();
        }
    }
}

/// The client's RST and the real server's SYN/ACK wait in the ring together, in either order.
fn a_client_resets_in_the_moment_the_real_server_answers(family: Family) {
    for setup in each_setup(family) {
        for reset_first in [true, false] {
            let mut talk = Conversation::begin(&setup, Offer::CLIENT);
            let accept = talk.accepts(Offer::SERVER);
            let reset = Segment { flags: RST | ACK, ..talk.first.clone() };
            if reset_first {
                talk.stage.client(&reset);
                talk.stage.server(&accept);
            } else {
                talk.stage.server(&accept);
                talk.stage.client(&reset);
            }
            talk.stage.round();
            let sent = std::mem::take(&mut talk.stage.to_servers);
            let last = sent.last().expect("a reset");
            assert_eq!((last.flags & RST, last.seq), (RST, talk.server.expects));
            assert!(talk.stage.to_client.is_empty());
            talk.end();
        }
    }
}

/// PEERS (c) 5: LVS and DPVS kept the SYN, and sent it again when the session expired.
fn a_real_server_refuses_and_no_ghost_is_sent(family: Family) {
    for setup in each_setup(family) {
        let mut talk = Conversation::begin(&setup, Offer::CLIENT);
        talk.stage.client(&data(&talk.first, 0, b"abc"));
        talk.stage.server(&answer(&talk.syn, RST | ACK, 0, talk.syn.seq.wrapping_add(1)));
        talk.stage.round();
        let reset = talk.stage.one_to_client();
        assert_eq!((reset.flags & RST, reset.seq), (RST, talk.client.expects));
        assert_eq!(state(&talk), Some(TcpState::Close));
        assert_eq!(talk.stage.balancer.engine.early_bytes(), 0);
        talk.end();
    }
}

/// A real server whose application crashed between `accept` and the first read.
fn a_real_server_accepts_and_resets_at_once(family: Family) {
    for setup in each_setup(family) {
        for batch in [true, false] {
            let mut talk = Conversation::begin(&setup, Offer::CLIENT);
            let accept = talk.accepts(Offer::SERVER);
            let reset = talk.server_segment(RST | ACK, b"");
            talk.stage.server(&accept);
            if !batch {
                talk.stage.round();
            }
            talk.stage.server(&reset);
            talk.stage.round();
            let told = talk.stage.one_to_client();
            assert_eq!((told.flags & RST, told.seq), (RST, talk.client.expects));
            assert_eq!(state(&talk), Some(TcpState::Close));
            talk.stage.to_servers.clear();
            talk.end();
        }
    }
}

/// In ESTABLISHED and in every half-closed state, from either side, with and without ACK.
fn resets_after_the_handshake_end_the_session(family: Family) {
    for setup in each_setup(family) {
        for from_client in [true, false] {
            for flags in [RST, RST | ACK] {
                for fins in 0..4 {
                    let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
                    talk.client_says(ACK, b"abc");
                    talk.server_says(ACK, b"abc");
                    talk.client_says(ACK, b"");
                    if fins & 1 != 0 {
                        talk.client_says(FIN | ACK, b"");
                        talk.server_says(ACK, b"");
                    }
                    if fins & 2 != 0 {
                        talk.server_says(FIN | ACK, b"");
                        talk.client_says(ACK, b"");
                    }
                    let before = state(&talk);
                    if from_client {
                        let mut reset = talk.client_segment(flags, b"");
                        reset.ack = if flags & ACK == 0 { 0 } else { reset.ack };
                        talk.client_sends(&reset);
                    } else {
                        let mut reset = talk.server_segment(flags, b"");
                        reset.ack = if flags & ACK == 0 { 0 } else { reset.ack };
                        talk.server_sends(&reset);
                    }
                    let after = state(&talk);
                    let kept = before == Some(TcpState::TimeWait) && !from_client;
                    let expected = if kept { TcpState::TimeWait } else { TcpState::Close };
                    assert_eq!(after, Some(expected), "{flags:x} in {before:?}");
                    talk.end();
                }
            }
        }
    }
}

/// SPEC C5: outside the window that the other side is known to have open, nothing is believed.
fn blind_resets_end_nothing(family: Family) {
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER);
    talk.client_says(ACK, b"abc");
    talk.server_says(ACK, b"abc");
    talk.client_says(ACK, b"");
    for step in 1..16u32 {
        let away = step << 28;
        for flags in [RST, RST | ACK, FIN | ACK] {
            let reset = talk.client_segment(flags, b"");
            talk.stage.client(&Segment { seq: reset.seq.wrapping_add(away), ..reset });
            let reset = talk.server_segment(flags, b"");
            talk.stage.server(&Segment { seq: reset.seq.wrapping_add(away), ..reset });
            talk.stage.round();
            assert_eq!(state(&talk), Some(TcpState::Established), "{flags:x} {away:x}");
        }
    }
    talk.stage.to_client.clear();
    talk.stage.to_servers.clear();
    talk.client_says(ACK, b"still here");
    talk.server_says(ACK, b"me too");
    talk.close(family);
}
