//! The PROXY header from peers that follow a script (SPEC C7): lost, late, in parts, through shut
//! windows, and with either side ending it all at any moment.

use seawall_engine::{Counter, Forwarding, Introduction, ProxyProtocol};
use seawall_fastpath::TcpState;

use crate::conversation::{Conversation, Offer};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::introduction::proxy_header;
use crate::support::packet::{ACK, FIN, Opt, PSH, RST, SYN, Segment};
use crate::support::stage::{CLIENT_PORT, clock_of, data};

in_each_family! {
    the_header_goes_first_and_early_data_behind_it,
    a_lost_header_is_sent_again_until_it_is_acknowledged,
    a_header_that_nobody_acknowledges_is_given_up,
    a_syn_ack_sent_again_is_answered_with_the_header,
    a_shut_window_is_probed_and_the_client_waits_its_turn,
    a_small_mss_takes_it_in_parts,
    a_real_server_that_speaks_first_is_heard,
    a_client_may_end_it_at_any_moment,
    a_real_server_may_end_it_at_any_moment,
    a_second_real_server_gets_it_too,
    a_new_handshake_replaces_a_session_that_is_over,
    what_a_removed_real_server_is_told_waits,
    between_the_parts_no_clock_is_later_than_the_headers,
    a_reset_with_a_wrong_number_ends_nothing,
    a_client_has_its_limit_behind_the_header_too,
    the_next_engine_begins_it,
    the_next_engine_sends_what_is_left_of_it,
    the_next_engine_gives_it_up_too,
}

const PROTOCOLS: [ProxyProtocol; 2] = [ProxyProtocol::V1, ProxyProtocol::V2];

fn setup(family: Family) -> Setup {
    Setup { introduction: Introduction::Proxy(ProxyProtocol::V2), ..Setup::of(family) }
}

fn header(family: Family, protocol: ProxyProtocol) -> Vec<u8> {
    proxy_header(protocol, (family.client(), CLIENT_PORT), family.vip())
}

/// The real server accepts, with so much window.
fn accept(talk: &mut Conversation, window: Option<u16>) {
    let accept = talk.accepts(Offer::SERVER);
    let window = window.unwrap_or(accept.window);
    talk.stage.server(&Segment { window, ..accept });
    talk.stage.round();
}

/// What the real server got since: each piece at its number behind the SYN.
fn heard(talk: &mut Conversation) -> Vec<(u32, Vec<u8>)> {
    let start = talk.syn.seq.wrapping_add(1);
    let sent = talk.stage.to_servers.drain(..);
    sent.map(|sent| (sent.seq.wrapping_sub(start), sent.payload)).collect()
}

/// A segment of the real server that acknowledges `bytes` of what comes after the SYN.
fn acknowledges(talk: &Conversation, bytes: u32, flags: u16, payload: &[u8]) -> Segment {
    let ack = talk.syn.seq.wrapping_add(1 + bytes);
    Segment { ack, ..talk.server_segment(flags, payload) }
}

/// From here on the numbers of the real server's side begin behind the header.
fn introduced(talk: &mut Conversation, len: usize) {
    talk.server.saw = talk.syn.seq.wrapping_add(len as u32);
    talk.server.expects = talk.server.saw.wrapping_add(1);
}

/// The real server acknowledges all of the header, and no more.
#[track_caller]
fn complete(talk: &mut Conversation, len: usize) {
    introduced(talk, len);
    talk.server_says(ACK, b"");
}

fn counter(talk: &Conversation, counter: Counter) -> u64 {
    talk.stage.balancer.engine.counter(counter)
}

fn the_header_goes_first_and_early_data_behind_it(family: Family) {
    for protocol in PROTOCOLS {
        for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
            let introduction = Introduction::Proxy(protocol);
            let setup = Setup { introduction, forwarding, ..Setup::of(family) };
            let mut talk = Conversation::begin(&setup, Offer::CLIENT);
            for (offset, bytes) in [(4, b"data"), (0, b"earl")] {
                talk.stage.client(&data(&talk.first, offset, bytes));
            }
            talk.stage.round();
            accept(&mut talk, None);
            let header = header(family, protocol);
            let len = header.len() as u32;
            let first = talk.stage.to_servers[0].clone();
            assert_eq!(first.flags, ACK | PSH);
            assert_eq!(first.ack, talk.server.next);
            let clocks = (talk.server.heard, talk.server.clock.expect("timestamps"));
            assert_eq!(clock_of(&first), Some(clocks), "those of the handshake's ACK");
            let expected = [(0, header.clone()), (len, b"earl".into()), (len + 4, b"data".into())];
            assert_eq!(heard(&mut talk), expected);
            assert_eq!(talk.stage.balancer.engine.early_bytes(), 0);
            // It acknowledges part of it, which is nothing to the client; then all, and then more.
            talk.stage.server(&acknowledges(&talk, 5, ACK, b""));
            talk.stage.round();
            assert!(talk.stage.to_client.is_empty() && talk.stage.to_servers.is_empty());
            complete(&mut talk, header.len());
            talk.client.next = talk.client.next.wrapping_add(8);
            talk.server.expects = talk.server.expects.wrapping_add(8);
            let passed = counter(&talk, Counter::PassedOn);
            talk.server_says(ACK | PSH, b"answer");
            for _ in 0..3 {
                talk.client_says(ACK | PSH, b"more");
                talk.server_says(ACK | PSH, b"answer");
            }
            assert_eq!(counter(&talk, Counter::PassedOn), passed, "XDP does it alone");
            assert_eq!(counter(&talk, Counter::ProxyHeader), 1);
            talk.close(family);
        }
    }
}

fn a_lost_header_is_sent_again_until_it_is_acknowledged(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let header = header(family, ProxyProtocol::V2);
    let begun = talk.stage.elapsed();
    accept(&mut talk, None);
    assert_eq!(heard(&mut talk), [(0, header.clone())]);
    let mut times = Vec::new();
    while times.len() < 4 {
        talk.stage.pass(100);
        for piece in heard(&mut talk) {
            assert_eq!(piece, (0, header.clone()));
            times.push(talk.stage.elapsed() - begun);
        }
        // What the client says goes on meanwhile.
        if talk.stage.elapsed() - begun == 2_000 {
            talk.stage.client(&data(&talk.first, 0, b"x"));
            talk.stage.round();
            assert_eq!(heard(&mut talk), [(header.len() as u32, b"x".to_vec())]);
        }
    }
    for (time, expected) in times.iter().zip([1_000, 3_000, 7_000, 15_000]) {
        assert!((expected..expected + 200).contains(time), "{times:?}");
    }
    assert!(talk.stage.to_client.is_empty());
    // Late, together with the data behind it.
    introduced(&mut talk, header.len());
    talk.client.next = talk.client.next.wrapping_add(1);
    talk.server.expects = talk.server.expects.wrapping_add(1);
    talk.server_says(ACK, b"");
    talk.stage.pass(100_000);
    assert!(talk.stage.to_servers.is_empty(), "once and for all");
    assert_eq!(counter(&talk, Counter::ProxyHeaderAgain), 4);
    talk.close(family);
}

fn a_header_that_nobody_acknowledges_is_given_up(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    talk.stage.client(&data(&talk.first, 0, b"x"));
    talk.stage.pass(119_000);
    assert!(talk.stage.to_client.is_empty());
    talk.stage.to_servers.clear();
    talk.stage.pass(2_000);
    let reset = talk.stage.one_to_server();
    assert_eq!((reset.flags & RST, reset.seq), (RST, talk.syn.seq.wrapping_add(1)), "exactly");
    let reset = talk.stage.one_to_client();
    assert_eq!((reset.flags & RST, reset.seq), (RST, talk.client.expects));
    assert_eq!(counter(&talk, Counter::ProxyHeaderFailed), 1);
    talk.end();
}

fn a_syn_ack_sent_again_is_answered_with_the_header(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let header = header(family, ProxyProtocol::V2);
    for _ in 0..3 {
        accept(&mut talk, None);
        assert_eq!(heard(&mut talk), [(0, header.clone())]);
    }
    // With another clock, which is the one that it hears.
    let mut again = talk.accepts(Offer::SERVER);
    again.options = Offer { clock: Some(0x8000_0100), ..Offer::SERVER }.options(talk.server.heard);
    talk.stage.server(&again);
    talk.stage.round();
    assert_eq!(clock_of(&talk.stage.one_to_server()).map(|it| it.1), Some(0x8000_0100));
    complete(&mut talk, header.len());
    talk.close(family);
}

fn a_shut_window_is_probed_and_the_client_waits_its_turn(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let header = header(family, ProxyProtocol::V2);
    let len = header.len() as u32;
    talk.stage.client(&data(&talk.first, 0, b"early"));
    talk.stage.round();
    accept(&mut talk, Some(0));
    assert_eq!(heard(&mut talk), [(0, vec![])], "the handshake is completed");
    // So does a repeated SYN/ACK find it.
    accept(&mut talk, Some(0));
    assert_eq!(heard(&mut talk), [(0, vec![])]);
    talk.stage.client(&data(&talk.first, 5, b"later"));
    talk.stage.round();
    assert!(talk.stage.to_servers.is_empty() && talk.stage.balancer.engine.early_bytes() > 0);
    // What the client acknowledges is said where the real server hears it.
    talk.stage.client(&talk.first);
    talk.stage.round();
    assert_eq!(heard(&mut talk), [(0, vec![])]);
    talk.stage.pass(1_100);
    assert_eq!(heard(&mut talk), [(0, header[..1].to_vec())], "a probe");
    // The byte has been refused, then taken.
    talk.stage.server(&Segment { window: 0, ..acknowledges(&talk, 0, ACK, b"") });
    talk.stage.round();
    talk.stage.pass(2_100);
    assert_eq!(heard(&mut talk), [(0, header[..1].to_vec())]);
    talk.stage.server(&Segment { window: 0, ..acknowledges(&talk, 1, ACK, b"") });
    talk.stage.round();
    assert!(talk.stage.to_servers.is_empty() && talk.stage.to_client.is_empty());
    talk.stage.pass(4_100);
    assert_eq!(heard(&mut talk), [(1, header[1..2].to_vec())]);
    // It opens; all goes at once.
    talk.stage.server(&acknowledges(&talk, 2, ACK, b""));
    talk.stage.round();
    let expected =
        [(2, header[2..].to_vec()), (len, b"early".to_vec()), (len + 5, b"later".to_vec())];
    assert_eq!(heard(&mut talk), expected);
    assert_eq!(talk.stage.balancer.engine.early_bytes(), 0);
    assert!(talk.stage.to_client.is_empty());
    complete(&mut talk, header.len());
    talk.client.next = talk.client.next.wrapping_add(10);
    talk.server.expects = talk.server.expects.wrapping_add(10);
    talk.server_says(ACK, b"");
    talk.close(family);
}

fn a_small_mss_takes_it_in_parts(family: Family) {
    let setup = Setup { introduction: Introduction::Proxy(ProxyProtocol::V1), ..setup(family) };
    let mut talk = Conversation::begin(&setup, Offer::CLIENT);
    let header = header(family, ProxyProtocol::V1);
    let mut syn_ack = talk.accepts(Offer::SERVER);
    syn_ack.options = Offer { mss: Some(48), ..Offer::SERVER }.options(talk.server.heard);
    talk.stage.server(&syn_ack);
    talk.stage.round();
    let pieces = heard(&mut talk);
    assert!(pieces.len() > 1 && pieces.iter().all(|(_, piece)| piece.len() <= 36));
    let all: Vec<u8> = pieces.iter().flat_map(|(_, piece)| piece.clone()).collect();
    assert_eq!(all, header);
    complete(&mut talk, header.len());
    talk.close(family);
}

fn a_real_server_that_speaks_first_is_heard(family: Family) {
    let header = header(family, ProxyProtocol::V2);
    let len = header.len() as u32;
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    heard(&mut talk);
    // Its banner crosses the header, or a part of it; to the client it acknowledges nothing.
    for acknowledged in [0, 1, len - 1] {
        let banner = acknowledges(&talk, acknowledged, ACK | PSH, b"banner");
        talk.stage.server(&banner);
        talk.stage.round();
        let heard = talk.stage.one_to_client();
        assert_eq!((heard.ack, &heard.payload[..]), (talk.client.next, &b"banner"[..]));
        assert_eq!(heard.seq, talk.client.expects);
        // The right edge of its window is where it was.
        let edge = u32::from(heard.window) << talk.client.reads_by;
        let bytes = u32::from(banner.window) << talk.server.read_by;
        let exact = bytes - (len - acknowledged);
        assert!(edge <= exact && edge + 512 + 128 > exact, "{edge} of {exact}");
    }
    // The client acknowledges that, and the real server hears it.
    talk.server.next = talk.server.next.wrapping_add(6);
    talk.client.expects = talk.client.expects.wrapping_add(6);
    let said = talk.client_segment(ACK, b"");
    talk.stage.client(&said);
    talk.stage.round();
    let got = talk.stage.one_to_server();
    assert_eq!(got.ack, talk.server.next);
    assert_eq!(got.seq, talk.syn.seq.wrapping_add(1 + len));
    // The header sent again says so too.
    talk.stage.pass(1_100);
    assert_eq!(talk.stage.one_to_server().ack, talk.server.next);
    complete(&mut talk, header.len());
    talk.client_says(ACK | PSH, b"x");
    talk.close(family);
}

fn a_client_may_end_it_at_any_moment(family: Family) {
    let len = header(family, ProxyProtocol::V2).len() as u32;
    for window in [None, Some(0), Some(7)] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        accept(&mut talk, window);
        talk.stage.to_servers.clear();
        let reset = talk.client_segment(RST, b"");
        talk.stage.client(&Segment { options: Vec::new(), ..reset });
        talk.stage.round();
        let sent: Vec<_> = talk.stage.to_servers.drain(..).collect();
        let exact = talk.syn.seq.wrapping_add(1);
        assert!(sent.iter().any(|sent| sent.flags & RST != 0 && sent.seq == exact), "{sent:?}");
        talk.end();
        // A FIN comes in its turn.
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        accept(&mut talk, window);
        talk.stage.client(&talk.client_segment(ACK | FIN, b""));
        talk.stage.round();
        talk.stage.server(&acknowledges(&talk, 0, ACK, b""));
        talk.stage.round();
        let got = &talk.stage.to_servers;
        let (all, fin) = got.split_at(got.len() - 1);
        assert!(all.iter().all(|sent| sent.flags & FIN == 0), "{got:?}");
        let end = talk.syn.seq.wrapping_add(1 + len);
        assert_eq!((fin[0].flags & FIN, fin[0].seq), (FIN, end));
        talk.stage.to_servers.clear();
        introduced(&mut talk, len as usize);
        talk.client.next = talk.client.next.wrapping_add(1);
        talk.server.expects = talk.server.expects.wrapping_add(1);
        talk.server_says(ACK | FIN, b"");
        talk.client_says(ACK, b"");
        talk.end();
    }
    // Early, before the real server has said anything.
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let reset = Segment { options: Vec::new(), ..talk.client_segment(RST, b"") };
    talk.stage.client(&reset);
    talk.stage.round();
    talk.stage.to_servers.clear();
    talk.end();
}

fn a_real_server_may_end_it_at_any_moment(family: Family) {
    let len = header(family, ProxyProtocol::V2).len();
    // A reset: the client hears it with numbers that it knows.
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    heard(&mut talk);
    let reset = Segment { options: Vec::new(), ..acknowledges(&talk, 0, RST | ACK, b"") };
    talk.stage.server(&reset);
    talk.stage.round();
    let got = talk.stage.one_to_client();
    assert_eq!((got.flags, got.seq, got.ack), (RST | ACK, talk.client.expects, talk.client.next));
    talk.end();
    // A FIN that crosses the header, and then the header's acknowledgment.
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    heard(&mut talk);
    let fin = acknowledges(&talk, 0, FIN | ACK, b"");
    talk.stage.server(&fin);
    talk.stage.round();
    let got = talk.stage.one_to_client();
    assert_eq!((got.flags, got.ack), (FIN | ACK, talk.client.next));
    talk.server.next = talk.server.next.wrapping_add(1);
    talk.client.expects = talk.client.expects.wrapping_add(1);
    talk.stage.pass(1_100);
    assert_eq!(heard(&mut talk).len(), 1, "the header is sent again in FIN_WAIT");
    complete(&mut talk, len);
    talk.client_says(ACK | FIN, b"");
    talk.server_says(ACK, b"");
    talk.end();
}

fn a_second_real_server_gets_it_too(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let asked = talk.syn.destination;
    talk.stage.pass(16_000);
    let syns: Vec<_> = talk.stage.to_servers.drain(..).filter(|sent| sent.flags == SYN).collect();
    talk.syn = syns.last().expect("another is asked").clone();
    assert_ne!(talk.syn.destination, asked);
    let header = header(family, ProxyProtocol::V2);
    accept(&mut talk, None);
    assert_eq!(heard(&mut talk), [(0, header.clone())]);
    complete(&mut talk, header.len());
    talk.client_says(ACK | PSH, b"x");
    talk.close(family);
}

fn a_new_handshake_replaces_a_session_that_is_over(family: Family) {
    let len = header(family, ProxyProtocol::V2).len();
    for acknowledged in [false, true] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        accept(&mut talk, None);
        heard(&mut talk);
        talk.stage.client(&talk.client_segment(ACK | FIN, b""));
        talk.stage.server(&acknowledges(
            &talk,
            if acknowledged { len as u32 } else { 0 },
            ACK | FIN,
            b"",
        ));
        talk.stage.round();
        talk.stage.to_servers.clear();
        talk.stage.to_client.clear();
        let states: Vec<_> = {
            let now = talk.stage.balancer.now();
            let sessions = talk.stage.balancer.engine.sessions(now, 0, 9);
            sessions.iter().map(|(_, session)| session.state).collect()
        };
        assert_eq!(states, [TcpState::TimeWait]);
        let again = Offer { isn: 0x5555_0000, ..Offer::CLIENT };
        let mut next = Conversation::begin_on(talk.stage, CLIENT_PORT, again);
        assert!(next.resets.iter().all(|sent| sent.flags & RST != 0));
        accept(&mut next, None);
        assert_eq!(heard(&mut next).len(), 1);
        complete(&mut next, len);
        next.close(family);
    }
}

fn what_a_removed_real_server_is_told_waits(family: Family) {
    let len = header(family, ProxyProtocol::V2).len();
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    heard(&mut talk);
    let number = family.server_number(talk.syn.destination.0);
    let now = talk.stage.balancer.now();
    talk.stage.balancer.engine.remove_server(0, number);
    talk.stage.balancer.engine.settle(now);
    talk.stage.client(&data(&talk.first, 0, b"x"));
    talk.stage.round();
    assert!(talk.stage.to_servers.is_empty(), "as XDP drops it");
    introduced(&mut talk, len);
    talk.server_says(ACK, b"");
}

/// RFC 7323, section 5.3: the real server notes the clock of what comes in order and drops what
/// has an earlier one.
fn between_the_parts_no_clock_is_later_than_the_headers(family: Family) {
    for sack in [false, true] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        let header = header(family, ProxyProtocol::V2);
        accept(&mut talk, Some(7));
        assert!(heard_of(&mut talk).0.len() == 7);
        // The banner reaches the client, which is later when it acknowledges that.
        let banner = Segment { window: 0, ..acknowledges(&talk, 7, ACK | PSH, b"banner") };
        talk.stage.server(&banner);
        talk.stage.round();
        talk.stage.one_to_client();
        talk.stage.pass(500);
        talk.client.tick(500);
        talk.client.expects = talk.client.expects.wrapping_add(6);
        let mut said = talk.client_segment(ACK, b"");
        let echo = clock_of(&said).expect("timestamps").1;
        if sack {
            said.options.extend([
                Opt::Nop,
                Opt::Nop,
                Opt::Sack(vec![(said.ack + 9, said.ack + 19)]),
            ]);
        }
        talk.stage.client(&said);
        talk.stage.round();
        let got = talk.stage.one_to_server();
        assert_eq!(got.seq, talk.syn.seq.wrapping_add(1 + 7));
        let noted = clock_of(&got).expect("timestamps").0;
        assert_eq!(got.options.len(), said.options.len());
        assert_ne!(echo, 0);
        talk.stage.server(&acknowledges(&talk, 7, ACK, b""));
        talk.stage.round();
        let (rest, clock) = heard_of(&mut talk);
        assert_eq!(rest, header[7..]);
        assert!(clock.wrapping_sub(noted) < 1 << 31, "RFC 7323: PAWS: {clock} after {noted}");
    }
}

/// The payload and the clock of the one segment that the real server got.
#[track_caller]
fn heard_of(talk: &mut Conversation) -> (Vec<u8>, u32) {
    let got = talk.stage.one_to_server();
    let clock = clock_of(&got).expect("timestamps").0;
    (got.payload, clock)
}

/// RFC 5961, section 3.2: who is not in the window has not ended it.
fn a_reset_with_a_wrong_number_ends_nothing(family: Family) {
    for flags in [RST, RST | ACK] {
        for (acknowledged, by) in [(0, 1 << 20), (5, 0x8000_0000), (0, u32::MAX - 70_000)] {
            let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
            let header = header(family, ProxyProtocol::V2);
            accept(&mut talk, None);
            heard(&mut talk);
            let reset = acknowledges(&talk, acknowledged, flags, b"");
            let seq = reset.seq.wrapping_add(by);
            talk.stage.server(&Segment { options: Vec::new(), seq, ..reset });
            talk.stage.round();
            talk.stage.to_client.clear();
            talk.stage.pass(1_100);
            assert_eq!(heard(&mut talk), [(0, header.clone())], "{flags:x} {by:x}");
            complete(&mut talk, header.len());
            talk.client_says(ACK | PSH, b"x");
            talk.close(family);
        }
    }
}

/// SPEC B6: the real server's answers do not lift it.
fn a_client_has_its_limit_behind_the_header_too(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    heard(&mut talk);
    let mut got = 0;
    for _ in 0..100 {
        talk.stage.client(&talk.first);
        talk.stage.round();
        got += heard(&mut talk).len();
        talk.stage.server(&acknowledges(&talk, 0, ACK, b""));
        talk.stage.round();
        assert!(talk.stage.to_client.is_empty());
    }
    assert!((32..=64).contains(&got), "{got}");
}

/// The engine dies before the real server has answered.
fn the_next_engine_begins_it(family: Family) {
    for protocol in PROTOCOLS {
        for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
            let introduction = Introduction::Proxy(protocol);
            let setup = Setup { introduction, forwarding, ..Setup::of(family) };
            let mut talk = Conversation::begin(&setup, Offer::CLIENT);
            talk.stage.client(&data(&talk.first, 0, b"lost"));
            talk.stage.round();
            let adoption = talk.stage.balancer.restart(0..2);
            assert_eq!((adoption.handshakes, adoption.orphan_slots), (1, 0));
            talk.stage.pass(20);
            let again = talk.stage.one_to_server();
            assert_eq!((again.seq, &again.options), (talk.syn.seq, &talk.syn.options));
            accept(&mut talk, None);
            let header = header(family, protocol);
            assert_eq!(heard(&mut talk), [(0, header.clone())]);
            complete(&mut talk, header.len());
            talk.client_says(ACK | PSH, b"lost");
            talk.server_says(ACK | PSH, b"answer");
            talk.close(family);
        }
    }
}

/// It dies when the header is on its way: all of it is lost, or a part, or only what says that it was
/// not.
fn the_next_engine_sends_what_is_left_of_it(family: Family) {
    let header = header(family, ProxyProtocol::V2);
    let len = header.len() as u32;
    for (heard_of, window) in [(0, None), (5, None), (0, Some(0)), (7, Some(0)), (len - 1, None)] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        accept(&mut talk, window);
        heard(&mut talk);
        // What the engine has not sent is lost with it.
        talk.stage.client(&data(&talk.first, 0, b"early"));
        talk.stage.round();
        heard(&mut talk);
        let mut clock = talk.server.clock;
        if heard_of > 0 {
            talk.server.tick(40);
            clock = talk.server.clock;
            let partly = acknowledges(&talk, heard_of, ACK, b"");
            let window = window.unwrap_or(partly.window);
            talk.stage.server(&Segment { window, ..partly });
            talk.stage.round();
            heard(&mut talk);
        }
        let adoption = talk.stage.balancer.restart(0..2);
        assert_eq!((adoption.sessions, adoption.orphan_slots), (1, 0));
        talk.stage.pass(20);
        let got = talk.stage.to_servers.clone();
        assert_eq!(clock_of(&got[0]), Some((talk.server.heard, clock.unwrap())), "exactly");
        let pieces = heard(&mut talk);
        let expected = match window {
            None => header[heard_of as usize..].to_vec(),
            Some(_) => vec![header[heard_of as usize]],
        };
        assert_eq!(pieces, [(heard_of, expected)]);
        // What the client sends again waits behind it, or goes behind it.
        talk.stage.client(&data(&talk.first, 0, b"early"));
        talk.stage.round();
        if window.is_none() {
            assert_eq!(heard(&mut talk), [(len, b"early".to_vec())]);
        } else {
            assert_eq!(heard(&mut talk), []);
            talk.stage.server(&acknowledges(&talk, heard_of + 1, ACK, b""));
            talk.stage.round();
            let at = heard_of as usize + 1;
            let expected = [(at as u32, header[at..].to_vec()), (len, b"early".to_vec())];
            assert_eq!(heard(&mut talk), expected);
        }
        complete(&mut talk, header.len());
        talk.client.next = talk.client.next.wrapping_add(5);
        talk.server.expects = talk.server.expects.wrapping_add(5);
        talk.server_says(ACK | PSH, b"answer");
        talk.client_says(ACK | PSH, b"more");
        // From here on it is as any other session.
        talk.stage.balancer.restart(0..2);
        let passed = counter(&talk, Counter::PassedOn);
        talk.server_says(ACK | PSH, b"answer");
        talk.client_says(ACK | PSH, b"more");
        assert_eq!(counter(&talk, Counter::PassedOn), passed, "XDP does it alone");
        talk.close(family);
    }
}

fn the_next_engine_gives_it_up_too(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    accept(&mut talk, None);
    talk.stage.pass(10_000);
    talk.stage.balancer.restart(0..2);
    talk.stage.pass(119_000);
    assert!(talk.stage.to_client.is_empty());
    talk.stage.to_servers.clear();
    talk.stage.pass(2_000);
    assert_eq!(talk.stage.one_to_server().flags & RST, RST);
    assert_eq!(talk.stage.one_to_client().flags & RST, RST);
    talk.end();
}
