//! The lab itself, on the running kernel: what it builds works, reads back and leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seawall_datapath::netlink::ethtool::{driver, offload};
use seawall_datapath::netlink::{
    Event, Monitor, NeighbourKey, Netlink, Offload, RouteKind, RouteSpec,
};
use seawall_lab::http::{self, HttpServer, Payload, ServerSpec, Timeouts};
use seawall_lab::load::{Limit, Load, LoadSpec};
use seawall_lab::namespace::Namespace;
use seawall_lab::topology::VIP6;
use seawall_lab::{Arms, Host, Topology, TopologySpec, require};

fn start_servers(topology: &Topology, address: fn(&Host) -> IpAddr) -> Vec<HttpServer> {
    let start = |(number, host): (usize, &Host)| {
        let spec = ServerSpec { seed: 7, ..ServerSpec::new(&format!("rs{number}")) };
        let address = SocketAddr::new(address(host), 8080);
        HttpServer::start(&host.namespace, address, spec).unwrap()
    };
    topology.servers.iter().enumerate().map(start).collect()
}

/// Everything a client needs from a network, through the balancer's kernel.
fn check_traffic(topology: &Topology) {
    check_family(topology, Host::address, "net.ipv4.ip_forward");
    check_family(topology, Host::address6, "net.ipv6.conf.all.forwarding");
}

fn check_family(topology: &Topology, address: fn(&Host) -> IpAddr, forwarding: &str) {
    let servers = start_servers(topology, address);
    let timeouts = Timeouts::default();
    let hosts = std::iter::once(&topology.client).chain(topology.attacker.as_ref());
    for host in hosts {
        for (number, server) in servers.iter().enumerate() {
            let response = host
                .namespace
                .run(|| http::get(server.address(), "/", &timeouts))
                .unwrap_or_else(|error| panic!("{}: {error}", host.namespace.label()));
            assert_eq!(response.server, Some(format!("rs{number}")));
        }
    }
    let address = servers[0].address();
    let payload = Payload { length: 2_000_000, seed: 7 };
    topology.client.namespace.run(|| {
        http::download(address, payload, &timeouts).unwrap();
        http::upload(address, payload, &timeouts).unwrap();
    });
    let spec = LoadSpec::new(address, Limit::Requests(200));
    let report = Load::start(&topology.client.namespace, spec).unwrap().finish();
    assert_eq!((report.succeeded(), report.failed()), (200, 0), "{:?}", report.example);
    assert_eq!(report.servers, BTreeMap::from([("rs0".to_owned(), 200)]));

    // It went through the balancer: without its forwarding there is no way.
    topology.balancer.namespace.sysctl(forwarding, "0").unwrap();
    let short = Timeouts { connect: Duration::from_millis(300), total: Duration::from_millis(600) };
    let error = topology.client.namespace.run(|| http::get(address, "/", &short)).unwrap_err();
    assert!(
        matches!(error.kind, http::ErrorKind::ConnectTimeout | http::ErrorKind::Connect),
        "{error}"
    );
}

#[test]
fn two_armed_carries_traffic_both_ways() {
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    assert_eq!(topology.balancer_interfaces(), ["eth0", "eth1", "eth2"]);
    let places: Vec<_> = topology
        .peers_needing_xdp()
        .iter()
        .map(|place| (place.namespace.label().to_owned(), place.interface.to_owned()))
        .collect();
    let expected = [("client", "eth0"), ("attacker", "eth0"), ("switch", "port0")];
    assert_eq!(places, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    check_traffic(&topology);
}

#[test]
fn one_armed_carries_traffic_both_ways() {
    let spec = TopologySpec { arms: Arms::One, real_servers: 2, ..TopologySpec::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    assert_eq!(topology.balancer_interfaces(), ["eth0"]);
    assert_eq!(topology.peers_needing_xdp().len(), 1);
    check_traffic(&topology);
}

#[test]
fn what_was_built_is_what_the_kernel_says() {
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    let hosts = [&topology.client, &topology.balancer, &topology.switch];
    for host in hosts.into_iter().chain(&topology.attacker).chain(&topology.servers) {
        assert!(!host.interfaces.is_empty());
        let label = host.namespace.label();
        for interface in &host.interfaces {
            let name = &interface.name;
            let link = host.namespace.netlink(|n| n.link(name)).unwrap().unwrap();
            assert_eq!((link.index, link.mac), (interface.index, interface.mac), "{label} {name}");
            assert!(link.up && link.kind.as_deref() == Some("veth"), "{label} {link:?}");
            let addresses: Vec<_> = host.namespace.netlink(Netlink::addresses).unwrap();
            let found: BTreeSet<_> = addresses
                .iter()
                .filter(|a| a.link_index == interface.index && !is_link_local(a.address))
                .map(|a| (a.address, a.prefix_len))
                .collect();
            let planned: BTreeSet<_> = interface.addresses.iter().copied().collect();
            assert_eq!(found, planned, "{label} {name}");
            host.namespace.run(|| {
                for which in [Offload::TxChecksum, Offload::Tso, Offload::Gso] {
                    assert!(!offload(name, which).unwrap(), "{label} {name} {which:?}");
                }
                assert_eq!(driver(name).unwrap(), "veth");
            });
        }
    }
    // Every veth end's peer is the one on the plan.
    let uplink = topology.balancer.interface("eth1").unwrap();
    let port = topology.switch.interface("port0").unwrap();
    let link = topology.balancer.namespace.netlink(|n| n.link("eth1")).unwrap().unwrap();
    assert_eq!(link.peer_index, Some(port.index));
    assert_eq!(uplink.mac, [2, 0, 192, 168, 7, 1]);

    let server = topology.servers[0].address();
    let client = &topology.client;
    let server6 = topology.servers[0].address6();
    assert_eq!(server6.to_string(), "fd00:192:168:7::10");
    assert_eq!(VIP6.to_string(), "fd00:10::254");
    for (server, router, own) in
        [(server, "10.0.0.1", client.address()), (server6, "fd00:10::1", client.address6())]
    {
        let route = client.namespace.netlink(|n| n.route_to(server)).unwrap();
        assert_eq!(route.gateway, Some(router.parse().unwrap()));
        assert_eq!(route.preferred_source, Some(own));
        assert_eq!(route.kind, RouteKind::Unicast);
    }
    let route = topology.balancer.namespace.netlink(|n| n.route_to(server)).unwrap();
    assert_eq!((route.link_index, route.gateway), (uplink.index, None));
}

#[test]
fn a_neighbour_is_resolved_on_request_and_announced() {
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    let key = NeighbourKey {
        link_index: topology.balancer.interface("eth1").unwrap().index,
        address: topology.servers[1].address(),
    };
    let mac = topology.servers[1].interface("eth0").unwrap().mac;
    topology.balancer.namespace.run(|| {
        let mut monitor = Monitor::open().unwrap();
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.neighbour(key).unwrap(), None);
        netlink.probe_neighbour(key).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let announced = loop {
            assert!(Instant::now() < deadline, "no announcement of {key:?}");
            match monitor.next_event().unwrap() {
                Some(Event::Neighbour(entry)) if entry.key() == key && entry.state.is_valid() => {
                    break entry;
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(announced.mac, Some(mac));
        assert_eq!(netlink.neighbour(key).unwrap().unwrap().mac, Some(mac));
        let all = netlink.neighbours().unwrap();
        assert!(all.iter().any(|entry| entry.key() == key && entry.mac == Some(mac)));
    });
}

#[test]
fn a_namespace_keeps_its_parameters_threads_and_processes_to_itself() {
    let Some(namespace) = require::root(Namespace::new("box")) else { return };
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    namespace.sysctl("net.ipv4.ip_default_ttl", "77").unwrap();
    assert_eq!(namespace.read_sysctl("net.ipv4.ip_default_ttl").unwrap(), "77");
    let after = std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    assert_eq!(before, after);
    let error = namespace.sysctl("net.ipv4.no_such_thing", "1").unwrap_err();
    assert!(error.to_string().contains("set net.ipv4.no_such_thing to 1"), "{error}");

    let inode = inode_of(&namespace);
    let here = || std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    assert_ne!(here(), inode);
    assert_eq!(namespace.run(here), inode);
    assert_eq!(namespace.spawn(here).unwrap().join().unwrap(), inode);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        namespace.run(|| panic!("inside"));
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"inside"));

    let mut command = Command::new("readlink");
    command.arg("/proc/self/ns/net").stdout(Stdio::piped());
    let mut process = namespace.spawn_process(command).unwrap();
    let status = process.wait_for(Duration::from_secs(10)).unwrap().unwrap();
    assert!(status.success());
    let mut output = String::new();
    let mut pipe = process.child().stdout.take().unwrap();
    std::io::Read::read_to_string(&mut pipe, &mut output).unwrap();
    assert_eq!(output.trim(), format!("net:[{inode}]"));
}

#[test]
fn a_process_ends_with_its_guard_or_its_namespace() {
    let Some(namespace) = require::root(Namespace::new("box")) else { return };
    let sleeper = || {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    };
    let mut guard = namespace.spawn_process(sleeper()).unwrap();
    assert_eq!(guard.wait_for(Duration::from_millis(20)).unwrap(), None);
    let id = guard.child().id();
    drop(guard);
    assert!(!std::fs::exists(format!("/proc/{id}")).unwrap());

    let mut orphan = namespace.spawn_process(sleeper()).unwrap();
    drop(namespace);
    let status = orphan.wait_for(Duration::from_secs(10)).unwrap();
    assert!(status.is_some_and(|status| !status.success()), "{status:?}");
}

#[test]
fn nothing_is_left_behind() {
    let count = || Netlink::open().unwrap().links().unwrap().len();
    let before = count();
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    let servers = start_servers(&topology, Host::address);
    assert_eq!(count(), before, "a lab interface is in the test's own namespace");
    let hosts = [&topology.client, &topology.balancer, &topology.switch];
    let inodes: Vec<_> = hosts.map(|host| inode_of(&host.namespace)).to_vec();
    assert!(inodes.iter().all(|inode| is_referred_to(*inode)));
    drop(servers);
    drop(topology);
    assert_eq!(count(), before);
    // Without a thread, process or descriptor a namespace and all in it are gone. A dropped
    // thread may take a moment to leave /proc.
    let deadline = Instant::now() + Duration::from_secs(5);
    while inodes.iter().any(|inode| is_referred_to(*inode)) {
        assert!(Instant::now() < deadline, "a namespace is still held");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_connection_to_nowhere_says_so() {
    let Some(namespace) = require::root(Namespace::new("box")) else { return };
    let outside = SocketAddr::from(([198, 51, 100, 1], 80));
    let error = namespace.run(|| TcpStream::connect(outside)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    let spec = RouteSpec {
        destination: IpAddr::from([0, 0, 0, 0]),
        prefix_len: 0,
        gateway: Some(IpAddr::from([10, 0, 0, 1])),
        link_index: None,
    };
    let error = namespace.netlink(|n| n.add_route(&spec)).unwrap_err();
    assert!(error.to_string().starts_with("namespace box: cannot add route"), "{error}");
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn inode_of(namespace: &Namespace) -> u64 {
    let file = std::fs::File::from(namespace.as_fd().try_clone_to_owned().unwrap());
    file.metadata().unwrap().ino()
}

/// Whether a thread of any process, or a descriptor of this one, holds the namespace.
fn is_referred_to(inode: u64) -> bool {
    let name = format!("net:[{inode}]");
    let holds = |path: std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == name.as_str())
    };
    let entries = |path: std::path::PathBuf| {
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    entries("/proc/self/fd".into()).any(holds)
        || entries("/proc".into())
            .flat_map(|process| entries(process.join("task")))
            .any(|thread| holds(thread.join("ns/net")))
}
