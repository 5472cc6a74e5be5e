//! Ends that close at once, half-close, or fall silent.

use seawall_engine::Forwarding;
use seawall_fastpath::TcpState;

use crate::conversation::{Conversation, Offer};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::support::stage::data;

in_each_family! {
    both_close_at_once,
    a_half_closed_client_hears_the_whole_answer,
    a_half_closed_server_hears_the_whole_request,
    a_fin_is_sent_again,
    half_open_a_client_that_lost_its_state,
    half_open_a_server_that_lost_its_state,
    an_idle_session_expires,
    a_fin_before_the_real_server_answers,
    a_fin_with_data_on_the_third_ack,
}

fn open(family: Family) -> Conversation {
    Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER)
}

fn state(talk: &Conversation) -> Option<TcpState> {
    let now = talk.stage.balancer.now();
    let sessions = talk.stage.balancer.engine.sessions(now, 0, 10);
    sessions.first().map(|(_, session)| session.state)
}

/// RFC 9293, section 3.6: the FINs cross, each before the other's is heard.
fn both_close_at_once(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, ..Setup::of(family) };
        let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
        let (mine, theirs) =
            (talk.client_segment(FIN | ACK, b""), talk.server_segment(FIN | ACK, b""));
        talk.client_sends(&mine);
        talk.server_sends(&theirs);
        assert_eq!(state(&talk), Some(TcpState::TimeWait));
        talk.client_says(ACK, b"");
        talk.server_says(ACK, b"");
        assert_eq!(state(&talk), Some(TcpState::TimeWait));
        talk.end();
    }
}

fn a_half_closed_client_hears_the_whole_answer(family: Family) {
    let mut talk = open(family);
    talk.client_says(FIN | ACK | PSH, b"GET");
    assert_eq!(state(&talk), Some(TcpState::CloseWait));
    for _ in 0..50 {
        talk.stage.pass(1_000);
        talk.client.tick(1_000);
        talk.server.tick(1_000);
        talk.server_says(ACK, &[7; 1_000]);
        talk.client_says(ACK, b"");
    }
    talk.server_says(FIN | ACK, b"end");
    talk.client_says(ACK, b"");
    assert_eq!(state(&talk), Some(TcpState::TimeWait));
    talk.end();
}

fn a_half_closed_server_hears_the_whole_request(family: Family) {
    let mut talk = open(family);
    talk.server_says(FIN | ACK, b"220 hello, and that is all");
    assert_eq!(state(&talk), Some(TcpState::FinWait));
    for _ in 0..50 {
        talk.client_says(ACK | PSH, &[7; 1_000]);
        talk.server_says(ACK, b"");
    }
    talk.client_says(FIN | ACK, b"");
    talk.server_says(ACK, b"");
    assert_eq!(state(&talk), Some(TcpState::TimeWait));
    talk.end();
}

fn a_fin_is_sent_again(family: Family) {
    let mut talk = open(family);
    for _ in 0..3 {
        let fin = talk.client_segment(FIN | ACK, b"");
        let next = talk.client.next;
        talk.client_sends(&fin);
        talk.client.next = next;
    }
    talk.client.next = talk.client.next.wrapping_add(1);
    for _ in 0..3 {
        let fin = talk.server_segment(FIN | ACK, b"");
        let next = talk.server.next;
        talk.server_sends(&fin);
        talk.server.next = next;
    }
    talk.client_says(ACK, b"");
    assert_eq!(state(&talk), Some(TcpState::TimeWait));
    talk.end();
}

/// SPEC A1, "unless it is ESTABLISHED": the client's new SYN reaches the real server, whose
/// challenge ACK makes the client reset the old session; its next SYN gets a cookie.
fn half_open_a_client_that_lost_its_state(family: Family) {
    let mut talk = open(family);
    talk.client_says(ACK, b"before the crash");
    let syn = Segment { ack: 0, options: Vec::new(), ..talk.client_segment(SYN, b"") };
    let syn = Segment { seq: 0x4444_0000, ..syn };
    talk.stage.client(&syn);
    assert_eq!(talk.stage.one_to_server().flags, SYN);
    let challenge = talk.server_says(ACK, b"");
    let reset = Segment { seq: challenge.ack, ack: 0, flags: RST, ..syn.clone() };
    talk.stage.client(&reset);
    talk.stage.round();
    let heard = talk.stage.one_to_server();
    assert_eq!((heard.flags & RST, heard.seq), (RST, talk.server.expects));
    assert_eq!(state(&talk), Some(TcpState::Close));
    talk.stage.client(&Segment { seq: syn.seq.wrapping_add(1), ..syn });
    assert_eq!(talk.stage.one_to_client().flags, SYN | ACK);
    talk.end();
}

/// The real server has restarted: it resets what it does not know, and the client hears of it.
fn half_open_a_server_that_lost_its_state(family: Family) {
    let mut talk = open(family);
    let heard = talk.client_says(ACK, b"anybody there?");
    let reset =
        Segment { seq: heard.ack, ack: 0, options: Vec::new(), ..talk.server_segment(RST, b"") };
    talk.stage.server(&reset);
    talk.stage.round();
    let told = talk.stage.one_to_client();
    assert_eq!((told.flags, told.seq), (RST, talk.client.expects));
    assert_eq!(state(&talk), Some(TcpState::Close));
    talk.end();
}

fn an_idle_session_expires(family: Family) {
    let talk = open(family);
    assert_eq!(state(&talk), Some(TcpState::Established));
    talk.end();
}

/// SPEC A11: the FIN waits for its turn, whatever overtakes what.
fn a_fin_before_the_real_server_answers(family: Family) {
    for data_first in [true, false] {
        let mut talk = Conversation::begin(&Setup::of(family), Offer::CLIENT);
        let text = data(&talk.first, 0, b"bye");
        let fin = Segment { flags: FIN | ACK, ..data(&talk.first, 3, b"") };
        for segment in if data_first { [&text, &fin] } else { [&fin, &text] } {
            talk.stage.client(segment);
            talk.stage.round();
        }
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        let sent = std::mem::take(&mut talk.stage.to_servers);
        let flags: Vec<_> = sent.iter().map(|segment| segment.flags).collect();
        assert_eq!(flags, [ACK, ACK, FIN | ACK], "text first: {data_first}");
        assert_eq!(sent[2].seq, talk.syn.seq.wrapping_add(4));
        assert_eq!(state(&talk), Some(TcpState::CloseWait));
        talk.client.next = talk.client.next.wrapping_add(4);
        talk.server.expects = talk.server.expects.wrapping_add(4);
        talk.server_says(FIN | ACK, b"bye");
        talk.client_says(ACK, b"");
        assert_eq!(state(&talk), Some(TcpState::TimeWait));
        talk.end();
    }
}

/// The client's first ACK carries its request and its FIN (a `shutdown` before the SYN/ACK came).
fn a_fin_with_data_on_the_third_ack(family: Family) {
    let mut stage = crate::support::stage::Stage::new(&Setup::of(family));
    let syn = stage.client_says(40_000, SYN, 7, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    let first = stage.client_says(40_000, FIN | ACK | PSH, 8, cookie.seq.wrapping_add(1));
    stage.client(&Segment { payload: b"all".to_vec(), ..first });
    stage.round();
    let syn = stage.one_to_server();
    stage.server(&crate::support::stage::syn_ack(&syn, Vec::new()));
    stage.round();
    let heard = stage.one_to_server();
    assert_eq!((heard.flags, &heard.payload[..]), (FIN | ACK | PSH, &b"all"[..]));
    let report = stage.balancer.engine.sessions(stage.balancer.now(), 0, 1);
    assert_eq!(report[0].1.state, TcpState::CloseWait);
}
