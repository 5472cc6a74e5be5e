//! DR and TUNNEL end to end (SPEC C1): a client and a real server with Linux's TCP, whose answers
//! do not come back through the daemon. Transfers both ways, and datagrams, by every way to wrap,
//! over IPv4 and IPv6 and across; what a client sends that does not fit into the tunnel it is told.
//! The real server's end of the tunnel is the lab's where the kernel has none ([`seawall_lab::unwrap`]). Needs root.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use seawall_control::api::Client;
use seawall_lab::daemon::Daemon;
use seawall_lab::direct::answer_directly;
use seawall_lab::echo::{Asker, EchoServer};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, HttpServer, Payload, ServerSpec, Timeouts};
use seawall_lab::topology::{VIP, VIP6};
use seawall_lab::{Arms, Namespace, Topology, TopologySpec, require};

const TRANSFER: Payload = Payload { length: 1 << 20, seed: 23 };
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(10), total: Duration::from_secs(20) };
const FIRST_PORT: u16 = 80;

/// How the real server is reached, as the configuration says it.
const WAYS: [(&str, &str); 6] = [
    ("dr", ""),
    ("tunnel", ""),
    ("tunnel", "tunnel_type = \"gre\"\n"),
    ("tunnel", "tunnel_type = \"gre\"\ntunnel_checksum = \"csum\"\n"),
    ("tunnel", "tunnel_type = \"gue\"\ntunnel_port = 6080\n"),
    ("tunnel", "tunnel_type = \"gue\"\ntunnel_port = 6080\ntunnel_checksum = \"csum\"\n"),
];

/// A service and its real server.
struct Case {
    service: SocketAddr,
    real: IpAddr,
    forwarding: &'static str,
    keys: &'static str,
}

fn run(namespace: &Namespace, command: &str) {
    let mut words = command.split_whitespace();
    let mut line = Command::new(words.next().unwrap());
    let output = namespace.run(|| line.args(words).output()).unwrap();
    assert!(output.status.success(), "{}: {command}: {output:?}", namespace.label());
}

/// A port for each way, each family, and across; tunnels come last, for what is late of one case may
/// arrive in the next.
fn cases(reals: [IpAddr; 2]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (forwarding, keys) in WAYS {
        for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
            for real in reals {
                if forwarding == "dr" && vip.is_ipv4() != real.is_ipv4() {
                    continue;
                }
                let service = SocketAddr::new(vip, FIRST_PORT + cases.len() as u16);
                cases.push(Case { service, real, forwarding, keys });
            }
        }
    }
    cases
}

fn config(topology: &Topology, cases: &[Case], socket: &Path) -> String {
    let interfaces = topology.balancer_interfaces();
    let mut text =
        format!("interfaces = {interfaces:?}\nmax_sessions = 4096\n[api]\nsocket = {socket:?}\n");
    for Case { service, real, forwarding, keys } in cases {
        let server = SocketAddr::new(*real, service.port());
        for protocol in ["tcp", "udp"] {
            text += &format!(
                "[[service]]\naddress = \"{service}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
                 [[service.real_server]]\naddress = \"{server}\"\nforwarding = \"{forwarding}\"\n{keys}"
            );
        }
    }
    text
}

#[test]
fn transfers_both_ways_by_every_way() {
    let spec = TopologySpec {
        arms: Arms::One,
        real_servers: 1,
        attacker: false,
        ..TopologySpec::default()
    };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let host = &topology.servers[0];
    let (client, server) = (&topology.client.namespace, &host.namespace);
    let unwrapper = answer_directly(host).unwrap();
    let cases = cases([host.address(), host.address6()]);
    let servers: Vec<_> = cases
        .iter()
        .map(|case| {
            let spec = ServerSpec { seed: TRANSFER.seed, ..ServerSpec::new("one way") };
            HttpServer::start(server, case.service, spec).unwrap()
        })
        .collect();
    let _echoes: Vec<_> = cases
        .iter()
        .map(|case| EchoServer::start(server, case.service, "one way").unwrap())
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let text = config(&topology, &cases, &directory.path().join("api.sock"));
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    let balancer = &topology.balancer.namespace;
    let daemon = Daemon::start_with(balancer, executable, &text, directory).unwrap();
    let api = Client::new(daemon.socket());
    let counted = |name: &str| api.stats().unwrap().counters[name];
    for (number, case) in cases.iter().enumerate() {
        let Case { service, real, forwarding, keys } = case;
        let what = format!("{service} by {forwarding} to {real}, {keys:?}");
        let before = (unwrapper.unwrapped(), counted("icmp_too_big_sent"));
        client.run(|| {
            http::download(*service, TRANSFER, &TIMEOUTS).unwrap_or_else(|e| panic!("{what}: {e}"));
            http::upload(*service, TRANSFER, &TIMEOUTS).unwrap_or_else(|e| panic!("{what}: {e}"));
        });
        assert_eq!(servers[number].requests(), 2, "{what}");
        let wrapped = *forwarding == "tunnel";
        assert_eq!(unwrapper.unwrapped() > before.0, wrapped, "{what}: wrapped");
        assert_eq!(counted("icmp_too_big_sent") > before.1, wrapped, "{what}: the client is told");
        let stats = api.stats().unwrap();
        let totals = &stats.services[2 * number].totals;
        assert_eq!((totals.connections, totals.out_packets), (2, 0), "{what}");
        assert!(totals.in_bytes > TRANSFER.length, "{what}: {totals:?}");
        let before = (unwrapper.unwrapped(), counted("punt_new_udp"));
        let mut asker = Asker::open(client, *service).unwrap();
        for _ in 0..5 {
            let answer = asker.ask(TIMEOUTS.connect).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(answer, "one way", "{what}");
        }
        let unwrapped = unwrapper.unwrapped() - before.0;
        assert!(
            if wrapped { unwrapped >= 5 } else { unwrapped == 0 },
            "{what}: {unwrapped} wrapped"
        );
        assert_eq!(counted("punt_new_udp") - before.1, 1, "{what}: the engine was needed once");
        let totals = &api.stats().unwrap().services[2 * number + 1].totals;
        assert_eq!(
            (totals.connections, totals.in_packets, totals.out_packets),
            (1, 5, 0),
            "{what}"
        );
        // What it has been told it would keep for minutes.
        run(client, "ip -4 route flush cache");
        run(client, "ip -6 route flush cache");
    }
    assert_eq!(unwrapper.corrupt(), 0, "checksums of UDP and GRE");
    assert_eq!(counted("forward_out"), 0, "nothing comes back through us");
}
