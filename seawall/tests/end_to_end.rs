//! The real daemon between Linux TCP stacks, in namespaces: everything a user is promised, while
//! a SYN flood runs. Needs root; `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use seawall_control::api::Client;
use seawall_control::report::StatsReport;
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::{Attacker, FloodSpec, Kind, Passes};
use seawall_lab::http::{self, HttpServer, Payload, ServerSpec, Timeouts};
use seawall_lab::load::{Limit, Load, LoadSpec};
use seawall_lab::topology::{LOCAL_ADDRESSES, VIP};
use seawall_lab::{Arms, Host, Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
const REQUESTS: u64 = 200;
const TRANSFER: Payload = Payload { length: 20_000_000, seed: 7 };
/// Little enough for a debug build on a busy machine, and more than a backlog holds.
const FLOOD_RATE: u32 = 30_000;
/// SYNs that clients may send again on a machine that is too busy to answer within a second.
const RETRANSMISSIONS: u64 = 20;

/// The network, or `None` with a message where this process may not make it.
fn topology(arms: Arms) -> Option<Topology> {
    require::root(Topology::build(&TopologySpec { arms, ..TopologySpec::default() }))
}

fn servers(topology: &Topology) -> Vec<HttpServer> {
    let start = |(number, host): (usize, &Host)| {
        let spec = ServerSpec { seed: TRANSFER.seed, ..ServerSpec::new(&format!("rs{number}")) };
        let address = SocketAddr::new(host.address(), SERVER_PORT);
        HttpServer::start(&host.namespace, address, spec).unwrap()
    };
    topology.servers.iter().enumerate().map(start).collect()
}

/// `seawall stats --json`, as a user reads it.
fn stats(socket: &Path) -> StatsReport {
    let output = seawall(&["stats", "--json", "--api"], socket);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn seawall(arguments: &[&str], socket: &Path) -> std::process::Output {
    Command::new(SEAWALL).args(arguments).arg(socket).output().unwrap()
}

/// The addresses of ours that the balancer has.
fn added(topology: &Topology) -> usize {
    let addresses = topology.balancer.namespace.netlink(|n| n.addresses()).unwrap();
    let ours = |address: IpAddr| {
        address == IpAddr::V4(VIP) || LOCAL_ADDRESSES.iter().any(|local| address == *local)
    };
    addresses.iter().filter(|entry| ours(entry.address)).count()
}

/// Whether the kernel lists an XDP program on an interface of the balancer.
fn attached(topology: &Topology) -> bool {
    let list = || Command::new("ip").args(["-details", "link", "show"]).output();
    let output = topology.balancer.namespace.run(list).unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("eth0"), "{text}");
    text.contains("prog/xdp")
}

#[derive(Clone, Copy)]
enum End {
    Signal,
    Command,
}

fn end(topology: &Topology, mut daemon: Daemon, how: End) {
    assert_eq!(added(topology), 1 + LOCAL_ADDRESSES.len());
    assert!(attached(topology));
    match how {
        End::Signal => {
            let kill = format!("kill -TERM {}", daemon.pid());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
        End::Command => {
            let output = seawall(&["stop", "--api"], daemon.socket());
            assert!(output.status.success(), "{output:?}");
        }
    }
    let status = daemon.wait_for(Duration::from_secs(10)).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?} {:?}", daemon.log());
    assert_eq!(added(topology), 0);
    assert!(!attached(topology));
}

fn check(arms: Arms, forwarding: &'static str, how: End) {
    let Some(topology) = topology(arms) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let attacker = Attacker::new(&topology).unwrap();
    let servers = servers(&topology);
    let daemon =
        Daemon::start(&topology, &DaemonSpec { forwarding, ..DaemonSpec::new(SEAWALL) }).unwrap();

    let spec = FloodSpec { kind: Kind::Syn, target: (VIP, service().port()), rate: FLOOD_RATE };
    let flood = attacker.start(topology.attacker.as_ref().unwrap(), spec).unwrap();
    let client = &topology.client.namespace;
    let load = LoadSpec::new(service(), Limit::Requests(REQUESTS));
    let report = Load::start(client, load).unwrap().finish();
    assert_eq!((report.succeeded(), report.failed()), (REQUESTS, 0), "{:?}", report.example);
    assert_eq!(report.servers.len(), servers.len(), "{:?}", report.servers);
    let timeouts = Timeouts { total: Duration::from_secs(60), ..Timeouts::default() };
    client.run(|| {
        http::download(service(), TRANSFER, &timeouts).unwrap();
        http::upload(service(), TRANSFER, &timeouts).unwrap();
    });
    let sent = flood.stop().unwrap();
    assert!(sent > 0);
    std::thread::sleep(Duration::from_millis(300));

    let stats = stats(daemon.socket());
    let count = |name: &str| *stats.counters.get(name).unwrap_or_else(|| panic!("no {name}"));
    let drops = [
        "synproxy_no_dest",
        "synproxy_syn_malformed",
        "synproxy_syn_heartbeat",
        "synproxy_syn_resize_failed",
    ];
    let dropped: u64 = drops.iter().map(|name| count(name)).sum();
    let syns = count("synproxy_syn_cnt");
    assert_eq!(syns, count("synproxy_cookie_sent") + dropped);
    let asked = REQUESTS + 2;
    assert!(syns >= asked && syns <= sent + asked + RETRANSMISSIONS, "{syns} of {sent}");
    // What a veth has no room for is lost before it arrives: little on the attacker's own, more on
    // the one behind the bridge, which takes a round of the flood at once.
    let least = if arms == Arms::Two { sent * 9 / 10 } else { sent / 2 };
    assert!(syns >= least, "{syns} of {sent}");
    assert_eq!(count("synproxy_ok_ack"), asked);
    assert_eq!(stats.services[0].totals.connections, asked);
    assert_eq!(count("sessions_opened"), asked);
    let answered: u64 = servers.iter().map(HttpServer::requests).sum();
    assert_eq!(answered, asked);
    println!("{arms:?} {forwarding}: {sent} SYNs sent, {syns} answered, p99 {:?}", report.p99());
    end(&topology, daemon, how);
}

#[test]
fn two_armed_fullnat() {
    check(Arms::Two, "fullnat", End::Signal);
}

#[test]
fn two_armed_nat() {
    check(Arms::Two, "nat", End::Command);
}

#[test]
fn one_armed_fullnat() {
    check(Arms::One, "fullnat", End::Command);
}

#[test]
fn one_armed_nat() {
    check(Arms::One, "nat", End::Signal);
}

#[test]
fn a_config_error_names_its_line_and_leaves_nothing_attached() {
    let Some(topology) = topology(Arms::Two) else { return };
    let spec = DaemonSpec::new(SEAWALL);
    for (from, to, expected) in [
        ("protocol = \"tcp\"", "protocol = \"tcp\"\nweihgt = 1", "weihgt"),
        ("\"eth1\"", "\"eth7\"", "there is no interface `eth7`"),
        ("\nlocal_addresses = \"default\"\n", "\n", "local"),
        ("192.168.7.10:", "192.168.9.300:", "192.168.9.300"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = spec.config(&topology, &directory.path().join("api.sock"));
        let broken = config.replacen(from, to, 1);
        assert_ne!(broken, config, "{from}");
        let namespace = &topology.balancer.namespace;
        let error = Daemon::start_with(namespace, Path::new(SEAWALL), &broken, directory)
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected) && error.contains("seawall.toml:"), "{error}");
        assert!(!attached(&topology), "{error}");
        assert_eq!(added(&topology), 0, "{error}");
    }
    // Nothing stands in the way of one that is right. Killed, it leaves what the next one takes over.
    let daemon = Daemon::start(&topology, &spec).unwrap();
    assert!(attached(&topology));
    let socket = daemon.socket().to_owned();
    drop(daemon);
    assert!(Client::new(socket).version().is_err());
    assert!(attached(&topology));
}
