//! TOA, byte by byte (SPEC C7): which segments bear the option, and that none of the client's does.

use seawall_engine::{Counter, Forwarding, Introduction, ProxyProtocol};
use seawall_fastpath::Ring;

use crate::conversation::{Conversation, Offer, mss_of};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::introduction::{proxy_header, toa};
use crate::support::packet::{ACK, FIN, Opt, PSH, RST, SYN, Segment};
use crate::support::stage::{CLIENT_ISN, CLIENT_PORT, SERVER_ISN, Stage, answer, data};

in_each_family! {
    first_segments_bear_it_until_the_real_server_has_accepted,
    a_lost_ack_is_repeated_with_it,
    data_of_the_real_server_shows_that_it_has_accepted,
    forged_options_never_arrive,
    a_service_without_it_leaves_options_alone,
    where_the_header_is_full_other_options_give_way,
    a_full_sized_segment_has_room_and_a_larger_one_gets_an_ack_before_it,
    under_nat_nothing_is_added_and_nothing_forged_arrives,
    resets_bear_none_and_a_fin_does,
    without_the_proxy_it_is_the_same,
    what_is_changed_is_so_for_new_sessions,
    a_client_does_not_lift_its_limit_through_its_real_server,
    nothing_is_overtaken_when_the_real_server_has_heard,
    a_session_that_is_closed_is_introduced_no_more,
    forged_options_reach_no_real_server_that_believes_another_services,
    a_proxy_header_goes_alone_to_a_real_server_that_believes_options,
}

fn setup(family: Family) -> Setup {
    Setup { introduction: Introduction::Toa, ..Setup::of(family) }
}

fn counter(stage: &Stage, counter: Counter) -> u64 {
    stage.balancer.engine.counter(counter)
}

fn own(stage: &Stage) -> Opt {
    toa((stage.family.client(), CLIENT_PORT))
}

fn forged(family: Family) -> Opt {
    toa((family.client() + 7, 666))
}

/// What the real server got, each with the option in front.
#[track_caller]
fn introduced(stage: &mut Stage) -> Vec<Segment> {
    let own = own(stage);
    let sent: Vec<_> = stage.to_servers.drain(..).collect();
    for segment in &sent {
        assert_eq!(segment.options.first(), Some(&own), "{segment:?}");
    }
    sent
}

/// What the real server got has no option of the kind, and no byte of one.
#[track_caller]
fn plain(stage: &mut Stage) -> Segment {
    let sent = stage.one_to_server();
    let is_toa = |option: &Opt| matches!(option, Opt::Other(253 | 254, _));
    assert!(!sent.options.iter().any(is_toa), "{sent:?}");
    sent
}

/// Bytes that the options of a segment take.
fn options_len(segment: &Segment) -> usize {
    segment.options.iter().map(|option| option.bytes().len()).sum()
}

fn first_segments_bear_it_until_the_real_server_has_accepted(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    talk.stage.client(&data(&talk.first, 0, b"early"));
    talk.stage.round();
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    let sent = introduced(&mut talk.stage);
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].payload.len(), &sent[1].payload[..]), (0, &b"early"[..]));
    assert_eq!(sent[0].options[1..], sent[1].options[1..], "beside the timestamps");
    assert_eq!(options_len(&sent[0]), 12 + if family == Family::V4 { 8 } else { 20 });
    // Sent again, and what comes next, while the real server has said nothing.
    for (offset, bytes) in [(0, b"early"), (5, b"later")] {
        talk.stage.client(&data(&talk.first, offset, bytes));
        talk.stage.round();
        let sent = introduced(&mut talk.stage);
        assert_eq!((sent.len(), &sent[0].payload[..]), (1, &bytes[..]));
    }
    assert_eq!(counter(&talk.stage, Counter::ToaAdded), 4);
    // It acknowledges data: from now on XDP does it alone.
    talk.client.next = talk.client.next.wrapping_add(10);
    talk.server.expects = talk.server.expects.wrapping_add(10);
    talk.server_says(ACK, b"");
    let passed = counter(&talk.stage, Counter::PassedOn);
    for _ in 0..3 {
        talk.client_says(ACK | PSH, b"more");
        talk.server_says(ACK | PSH, b"answer");
    }
    assert_eq!(counter(&talk.stage, Counter::PassedOn), passed);
    assert_eq!(counter(&talk.stage, Counter::ToaAdded), 4);
    talk.close(family);
}

fn a_lost_ack_is_repeated_with_it(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let accept = talk.accepts(Offer::SERVER);
    for _ in 0..3 {
        // Answered from the session (SPEC A6).
        talk.stage.server(&accept);
        talk.stage.round();
        let sent = introduced(&mut talk.stage);
        assert_eq!((sent.len(), sent[0].flags, sent[0].payload.len()), (1, ACK, 0));
    }
    // A bare ACK of a real server that has not accepted proves nothing.
    let challenge = talk.server_segment(ACK, b"");
    talk.stage.server(&challenge);
    talk.stage.round();
    assert_eq!(talk.stage.one_to_client().flags, ACK);
    talk.stage.client(&data(&talk.first, 0, b"x"));
    talk.stage.round();
    assert_eq!(introduced(&mut talk.stage).len(), 1);
}

fn data_of_the_real_server_shows_that_it_has_accepted(family: Family) {
    for flags in [ACK | PSH, ACK | FIN] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        introduced(&mut talk.stage);
        let said = talk.server_segment(flags, if flags & FIN == 0 { b"hello" } else { b"" });
        talk.server_sends(&said);
        talk.client_says(ACK | PSH, b"x");
    }
}

fn forged_options_never_arrive(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let clocks = talk.first.options.last().cloned().expect("timestamps");
    // In early data, beside our own.
    let odd = vec![forged(family), clocks.clone(), Opt::Nop];
    let early = Segment { options: odd, ..data(&talk.first, 0, b"early") };
    talk.stage.client(&early);
    talk.stage.round();
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    let sent = introduced(&mut talk.stage);
    assert_eq!(sent.len(), 2);
    let is_toa = |option: &&Opt| matches!(option, Opt::Other(253 | 254, _));
    assert_eq!(sent[1].options.iter().filter(is_toa).count(), 1, "only ours");
    talk.client.next = talk.client.next.wrapping_add(5);
    talk.server.expects = talk.server.expects.wrapping_add(5);
    talk.server_says(ACK | PSH, b"hello");
    // In the established session, in XDP: either kind, any length, at any place.
    for (kind, len) in [(254, 6), (253, 18), (254, 18), (253, 0), (254, 1), (253, 25)] {
        for at in 0..3 {
            let clocks = talk.client_segment(ACK, b"").options.last().cloned().expect("clocks");
            let mut options = vec![Opt::Nop, clocks];
            options.insert(at.min(2), Opt::Other(kind, vec![254; len]));
            let said = Segment { options: options.clone(), ..talk.client_segment(ACK | PSH, b"z") };
            talk.stage.client(&said);
            let heard = plain(&mut talk.stage);
            assert_eq!(heard.payload, b"z");
            let clocks = |option: &&Opt| matches!(option, Opt::Timestamps(..));
            assert_eq!(heard.options.iter().filter(clocks).count(), 1, "{heard:?}");
            let nops = heard.options.iter().filter(|option| **option == Opt::Nop).count();
            assert_eq!(nops, 1 + len + 2, "{heard:?}");
        }
    }
    // Also in a SYN that goes on to the real server.
    let like = talk.stage.client_says(CLIENT_PORT, SYN, 77, 0);
    let syn = Segment { options: vec![Opt::Mss(1460), forged(family)], ..like };
    talk.stage.pass(1_100);
    talk.stage.client(&syn);
    assert_eq!(plain(&mut talk.stage).flags, SYN);
}

fn a_service_without_it_leaves_options_alone(family: Family) {
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER);
    let options = vec![forged(family)];
    let said = Segment { options: options.clone(), ..talk.client_segment(ACK | PSH, b"z") };
    talk.stage.client(&said);
    assert_eq!(talk.stage.one_to_server().options, options);
}

fn where_the_header_is_full_other_options_give_way(family: Family) {
    for with_clock in [true, false] {
        let mut offer = Offer::CLIENT;
        offer.clock = offer.clock.filter(|_| with_clock);
        let mut talk = Conversation::begin(&setup(family), offer);
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        introduced(&mut talk.stage);
        let mut options = talk.first.options.clone();
        while options_len(&Segment { options: options.clone(), ..talk.first.clone() }) < 40 {
            options.push(Opt::Other(99, vec![5, 5]));
        }
        let said = Segment { options, ..data(&talk.first, 0, b"full") };
        talk.stage.client(&said);
        talk.stage.round();
        let heard = introduced(&mut talk.stage).remove(0);
        assert_eq!(heard.payload, b"full");
        let clocks: Vec<_> =
            heard.options.iter().filter(|it| matches!(it, Opt::Timestamps(..))).collect();
        assert_eq!(clocks.len(), usize::from(with_clock));
        assert!(!heard.options.iter().any(|option| matches!(option, Opt::Other(99, _))));
        assert_eq!(counter(&talk.stage, Counter::ToaHeadFull), 1);
    }
}

fn a_full_sized_segment_has_room_and_a_larger_one_gets_an_ack_before_it(family: Family) {
    let mut with_room = setup(family);
    with_room.config.init_mss = 1460;
    let mut talk = Conversation::begin(&with_room, Offer::CLIENT);
    let mss = mss_of(&talk.cookie).expect("an MSS");
    let headers = family.headers() as u16 - 14;
    let option = if family == Family::V4 { 8 } else { 20 };
    assert_eq!(mss, 1_500 - headers - option);
    // The MSS counts options too (RFC 6691).
    let fits = vec![7; usize::from(mss) - 12];
    talk.stage.client(&data(&talk.first, 0, &fits));
    talk.stage.round();
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    assert_eq!(introduced(&mut talk.stage).len(), 2);
    assert_eq!(counter(&talk.stage, Counter::ToaTooLong), 0);
    let larger = vec![7; usize::from(mss) - 12 + 1];
    talk.stage.client(&data(&talk.first, 0, &larger));
    talk.stage.round();
    let sent: Vec<_> = talk.stage.to_servers.drain(..).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].flags, sent[0].payload.len()), (ACK, 0));
    assert_eq!(
        (sent[0].seq, sent[0].ack, sent[0].window),
        (sent[1].seq, sent[1].ack, sent[1].window)
    );
    assert_eq!(sent[0].options[0], own(&talk.stage));
    assert_eq!(sent[0].options[1..], sent[1].options[..]);
    assert_eq!(sent[1].payload, larger);
    assert_eq!(counter(&talk.stage, Counter::ToaTooLong), 1);
}

fn under_nat_nothing_is_added_and_nothing_forged_arrives(family: Family) {
    let setup = Setup { forwarding: Forwarding::Nat, ..setup(family) };
    let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
    talk.client_says(ACK | PSH, b"x");
    let said = Segment { options: vec![forged(family)], ..talk.client_segment(ACK | PSH, b"z") };
    talk.stage.client(&said);
    plain(&mut talk.stage);
    assert_eq!(counter(&talk.stage, Counter::ToaAdded), 0);
}

fn resets_bear_none_and_a_fin_does(family: Family) {
    for (flags, bears) in [(ACK | FIN, true), (ACK | RST, false), (RST, false)] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        introduced(&mut talk.stage);
        let said = Segment { options: Vec::new(), ..talk.client_segment(flags, b"") };
        talk.stage.client(&said);
        talk.stage.round();
        let heard = talk.stage.one_to_server();
        assert_eq!(heard.options.contains(&own(&talk.stage)), bears, "{heard:?}");
        assert_eq!(heard.flags, flags);
        talk.end();
    }
}

fn without_the_proxy_it_is_the_same(family: Family) {
    let mut stage = Stage::new(&Setup { synproxy: false, ..setup(family) });
    let like = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0);
    let syn = Segment { options: vec![Opt::Mss(1460), forged(family)], ..like };
    stage.client(&syn);
    stage.round();
    let syn = plain(&mut stage);
    assert_eq!(mss_of(&syn), Some(1460));
    let accept = answer(&syn, SYN | ACK, SERVER_ISN, syn.seq.wrapping_add(1));
    let accept = Segment {
        options: vec![Opt::Nop, Opt::Nop, Opt::Mss(1_440), Opt::Nop, Opt::Nop],
        ..accept
    };
    let first = stage.client_says(CLIENT_PORT, ACK, CLIENT_ISN.wrapping_add(1), SERVER_ISN + 1);
    for _ in 0..2 {
        stage.server(&accept);
        stage.round();
        let room = if family == Family::V4 { 8 } else { 20 };
        let heard = stage.one_to_client();
        // Sent again to a client that has its MSS, it says what the real server said.
        assert!(mss_of(&heard).is_some_and(|mss| mss == 1_440 - room || mss == 1_440));
        stage.client(&first);
        // Nobody has proved anything yet (SPEC B6).
        assert!(stage.balancer.tables.records.borrow().iter().all(|it| it.ring == Ring::Unproven));
        stage.round();
        assert_eq!(introduced(&mut stage).len(), 1);
    }
    let request = data(&first, 0, b"request");
    stage.client(&Segment { options: vec![forged(family)], ..request.clone() });
    stage.round();
    let heard = introduced(&mut stage).remove(0);
    assert_eq!(
        (heard.options.iter().filter(|it| **it != Opt::Nop).count(), &heard.payload[..]),
        (1, &b"request"[..])
    );
    stage.server(&answer(&heard, ACK, SERVER_ISN + 1, heard.seq.wrapping_add(7)));
    stage.round();
    assert_eq!(stage.one_to_client().ack, request.seq.wrapping_add(7));
    stage.client(&data(&first, 7, b"more"));
    assert!(plain(&mut stage).options.is_empty());
}

fn what_is_changed_is_so_for_new_sessions(family: Family) {
    let mut talk = Conversation::begin(&Setup::of(family), Offer::CLIENT);
    assert_eq!(mss_of(&talk.cookie), Some(if family == Family::V4 { 1_452 } else { 1_432 }));
    talk.stage.balancer.engine.set_introduction(0, Introduction::Toa);
    talk.establish(Offer::SERVER);
    let mut next = Conversation::begin_on(talk.stage, 40_001, Offer::CLIENT);
    assert_eq!(mss_of(&next.cookie), Some(if family == Family::V4 { 1_444 } else { 1_412 }));
    let accept = next.accepts(Offer::SERVER);
    next.stage.balancer.engine.set_introduction(0, Introduction::None);
    next.stage.server(&accept);
    next.stage.round();
    let heard = next.stage.one_to_server();
    assert_eq!(heard.options[0], toa((family.client(), 40_001)));
}

/// SPEC B6: each of its segments may draw an answer, and each answer is no new allowance.
fn a_client_does_not_lift_its_limit_through_its_real_server(family: Family) {
    let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    introduced(&mut talk.stage);
    let challenge = talk.server_segment(ACK, b"");
    let repeat = |talk: &mut Conversation, times: u32| {
        let mut heard = 0;
        for _ in 0..times {
            talk.stage.client(&talk.first);
            talk.stage.round();
            heard += introduced(&mut talk.stage).len();
            talk.stage.server(&challenge);
            talk.stage.round();
        }
        heard
    };
    let heard = repeat(&mut talk, 100);
    assert!((32..=64).contains(&heard), "{heard}");
    assert_eq!(talk.stage.to_client.len(), 100, "the real server's have no such limit");
    // Nor is it shut out for good.
    talk.stage.pass(1_000);
    talk.stage.server(&challenge);
    talk.stage.round();
    assert_eq!(repeat(&mut talk, 100), 32);
}

/// What both sides say in the moment in which the engine has heard that, and not yet sent all.
fn nothing_is_overtaken_when_the_real_server_has_heard(family: Family) {
    for synproxy in [true, false] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        if !synproxy {
            talk.stage.balancer.engine.set_synproxy(0, seawall_engine::Proxy::Off);
        }
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        introduced(&mut talk.stage);
        talk.stage.client(&data(&talk.first, 0, b"1"));
        talk.stage.round();
        introduced(&mut talk.stage);
        talk.stage.client(&data(&talk.first, 1, b"2"));
        talk.server.expects = talk.server.expects.wrapping_add(1);
        let said = talk.server_segment(ACK | PSH, b"a");
        talk.stage.server(&said);
        let sent = talk.stage.balancer.work();
        assert_eq!(sent.len(), 2);
        // XDP sends nothing past it.
        talk.stage.client(&data(&talk.first, 2, b"3"));
        let next = Segment { payload: b"b".to_vec(), seq: said.seq.wrapping_add(1), ..said };
        talk.stage.server(&next);
        assert!(talk.stage.to_servers.is_empty() && talk.stage.to_client.is_empty());
        talk.stage.balancer.engine.frames_sent();
        talk.stage.take(sent);
        talk.stage.round();
        let payloads = |sent: &mut Vec<Segment>| -> Vec<u8> {
            sent.drain(..).flat_map(|sent| sent.payload).collect()
        };
        assert_eq!(payloads(&mut talk.stage.to_servers), b"23");
        assert_eq!(payloads(&mut talk.stage.to_client), b"ab");
        let passed = counter(&talk.stage, Counter::PassedOn);
        talk.stage.client(&data(&talk.first, 3, b"4"));
        plain(&mut talk.stage);
        assert_eq!(counter(&talk.stage, Counter::PassedOn), passed, "XDP does it alone");
    }
}

fn a_session_that_is_closed_is_introduced_no_more(family: Family) {
    for by_client in [true, false] {
        let mut talk = Conversation::begin(&setup(family), Offer::CLIENT);
        let accept = talk.accepts(Offer::SERVER);
        talk.stage.server(&accept);
        talk.stage.round();
        introduced(&mut talk.stage);
        if by_client {
            let reset = talk.client_segment(RST | ACK, b"");
            talk.stage.client(&Segment { options: Vec::new(), ..reset });
        } else {
            let reset = talk.server_segment(RST | ACK, b"");
            talk.stage.server(&Segment { options: Vec::new(), ..reset });
        }
        talk.stage.round();
        talk.stage.to_servers.clear();
        talk.stage.to_client.clear();
        let passed = counter(&talk.stage, Counter::PassedOn);
        talk.stage.client(&data(&talk.first, 0, b"late"));
        assert_eq!(plain(&mut talk.stage).payload, b"late");
        assert_eq!(counter(&talk.stage, Counter::PassedOn), passed, "XDP does it alone");
        talk.end();
    }
}

/// A real server's module believes the option in every connection to the host.
fn forged_options_reach_no_real_server_that_believes_another_services(family: Family) {
    for forwarding in [Forwarding::FullNat, Forwarding::Nat] {
        let setup = Setup { services: 2, forwarding, ..Setup::of(family) };
        let mut before = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
        let said = before.client_segment(ACK | PSH, b"z");
        let said = Segment { options: vec![forged(family)], ..said };
        before.stage.client(&said);
        assert_eq!(before.stage.one_to_server().options, said.options);
        let now = before.stage.balancer.now();
        before.stage.balancer.engine.set_introduction(1, Introduction::Toa);
        before.stage.balancer.engine.settle(now);
        before.stage.client(&said);
        assert_eq!(plain(&mut before.stage).payload, b"z", "also in sessions that there were");
        let mut next = Conversation::begin_on(before.stage, 40_001, Offer::CLIENT);
        next.establish(Offer::SERVER);
        let said = next.client_segment(ACK | PSH, b"z");
        next.stage.client(&Segment { options: vec![forged(family)], ..said });
        plain(&mut next.stage);
        assert_eq!(counter(&next.stage, Counter::ToaAdded), 0);
    }
}

fn a_proxy_header_goes_alone_to_a_real_server_that_believes_options(family: Family) {
    let protocol = ProxyProtocol::V2;
    let introduction = Introduction::Proxy(protocol);
    let mut stage = Stage::new(&Setup { services: 2, introduction, ..Setup::of(family) });
    stage.balancer.engine.set_introduction(1, Introduction::Toa);
    let mut talk = Conversation::begin_on(stage, CLIENT_PORT, Offer::CLIENT);
    let early = Segment { options: vec![forged(family)], ..data(&talk.first, 0, b"early") };
    talk.stage.client(&early);
    talk.stage.round();
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    let sent: Vec<_> = talk.stage.to_servers.drain(..).collect();
    let header = proxy_header(protocol, (family.client(), CLIENT_PORT), family.vip());
    assert_eq!((&sent[0].payload, &sent[1].payload[..]), (&header, &b"early"[..]));
    let is_toa = |option: &Opt| matches!(option, Opt::Other(253 | 254, _));
    assert!(!sent.iter().flat_map(|sent| &sent.options).any(is_toa), "{sent:?}");
}
