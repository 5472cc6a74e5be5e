//! Real servers that refuse, are silent, or remember a connection of their past.

use seawall_engine::{Counter, Forwarding, Proxy};
use seawall_fastpath::TcpState;
use seawall_fastpath::layout::{RecordHeader, RecordKind};

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::stage::{CLIENT_PORT, SERVER_ISN, Stage, all_options, answer, data, syn_ack};

in_each_family! {
    a_refusal_reaches_the_client,
    silence_is_asked_four_times_then_another_then_the_client_is_told,
    the_whole_handshake_has_a_limit,
    bare_acks_do_not_lengthen_the_limit,
    a_real_server_with_a_past_is_reset_and_asked_again,
    a_syn_ack_sent_again_is_answered_not_forwarded,
    an_old_generation_changes_nothing,
    under_nat_services_share_real_servers_and_clients_their_ports,
    nobody_without_proof_ends_another_services_session,
}

/// SPEC A10: a RST that the client's stack accepts, and nothing is sent again later.
fn a_refusal_reaches_the_client(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let mut stage = Stage::new(&Setup { forwarding, ..Setup::of(family) });
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        // Neither a blind RST nor one for another SYN counts.
        stage.server(&answer(&syn, RST, syn.seq, 0));
        stage.server(&answer(&syn, RST | ACK, 0, syn.seq.wrapping_add(2)));
        stage.round();
        assert!(stage.to_client.is_empty());
        assert_eq!(stage.balancer.engine.counter(Counter::RsInvalid), 2);

        stage.server(&answer(&syn, RST | ACK, 0, syn.seq.wrapping_add(1)));
        stage.round();
        let reset = stage.one_to_client();
        assert_eq!(reset.flags & RST, RST);
        assert_eq!(reset.seq, first.ack, "cookie + 1");
        stage.pass(200_000);
        assert!(stage.to_client.is_empty() && stage.to_servers.is_empty());
        assert_eq!(stage.balancer.engine.counter(Counter::RsRefused), 1);
        stage.balancer.assert_empty();
    }
}

/// SPEC A9: after 1, 3 and 7 seconds, then another real server once, then the client is reset.
fn silence_is_asked_four_times_then_another_then_the_client_is_told(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    let mut sent = vec![(0, syn)];
    while stage.to_client.is_empty() && stage.elapsed() < 60_000 {
        stage.pass(16);
        let now = stage.elapsed();
        sent.extend(stage.to_servers.drain(..).map(|segment| (now, segment)));
    }
    let near = |at: u64, wanted: u64| (wanted..wanted + 64).contains(&at);
    let syns: Vec<_> = sent.iter().filter(|(_, segment)| segment.flags == SYN).collect();
    let (server, other) = (syns[0].1.destination, syns[4].1.destination);
    assert_ne!(server, other);
    assert_eq!(syns.len(), 8);
    for (at, (wanted, to)) in [
        (0, server),
        (1_000, server),
        (3_000, server),
        (7_000, server),
        (15_000, other),
        (16_000, other),
        (18_000, other),
        (22_000, other),
    ]
    .into_iter()
    .enumerate()
    {
        let (when, segment) = syns[at];
        assert!(near(*when, wanted), "SYN {at} after {when} ms");
        assert_eq!(segment.destination, to);
        let first = &syns[if to == server { 0 } else { 4 }].1;
        assert_eq!(segment.options, first.options, "the TSval too");
    }
    let resets: Vec<_> = sent.iter().filter(|(_, segment)| segment.flags & RST != 0).collect();
    assert_eq!(resets.len(), 2, "each real server's half");
    assert_eq!((resets[0].1.destination, resets[1].1.destination), (server, other));
    assert!(near(stage.elapsed(), 30_000), "{}", stage.elapsed());
    let reset = stage.one_to_client();
    assert_eq!((reset.flags & RST, reset.seq), (RST, first.ack));
    stage.balancer.assert_empty();
    assert_eq!(stage.balancer.engine.counter(Counter::RsError), 1);
    assert_eq!(stage.balancer.engine.counter(Counter::SecondServer), 1);
    assert_eq!(stage.balancer.engine.counter(Counter::SynRetransmitted), 6);
}

/// LVS `timeout_synsent`, over all attempts: whoever may still be asked, the client is told in time.
fn the_whole_handshake_has_a_limit(family: Family) {
    for (limit, wanted) in [
        (1_000, &[0][..]),
        (5_000, &[0, 1_000, 3_000]),
        (20_000, &[0, 1_000, 3_000, 7_000, 15_000, 16_000, 18_000]),
    ] {
        let mut setup = Setup::of(family);
        setup.config.timeouts.set(TcpState::SynSent, limit);
        let mut stage = Stage::new(&setup);
        let (first, _) = stage.open(CLIENT_PORT, all_options());
        let mut syns = vec![0];
        while stage.to_client.is_empty() && stage.elapsed() < 60_000 {
            stage.pass(16);
            let now = stage.elapsed();
            let sent = stage.to_servers.drain(..);
            syns.extend(sent.filter(|segment| segment.flags == SYN).map(|_| now));
        }
        let near = |at: u64, wanted: u64| (wanted..wanted + 64).contains(&at);
        assert!(near(stage.elapsed(), limit), "{limit}: {}", stage.elapsed());
        assert_eq!(syns.len(), wanted.len(), "{limit}: {syns:?}");
        assert!(syns.iter().zip(wanted).all(|(at, wanted)| near(*at, *wanted)), "{syns:?}");
        let reset = stage.one_to_client();
        assert_eq!((reset.flags & RST, reset.seq), (RST, first.ack));
        stage.balancer.assert_empty();
        assert_eq!(stage.balancer.engine.counter(Counter::RsError), 1);
    }
}

/// A real server that keeps answering with bare ACKs does not start the time anew.
fn bare_acks_do_not_lengthen_the_limit(family: Family) {
    let mut setup = Setup { servers: 1, ..Setup::of(family) };
    setup.config.timeouts.set(TcpState::SynSent, 2_000);
    let mut stage = Stage::new(&setup);
    let (_, mut syn) = stage.open(CLIENT_PORT, all_options());
    while stage.to_client.is_empty() && stage.elapsed() < 60_000 {
        stage.server(&answer(&syn, ACK, 77, 0x9999_0000));
        stage.pass(100);
        let last = stage.to_servers.drain(..).rfind(|segment| segment.flags == SYN);
        syn = last.unwrap_or(syn);
    }
    assert!((2_000..2_200).contains(&stage.elapsed()), "{}", stage.elapsed());
    stage.balancer.assert_empty();
}

/// SPEC A6: a RST with its ack as number, the SYN again at once; after a second one, another port.
fn a_real_server_with_a_past_is_reset_and_asked_again(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (_, syn) = stage.open(CLIENT_PORT, all_options());
    stage.server(&answer(&syn, ACK, 77, 0x9999_0000));
    stage.round();
    let sent: Vec<_> = std::mem::take(&mut stage.to_servers);
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].flags, sent[0].seq), (RST, 0x9999_0000));
    assert_eq!((sent[1].flags, sent[1].seq, sent[1].source), (SYN, syn.seq, syn.source));

    stage.server(&answer(&syn, ACK, 77, 0x9999_0000));
    stage.round();
    let sent: Vec<_> = std::mem::take(&mut stage.to_servers);
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].flags, sent[0].seq, sent[0].source), (RST, 0x9999_0000, syn.source));
    assert_eq!((sent[1].flags, sent[1].destination), (SYN, syn.destination));
    assert_ne!(sent[1].source, syn.source);

    // The old local port is free again, the new one is the session's.
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    assert!(stage.to_servers.is_empty());
    stage.server(&syn_ack(&sent[1], all_options()));
    stage.round();
    let ack = stage.one_to_server();
    assert_eq!((ack.flags, ack.source), (ACK, sent[1].source));
    assert_eq!(ack.ack, SERVER_ISN.wrapping_add(1));
}

/// A real server that has not heard our ACK is told again; its client never hears of it (A6).
fn a_syn_ack_sent_again_is_answered_not_forwarded(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    let accept = syn_ack(&syn, all_options());
    stage.server(&accept);
    stage.round();
    let kept = stage.one_to_server();
    stage.server(&accept);
    stage.round();
    let again = stage.one_to_server();
    assert_eq!((again.flags, again.seq, again.ack), (ACK, kept.seq, kept.ack));
    assert_eq!(again.seq, syn.seq.wrapping_add(1));
    assert_eq!(again.window, kept.window, "the window that the client opened");
    // One with another number is of another connection.
    let mut other = accept.clone();
    other.seq = other.seq.wrapping_add(1);
    stage.server(&other);
    stage.round();
    assert!(stage.to_servers.is_empty() && stage.to_client.is_empty());
    stage.client(&data(&first, 0, b"GET"));
    assert_eq!(stage.one_to_server().payload, b"GET");
}

/// A change of state reported for a session that is gone says nothing about the next in its slot.
fn an_old_generation_changes_nothing(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    let at = stage.balancer.engine.sessions(stage.balancer.now(), 0, 1)[0].0;
    stage.client(&Segment { flags: RST, ..first });
    let changed = stage.balancer.tables.records.borrow_mut().pop_front().expect("a report");
    assert_eq!(changed.header.kind, RecordKind::StateChanged as u16);
    assert_eq!(changed.header.slot, at);
    let now = stage.balancer.now();
    let active = |stage: &Stage| {
        let services = stage.balancer.engine.services();
        services[0].servers.iter().map(|server| server.active).sum::<u32>()
    };
    assert_eq!(active(&stage), 1);
    let old =
        RecordHeader { generation: changed.header.generation.wrapping_sub(1), ..changed.header };
    stage.balancer.engine.handle_record(now, &old, &[]);
    assert_eq!(active(&stage), 1, "an older session's");
    stage.balancer.engine.handle_record(now, &changed.header, &[]);
    assert_eq!(active(&stage), 0, "this session's");
}

/// Under NAT the real server sees one tuple for both services: two live connections cannot share it,
/// but one that is over gives way.
fn under_nat_services_share_real_servers_and_clients_their_ports(family: Family) {
    let setup = Setup { forwarding: Forwarding::Nat, servers: 1, services: 2, ..Setup::of(family) };
    for (client_resets, counter) in [(false, Counter::ReusedTimeWait), (true, Counter::ReusedClose)]
    {
        let mut stage = Stage::new(&setup);
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        stage.server(&syn_ack(&syn, all_options()));
        stage.round();
        stage.to_servers.clear();

        stage.service = 1;
        stage.prove(CLIENT_PORT, all_options());
        assert_eq!(stage.one_to_client().flags & RST, RST, "the first is established");
        assert!(stage.to_servers.is_empty());
        assert_eq!(stage.balancer.engine.counter(Counter::Conflict), 1);

        if client_resets {
            stage.client(&Segment { flags: RST, ..first.clone() });
        } else {
            stage.client(&Segment { flags: FIN | ACK, ..first.clone() });
            let fin = stage.to_servers.pop().expect("the client's FIN");
            let ack = fin.seq.wrapping_add(1);
            stage.server(&answer(&fin, FIN | ACK, SERVER_ISN.wrapping_add(1), ack));
        }
        // Longer, and XDP no longer takes the same cookie for a repetition.
        stage.pass(5_000);
        stage.to_client.clear();
        stage.to_servers.clear();
        stage.prove(CLIENT_PORT, all_options());
        let mut sent = std::mem::take(&mut stage.to_servers);
        let syn = sent.pop().expect("a SYN");
        let before: Vec<_> = sent.iter().map(|segment| segment.flags).collect();
        assert_eq!(before, if client_resets { vec![] } else { vec![RST] });
        assert_eq!((syn.flags, syn.source.1), (SYN, CLIENT_PORT));
        assert_eq!(stage.balancer.engine.counter(counter), 1);
        assert_eq!(stage.balancer.engine.session_count(), 1);
        stage.server(&syn_ack(&syn, all_options()));
        stage.round();
        assert_eq!(stage.one_to_server().flags & ACK, ACK);
    }
}

/// SPEC B6: the SYN of a spoofed client to a service without the proxy, beside one with it.
fn nobody_without_proof_ends_another_services_session(family: Family) {
    let setup = Setup { forwarding: Forwarding::Nat, servers: 1, services: 2, ..Setup::of(family) };
    let mut stage = Stage::new(&setup);
    stage.balancer.engine.set_synproxy(1, Proxy::Off);
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    stage.client(&Segment { flags: RST, ..first });
    stage.round();
    stage.to_servers.clear();
    let [(_, before)] = &stage.balancer.engine.sessions(0, 0, 9)[..] else { panic!("one") };
    assert_eq!(before.state, TcpState::Close);
    stage.service = 1;
    let spoofed = stage.client_says(CLIENT_PORT, SYN, 9, 0);
    stage.client(&spoofed);
    stage.round();
    assert!(stage.to_servers.is_empty());
    assert_eq!(stage.balancer.engine.counter(Counter::Conflict), 1);
    assert_eq!(stage.balancer.engine.session_count(), 1);
}
