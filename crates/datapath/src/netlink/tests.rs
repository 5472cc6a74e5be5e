//! Against the running kernel, in namespaces that end with their thread.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::ethtool::{self, Offload, Switch};
use super::*;
use crate::netns;

/// Runs a test in a new namespace, or says that it was skipped.
fn in_namespace(test: fn()) {
    let outcome = std::thread::spawn(move || match netns::unshare() {
        Ok(()) => {
            test();
            None
        }
        Err(error) => Some(error),
    })
    .join();
    match outcome {
        Ok(None) => {}
        Ok(Some(error)) => {
            let required = std::env::var_os("SEAWALL_REQUIRE_ROOT").is_some_and(|v| v == "1");
            assert!(!required, "SEAWALL_REQUIRE_ROOT=1, but: {error}");
            println!("skipped: needs root: cannot make a network namespace: {error}");
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A veth pair `near` and `far`, both up in this namespace; `near` has 10.1.0.1/24.
fn pair(netlink: &mut Netlink) -> (Link, Link) {
    netlink
        .add_veth(&VethSpec {
            name: "near",
            mac: Some(NEAR_MAC),
            peer_name: "far",
            peer_mac: Some(FAR_MAC),
            peer_netns: None,
        })
        .unwrap();
    for name in ["near", "far"] {
        let link = netlink.link(name).unwrap().unwrap();
        netlink.set_up(link.index).unwrap();
    }
    let near = netlink.link("near").unwrap().unwrap();
    let far = netlink.link("far").unwrap().unwrap();
    add(netlink, near.index, v4(10, 1, 0, 1), 24);
    (near, far)
}

fn add(netlink: &mut Netlink, link_index: u32, address: IpAddr, prefix_len: u8) {
    let spec = AddressSpec { link_index, address, prefix_len, deprecated: false };
    assert!(netlink.add_address(&spec).unwrap());
}

#[test]
fn a_veth_pair_is_read_back_as_it_was_made() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.link("near").unwrap(), None);
        assert_eq!(netlink.link("a-name-that-no-interface-can-have").unwrap(), None);
        let (near, far) = pair(&mut netlink);
        assert_eq!((near.mac, far.mac), (NEAR_MAC, FAR_MAC));
        assert_eq!((near.mtu, near.up, near.master), (1500, true, None));
        assert_eq!(near.kind.as_deref(), Some("veth"));
        assert_eq!(near.peer_index, Some(far.index));
        assert_eq!(far.peer_index, Some(near.index));
        let mut names: Vec<_> = netlink.links().unwrap().into_iter().map(|l| l.name).collect();
        names.sort();
        assert_eq!(names, ["far", "lo", "near"]);

        netlink.set_mtu(near.index, 1400).unwrap();
        netlink.set_mac(near.index, [2, 0, 0, 0, 0, 9]).unwrap();
        let near = netlink.link("near").unwrap().unwrap();
        assert_eq!((near.mtu, near.mac), (1400, [2, 0, 0, 0, 0, 9]));

        netlink.delete_link(near.index).unwrap();
        assert_eq!(netlink.link("far").unwrap(), None);
    });
}

#[test]
fn a_port_joins_and_leaves_a_bridge() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, _) = pair(&mut netlink);
        netlink.add_bridge("br0").unwrap();
        let bridge = netlink.link("br0").unwrap().unwrap();
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));
        let mut monitor = Monitor::open().unwrap();
        netlink.set_master(near.index, Some(bridge.index)).unwrap();
        assert_eq!(netlink.link("near").unwrap().unwrap().master, Some(bridge.index));
        netlink.set_master(near.index, None).unwrap();
        assert_eq!(netlink.link("near").unwrap().unwrap().master, None);
        // Leaving a bridge is announced as RTM_DELLINK of AF_BRIDGE: not the end of the link.
        let mut seen = 0;
        while let Some(event) = monitor.next_event().unwrap() {
            assert!(!matches!(event, Event::LinkGone { .. } | Event::Overrun), "{event:?}");
            seen += 1;
        }
        assert!(seen > 0, "joining and leaving was not announced at all");
    });
}

#[test]
fn an_interface_moves_to_another_namespace() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, _) = pair(&mut netlink);
        let other = std::thread::spawn(|| {
            netns::unshare().unwrap();
            netns::current().unwrap()
        });
        let other = other.join().unwrap();
        netlink.move_to_netns(near.index, other.as_fd()).unwrap();
        assert_eq!(netlink.link("near").unwrap(), None);
        let moved = std::thread::spawn(move || {
            netns::enter(other.as_fd()).unwrap();
            Netlink::open().unwrap().link("near").unwrap()
        });
        assert_eq!(moved.join().unwrap().map(|link| link.mac), Some(NEAR_MAC));
    });
}

#[test]
fn addresses_are_added_once_and_deleted_once() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, _) = pair(&mut netlink);
        let address = Address { link_index: near.index, address: v4(10, 1, 0, 1), prefix_len: 24 };
        assert!(netlink.addresses().unwrap().contains(&address));
        let spec = AddressSpec {
            link_index: near.index,
            address: address.address,
            prefix_len: 24,
            deprecated: false,
        };
        assert!(!netlink.add_address(&spec).unwrap(), "EEXIST is not an error");
        assert!(netlink.delete_address(&address).unwrap());
        assert!(!netlink.delete_address(&address).unwrap(), "it was gone already");
        assert!(!netlink.addresses().unwrap().contains(&address));
    });
}

#[test]
fn a_deprecated_address_is_no_source_and_still_local() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (_, far) = pair(&mut netlink);
        let loopback = netlink.link("lo").unwrap().unwrap();
        netlink.set_up(loopback.index).unwrap();
        // The first address of an interface is the one IPv4 would take for an address that no
        // subnet covers.
        let own = v4(10, 2, 0, 1);
        let spec = AddressSpec {
            link_index: far.index,
            address: v4(10, 2, 0, 100),
            prefix_len: 32,
            deprecated: true,
        };
        assert!(netlink.add_address(&spec).unwrap());
        add(&mut netlink, far.index, own, 24);
        let six: IpAddr = "fd00::100".parse().unwrap();
        assert!(
            netlink.add_address(&AddressSpec { address: six, prefix_len: 128, ..spec }).unwrap()
        );
        add(&mut netlink, far.index, "fd00::1".parse().unwrap(), 64);
        let route = |destination: IpAddr, prefix_len| RouteSpec {
            destination,
            prefix_len,
            gateway: None,
            link_index: Some(far.index),
        };
        netlink.add_route(&route(v4(172, 16, 0, 0), 12)).unwrap();
        netlink.add_route(&route("fd01::".parse().unwrap(), 64)).unwrap();
        let source = netlink.route_to(v4(172, 16, 0, 1)).unwrap().preferred_source;
        assert_eq!(source, Some(own));
        let source = netlink.route_to("fd01::1".parse().unwrap()).unwrap().preferred_source;
        assert_eq!(source, Some("fd00::1".parse().unwrap()));
        assert_eq!(netlink.route_to(v4(10, 2, 0, 100)).unwrap().kind, RouteKind::Local);
        // IPv6 finishes adding an address on a work queue of its own.
        let deadline = Instant::now() + Duration::from_secs(5);
        while netlink.route_to(six).unwrap().kind != RouteKind::Local {
            assert!(Instant::now() < deadline, "{six} never became local");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn routes_answer_with_gateway_source_and_fate() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, _) = pair(&mut netlink);
        let loopback = netlink.link("lo").unwrap().unwrap();
        netlink.set_up(loopback.index).unwrap();
        let outside = v4(198, 51, 100, 7);
        assert_eq!(netlink.route_to(outside).unwrap().kind, RouteKind::Unreachable);

        let gateway = v4(10, 1, 0, 254);
        let spec = RouteSpec {
            destination: v4(0, 0, 0, 0),
            prefix_len: 0,
            gateway: Some(gateway),
            link_index: None,
        };
        netlink.add_route(&spec).unwrap();
        let expected = Route {
            link_index: near.index,
            gateway: Some(gateway),
            preferred_source: Some(v4(10, 1, 0, 1)),
            mtu: None,
            kind: RouteKind::Unicast,
        };
        assert_eq!(netlink.route_to(outside).unwrap(), expected);
        let on_link = netlink.route_to(v4(10, 1, 0, 77)).unwrap();
        assert_eq!((on_link.gateway, on_link.kind), (None, RouteKind::Unicast));
        assert_eq!(netlink.route_to(v4(10, 1, 0, 1)).unwrap().kind, RouteKind::Local);
        assert_eq!(netlink.route_to(v4(10, 1, 0, 255)).unwrap().kind, RouteKind::Broadcast);
    });
}

#[test]
fn a_refusal_names_the_request_and_the_object() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, _) = pair(&mut netlink);
        let spec = RouteSpec {
            destination: v4(203, 0, 113, 0),
            prefix_len: 24,
            gateway: Some(v4(10, 99, 0, 1)),
            link_index: Some(near.index),
        };
        let error = netlink.add_route(&spec).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENETUNREACH));
        let words = error.to_string();
        assert!(words.contains("cannot add route to 203.0.113.0/24"), "{words}");
        // The kernel's own explanation.
        assert!(words.contains("invalid gateway"), "{words}");
        // The client is usable after a refusal.
        assert_eq!(netlink.link("near").unwrap().unwrap().index, near.index);
    });
}

#[test]
fn neighbours_are_probed_listed_and_watched() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let mut monitor = Monitor::open().unwrap();
        assert_eq!(monitor.next_event().unwrap(), None);
        let (near, far) = pair(&mut netlink);
        let events = std::iter::from_fn(|| monitor.next_event().unwrap()).collect::<Vec<_>>();
        let up = |e: &Event| matches!(e, Event::Link(link) if link.index == far.index && link.up);
        assert!(events.iter().any(up), "{events:?}");
        let address = Address { link_index: near.index, address: v4(10, 1, 0, 1), prefix_len: 24 };
        assert!(events.contains(&Event::Address(address)), "{events:?}");
        assert!(events.contains(&Event::Route), "{events:?}");

        let by_hand = NeighbourKey { link_index: near.index, address: v4(10, 1, 0, 2) };
        assert_eq!(netlink.neighbour(by_hand).unwrap(), None);
        netlink.add_neighbour(by_hand, FAR_MAC).unwrap();
        let expected = Neighbour {
            link_index: near.index,
            address: by_hand.address,
            mac: Some(FAR_MAC),
            state: NeighbourState::Permanent,
        };
        assert_eq!(netlink.neighbour(by_hand).unwrap(), Some(expected));
        assert!(netlink.neighbours().unwrap().contains(&expected));
        assert_eq!(monitor.next_event().unwrap(), Some(Event::Neighbour(expected)));

        // Nobody has this address: asked for, and not resolved.
        let nobody = NeighbourKey { link_index: near.index, address: v4(10, 1, 0, 3) };
        netlink.probe_neighbour(nobody).unwrap();
        let entry = netlink.neighbour(nobody).unwrap().unwrap();
        assert_eq!((entry.mac, entry.state), (None, NeighbourState::Incomplete));
        assert!(!entry.state.is_valid());

        netlink.delete_link(near.index).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let (mut link_gone, mut neighbour_gone) = (false, false);
        while !(link_gone && neighbour_gone) {
            assert!(Instant::now() < deadline, "{link_gone} {neighbour_gone}");
            match monitor.next_event().unwrap() {
                Some(Event::LinkGone { index, name }) if index == near.index => {
                    assert_eq!(name, "near");
                    link_gone = true;
                }
                Some(Event::NeighbourGone(key)) if key == by_hand => neighbour_gone = true,
                // Before it goes, the kernel may mark it as failed.
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    });
}

#[test]
fn lost_events_are_reported() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, _) = pair(&mut netlink);
        let mut monitor = Monitor::open().unwrap();
        let mut overrun = false;
        // More than the largest buffer holds, and nothing reads it meanwhile.
        for _ in 0..64 {
            for last in 2..=254 {
                let key = NeighbourKey { link_index: near.index, address: v4(10, 1, 0, last) };
                netlink.add_neighbour(key, FAR_MAC).unwrap();
                netlink.add_neighbour(key, NEAR_MAC).unwrap();
            }
        }
        for _ in 0..100_000 {
            match monitor.next_event().unwrap() {
                Some(Event::Overrun) => overrun = true,
                Some(_) => {}
                None => break,
            }
        }
        assert!(overrun);
        assert_eq!(monitor.next_event().unwrap(), None, "usable after the loss");
    });
}

#[test]
fn offloads_are_switched_and_the_driver_is_named() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        pair(&mut netlink);
        for which in [Offload::TxChecksum, Offload::Tso, Offload::Gso, Offload::Gro] {
            ethtool::set_offload("near", which, Switch::On).unwrap();
            assert!(ethtool::offload("near", which).unwrap(), "{which:?}");
        }
        // Switching checksums off takes segmentation along, so the last first.
        for which in [Offload::Gro, Offload::Gso, Offload::Tso, Offload::TxChecksum] {
            ethtool::set_offload("near", which, Switch::Off).unwrap();
            assert!(!ethtool::offload("near", which).unwrap(), "{which:?}");
        }
        assert_eq!(ethtool::driver("near").unwrap(), "veth");
        let error = ethtool::driver("nothere").unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENODEV));
        assert!(error.to_string().contains("nothere"), "{error}");
    });
}
