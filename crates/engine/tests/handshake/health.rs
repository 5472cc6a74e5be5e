//! Real servers that are marked down and up while traffic flows.

use seawall_engine::{Config, Counter, Health, Netmask, Persistence, RealServerSpec};
use seawall_fastpath::Reason;

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{RST, SYN};
use crate::support::stage::{CLIENT_PORT, Stage, all_options, data, syn_ack};

in_each_family! {
    down_it_gets_no_new_sessions_and_keeps_the_others,
    its_sessions_end_if_wanted,
    what_waits_for_it_asks_another,
    who_waits_for_it_without_the_proxy_gets_another,
    its_clients_move_for_good,
    when_all_are_down_a_service_is_not_usable,
}

fn mark(stage: &mut Stage, server: u32, health: Health) {
    stage.balancer.engine.set_health(0, server, health);
    let now = stage.balancer.now();
    stage.balancer.engine.settle_server(now, 0, server);
    stage.round();
}

fn down_it_gets_no_new_sessions_and_keeps_the_others(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, _, server) = stage.establish(CLIENT_PORT);
    assert_eq!(server, 1);
    mark(&mut stage, 1, Health::Down);
    stage.client(&data(&first, 0, b"on"));
    assert_eq!(stage.one_to_server().destination.0, family.server(1));
    for _ in 1..4 {
        assert_eq!(stage.ask(), 0);
    }
    let report = stage.balancer.engine.services().swap_remove(0).servers.swap_remove(1);
    assert_eq!((report.health, report.spec.weight, report.active), (Health::Down, 1, 1));
    // A reload that has something else to say.
    stage.balancer.engine.set_server(0, 1, RealServerSpec { weight: 5, ..report.spec });
    assert_eq!(stage.ask(), 0);
    assert_eq!(stage.balancer.engine.health(0, 1), Some(Health::Down));
    assert_eq!(stage.balancer.engine.health(0, 9), None);
    mark(&mut stage, 1, Health::Up);
    let chosen: Vec<_> = (5..9).map(|_| stage.ask()).collect();
    assert!(chosen.contains(&1), "{chosen:?}");
    // One that was taken out and put back starts anew.
    mark(&mut stage, 1, Health::Down);
    stage.balancer.engine.remove_server(0, 1);
    assert_eq!(stage.balancer.engine.add_server(0, report.spec), Some(1));
    assert_eq!(stage.balancer.engine.health(0, 1), Some(Health::Up));
}

fn its_sessions_end_if_wanted(family: Family) {
    let mut setup = Setup::of(family);
    setup.config = Config { expire_nodest_conn: true, ..setup.config };
    let mut stage = Stage::new(&setup);
    let (first, syn, server) = stage.establish(CLIENT_PORT);
    mark(&mut stage, server, Health::Down);
    // A tick of the timers.
    stage.pass(64);
    let reset = stage.one_to_client();
    assert_eq!((reset.flags, reset.seq), (RST, first.ack));
    let reset = stage.one_to_server();
    assert_eq!((reset.flags, reset.destination), (RST, syn.destination));
    assert_eq!(stage.balancer.engine.counter(Counter::ExpiredNoServer), 1);
    stage.balancer.assert_empty();
}

fn what_waits_for_it_asks_another(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.client(&data(&first, 0, b"early"));
    stage.round();
    mark(&mut stage, 1, Health::Down);
    stage.pass(64);
    let again: Vec<_> = stage.to_servers.drain(..).filter(|sent| sent.flags == SYN).collect();
    let [again] = &again[..] else { panic!("{again:#?}") };
    assert_ne!(again.destination, syn.destination);
    stage.server(&syn_ack(again, all_options()));
    stage.round();
    let payload: Vec<u8> = stage.to_servers.drain(..).flat_map(|sent| sent.payload).collect();
    assert_eq!(payload, b"early");
}

fn who_waits_for_it_without_the_proxy_gets_another(family: Family) {
    let mut stage = Stage::new(&Setup { synproxy: false, ..Setup::of(family) });
    let syn = stage.client_says(CLIENT_PORT, SYN, 7, 0);
    stage.client(&syn);
    stage.round();
    let asked = stage.one_to_server();
    mark(&mut stage, 1, Health::Down);
    stage.pass(64);
    let reset = stage.one_to_server();
    assert_eq!((reset.flags, reset.destination), (RST, asked.destination));
    stage.client(&syn);
    stage.round();
    assert_ne!(stage.one_to_server().destination, asked.destination);
    assert_eq!(stage.balancer.engine.session_count(), 1);
}

/// As those of a real server that a health checker takes out; weight 0 is for one that is to finish
/// what it has begun.
fn its_clients_move_for_good(family: Family) {
    let persistence = Some(Persistence { timeout: 20_000, netmask: Netmask::v6(128) });
    let mut stage = Stage::new(&Setup { persistence, ..Setup::of(family) });
    assert_eq!(stage.ask(), 1);
    mark(&mut stage, 1, Health::Down);
    assert_eq!(stage.ask(), 0);
    mark(&mut stage, 1, Health::Up);
    assert_eq!(stage.ask(), 0);
}

fn when_all_are_down_a_service_is_not_usable(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    for server in 0..2 {
        mark(&mut stage, server, Health::Down);
    }
    let syn = stage.client_says(CLIENT_PORT, SYN, 7, 0);
    stage.client(&syn);
    assert!(stage.to_client.is_empty());
    assert_eq!(stage.balancer.reason(Reason::NoDestination), 1);
    mark(&mut stage, 0, Health::Up);
    assert_eq!(stage.ask(), 0);
}
