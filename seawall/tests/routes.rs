//! The network changes under traffic (SPEC E), a route or a MAC: new and established sessions follow.
//! Needs root; `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::http::{Connection, HttpServer, ServerSpec, Timeouts};
use seawall_lab::{Namespace, Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
/// Connections that must outlive every change.
const KEPT: usize = 8;
/// Far more than a loaded machine needs until a route is followed.
const PATIENCE: Duration = Duration::from_secs(20);

fn ip(namespace: &Namespace, arguments: &str) {
    let mut command = Command::new("ip");
    let output = namespace.run(|| command.args(arguments.split_whitespace()).output()).unwrap();
    assert!(output.status.success(), "{}: {arguments}: {output:?}", namespace.label());
}

/// Packets that the kernel of a namespace has forwarded (`ForwDatagrams`, proc_pid_net(5)).
fn forwarded(namespace: &Namespace) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let pair = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ForwDatagrams");
    pair.unwrap().1.parse().unwrap()
}

fn open() -> Connection {
    let mut connection = Connection::open(service(), &Timeouts::default()).unwrap();
    assert_eq!(connection.get("/").unwrap().status, 200);
    connection
}

#[test]
fn sessions_follow_the_route_to_their_real_server() {
    let spec = TopologySpec { real_servers: 2, attacker: false, ..TopologySpec::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let [server, router] = &topology.servers[..] else { panic!("two servers") };
    let address = SocketAddr::new(server.address(), SERVER_PORT);
    let _server = HttpServer::start(&server.namespace, address, ServerSpec::new("rs0")).unwrap();
    let (balancer, router) = (&topology.balancer.namespace, (&router.namespace, router.address()));
    router.0.sysctl("net.ipv4.ip_forward", "1").unwrap();
    // It would tell the balancer that there is a shorter way.
    router.0.sysctl("net.ipv4.conf.all.send_redirects", "0").unwrap();
    router.0.sysctl("net.ipv4.conf.eth0.send_redirects", "0").unwrap();
    let spec = DaemonSpec { weights: vec![1, 0], ..DaemonSpec::new(SEAWALL) };
    let daemon = Daemon::start(&topology, &spec).unwrap();

    let client = &topology.client.namespace;
    let mut kept: Vec<_> = client.run(|| (0..KEPT).map(|_| open()).collect());
    // Whether everything goes by the router, or nothing.
    let mut all_go_by_it = |by: bool| {
        let mut all = true;
        for connection in &mut kept {
            let before = forwarded(router.0);
            assert_eq!(connection.get("/").unwrap().status, 200);
            all &= (forwarded(router.0) > before) == by;
        }
        let before = forwarded(router.0);
        client.run(open);
        all && (forwarded(router.0) > before) == by
    };
    assert!(all_go_by_it(false));
    for (change, by) in [("add", true), ("delete", false)] {
        ip(balancer, &format!("route {change} {}/32 via {}", server.address(), router.1));
        let end = Instant::now() + PATIENCE;
        while !all_go_by_it(by) {
            assert!(Instant::now() < end, "route {change}: {:?}", daemon.log());
        }
    }
}

/// A card is replaced, or a router's peer takes over: the address has another MAC.
#[test]
fn sessions_follow_their_neighbours_to_new_macs() {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let (client, server) = (&topology.client, &topology.servers[0]);
    let address = SocketAddr::new(server.address(), SERVER_PORT);
    let _server = HttpServer::start(&server.namespace, address, ServerSpec::new("rs0")).unwrap();
    let _daemon = Daemon::start(&topology, &DaemonSpec::new(SEAWALL)).unwrap();
    let mut kept: Vec<_> = client.namespace.run(|| (0..KEPT).map(|_| open()).collect());
    for (host, mac) in [(server, "02:00:00:00:99:01"), (client, "02:00:00:00:99:02")] {
        // Linux then tells its neighbours, as virtual routers do (RFC 9568, section 6.4.1).
        host.namespace.sysctl("net.ipv4.conf.all.arp_notify", "1").unwrap();
        ip(&host.namespace, &format!("link set eth0 address {mac}"));
        for connection in &mut kept {
            assert_eq!(connection.get("/").unwrap().status, 200);
        }
        client.namespace.run(open);
    }
}
