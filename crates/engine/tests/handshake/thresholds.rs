//! How many sessions a real server may have (SPEC C4; Linux, `ip_vs_bind_dest`,
//! `ip_vs_unbind_dest`).

use seawall_engine::scheduler::Kind;
use seawall_engine::{Netmask, Persistence, RealServerSpec, ServerReport};
use seawall_fastpath::Reason;

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{RST, SYN, Segment};
use crate::support::stage::{CLIENT_PORT, Stage, all_options};

in_each_family! {
    at_the_upper_threshold_a_real_server_takes_no_more,
    without_a_lower_one_it_waits_for_three_quarters,
    with_a_lower_one_it_waits_for_that,
    when_all_are_full_a_service_is_not_usable,
    lblc_stays_with_a_full_one,
    a_template_brings_a_session_to_a_full_one,
    a_higher_threshold_counts_at_once_and_a_lower_one_later,
}

fn setup(family: Family, thresholds: (u32, u32)) -> Setup {
    Setup { thresholds, ..Setup::of(family) }
}

fn servers(stage: &Stage) -> Vec<ServerReport> {
    stage.balancer.engine.services().swap_remove(0).servers
}

fn overloaded(stage: &Stage) -> Vec<bool> {
    servers(stage).iter().map(|server| server.overloaded).collect()
}

/// Opens a connection for each port that waits for its real server; what the clients say.
fn open(stage: &mut Stage, ports: std::ops::Range<u16>) -> Vec<(Segment, u32)> {
    ports
        .map(|port| {
            let (first, syn) = stage.open(CLIENT_PORT + port, all_options());
            (first, stage.family.server_number(syn.destination.0))
        })
        .collect()
}

fn close(stage: &mut Stage, first: &Segment) {
    stage.client(&Segment { flags: RST, ..first.clone() });
    stage.round();
    stage.to_servers.clear();
}

fn set_upper(stage: &mut Stage, server: u32, upper_threshold: u32) {
    let spec = servers(stage)[server as usize].spec;
    stage.balancer.engine.set_server(0, server, RealServerSpec { upper_threshold, ..spec });
    stage.round();
}

fn at_the_upper_threshold_a_real_server_takes_no_more(family: Family) {
    let mut stage = Stage::new(&setup(family, (3, 0)));
    set_upper(&mut stage, 0, 0);
    let chosen: Vec<_> = open(&mut stage, 0..9).into_iter().map(|(_, server)| server).collect();
    assert_eq!(chosen, [1, 0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(overloaded(&stage), [false, true]);
}

fn without_a_lower_one_it_waits_for_three_quarters(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 1, ..setup(family, (8, 0)) });
    let opened = open(&mut stage, 0..8);
    for (at, (first, _)) in opened.iter().enumerate() {
        close(&mut stage, first);
        // 5 is the first number below 6.
        assert_eq!(overloaded(&stage), [at < 2], "{at}");
    }
}

fn with_a_lower_one_it_waits_for_that(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 1, ..setup(family, (8, 3)) });
    let opened = open(&mut stage, 0..8);
    for (at, (first, _)) in opened.iter().enumerate() {
        close(&mut stage, first);
        assert_eq!(overloaded(&stage), [at < 5], "{at}");
    }
}

fn when_all_are_full_a_service_is_not_usable(family: Family) {
    for synproxy in [true, false] {
        let mut stage = Stage::new(&Setup { synproxy, ..setup(family, (2, 2)) });
        let syn = |stage: &mut Stage, port| {
            let syn = stage.client_says(CLIENT_PORT + port, SYN, 7, 0);
            stage.client(&syn);
            stage.round();
            syn
        };
        let mut opened = Vec::new();
        for port in 0..4 {
            if synproxy {
                opened.extend(open(&mut stage, port..port + 1).into_iter().map(|(first, _)| first));
            } else {
                opened.push(syn(&mut stage, port));
            }
        }
        stage.to_servers.clear();
        stage.to_client.clear();
        syn(&mut stage, 9);
        assert!(stage.to_client.is_empty() && stage.to_servers.is_empty());
        let reason = if synproxy { Reason::Overloaded } else { Reason::OverloadedUnproxied };
        assert_eq!(stage.balancer.reason(reason), 1);
        if synproxy {
            close(&mut stage, &opened[0]);
            stage.open(CLIENT_PORT + 10, all_options());
            syn(&mut stage, 11);
            assert_eq!(stage.balancer.reason(reason), 2);
        }
        // No longer for its load, but for its weights.
        for server in 0..2 {
            let spec = servers(&stage)[server as usize].spec;
            stage.balancer.engine.set_server(0, server, RealServerSpec { weight: 0, ..spec });
        }
        stage.round();
        syn(&mut stage, 12);
        let reason = if synproxy { Reason::NoDestination } else { Reason::NoDestinationUnproxied };
        assert_eq!(stage.balancer.reason(reason), 1);
    }
}

/// The kernel's `ip_vs_lblc_schedule` does not look at the threshold of the server that an address
/// has.
fn lblc_stays_with_a_full_one(family: Family) {
    for synproxy in [true, false] {
        let scheduler = Kind::Locality;
        let base = Setup { servers: 1, scheduler, synproxy, ..setup(family, (2, 0)) };
        let mut stage = Stage::new(&base);
        for port in 0..4 {
            if synproxy {
                assert_eq!(open(&mut stage, port..port + 1)[0].1, 0);
            } else {
                let syn = stage.client_says(CLIENT_PORT + port, SYN, 7, 0);
                stage.client(&syn);
                stage.round();
                assert_eq!(stage.one_to_server().flags, SYN);
            }
            assert_eq!(overloaded(&stage), [port > 0]);
        }
    }
}

fn a_template_brings_a_session_to_a_full_one(family: Family) {
    let netmask = Netmask::v6(128);
    let persistence = Some(Persistence { timeout: 20_000, netmask });
    let mut stage = Stage::new(&Setup { persistence, ..setup(family, (2, 0)) });
    let chosen: Vec<_> = open(&mut stage, 0..4).into_iter().map(|(_, server)| server).collect();
    assert_eq!(chosen, [1; 4]);
    assert_eq!(overloaded(&stage), [false, true]);
    stage.from = family.client() + 1;
    let chosen: Vec<_> = open(&mut stage, 4..8).into_iter().map(|(_, server)| server).collect();
    assert_eq!(chosen, [0; 4]);
    assert_eq!(overloaded(&stage), [true, true]);
    stage.from = family.client();
    assert_eq!(open(&mut stage, 8..9)[0].1, 1);
}

/// `__ip_vs_update_dest`.
fn a_higher_threshold_counts_at_once_and_a_lower_one_later(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 1, ..setup(family, (2, 0)) });
    open(&mut stage, 0..2);
    assert_eq!(overloaded(&stage), [true]);
    set_upper(&mut stage, 0, 4);
    assert_eq!(overloaded(&stage), [false]);
    open(&mut stage, 2..4);
    set_upper(&mut stage, 0, 0);
    assert_eq!(overloaded(&stage), [false]);
    open(&mut stage, 4..6);
    set_upper(&mut stage, 0, 3);
    assert_eq!(overloaded(&stage), [false], "until the next one comes");
    open(&mut stage, 6..7);
    assert_eq!(overloaded(&stage), [true]);
}
