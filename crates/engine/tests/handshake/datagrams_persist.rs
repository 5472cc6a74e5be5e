//! Clients of UDP services that stay with their real server (SPEC C4, B6; Linux, `ip_vs_sched_persist`).

use seawall_engine::{
    Config, Counter, Forwarding, Health, Netmask, Persistence, RealServerSpec, ServerReport,
};
use seawall_fastpath::Reason;
use seawall_fastpath::layout::{Tunnel, Wrapping};
use seawall_fastpath::native::Memory;

use crate::datagrams::{Datagram, TICK, Talk};
use crate::support::balancer::{Setup, server_mac};
use crate::support::family::{Family, in_each_family};
use crate::support::model::Model;
use crate::support::packet::Ip;

in_each_family! {
    a_client_stays_with_its_real_server_however_it_is_reached,
    the_template_of_a_client_that_cannot_prove_itself_lasts_its_time,
    clients_of_one_network_are_one,
    all_ports_of_a_port_0_service_go_to_one_real_server,
    with_one_packet_scheduling_every_datagram_goes_by_the_template,
    one_packet_answers_from_every_port_of_a_port_0_service,
    a_quiesced_real_server_keeps_its_clients_unless_it_is_not_to,
    a_real_server_that_is_removed_or_down_loses_its_clients,
    a_full_real_server_takes_who_has_a_template,
    who_has_said_nothing_but_once_takes_a_quarter_of_the_templates,
    templates_of_udp_take_half,
    templates_go_on_with_the_next_engine,
}

const TIMEOUT: u32 = 20_000;

fn setup(family: Family) -> Setup {
    let netmask = match family {
        Family::V4 => Netmask::v4(u32::MAX),
        Family::V6 => Netmask::v6(128),
    };
    let persistence = Some(Persistence { timeout: TIMEOUT, netmask });
    Setup { persistence, servers: 3, timeout: Some(2_000), ..Setup::of(family) }
}

fn tunnel(family: Family) -> Forwarding {
    let tunnel = Tunnel { wrapping: Wrapping::Gue, checksum: false, port: 6_080 };
    Forwarding::Tunnel { tunnel, source: family.local().into() }
}

fn every_forwarding(family: Family) -> [Forwarding; 4] {
    [Forwarding::Nat, Forwarding::FullNat, Forwarding::Dr, tunnel(family)]
}

fn servers(talk: &Talk) -> Vec<ServerReport> {
    talk.service().servers
}

fn templates(talk: &Talk) -> Vec<u32> {
    servers(talk).iter().map(|server| server.persistent).collect()
}

/// The client of that number, at one of its ports.
fn client(talk: &Talk, number: u32, port: u16) -> (Ip, u16) {
    (talk.setup.family.client() + number, 1_000 + port)
}

/// Who gets a datagram, by its MAC; `None` if nobody does.
fn asked(talk: &mut Talk, (number, port): (u32, u16), service: u16) -> Option<u32> {
    let from = client(talk, number, port);
    let sent = talk.ask_for(from, service);
    assert!(sent.len() <= 1, "{sent:02x?}");
    let mac = sent.first()?.1.first_chunk::<6>().copied()?;
    (0..talk.setup.servers).find(|server| server_mac(*server) == mac)
}

fn reweigh(talk: &mut Talk, server: u32, weight: u32) {
    let spec = servers(talk)[server as usize].spec;
    talk.balancer.engine.set_server(0, server, RealServerSpec { weight, ..spec });
    talk.balancer.round();
}

fn a_client_stays_with_its_real_server_however_it_is_reached(family: Family) {
    for forwarding in every_forwarding(family) {
        let mut talk = Talk::new(Setup { forwarding, ..setup(family) });
        for port in 0..4 {
            assert_eq!(asked(&mut talk, (0, port), 0), Some(2), "{forwarding:?}");
            assert_eq!(asked(&mut talk, (0, port), 0), Some(2), "{forwarding:?}, past the engine");
        }
        assert_eq!(templates(&talk), [0, 0, 1]);
        for (number, server) in [(1, 1), (2, 0), (3, 2), (1, 1), (3, 2)] {
            assert_eq!(asked(&mut talk, (number, 9), 0), Some(server), "{forwarding:?}, {number}");
        }
        assert_eq!(templates(&talk), [1, 1, 2]);
        talk.pass(100_000);
        assert_eq!(templates(&talk), [0; 3]);
        talk.balancer.assert_empty();
    }
}

/// By DR and TUNNEL that is everybody: the session is over after 2 s, and the client comes back in time
/// again and again.
fn the_template_of_a_client_that_cannot_prove_itself_lasts_its_time(family: Family) {
    for forwarding in every_forwarding(family) {
        let mut talk = Talk::new(Setup { forwarding, ..setup(family) });
        for _ in 0..3 {
            assert_eq!(asked(&mut talk, (0, 0), 0), Some(2));
            talk.pass(u64::from(TIMEOUT) - 100);
            assert_eq!(talk.sessions(), 0);
            assert_eq!(templates(&talk), [0, 0, 1]);
        }
        talk.pass(200);
        talk.balancer.assert_empty();
        assert_eq!(asked(&mut talk, (0, 0), 0), Some(1), "a stranger again");
    }
}

fn clients_of_one_network_are_one(family: Family) {
    let netmask = match family {
        Family::V4 => Netmask::v4(0xffff_ff00),
        Family::V6 => Netmask::v6(120),
    };
    let persistence = Some(Persistence { timeout: TIMEOUT, netmask });
    let mut talk = Talk::new(Setup { persistence, ..setup(family) });
    for (number, server) in [(0, 2), (7, 2), (200, 2), (256, 1), (300, 1), (3, 2), (0x1_0000, 0)] {
        assert_eq!(asked(&mut talk, (number, 0), 0), Some(server), "{number}");
    }
    assert_eq!(templates(&talk), [1; 3]);
}

/// And to the port that was asked for, whose answers come from it.
fn all_ports_of_a_port_0_service_go_to_one_real_server(family: Family) {
    for forwarding in every_forwarding(family) {
        let mut talk = Talk::new(Setup { any_port: true, forwarding, ..setup(family) });
        let (vip, first_port) = family.vip();
        let from = client(&talk, 0, 0);
        for port in [0, 1, 363, 7_000] {
            assert_eq!(asked(&mut talk, (0, 0), port), Some(2), "{forwarding:?}, {port}");
            if matches!(forwarding, Forwarding::Nat | Forwarding::FullNat) {
                let [(_, frame)] = &talk.ask_for(from, port)[..] else { panic!("nothing sent") };
                let question = Datagram::read(frame);
                assert_eq!(question.destination, (family.server(2), first_port + port));
                let answer = talk.answer(&question).expect("sent back");
                assert_eq!((answer.source, answer.destination), ((vip, first_port + port), from));
            }
        }
        assert_eq!(templates(&talk), [0, 0, 1]);
        talk.balancer.engine.remove_service(0);
        talk.balancer.forget_any_port();
        assert_eq!(asked(&mut talk, (1, 0), 9), None);
    }
}

/// Each is a connection of its own, which begins the template's time anew and is over at once.
fn with_one_packet_scheduling_every_datagram_goes_by_the_template(family: Family) {
    for forwarding in every_forwarding(family) {
        let base = Setup { timeout: None, ..setup(family) };
        let mut talk = Talk::new(Setup { one_packet: true, forwarding, ..base });
        for round in 0..4 {
            for number in 0..3 {
                assert_eq!(
                    asked(&mut talk, (number, round), 0),
                    Some(2 - number),
                    "{forwarding:?}"
                );
            }
            talk.pass(15_000);
        }
        let totals = talk.service().totals;
        assert_eq!((totals.connections, templates(&talk)), (12, vec![1; 3]));
        // The slot for answers outlives the template and does not keep it.
        talk.pass(5_000 + TICK);
        assert_eq!(templates(&talk), [0; 3], "{forwarding:?}");
        assert!(talk.sessions() > 0);
        talk.pass(30_000);
        talk.balancer.assert_empty();
    }
}

fn one_packet_answers_from_every_port_of_a_port_0_service(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { one_packet: true, any_port: true, forwarding, ..setup(family) };
        let mut talk = Talk::new(setup);
        let (vip, first_port) = family.vip();
        let from = client(&talk, 0, 0);
        let mut questions = Vec::new();
        for port in [3, 4, 3] {
            let [(_, frame)] = &talk.ask_for(from, port)[..] else { panic!("nothing sent") };
            questions.push((port, Datagram::read(frame)));
        }
        for (port, question) in &questions {
            assert_eq!(question.destination, (family.server(2), first_port + port));
            let answer = talk.answer(question).expect("sent back");
            assert_eq!((answer.source, answer.destination), ((vip, first_port + port), from));
        }
        assert_eq!(talk.sessions(), 2, "one a port");
        let before = Model::of(&talk.balancer);
        talk.balancer.restart(0..3);
        assert_eq!(Model::of(&talk.balancer), before);
        assert_eq!(asked(&mut talk, (0, 0), 4), Some(2));
        assert_eq!(talk.sessions(), 2, "the next engine knows them");
        talk.pass(31_000);
        talk.balancer.assert_empty();
    }
}

fn a_quiesced_real_server_keeps_its_clients_unless_it_is_not_to(family: Family) {
    for forwarding in every_forwarding(family) {
        let mut talk = Talk::new(Setup { forwarding, ..setup(family) });
        assert_eq!(asked(&mut talk, (0, 0), 0), Some(2));
        for server in 0..3 {
            reweigh(&mut talk, server, 0);
        }
        assert_eq!(asked(&mut talk, (0, 1), 0), Some(2));
        assert_eq!(asked(&mut talk, (1, 0), 0), None);
        assert_eq!(talk.count(Counter::NoDestination), 1);
        reweigh(&mut talk, 0, 1);
        let config = Config { expire_quiescent_template: true, ..talk.setup.config };
        talk.balancer.engine.set_config(config);
        talk.balancer.round();
        assert_eq!(asked(&mut talk, (0, 2), 0), Some(0));
        assert_eq!(asked(&mut talk, (0, 0), 0), Some(2), "the session goes on");
        reweigh(&mut talk, 2, 1);
        assert_eq!(asked(&mut talk, (0, 3), 0), Some(0), "it stays where it went");
    }
}

fn a_real_server_that_is_removed_or_down_loses_its_clients(family: Family) {
    for forwarding in every_forwarding(family) {
        let mut talk = Talk::new(Setup { forwarding, ..setup(family) });
        assert_eq!(asked(&mut talk, (0, 0), 0), Some(2));
        talk.balancer.engine.set_health(0, 2, Health::Down);
        talk.balancer.engine.settle(talk.balancer.now());
        talk.balancer.round();
        let next = asked(&mut talk, (0, 1), 0);
        assert!(matches!(next, Some(0 | 1)), "{next:?}");
        talk.balancer.engine.remove_server(0, next.unwrap());
        talk.balancer.engine.settle(talk.balancer.now());
        talk.balancer.round();
        let last = asked(&mut talk, (0, 2), 0);
        assert!(last.is_some() && last != next && last != Some(2), "{last:?}");
    }
}

fn a_full_real_server_takes_who_has_a_template(family: Family) {
    for forwarding in every_forwarding(family) {
        let mut talk = Talk::new(Setup { forwarding, thresholds: (2, 0), ..setup(family) });
        for port in 0..4 {
            assert_eq!(asked(&mut talk, (0, port), 0), Some(2), "{forwarding:?}");
        }
        let others: Vec<_> = (1..6).map(|number| asked(&mut talk, (number, 0), 0)).collect();
        assert_eq!(others, [Some(1), Some(0), Some(1), Some(0), None], "{forwarding:?}");
        assert_eq!(asked(&mut talk, (3, 1), 0), Some(1));
    }
}

/// SPEC B6: a flood in other people's names leaves templates to those who talk.
fn who_has_said_nothing_but_once_takes_a_quarter_of_the_templates(family: Family) {
    for one_packet in [false, true] {
        let setup =
            Setup { sessions: 255, one_packet, forwarding: Forwarding::Nat, ..setup(family) };
        let mut talk = Talk::new(setup);
        let all = talk.balancer.memory.templates().len() as u32;
        let kept = client(&talk, 5_000, 0);
        let question = talk.ask(kept).expect("sent on");
        talk.answer(&question).expect("sent back");
        talk.ask(kept);
        talk.balancer.round();
        let flood = |talk: &mut Talk, first: u32| {
            for number in 0..all / 4 {
                let from = client(talk, first + number, 0);
                talk.ask(from);
                // No session stands in the way of the next one.
                talk.pass(if number % 8 == 7 { 2_100 } else { 0 });
            }
        };
        flood(&mut talk, 0);
        let many: u32 = templates(&talk).iter().sum();
        assert!((all / 8..=all / 4 + 1).contains(&many), "{many} of {all}, {one_packet}");
        for number in 0..all {
            talk.ask(client(&talk, 1_000 + number, 0));
            if number % 32 == 31 {
                talk.pass(10);
            }
            let many: u32 = templates(&talk).iter().sum();
            assert!(many <= all / 4 + 1, "{many} of {all}, {one_packet}");
        }
        let next = talk.ask((kept.0, kept.1 + 1)).map(|it| it.destination);
        assert!(next.is_none() || next == Some(question.destination), "{one_packet}");
        let exceeded = talk.count(Counter::ExceededTemplates) + talk.count(Counter::ExceededUdp);
        assert!(exceeded > 0, "{one_packet}");
        // What is kept of a flood is soon less than half of the quarter, so a client that nobody can
        // prove has its template.
        talk.pass(11_000);
        let many: u32 = templates(&talk).iter().sum();
        assert!(many <= all / 8 + 1, "{many} of {all}, {one_packet}");
        let late = client(&talk, 9_000, 0);
        talk.ask(late).expect("sent on");
        assert_eq!(templates(&talk).iter().sum::<u32>(), many + 1);
        talk.pass(200_000);
        talk.balancer.assert_empty();
    }
}

/// Who guesses when the answer has come has a template like one that talks.
fn templates_of_udp_take_half(family: Family) {
    let setup = Setup { sessions: 63, forwarding: Forwarding::Nat, ..setup(family) };
    let mut talk = Talk::new(setup);
    let all = talk.balancer.memory.templates().len() as u32;
    for number in 0..all {
        let from = client(&talk, number, 0);
        talk.converse(from);
        talk.balancer.round();
        if number % 4 == 3 {
            talk.pass(2_000 + TICK);
        }
        if number == all / 2 - 1 {
            assert_eq!(talk.count(Counter::ExceededTemplates), 0);
        }
        let many: u32 = templates(&talk).iter().sum();
        assert!(many <= all / 2, "{many} of {all}");
    }
    assert!(talk.count(Counter::ExceededTemplates) > 0);
    talk.pass(100_000);
    talk.balancer.assert_empty();
    talk.converse(client(&talk, 0, 0));
    assert_eq!(templates(&talk).iter().sum::<u32>(), 1);
}

fn templates_go_on_with_the_next_engine(family: Family) {
    for (forwarding, one_packet) in [
        (Forwarding::Nat, false),
        (Forwarding::FullNat, true),
        (Forwarding::Dr, true),
        (tunnel(family), false),
    ] {
        let mut talk = Talk::new(Setup { forwarding, one_packet, ..setup(family) });
        for number in 0..3 {
            assert_eq!(asked(&mut talk, (number, 0), 0), Some(2 - number));
        }
        talk.pass(10_000);
        assert_eq!(asked(&mut talk, (1, 1), 0), Some(1));
        let before = Model::of(&talk.balancer);
        let adoption = talk.balancer.restart(0..3);
        assert_eq!((adoption.templates, adoption.orphan_templates), (3, 0), "{forwarding:?}");
        // What single datagrams go by past us leads nowhere, and is not taken over.
        if forwarding != Forwarding::Dr {
            assert_eq!(Model::of(&talk.balancer), before, "{forwarding:?}");
        }
        talk.pass(9_000);
        assert_eq!(templates(&talk), [1; 3], "{forwarding:?}");
        talk.pass(2_000);
        assert_eq!(templates(&talk), [0, 1, 0], "each by its own time, {forwarding:?}");
        assert_eq!(asked(&mut talk, (1, 2), 0), Some(1));
        talk.pass(100_000);
        talk.balancer.assert_empty();
        assert_eq!(talk.balancer.reason(Reason::NotSetUp), 0);
    }
}
