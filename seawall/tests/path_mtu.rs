//! Path-MTU discovery through the daemon (SPEC C2): a router beyond it, on the clients' side or on
//! the real servers', has a link that takes 1,280 bytes. It says so to the VIP or to a local address,
//! and only if whoever sent the segment gets to hear of it does a transfer end. Real Linux routers
//! and stacks, both versions of IP, every way of forwarding. Needs root.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use seawall_control::api::Client;
use seawall_datapath::netlink::VethSpec;
use seawall_lab::daemon::{Daemon, SERVER_PORT};
use seawall_lab::direct::answer_directly;
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, HttpServer, Payload, ServerSpec, Timeouts};
use seawall_lab::topology::{LOCAL_ADDRESSES, LOCAL_ADDRESSES6, VIP, VIP6, beside};
use seawall_lab::unwrap::Unwrapper;
use seawall_lab::{Arms, Host, Namespace, Topology, TopologySpec, require};

/// What the narrow links take, in bytes: the least for IPv6 (RFC 8200, section 5); and where tunnels
/// lead over it, and what is in them must be no less.
const NARROW: u32 = 1280;
const NARROW_TUNNEL: u32 = 1400;
const FAR_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 2);
const FAR_SERVER: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 2);
const TRANSFER: Payload = Payload { length: 1 << 20, seed: 11 };
/// Far more than it takes, far less than a black hole.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(10), total: Duration::from_secs(20) };

/// Runs a command, split at spaces, in a namespace.
fn run(namespace: &Namespace, command: &str) {
    let mut words = command.split_whitespace();
    let mut line = Command::new(words.next().unwrap());
    let output = namespace.run(|| line.args(words).output()).unwrap();
    assert!(output.status.success(), "{}: {command}: {output:?}", namespace.label());
}

/// A host behind `router`, whose route to it is narrow. Its own is not, so its MSS says nothing of
/// that; nor is the link, or it would drop what the other end has not been told of.
fn host_behind(router: &Namespace, label: &str, address: Ipv4Addr, mtu: u32) -> Namespace {
    let host = Namespace::new(label).unwrap();
    router
        .netlink(|netlink| {
            netlink.add_veth(&VethSpec {
                name: "far",
                mac: None,
                peer_name: "eth0",
                peer_mac: None,
                peer_netns: Some(host.as_fd()),
            })
        })
        .unwrap();
    let gateway = Ipv4Addr::from_bits(address.to_bits() - 1);
    for (namespace, name, own) in [(router, "far", gateway), (&host, "eth0", address)] {
        run(namespace, &format!("ethtool -K {name} tso off gso off tx off"));
        run(namespace, &format!("ip address add {own}/24 dev {name}"));
        run(namespace, &format!("ip address add {}/64 dev {name} nodad", beside(own)));
        run(namespace, &format!("ip link set {name} up"));
    }
    for own in [address.into(), IpAddr::V6(beside(address))] {
        run(router, &format!("ip route add {own} dev far mtu lock {mtu}"));
    }
    router.sysctl("net.ipv4.ip_forward", "1").unwrap();
    router.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    for route in [gateway.into(), IpAddr::V6(beside(gateway))] {
        run(&host, &format!("ip route add default via {route}"));
    }
    host
}

/// A service by each forwarding method, of each family.
fn config(topology: &Topology, families: &[(IpAddr, IpAddr, &str)], socket: &Path) -> String {
    let mut text = format!(
        "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {:?}\n\
         [[local_addresses]]\nname = \"v4\"\naddresses = [\"{}\"]\n\
         [[local_addresses]]\nname = \"v6\"\naddresses = [\"{}\"]\n",
        topology.balancer_interfaces(),
        socket,
        LOCAL_ADDRESSES[0],
        LOCAL_ADDRESSES6[0],
    );
    for (vip, real, pool) in families.iter().copied() {
        for (port, forwarding) in [(80, "fullnat"), (81, "nat")] {
            text += &format!(
                "[[service]]\naddress = \"{}\"\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
                 synproxy = \"on\"\nlocal_addresses = \"{pool}\"\n[[service.real_server]]\n\
                 address = \"{}\"\nforwarding = \"{forwarding}\"\nweight = 1\n",
                SocketAddr::new(vip, port),
                SocketAddr::new(real, SERVER_PORT),
            );
        }
    }
    text
}

#[test]
fn a_narrow_link_on_either_side_is_heard_of() {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let (near_client, near_server) = (&topology.client, &topology.servers[0]);
    let balancer = &topology.balancer.namespace;
    let client = host_behind(&near_client.namespace, "far client", FAR_CLIENT, NARROW);
    let server = host_behind(&near_server.namespace, "far server", FAR_SERVER, NARROW);
    for (network, near) in [("10.6.0.0/24", near_server), ("10.5.0.0/24", near_client)] {
        run(balancer, &format!("ip route add {network} via {}", near.address()));
    }
    for (far, near) in [(FAR_SERVER, near_server), (FAR_CLIENT, near_client)] {
        run(balancer, &format!("ip route add {}/64 via {}", beside(far), near.address6()));
    }
    let families = [
        (IpAddr::V4(VIP), IpAddr::V4(FAR_SERVER), "v4"),
        (IpAddr::V6(VIP6), IpAddr::V6(beside(FAR_SERVER)), "v6"),
    ];
    let _servers = families.map(|(_, real, _)| {
        let spec = ServerSpec { seed: TRANSFER.seed, ..ServerSpec::new("far") };
        HttpServer::start(&server, SocketAddr::new(real, SERVER_PORT), spec).unwrap()
    });

    let directory = tempfile::tempdir().unwrap();
    let text = config(&topology, &families, &directory.path().join("api.sock"));
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    let daemon = Daemon::start_with(balancer, executable, &text, directory).unwrap();
    let api = Client::new(daemon.socket());
    let counted = |name: &str| api.stats().unwrap().counters[name];
    for (vip, _, _) in families {
        for (port, forwarding) in [(80, "fullnat"), (81, "nat")] {
            let at = SocketAddr::new(vip, port);
            for host in [&client, &server] {
                // What the last turn has told them they would keep for minutes.
                run(host, "ip -4 route flush cache");
                run(host, "ip -6 route flush cache");
            }
            let before = (counted("icmp_out"), counted("icmp_in"));
            client.run(|| {
                http::download(at, TRANSFER, &TIMEOUTS).unwrap_or_else(|e| panic!("{at}: {e}"));
            });
            assert!(counted("icmp_in") > before.1, "{at} {forwarding}: the real server was told");
            client.run(|| {
                http::upload(at, TRANSFER, &TIMEOUTS).unwrap_or_else(|e| panic!("{at}: {e}"));
            });
            assert!(counted("icmp_out") > before.0, "{at} {forwarding}: the client was told");
        }
    }
}

/// The balancer's own links differ: whoever sends more than the next one takes is told by us.
#[test]
fn a_link_of_the_balancers_that_is_narrower_is_told_of() {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let (client, server) = (&topology.client.namespace, &topology.servers[0].namespace);
    let balancer = &topology.balancer.namespace;
    let host = &topology.servers[0];
    let families =
        [(IpAddr::V4(VIP), host.address(), "v4"), (IpAddr::V6(VIP6), host.address6(), "v6")];
    let _servers = families.map(|(_, real, _)| {
        let spec = ServerSpec { seed: TRANSFER.seed, ..ServerSpec::new("near") };
        HttpServer::start(server, SocketAddr::new(real, SERVER_PORT), spec).unwrap()
    });
    let directory = tempfile::tempdir().unwrap();
    let text = config(&topology, &families, &directory.path().join("api.sock"));
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    let daemon = Daemon::start_with(balancer, executable, &text, directory).unwrap();
    let api = Client::new(daemon.socket());
    let told = || {
        let counters = api.stats().unwrap().counters;
        counters["icmp_too_big_sent"] + counters["pass_on_too_big"]
    };
    for narrow in ["eth1", "eth0"] {
        run(balancer, &format!("ip link set {narrow} mtu {NARROW}"));
        for (vip, _, _) in families {
            for (port, forwarding) in [(80, "fullnat"), (81, "nat")] {
                let at = SocketAddr::new(vip, port);
                let before = told();
                client.run(|| {
                    match narrow {
                        "eth1" => http::upload(at, TRANSFER, &TIMEOUTS),
                        _ => http::download(at, TRANSFER, &TIMEOUTS),
                    }
                    .unwrap_or_else(|e| panic!("{at} {narrow}: {e}"))
                });
                assert!(told() > before, "{at} {forwarding}: nobody was told of {narrow}");
                for host in [client, server] {
                    run(host, "ip -4 route flush cache");
                    run(host, "ip -6 route flush cache");
                }
            }
        }
        run(balancer, &format!("ip link set {narrow} mtu 1500"));
    }
}

/// How real servers that answer the client themselves are reached; a service of each has the port of its
/// place behind [`NEAR`], and those behind a tunnel one behind [`FAR`] for the far real server.
const DIRECT: [&str; 4] = [
    "forwarding = \"dr\"",
    "forwarding = \"tunnel\"",
    "forwarding = \"tunnel\"\ntunnel_type = \"gre\"",
    "forwarding = \"tunnel\"\ntunnel_type = \"gue\"\ntunnel_port = 6080",
];
const NEAR: u16 = 80;
const FAR: u16 = 90;

/// Every service of a family: its port, its real server, and how that is reached.
fn direct(near: &Host, ipv4: bool) -> Vec<(u16, IpAddr, &'static str)> {
    let (near, far): (_, IpAddr) = match ipv4 {
        true => (near.address(), FAR_SERVER.into()),
        false => (near.address6(), beside(FAR_SERVER).into()),
    };
    let of = |(way, keys): (usize, &&'static str)| {
        let far = (way > 0).then_some((FAR + way as u16, far, *keys));
        [Some((NEAR + way as u16, near, *keys)), far].into_iter().flatten()
    };
    DIRECT.iter().enumerate().flat_map(of).collect()
}

/// A router on the clients' side tells the VIP of what the real server has sent past us; one in front of
/// a real server tells the tunnel's source of what was wrapped.
#[test]
fn narrow_links_are_heard_of_where_real_servers_answer_themselves() {
    let spec = TopologySpec {
        arms: Arms::One,
        real_servers: 2,
        attacker: false,
        ..TopologySpec::default()
    };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let (near_client, near_server, router) =
        (&topology.client, &topology.servers[0], &topology.servers[1]);
    let balancer = &topology.balancer.namespace;
    let client = host_behind(&near_client.namespace, "far client", FAR_CLIENT, NARROW);
    let server = host_behind(&router.namespace, "far server", FAR_SERVER, NARROW_TUNNEL);
    let _unwrapper = answer_directly(near_server).unwrap();
    let _far_unwrapper = Unwrapper::start(&server).unwrap();
    for address in [format!("{VIP}/32"), format!("{VIP6}/128")] {
        run(&server, &format!("ip address add {address} dev lo"));
    }
    server.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
    run(&router.namespace, "ip route add 10.0.0.0/24 dev eth0");
    run(&router.namespace, "ip route add fd00:10::/64 dev eth0");
    // Everybody knows the way to the far hosts.
    let hosts = [balancer, &near_server.namespace, &router.namespace];
    for (namespace, (far, near)) in hosts
        .into_iter()
        .map(|it| (it, (FAR_CLIENT, near_client)))
        .chain([(balancer, (FAR_SERVER, router))])
    {
        run(namespace, &format!("ip route add {far}/32 via {} dev eth0", near.address()));
        let far = beside(far);
        run(namespace, &format!("ip route add {far}/128 via {} dev eth0", near.address6()));
    }

    let mut servers = Vec::new();
    let directory = tempfile::tempdir().unwrap();
    let mut text = format!(
        "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {:?}\n",
        topology.balancer_interfaces(),
        directory.path().join("api.sock"),
    );
    for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
        for (port, real, keys) in direct(near_server, vip.is_ipv4()) {
            let service = SocketAddr::new(vip, port);
            let host = if port < FAR { &near_server.namespace } else { &server };
            let spec = ServerSpec { seed: TRANSFER.seed, ..ServerSpec::new("direct") };
            servers.push(HttpServer::start(host, service, spec).unwrap());
            text += &format!(
                "[[service]]\naddress = \"{service}\"\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
                 [[service.real_server]]\naddress = \"{}\"\n{keys}\n",
                SocketAddr::new(real, port),
            );
        }
    }
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    let daemon = Daemon::start_with(balancer, executable, &text, directory).unwrap();
    let api = Client::new(daemon.socket());
    let counted = |name: &str| api.stats().unwrap().counters[name];
    for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
        for (port, _, keys) in direct(near_server, vip.is_ipv4()) {
            let at = SocketAddr::new(vip, port);
            for host in [&client, &near_client.namespace, &near_server.namespace, &server] {
                run(host, "ip -4 route flush cache");
                run(host, "ip -6 route flush cache");
            }
            let before = (counted("icmp_in"), counted("icmp_too_big_sent"));
            if port < FAR {
                client.run(|| {
                    http::download(at, TRANSFER, &TIMEOUTS)
                        .unwrap_or_else(|e| panic!("{at} {keys}: {e}"));
                });
                assert!(counted("icmp_in") > before.0, "{at} {keys}: the real server was told");
            } else {
                near_client.namespace.run(|| {
                    http::upload(at, TRANSFER, &TIMEOUTS)
                        .unwrap_or_else(|e| panic!("{at} {keys}: {e}"));
                });
                // For our own link, and for the router's.
                let told = counted("icmp_too_big_sent") - before.1;
                assert!(told >= 2, "{at} {keys}: the client was told {told} times");
            }
        }
    }
    assert_eq!(counted("icmp_invalid"), 0);
}
