//! Clients that stay with their real server (SPEC C4; Linux, `ip_vs_sched_persist`).

use seawall_engine::scheduler::{Flags, Kind};
use seawall_engine::{Config, Counter, Health, Netmask, Persistence, RealServerSpec, ServerReport};
use seawall_fastpath::Reason;

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, RST, SYN, Segment};
use crate::support::stage::{CLIENT_PORT, Stage, all_options, answer, syn_ack};

in_each_family! {
    a_client_stays_with_its_real_server,
    a_template_lasts_from_the_last_new_connection,
    a_template_waits_for_its_sessions_and_then_by_the_minute,
    clients_of_one_network_are_one,
    all_ports_of_a_port_0_service_go_to_one_real_server,
    a_quiesced_real_server_keeps_its_clients,
    a_quiesced_real_server_loses_them_if_wanted,
    a_removed_real_server_loses_its_clients,
    only_who_has_proved_its_address_has_a_template,
    without_the_proxy_a_template_is_made_by_the_syn,
    a_client_that_proves_itself_without_a_template_gets_one,
    while_no_other_real_server_is_there_a_client_keeps_its_own,
    without_room_connections_are_served_without,
    a_real_server_that_does_not_answer_loses_the_client,
    persistence_can_be_switched,
    a_service_number_waits_for_its_templates,
}

const TIMEOUT: u32 = 20_000;

fn setup(family: Family) -> Setup {
    let netmask = match family {
        Family::V4 => Netmask::v4(u32::MAX),
        Family::V6 => Netmask::v6(128),
    };
    let persistence = Some(Persistence { timeout: TIMEOUT, netmask });
    Setup { persistence, servers: 3, ..Setup::of(family) }
}

fn servers(stage: &Stage) -> Vec<ServerReport> {
    stage.balancer.engine.services().swap_remove(0).servers
}

fn templates(stage: &Stage) -> Vec<u32> {
    servers(stage).iter().map(|server| server.persistent).collect()
}

fn reweigh(stage: &mut Stage, server: u32, weight: u32) {
    let spec = servers(stage)[server as usize].spec;
    stage.balancer.engine.set_server(0, server, RealServerSpec { weight, ..spec });
    stage.round();
}

fn a_client_stays_with_its_real_server(family: Family) {
    let mut stage = Stage::new(&setup(family));
    let chosen: Vec<_> = (0..4).map(|_| stage.ask()).collect();
    assert_eq!(chosen, [2; 4]);
    assert_eq!(templates(&stage), [0, 0, 1]);
    for (client, server) in [(1, 1), (2, 0), (3, 2), (1, 1), (3, 2)] {
        stage.from = family.client() + client;
        assert_eq!(stage.ask(), server, "{client}");
    }
    assert_eq!(templates(&stage), [1, 1, 2]);
    let connections = servers(&stage).iter().map(|server| server.totals.connections).sum::<u64>();
    assert_eq!(connections, 9, "templates are no connections");
}

fn a_template_lasts_from_the_last_new_connection(family: Family) {
    let mut stage = Stage::new(&setup(family));
    assert_eq!(stage.ask(), 2);
    stage.pass(15_000);
    assert_eq!(stage.ask(), 2);
    stage.pass(15_000);
    assert_eq!(stage.ask(), 2);
    stage.pass(u64::from(TIMEOUT) - 100);
    assert_eq!(templates(&stage), [0, 0, 1]);
    stage.pass(200);
    assert_eq!(templates(&stage), [0; 3]);
    assert_eq!(stage.ask(), 1);
    stage.pass(30_000);
    stage.balancer.assert_empty();
}

/// `ip_vs_conn_expire`: one that controls sessions is given 60 s more, again and again; and that is
/// what a new connection gives it from then on.
fn a_template_waits_for_its_sessions_and_then_by_the_minute(family: Family) {
    let mut stage = Stage::new(&setup(family));
    let (first, ..) = stage.establish(CLIENT_PORT);
    stage.pass(70_000);
    assert_eq!(templates(&stage), [0, 0, 1]);
    assert_eq!(stage.ask(), 2);
    stage.client(&Segment { flags: RST | ACK, ..first });
    stage.round();
    stage.pass(11_000);
    assert_eq!(stage.balancer.engine.session_count(), 0);
    stage.pass(48_000);
    assert_eq!(templates(&stage), [0, 0, 1], "60 s, no longer 20");
    stage.pass(2_000);
    assert_eq!(templates(&stage), [0; 3]);
}

fn clients_of_one_network_are_one(family: Family) {
    let netmask = match family {
        Family::V4 => Netmask::v4(0xffff_ff00),
        Family::V6 => Netmask::v6(120),
    };
    let persistence = Some(Persistence { timeout: TIMEOUT, netmask });
    let mut stage = Stage::new(&Setup { persistence, ..setup(family) });
    for (client, server) in [(0, 2), (7, 2), (200, 2), (256, 1), (300, 1), (3, 2), (0x1_0000, 0)] {
        stage.from = family.client() + client;
        assert_eq!(stage.ask(), server, "{client}");
    }
    assert_eq!(templates(&stage), [1, 1, 1]);
}

/// And to the port that was asked for.
fn all_ports_of_a_port_0_service_go_to_one_real_server(family: Family) {
    for synproxy in [true, false] {
        let mut stage = Stage::new(&Setup { any_port: true, synproxy, ..setup(family) });
        let (_, first_port) = family.vip();
        for number in [0, 1, 363, 7_000] {
            stage.service = number;
            let port = CLIENT_PORT + number;
            let (said, asked) = if synproxy {
                stage.open(port, all_options())
            } else {
                let syn = stage.client_says(port, SYN, 7, 0);
                stage.client(&syn);
                stage.round();
                (Segment { seq: 8, ..syn }, stage.one_to_server())
            };
            assert_eq!(asked.destination, (family.server(2), first_port + number));
            stage.server(&syn_ack(&asked, all_options()));
            stage.round();
            let mut answers = std::mem::take(&mut stage.to_client);
            stage.to_servers.clear();
            if !synproxy {
                let syn_ack = answers.remove(0);
                assert_eq!(syn_ack.source, said.destination);
            }
            let says = answer(&asked, ACK, asked.seq, asked.seq.wrapping_add(1));
            stage.server(&Segment { payload: b"hello".to_vec(), ..says });
            assert_eq!(stage.one_to_client().source, said.destination);
        }
        assert_eq!(templates(&stage), [0, 0, 1]);
        stage.from = family.client() + 1;
        stage.service = 9;
        let reset = stage.client_says(1, RST, 7, 0);
        stage.client(&reset);
        assert_eq!(stage.balancer.reason(Reason::TcpDrop), 1);
    }
}

/// IPVS's default: `ipvsadm -e … -w 0` lets clients finish what they are about.
fn a_quiesced_real_server_keeps_its_clients(family: Family) {
    let mut stage = Stage::new(&setup(family));
    assert_eq!(stage.ask(), 2);
    for server in 0..3 {
        reweigh(&mut stage, server, 0);
    }
    assert_eq!(stage.ask(), 2);
    // Whether somebody has a template XDP does not know, so strangers are asked in too.
    stage.from = family.client() + 1;
    stage.prove(CLIENT_PORT, all_options());
    assert_eq!(stage.one_to_client().flags & RST, RST);
    assert_eq!(stage.balancer.engine.counter(Counter::NoDestination), 1);
    stage.pass(u64::from(TIMEOUT) + 100);
    let syn = stage.client_says(CLIENT_PORT, SYN, 7, 0);
    stage.client(&syn);
    assert!(stage.to_client.is_empty());
    assert_eq!(stage.balancer.reason(Reason::NoDestination), 1, "and no longer");
}

/// LVS's `expire_quiescent_template`.
fn a_quiesced_real_server_loses_them_if_wanted(family: Family) {
    let mut setup = setup(family);
    let config = Config { expire_quiescent_template: true, ..setup.config };
    setup.config = config;
    let mut stage = Stage::new(&setup);
    let (first, ..) = stage.establish(CLIENT_PORT);
    reweigh(&mut stage, 2, 0);
    assert_eq!(stage.ask(), 1);
    assert_eq!(templates(&stage), [0, 1, 1], "the old one ends with its session");
    stage.client(&crate::support::stage::data(&first, 0, b"on"));
    assert_eq!(stage.one_to_server().destination.0, family.server(2));
    reweigh(&mut stage, 2, 1);
    assert_eq!(stage.ask(), 1, "it stays where it has gone");
    for server in 0..3 {
        reweigh(&mut stage, server, 0);
    }
    let syn = stage.client_says(CLIENT_PORT + 3, SYN, 7, 0);
    stage.client(&syn);
    assert_eq!(stage.balancer.reason(Reason::NoDestination), 1);
    stage.balancer.engine.set_config(Config { expire_quiescent_template: false, ..config });
    stage.round();
    assert_eq!(stage.ask(), 1);
}

fn a_removed_real_server_loses_its_clients(family: Family) {
    let mut stage = Stage::new(&setup(family));
    assert_eq!(stage.ask(), 2);
    stage.from = family.client() + 9;
    let spec = servers(&stage)[2].spec;
    stage.balancer.engine.remove_server(0, 2);
    stage.balancer.engine.settle(stage.balancer.now());
    stage.round();
    stage.from = family.client();
    let other = stage.ask();
    assert_ne!(other, 2);
    assert_eq!(stage.balancer.engine.add_server(0, spec), Some(2));
    stage.round();
    assert_eq!(stage.ask(), other);
}

/// SPEC B6.
fn only_who_has_proved_its_address_has_a_template(family: Family) {
    let mut stage = Stage::new(&setup(family));
    let syn = stage.client_says(CLIENT_PORT, SYN, 7, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    let seq = cookie.ack;
    let forged = stage.client_says(CLIENT_PORT, ACK, seq, cookie.seq.wrapping_add(9));
    stage.client(&forged);
    stage.round();
    assert_eq!(templates(&stage), [0; 3]);
    let ack = stage.client_says(CLIENT_PORT, ACK, seq, cookie.seq.wrapping_add(1));
    stage.client(&ack);
    stage.round();
    assert_eq!(templates(&stage), [0, 0, 1]);
}

fn without_the_proxy_a_template_is_made_by_the_syn(family: Family) {
    // A quarter of 64 are for those who have proved nothing.
    let mut stage = Stage::new(&Setup { synproxy: false, ..setup(family) });
    for client in 0..16 {
        stage.from = family.client() + client;
        let syn = stage.client_says(CLIENT_PORT, SYN, 7, 0);
        stage.client(&syn);
    }
    stage.round();
    assert_eq!(templates(&stage), [5, 5, 6]);
    let asked = std::mem::take(&mut stage.to_servers);
    stage.from = family.client() + 3;
    assert_eq!(knock(&mut stage, 1), None, "nor may there be more sessions");
    // One proves itself; what the others have made ends with their sessions.
    prove_unproxied(&mut stage, CLIENT_PORT, &asked[3]);
    assert_eq!(knock(&mut stage, 2).map(|syn| syn.destination), Some(asked[3].destination));
    stage.pass(61_000);
    assert_eq!(templates(&stage).iter().sum::<u32>(), 1);
    assert_eq!(stage.balancer.engine.session_count(), 1);
    assert_eq!(knock(&mut stage, 3).map(|syn| syn.destination), Some(asked[3].destination));
    stage.from = family.client() + 20;
    knock(&mut stage, 1).expect("sent on");
    assert_eq!(templates(&stage).iter().sum::<u32>(), 2, "there is room again");
    assert_eq!(stage.balancer.engine.counter(Counter::ExceededTemplates), 0);
}

/// A SYN to a service without the proxy; what its real server gets.
fn knock(stage: &mut Stage, port: u16) -> Option<Segment> {
    let syn = stage.client_says(CLIENT_PORT + port, SYN, 7, 0);
    stage.client(&syn);
    stage.round();
    stage.to_servers.pop()
}

/// The rest of the handshake that began with `syn`.
fn prove_unproxied(stage: &mut Stage, port: u16, syn: &Segment) {
    stage.server(&syn_ack(syn, Vec::new()));
    stage.round();
    let accept = stage.one_to_client();
    let ack = stage.client_says(port, ACK, accept.ack, accept.seq.wrapping_add(1));
    stage.client(&ack);
    stage.round();
    assert_eq!(stage.one_to_server().flags, ACK);
}

/// There was no room when it came, or no persistence.
fn a_client_that_proves_itself_without_a_template_gets_one(family: Family) {
    let with = setup(family);
    let mut stage = Stage::new(&Setup { synproxy: false, persistence: None, ..with.clone() });
    let syn = knock(&mut stage, 0).expect("sent on");
    stage.balancer.engine.set_persistence(0, with.persistence);
    assert_eq!(templates(&stage), [0; 3]);
    prove_unproxied(&mut stage, CLIENT_PORT, &syn);
    assert_eq!(templates(&stage), [0, 0, 1]);
    for port in 1..4 {
        let next = knock(&mut stage, port).expect("sent on");
        assert_eq!(next.destination, syn.destination);
    }
    // As any other, it waits for its sessions.
    stage.pass(1_000_000);
    assert_eq!(templates(&stage), [0; 3]);
    stage.balancer.assert_empty();
}

/// All of them are down for a moment in which the client comes.
fn while_no_other_real_server_is_there_a_client_keeps_its_own(family: Family) {
    let mut stage = Stage::new(&setup(family));
    assert_eq!([stage.ask(), stage.ask()], [2, 2]);
    stage.accept(CLIENT_PORT, all_options());
    for health in [Health::Down, Health::Up] {
        for server in 0..3 {
            stage.balancer.engine.set_health(0, server, health);
        }
        stage.balancer.engine.settle(stage.balancer.now());
        stage.round();
    }
    assert_eq!(stage.one_to_client().flags & RST, RST);
    assert_eq!(stage.ask(), 2);
    assert_eq!(templates(&stage), [0, 0, 1]);
}

fn without_room_connections_are_served_without(family: Family) {
    // As many templates as sessions.
    let mut stage = Stage::new(&Setup { sessions: 8, ..setup(family) });
    for client in 0..8 {
        stage.from = family.client() + client;
        stage.ask();
        stage.pass(200);
    }
    assert_eq!(stage.balancer.engine.counter(Counter::ExceededTemplates), 0);
    stage.from = family.client() + 100;
    let chosen: Vec<_> = (0..3).map(|_| stage.ask()).collect();
    assert_eq!(chosen, [0, 2, 1]);
    assert_eq!(stage.balancer.engine.counter(Counter::ExceededTemplates), 3);
    stage.from = family.client() + 1;
    assert_eq!(stage.ask(), 1, "whoever has one keeps it");
}

/// The kernel forwards the SYN and never learns of it; we ask a second one (SPEC A9), and the client
/// need not wait for the first again.
fn a_real_server_that_does_not_answer_loses_the_client(family: Family) {
    let mut stage = Stage::new(&setup(family));
    let (_, asked) = stage.open(CLIENT_PORT, all_options());
    let (_, also) = stage.open(CLIENT_PORT + 1, all_options());
    assert_eq!(also.destination, asked.destination);
    stage.pass(16_000);
    let last: Vec<_> = stage.to_servers.drain(..).filter(|sent| sent.flags == SYN).collect();
    let others: Vec<_> =
        last.iter().filter(|syn| syn.destination != asked.destination).cloned().collect();
    let [first, second] = &others[..] else { panic!("{others:#?}") };
    assert_eq!(first.destination, second.destination, "both go to one and the same");
    stage.server(&syn_ack(first, all_options()));
    stage.round();
    stage.to_servers.clear();
    let (_, next) = stage.open(CLIENT_PORT + 2, all_options());
    assert_eq!(next.destination, first.destination);
}

fn persistence_can_be_switched(family: Family) {
    let setup = setup(family);
    let mut stage = Stage::new(&Setup { persistence: None, ..setup.clone() });
    assert_eq!([stage.ask(), stage.ask()], [2, 1]);
    stage.balancer.engine.set_persistence(0, setup.persistence);
    assert_eq!([stage.ask(), stage.ask()], [0, 0]);
    stage.balancer.engine.set_persistence(0, None);
    assert_eq!([stage.ask(), stage.ask()], [2, 1]);
    assert_eq!(templates(&stage), [1, 0, 0]);
    stage.balancer.engine.set_persistence(0, setup.persistence);
    stage.balancer.engine.set_scheduler(0, Kind::LeastConnections, Flags::default());
    assert_eq!(stage.ask(), 0, "it has not expired");
}

/// A template names service and real server by number.
fn a_service_number_waits_for_its_templates(family: Family) {
    let mut stage = Stage::new(&setup(family));
    assert_eq!(stage.ask(), 2);
    let report = stage.balancer.engine.services().swap_remove(0);
    stage.balancer.engine.remove_service(0);
    stage.balancer.forget_service(0);
    let mut other = report.spec.clone();
    other.address.port += 1;
    assert_eq!(stage.balancer.engine.add_service(other.clone()), 1);
    stage.balancer.engine.remove_service(1);
    stage.pass(u64::from(TIMEOUT) + 100);
    other.address.port += 1;
    assert_eq!(stage.balancer.engine.add_service(other), 0);
}
