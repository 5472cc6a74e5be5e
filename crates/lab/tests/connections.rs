//! Clients and servers from XDP, with nothing but the kernel's routing between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use seawall_datapath::netlink::RouteSpec;
use seawall_lab::connections::Connections;
use seawall_lab::connections_layout::FIRST_CLIENT;
use seawall_lab::daemon::SERVER_PORT;
use seawall_lab::flood::Passes;
use seawall_lab::{Topology, TopologySpec, require};

const KEPT: u32 = 500;

/// A network that routes between clients and servers, and which of the latter they ask.
fn network() -> Option<(Topology, Passes, SocketAddr)> {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let topology = require::root(Topology::build(&spec))?;
    let passes = Passes::attach_to_balancer(&topology).unwrap();
    let route = RouteSpec {
        destination: Ipv4Addr::from_bits(FIRST_CLIENT).into(),
        prefix_len: 10,
        gateway: Some(topology.client.address()),
        link_index: None,
    };
    topology.balancer.namespace.netlink(|netlink| netlink.add_route(&route)).unwrap();
    let target = SocketAddr::new(topology.servers[0].address(), SERVER_PORT);
    Some((topology, passes, target))
}

#[test]
fn connections_are_opened_asked_answered_and_closed() {
    let Some((topology, _passes, target)) = network() else { return };
    let connections = Connections::attach(&topology, target, 0).unwrap();
    let work = connections.start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    work.stop().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let (clients, servers) = (connections.tally().unwrap(), connections.server_tally().unwrap());
    println!("{clients:?} {servers:?}");
    assert!(clients.finished > 500, "{clients:?}");
    assert!(clients.finished <= clients.begun && clients.finished <= servers.finished);
    assert_eq!((clients.strange, clients.reset, clients.lost), (0, 0, 0), "{clients:?}");
    assert_eq!((servers.strange, servers.reset), (0, 0), "{servers:?}");
}

#[test]
fn connections_are_kept_and_go_on_from_where_they_are() {
    let Some((topology, _passes, target)) = network() else { return };
    let connections = Connections::attach(&topology, target, KEPT).unwrap();
    assert_eq!(connections.keep(KEPT).unwrap(), KEPT);
    let before = [connections.tally().unwrap(), connections.server_tally().unwrap()];
    let work = connections.repeat().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for work in work {
        work.stop().unwrap();
    }
    let after = [connections.tally().unwrap(), connections.server_tally().unwrap()];
    for (now, then) in after.iter().zip(&before) {
        let done = now.since(then);
        assert!(done.sent >= 1_000 && done.received >= 1_000, "{done:?}");
    }
}
