//! Services and real servers that come and go under traffic (SPEC C4, D1).

use seawall_engine::scheduler::{Flags, Kind};
use seawall_engine::{Config, Counter, Gateway, RealServerSpec};
use seawall_fastpath::Reason;
use seawall_wire::ethernet::MacAddr;

use crate::support::balancer::{CLIENT_MAC, OUTSIDE, Setup};
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, RST, SYN, Segment};
use crate::support::stage::{CLIENT_PORT, SERVER_ISN, Stage, all_options, answer, data, syn_ack};

in_each_family! {
    sessions_of_a_removed_real_server_wait_for_it,
    sessions_end_with_their_real_server_if_wanted,
    nobody_is_forgotten_when_many_sessions_end,
    a_handshake_moves_on_when_its_real_server_goes,
    what_a_removed_real_server_says_no_longer_counts,
    a_client_that_waits_without_the_proxy_may_go_elsewhere,
    what_a_removed_real_server_refused_is_offered_again,
    a_removed_service_takes_nobody_and_comes_back_with_its_sessions,
    a_number_is_given_again_only_without_sessions,
    round_robin_goes_by_the_order_of_addition,
    schedulers_know_the_sessions_of_those_that_stay,
    a_client_is_followed_to_its_new_mac,
    both_ends_hear_of_an_idle_sessions_end,
}

fn spec(stage: &Stage, server: usize) -> RealServerSpec {
    stage.balancer.engine.services()[0].servers[server].spec
}

/// IPVS without `expire_nodest_conn`: dropped until it is back, as after a health checker's mistake.
fn sessions_of_a_removed_real_server_wait_for_it(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn, server) = stage.establish(CLIENT_PORT);
    let (other, _, another) = stage.establish(CLIENT_PORT + 1);
    assert_ne!(server, another);
    let removed = spec(&stage, server as usize);
    stage.balancer.engine.remove_server(0, server);
    stage.balancer.engine.settle(stage.balancer.now());
    stage.round();

    stage.client(&data(&first, 0, b"lost"));
    assert!(stage.to_servers.is_empty());
    assert_eq!(stage.balancer.reason(Reason::NoServer), 1);
    let says = answer(&syn, ACK, SERVER_ISN.wrapping_add(1), syn.seq.wrapping_add(1));
    stage.server(&Segment { payload: b"still".to_vec(), ..says });
    assert_eq!(stage.one_to_client().payload, b"still", "it may finish what it says");
    stage.client(&data(&other, 0, b"here"));
    assert_eq!(stage.one_to_server().payload, b"here");
    for port in 2..6 {
        let (_, syn) = stage.open(CLIENT_PORT + port, all_options());
        assert_eq!(stage.family.server_number(syn.destination.0), another);
    }
    let report = stage.balancer.engine.services().swap_remove(0);
    assert_eq!(report.servers.len(), 1);
    assert_eq!(report.totals.connections, 6, "what the removed one had, too");

    assert_eq!(stage.balancer.engine.add_server(0, removed), Some(server), "its old number");
    stage.balancer.engine.settle(stage.balancer.now());
    stage.client(&data(&first, 0, b"again"));
    assert_eq!(stage.one_to_server().payload, b"again");
}

fn sessions_end_with_their_real_server_if_wanted(family: Family) {
    let mut setup = Setup::of(family);
    setup.config = Config { expire_nodest_conn: true, ..setup.config };
    let mut stage = Stage::new(&setup);
    let (first, syn, server) = stage.establish(CLIENT_PORT);
    stage.balancer.engine.remove_server(0, server);
    stage.balancer.engine.settle(stage.balancer.now());
    // A tick of the timers.
    stage.pass(64);
    let reset = stage.one_to_client();
    assert_eq!((reset.flags, reset.seq), (RST, first.ack));
    let reset = stage.one_to_server();
    assert_eq!((reset.flags, reset.seq), (RST, syn.seq.wrapping_add(1)));
    assert_eq!(stage.balancer.engine.counter(Counter::ExpiredNoServer), 1);
    stage.balancer.assert_empty();
}

/// However many end at once, every end hears of it.
fn nobody_is_forgotten_when_many_sessions_end(family: Family) {
    const SESSIONS: u16 = 3_000;
    let mut setup = Setup { servers: 1, sessions: 4_096, ..Setup::of(family) };
    setup.config = Config { expire_nodest_conn: true, ..setup.config };
    let mut stage = Stage::new(&setup);
    for port in 0..SESSIONS {
        stage.establish(10_000 + port);
    }
    stage.balancer.engine.remove_server(0, 0);
    stage.balancer.engine.settle(stage.balancer.now());
    stage.pass(200);
    let resets = |sent: &[Segment]| sent.iter().filter(|segment| segment.flags == RST).count();
    let told = (resets(&stage.to_client), resets(&stage.to_servers));
    assert_eq!(told, (usize::from(SESSIONS), usize::from(SESSIONS)));
    stage.balancer.assert_empty();
}

/// Nothing of a client's is lost that has not reached a real server.
fn a_handshake_moves_on_when_its_real_server_goes(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.client(&data(&first, 0, b"early"));
    stage.round();
    let server = stage.family.server_number(syn.destination.0);
    stage.balancer.engine.remove_server(0, server);
    stage.balancer.engine.settle(stage.balancer.now());
    // A tick of the timers.
    stage.pass(64);
    let sent: Vec<_> = stage.to_servers.drain(..).collect();
    let [reset, again] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((reset.flags, reset.destination), (RST, syn.destination));
    assert_eq!(again.flags, SYN);
    assert_ne!(again.destination, syn.destination);
    stage.server(&syn_ack(again, all_options()));
    stage.round();
    let payload: Vec<u8> = stage.to_servers.drain(..).flat_map(|sent| sent.payload).collect();
    assert_eq!(payload, b"early");
    assert!(stage.to_client.is_empty());

    // And when there is no other, the client is told.
    let (_, syn) = stage.open(CLIENT_PORT + 1, all_options());
    let server = stage.family.server_number(syn.destination.0);
    stage.balancer.engine.remove_server(0, server);
    stage.balancer.engine.settle(stage.balancer.now());
    // A tick of the timers.
    stage.pass(64);
    assert_eq!(stage.one_to_client().flags & RST, RST);
}

fn a_removed_service_takes_nobody_and_comes_back_with_its_sessions(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, ..) = stage.establish(CLIENT_PORT);
    let report = stage.balancer.engine.services().swap_remove(0);
    let (spec, servers) = (report.spec, report.servers);
    // Accepted, and on its way to the engine.
    let syn = stage.client_says(CLIENT_PORT + 1, SYN, 7, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    let ack = stage.client_says(CLIENT_PORT + 1, ACK, cookie.ack, cookie.seq.wrapping_add(1));
    stage.client(&ack);
    stage.balancer.engine.remove_service(0);
    stage.balancer.forget_service(0);
    stage.balancer.engine.settle(stage.balancer.now());
    stage.round();
    assert!(stage.to_servers.is_empty());
    assert_eq!(stage.one_to_client().flags & RST, RST, "it believed itself connected");
    assert_eq!(stage.balancer.engine.counter(Counter::NoDestination), 1);
    assert_eq!(stage.balancer.engine.services(), []);
    assert_eq!(stage.balancer.engine.service_entry(0), None);
    assert_eq!(stage.balancer.engine.session_count(), 1);
    stage.client(&data(&first, 0, b"lost"));
    assert!(stage.to_servers.is_empty());

    let mut other = spec.clone();
    other.address.port += 1;
    assert_eq!(stage.balancer.engine.add_service(other), 1, "0 still has a session");
    assert_eq!(stage.balancer.engine.add_service(spec.clone()), 0, "itself");
    assert_eq!(stage.balancer.engine.services()[0].servers, [], "none that was not added");
    for server in &servers {
        stage.balancer.engine.add_server(0, server.spec).expect("a service");
    }
    stage.balancer.engine.settle(stage.balancer.now());
    stage.round();
    stage.client(&data(&first, 0, b"again"));
    assert_eq!(stage.one_to_server().payload, b"again");

    stage.balancer.engine.remove_service(0);
    stage.balancer.forget_service(0);
    stage.pass(1_000_000);
    assert_eq!(stage.balancer.engine.session_count(), 0);
    let mut new = spec;
    new.address.port += 2;
    assert_eq!(stage.balancer.engine.add_service(new), 0);
    assert_eq!(stage.balancer.engine.services()[0].servers, []);
}

/// Between the removal and the timer that asks another one, what comes from it is too late.
fn what_a_removed_real_server_says_no_longer_counts(family: Family) {
    for bare_ack in [false, true] {
        let mut stage = Stage::new(&Setup::of(family));
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        let server = stage.family.server_number(syn.destination.0);
        stage.balancer.engine.remove_server(0, server);
        stage.balancer.engine.settle(stage.balancer.now());
        for _ in 0..2 {
            let says = if bare_ack {
                answer(&syn, ACK, SERVER_ISN, syn.seq.wrapping_add(77))
            } else {
                syn_ack(&syn, all_options())
            };
            stage.server(&says);
        }
        stage.round();
        let again: Vec<_> = stage.to_servers.drain(..).filter(|sent| sent.flags == SYN).collect();
        let [again] = &again[..] else { panic!("{again:#?}") };
        assert_ne!(again.destination, syn.destination);
        stage.server(&syn_ack(again, all_options()));
        stage.round();
        stage.to_servers.clear();
        stage.client(&data(&first, 0, b"x"));
        let sent = stage.one_to_server();
        assert_eq!((sent.destination, sent.payload), (again.destination, b"x".to_vec()));
    }
}

fn a_client_that_waits_without_the_proxy_may_go_elsewhere(family: Family) {
    let mut stage = Stage::new(&Setup { synproxy: false, ..Setup::of(family) });
    let syn = stage.client_says(CLIENT_PORT, SYN, 7, 0);
    stage.client(&syn);
    stage.round();
    let asked = stage.one_to_server();
    let server = stage.family.server_number(asked.destination.0);
    stage.balancer.engine.remove_server(0, server);
    stage.balancer.engine.settle(stage.balancer.now());
    stage.pass(64);
    stage.balancer.assert_empty();
    stage.to_servers.clear();
    stage.to_client.clear();
    stage.client(&syn);
    stage.round();
    let again = stage.one_to_server();
    assert_eq!(again.flags, SYN);
    assert_ne!(again.destination, asked.destination);
}

/// SPEC A7: what one has refused is offered to nobody, as long as it is there.
fn what_a_removed_real_server_refused_is_offered_again(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let flags = |stage: &Stage| stage.balancer.engine.service_entry(0).expect("there").flags;
    let before = flags(&stage);
    let (_, syn) = stage.open(CLIENT_PORT, all_options());
    stage.server(&syn_ack(&syn, Vec::new()));
    stage.round();
    assert_ne!(flags(&stage), before);
    let server = stage.family.server_number(syn.destination.0);
    stage.balancer.engine.remove_server(0, server);
    assert_eq!(flags(&stage), before);
}

fn a_number_is_given_again_only_without_sessions(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 3, ..Setup::of(family) });
    let (_, _, server) = stage.establish(CLIENT_PORT);
    let specs: Vec<_> = (0..3).map(|server| spec(&stage, server)).collect();
    let unused = (0..3).find(|number| *number != server).expect("three");
    let engine = &mut stage.balancer.engine;
    engine.remove_server(0, server);
    engine.remove_server(0, unused);
    let mut new = specs[0];
    new.address.port += 1;
    assert_eq!(engine.add_server(0, new), Some(unused));
    new.address.port += 1;
    assert_eq!(engine.add_server(0, new), Some(3));
    assert_eq!(engine.add_server(0, specs[server as usize]), Some(server), "itself");
    assert_eq!(engine.add_server(9, new), None);
}

/// IPVS's list: the one added last comes first.
fn round_robin_goes_by_the_order_of_addition(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 3, ..Setup::of(family) });
    let first = spec(&stage, 0);
    stage.balancer.engine.remove_server(0, 0);
    assert_eq!(stage.balancer.engine.add_server(0, first), Some(0));
    stage.balancer.engine.settle(stage.balancer.now());
    stage.round();
    let chosen: Vec<_> = (0..6)
        .map(|port| {
            let (_, syn) = stage.open(CLIENT_PORT + port, all_options());
            stage.family.server_number(syn.destination.0)
        })
        .collect();
    assert_eq!(chosen, [0, 2, 1, 0, 2, 1]);
}

/// SPEC E: no session is lost by a neighbour's MAC change. A MAC that somebody else still has is no
/// sign of a failure.
fn a_client_is_followed_to_its_new_mac(family: Family) {
    const NEW: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
    let mut stage = Stage::new(&Setup::of(family));
    let router = |address| Gateway { interface: OUTSIDE, address };
    let (one, other) = (family.client().into(), family.vip().0.into());
    for address in [one, other] {
        stage.balancer.engine.set_neighbour(router(address), MacAddr(CLIENT_MAC));
    }
    let (_, syn, _) = stage.establish(CLIENT_PORT);
    let mut says = answer(&syn, ACK, SERVER_ISN.wrapping_add(1), syn.seq.wrapping_add(1));
    says.payload = b"x".to_vec();
    let goes_to = |stage: &mut Stage| {
        let (_, frame) = stage.balancer.receive(stage.inside(), &says.bytes()).expect("forwarded");
        MacAddr(Segment::read(&frame).destination_mac)
    };
    assert_eq!(goes_to(&mut stage), MacAddr(CLIENT_MAC));
    stage.balancer.engine.set_neighbour(router(other), NEW);
    assert_eq!(goes_to(&mut stage), MacAddr(CLIENT_MAC), "the other one still has it");
    stage.balancer.engine.set_neighbour(router(one), NEW);
    assert_eq!(goes_to(&mut stage), NEW);
    // A second client of the router's peer, then all fail back.
    let peer = Gateway { interface: OUTSIDE, address: stage.family.local().into() };
    stage.balancer.engine.set_neighbour(peer, NEW);
    stage.balancer.engine.forget_neighbour(peer);
    for address in [one, other] {
        stage.balancer.engine.set_neighbour(router(address), MacAddr(CLIENT_MAC));
    }
    assert_eq!(goes_to(&mut stage), MacAddr(CLIENT_MAC));
    for address in [one, other] {
        stage.balancer.engine.set_neighbour(router(address), NEW);
    }
    // On another interface the same MAC is another neighbour's.
    let elsewhere = Gateway { interface: stage.inside(), address: one };
    stage.balancer.engine.set_neighbour(elsewhere, NEW);
    stage.balancer.engine.set_neighbour(elsewhere, MacAddr(CLIENT_MAC));
    assert_eq!(goes_to(&mut stage), NEW);
}

/// LVS's `conn_expire_tcp_rst`; DPVS resets only in ESTABLISHED, too.
fn both_ends_hear_of_an_idle_sessions_end(family: Family) {
    for told in [true, false] {
        let mut setup = Setup::of(family);
        setup.config = Config { conn_expire_tcp_rst: told, ..setup.config };
        let mut stage = Stage::new(&setup);
        let (first, syn, _) = stage.establish(CLIENT_PORT);
        stage.pass(900_000 - 100);
        assert_eq!(stage.balancer.engine.session_count(), 1);
        stage.pass(1_000);
        stage.balancer.assert_empty();
        let resets = [stage.to_client.pop(), stage.to_servers.pop()];
        let numbers = resets.map(|reset| reset.map(|reset| (reset.flags, reset.seq)));
        let expected = [Some((RST, first.ack)), Some((RST, syn.seq.wrapping_add(1)))];
        assert_eq!(numbers, if told { expected } else { [None, None] });
        assert_eq!(stage.balancer.engine.counter(Counter::Expired), 1);
    }
}

fn schedulers_know_the_sessions_of_those_that_stay(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 3, ..Setup::of(family) });
    let engine = &mut stage.balancer.engine;
    engine.set_scheduler(0, Kind::LeastConnections, Flags::default());
    let third = engine.services()[0].servers[2].spec;
    engine.remove_server(0, 2);
    let open = |stage: &mut Stage, port| {
        let (_, syn) = stage.open(CLIENT_PORT + port, all_options());
        stage.family.server_number(syn.destination.0)
    };
    let mut chosen: Vec<_> = (0..4).map(|port| open(&mut stage, port)).collect();
    chosen.sort_unstable();
    assert_eq!(chosen, [0, 0, 1, 1]);
    assert_eq!(stage.balancer.engine.add_server(0, third), Some(2));
    let chosen: Vec<_> = (4..6).map(|port| open(&mut stage, port)).collect();
    assert_eq!(chosen, [2, 2], "the others have two each");
    let first = RealServerSpec { weight: 0, ..spec(&stage, 0) };
    stage.balancer.engine.set_server(0, 0, first);
    let mut chosen: Vec<_> = (6..10).map(|port| open(&mut stage, port)).collect();
    chosen.sort_unstable();
    assert_eq!(chosen, [1, 1, 2, 2]);
}
