//! The network in VLANs: every address moves from its interface to one, or to one in another.

use std::net::IpAddr;
use std::process::Command;

use seawall_lab::Host;

/// A VLAN: its protocol as ip(8) spells it, and its identifier.
pub(crate) type Vlan = (&'static str, u16);

/// Moves both ends of a cable into VLANs, the outer one first.
pub(crate) fn tag(near: (&Host, usize), far: (&Host, usize), vlans: &[Vlan]) {
    let routers = [addresses(far), addresses(near)];
    for (end, routers) in [near, far].into_iter().zip(routers) {
        // Only the ends of a network have a way out of it; the balancer is in all of them.
        let routers = if end.0.namespace.label() == "balancer" { Vec::new() } else { routers };
        move_end(end, &routers, vlans);
    }
}

fn addresses((host, interface): (&Host, usize)) -> Vec<(IpAddr, u8)> {
    host.interfaces[interface].addresses.clone()
}

fn move_end((host, interface): (&Host, usize), routers: &[(IpAddr, u8)], vlans: &[Vlan]) {
    let mut name = host.interfaces[interface].name.clone();
    leave_tags_in_frames(host, &name);
    ip(host, &format!("address flush dev {name} scope global"));
    for (protocol, id) in vlans {
        let tagged = format!("{name}.{id}");
        ip(host, &format!("link add link {name} name {tagged} type vlan proto {protocol} id {id}"));
        ip(host, &format!("link set {tagged} up"));
        name = tagged;
    }
    if vlans.len() > 1 {
        // A veth takes one tag more than its MTU, not two.
        ip(host, &format!("link set {name} mtu 1496"));
    }
    for (address, bits) in addresses((host, interface)) {
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        ip(host, &format!("address add {address}/{bits} dev {name} {nodad}"));
    }
    for (router, _) in routers {
        ip(host, &format!("route replace default via {router} dev {name}"));
    }
}

/// A veth hands tags on beside the frame, where XDP does not see them.
pub(crate) fn leave_tags_in_frames(host: &Host, name: &str) {
    let features = ["rxvlan", "txvlan", "rx-vlan-stag-hw-parse", "tx-vlan-stag-hw-insert"]
        .map(|it| [it, "off"]);
    run(host, Command::new("ethtool").args(["-K", name]).args(features.as_flattened()));
}

fn ip(host: &Host, arguments: &str) {
    run(host, Command::new("ip").args(arguments.split_whitespace()));
}

fn run(host: &Host, command: &mut Command) {
    let output = host.namespace.run(|| command.output()).unwrap();
    assert!(output.status.success(), "{}: {command:?}: {output:?}", host.namespace.label());
}
