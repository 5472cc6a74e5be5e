//! The network of the demo and the end-to-end tests.
//!
//! ```text
//! two-armed                                        one-armed
//!
//! client ───eth0┐                                  client ──────┐
//! 10.0.0.2      balancer ──eth1─┐                  10.0.0.2     │      ┌─ balancer eth0
//! attacker ─eth2┘               bridge ─ servers   attacker ── bridge ─┤
//! 10.9.0.2                               192.168.7.10 …                └─ servers
//! ```
//!
//! The balancer is 10.0.0.1, 10.9.0.1 and 192.168.7.1, and everyone's default router. Beside each
//! IPv4 address stands the IPv6 address with its digits ([`beside`]): fd00:10::1, fd00:10:9::1,
//! fd00:192:168:7::1. The kernel forwards between them as long as nothing else does; [`VIP`],
//! [`VIP6`], [`LOCAL_ADDRESSES`] and [`LOCAL_ADDRESSES6`] are for the daemon to add. Offloads that
//! do not survive XDP on veth are off at both ends of every veth.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use seawall_datapath::netlink::ethtool::{Switch, set_offload};
use seawall_datapath::netlink::{AddressSpec, Netlink, Offload, RouteSpec, VethSpec};

use crate::link;
use crate::namespace::{Error, Namespace};

/// The virtual service address, in the client's network.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// The FULLNAT source addresses, in the servers' network.
pub const LOCAL_ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(192, 168, 7, 100),
    Ipv4Addr::new(192, 168, 7, 101),
    Ipv4Addr::new(192, 168, 7, 102),
    Ipv4Addr::new(192, 168, 7, 103),
];

/// [`VIP`] in IPv6: fd00:10::254.
pub const VIP6: Ipv6Addr = beside(VIP);

/// [`LOCAL_ADDRESSES`] in IPv6: fd00:192:168:7::100 and on.
pub const LOCAL_ADDRESSES6: [Ipv6Addr; 4] = {
    let [a, b, c, d] = LOCAL_ADDRESSES;
    [beside(a), beside(b), beside(c), beside(d)]
};

/// Real servers are 192.168.7.10 up to the first local address.
pub const MAX_REAL_SERVERS: usize = 90;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ATTACKER_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SERVER_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const PREFIX_LEN: u8 = 24;
const PREFIX_LEN6: u8 = 64;
const BRIDGE: &str = "br0";

/// How many interfaces the balancer has between clients and servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    /// Clients and servers on the same interface, `eth0`.
    One,
    /// Clients on `eth0`, servers on `eth1`.
    Two,
}

/// What a cable of the balancer's consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// A veth.
    Plain,
    /// A machine between two veths, for a [`LossyLink`](crate::link::LossyLink) to forward on.
    /// Without one nothing gets through.
    Link,
}

/// What to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologySpec {
    /// The balancer's interfaces.
    pub arms: Arms,
    /// Real servers, 1 to [`MAX_REAL_SERVERS`].
    pub real_servers: usize,
    /// Whether there is an attacker: on an interface of its own (`eth2`) when two-armed.
    pub attacker: bool,
    /// The MTU of every interface, in bytes; 1280 to 9000.
    pub mtu: u32,
    /// The cables of the balancer's `eth0` and `eth1`; one-armed, only the first exists.
    pub cables: [Cable; 2],
}

impl Default for TopologySpec {
    /// Two-armed, three real servers, an attacker, MTU 1500, plain cables.
    fn default() -> Self {
        let cables = [Cable::Plain; 2];
        Self { arms: Arms::Two, real_servers: 3, attacker: true, mtu: 1500, cables }
    }
}

/// One interface of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name inside the host's namespace.
    pub name: String,
    /// Its number inside the host's namespace.
    pub index: u32,
    /// Its MAC address: 02:00 and the first IPv4 address.
    pub mac: [u8; 6],
    /// Its addresses and their prefix lengths: IPv4, then IPv6; not the link-local one.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A machine: a namespace and the Ethernet interfaces in it.
pub struct Host {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its interfaces, `eth0` first.
    pub interfaces: Vec<Interface>,
}

impl Host {
    fn new(label: &str) -> Result<Self, Error> {
        let namespace = Namespace::new(label)?;
        for parameter in
            ["all.rp_filter", "default.rp_filter", "all.send_redirects", "default.send_redirects"]
        {
            namespace.sysctl(&format!("net.ipv4.conf.{parameter}"), "0")?;
        }
        Ok(Self { namespace, interfaces: Vec::new() })
    }

    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// Its first IPv4 address.
    ///
    /// # Panics
    ///
    /// When it has none, as the switch.
    pub fn address(&self) -> IpAddr {
        self.first(IpAddr::is_ipv4)
    }

    /// Its first IPv6 address.
    ///
    /// # Panics
    ///
    /// When it has none, as the switch.
    pub fn address6(&self) -> IpAddr {
        self.first(IpAddr::is_ipv6)
    }

    fn first(&self, of_family: impl Fn(&IpAddr) -> bool) -> IpAddr {
        let addresses = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        let mut addresses = addresses.map(|(address, _)| *address);
        addresses.find(of_family).expect("only the switch has no address")
    }
}

/// Where a packet program has to be attached: an interface of a host.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The host's namespace.
    pub namespace: &'a Namespace,
    /// The interface's name in it.
    pub interface: &'a str,
}

/// The network. It is gone when this value is dropped.
pub struct Topology {
    /// What was built.
    pub spec: TopologySpec,
    /// The client, 10.0.0.2 and fd00:10::2.
    pub client: Host,
    /// The attacker, 10.9.0.2 and fd00:10:9::2.
    pub attacker: Option<Host>,
    /// Where the daemon runs.
    pub balancer: Host,
    /// The real servers, 192.168.7.10 and fd00:192:168:7::10, and on.
    pub servers: Vec<Host>,
    /// The bridge; its ports are `port0` and on, the balancer's first.
    pub switch: Host,
    /// The machines in the middle of the balancer's cables ([`Cable::Link`]): their `eth1` leads to
    /// the balancer.
    pub links: [Option<Host>; 2],
}

/// What becomes of one end of a cable.
struct End<'a> {
    host: &'a mut Host,
    name: String,
    addresses: &'a [Ipv4Addr],
}

impl Topology {
    /// Builds the network; when it returns, TCP from the client reaches the servers through the
    /// balancer's kernel.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::is_permission`] when not root.
    ///
    /// # Panics
    ///
    /// When the number of servers is out of its range.
    pub fn build(spec: &TopologySpec) -> Result<Self, Error> {
        assert!(
            (1..=MAX_REAL_SERVERS).contains(&spec.real_servers),
            "{} real servers: 1 to {MAX_REAL_SERVERS} have addresses",
            spec.real_servers
        );
        let mut client = Host::new("client")?;
        let mut attacker = spec.attacker.then(|| Host::new("attacker")).transpose()?;
        let mut balancer = Host::new("balancer")?;
        let mut switch = Host::new("switch")?;
        balancer.namespace.sysctl("net.ipv4.ip_forward", "1")?;
        balancer.namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        add_bridge(&mut switch)?;
        let [first, second] = spec.cables;
        let mut links = [middle(first, "link0")?, middle(second, "link1")?];
        let [link0, link1] = links.each_mut().map(Option::as_mut);

        match spec.arms {
            Arms::Two => {
                let near = End { host: &mut client, name: eth(0), addresses: &[CLIENT] };
                let far = End { host: &mut balancer, name: eth(0), addresses: &[CLIENT_ROUTER] };
                connect(spec, near, link0, far)?;
                let uplink = End { host: &mut balancer, name: eth(1), addresses: &[SERVER_ROUTER] };
                plug_in(spec, &mut switch, link1, uplink)?;
                if let Some(attacker) = &mut attacker {
                    let near = End { host: attacker, name: eth(0), addresses: &[ATTACKER] };
                    let far =
                        End { host: &mut balancer, name: eth(2), addresses: &[ATTACKER_ROUTER] };
                    connect(spec, near, None, far)?;
                }
            }
            Arms::One => {
                let all = [CLIENT_ROUTER, SERVER_ROUTER, ATTACKER_ROUTER];
                let addresses = if spec.attacker { &all[..] } else { &all[..2] };
                let uplink = End { host: &mut balancer, name: eth(0), addresses };
                plug_in(spec, &mut switch, link0, uplink)?;
                let end = End { host: &mut client, name: eth(0), addresses: &[CLIENT] };
                plug_in(spec, &mut switch, None, end)?;
                if let Some(attacker) = &mut attacker {
                    let end = End { host: attacker, name: eth(0), addresses: &[ATTACKER] };
                    plug_in(spec, &mut switch, None, end)?;
                }
            }
        }
        default_route(&client, CLIENT_ROUTER)?;
        if let Some(attacker) = &attacker {
            default_route(attacker, ATTACKER_ROUTER)?;
        }
        let mut servers = Vec::with_capacity(spec.real_servers);
        for number in 0..spec.real_servers {
            let mut server = Host::new(&format!("server{number}"))?;
            let end = End { host: &mut server, name: eth(0), addresses: &[server_address(number)] };
            plug_in(spec, &mut switch, None, end)?;
            default_route(&server, SERVER_ROUTER)?;
            servers.push(server);
        }
        Ok(Self { spec: *spec, client, attacker, balancer, servers, switch, links })
    }

    /// The interfaces at the other ends of the balancer's veths. What the balancer's XDP program
    /// sends out of a veth is delivered only when the peer has an XDP program too; one that passes
    /// everything will do.
    pub fn peers_needing_xdp(&self) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        if self.spec.arms == Arms::Two {
            places.push(Place { namespace: &self.client.namespace, interface: "eth0" });
            if let Some(attacker) = &self.attacker {
                places.push(Place { namespace: &attacker.namespace, interface: "eth0" });
            }
        }
        places.push(Place { namespace: &self.switch.namespace, interface: "port0" });
        places
    }

    /// The balancer's interfaces, for the daemon's configuration.
    pub fn balancer_interfaces(&self) -> Vec<&str> {
        self.balancer.interfaces.iter().map(|interface| interface.name.as_str()).collect()
    }
}

/// The IPv6 address that stands beside an IPv4 address: fd00:A:B:C::D for A.B.C.D, the digits the
/// same.
pub const fn beside(address: Ipv4Addr) -> Ipv6Addr {
    /// A number that reads in hexadecimal as `byte` does in decimal.
    const fn digits(byte: u8) -> u16 {
        let byte = byte as u16;
        byte / 100 * 0x100 + byte / 10 % 10 * 0x10 + byte % 10
    }
    let [a, b, c, d] = address.octets();
    Ipv6Addr::new(0xfd00, digits(a), digits(b), digits(c), 0, 0, 0, digits(d))
}

/// An address and the one beside it, with their prefix lengths.
fn both(address: Ipv4Addr) -> [(IpAddr, u8); 2] {
    [(address.into(), PREFIX_LEN), (beside(address).into(), PREFIX_LEN6)]
}

/// The address of real server `number`, counted from 0.
fn server_address(number: usize) -> Ipv4Addr {
    let last = u8::try_from(10 + number).expect("at most MAX_REAL_SERVERS");
    Ipv4Addr::new(192, 168, 7, last)
}

fn eth(number: usize) -> String {
    format!("eth{number}")
}

fn add_bridge(switch: &mut Host) -> Result<(), Error> {
    switch.namespace.netlink(|netlink| {
        netlink.add_bridge(BRIDGE)?;
        let index = existing(netlink, BRIDGE)?;
        // Without an address of its own a bridge takes the lowest of its ports', and changes.
        netlink.set_mac(index, [2, 0, 0, 0, 0xff, 0xff])?;
        netlink.set_up(index)
    })
}

/// The machine in the middle of a cable, if there is to be one.
fn middle(cable: Cable, label: &str) -> Result<Option<Host>, Error> {
    match cable {
        Cable::Plain => Ok(None),
        Cable::Link => {
            let host = Host::new(label)?;
            // It has no business of its own, not even neighbour discovery.
            host.namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
            Ok(Some(host))
        }
    }
}

/// Connects a host with a new port of the switch's bridge.
fn plug_in(
    spec: &TopologySpec,
    switch: &mut Host,
    link: Option<&mut Host>,
    end: End<'_>,
) -> Result<(), Error> {
    let name = format!("port{}", switch.interfaces.len());
    let port = End { host: &mut *switch, name: name.clone(), addresses: &[] };
    connect(spec, port, link, end)?;
    switch.namespace.netlink(|netlink| {
        let bridge = existing(netlink, BRIDGE)?;
        let port = existing(netlink, &name)?;
        netlink.set_master(port, Some(bridge))
    })
}

/// Lays a cable between two hosts, over a third if there is one, and configures all ends.
fn connect(
    spec: &TopologySpec,
    near: End<'_>,
    link: Option<&mut Host>,
    far: End<'_>,
) -> Result<(), Error> {
    let Some(link) = link else { return add_veth(spec, near, far) };
    let [away, towards] = link::INTERFACES.map(str::to_owned);
    add_veth(spec, near, End { host: &mut *link, name: away, addresses: &[] })?;
    add_veth(spec, End { host: link, name: towards, addresses: &[] }, far)
}

/// Lays a veth between two hosts and configures both ends.
fn add_veth(spec: &TopologySpec, near: End<'_>, far: End<'_>) -> Result<(), Error> {
    let peer = far.host.namespace.as_fd();
    let (mac, peer_mac) = (near.mac(), far.mac());
    near.host.namespace.netlink(|netlink| {
        netlink.add_veth(&VethSpec {
            name: &near.name,
            mac: Some(mac),
            peer_name: &far.name,
            peer_mac: Some(peer_mac),
            peer_netns: Some(peer),
        })
    })?;
    near.configure(spec)?;
    far.configure(spec)
}

impl End<'_> {
    fn mac(&self) -> [u8; 6] {
        match self.addresses.first() {
            Some(address) => {
                let [a, b, c, d] = address.octets();
                [2, 0, a, b, c, d]
            }
            None => {
                let port = u8::try_from(self.host.interfaces.len()).unwrap_or(u8::MAX);
                [2, 0, 0, 0, 0xff, port]
            }
        }
    }

    fn configure(self, spec: &TopologySpec) -> Result<(), Error> {
        let Self { host, name, addresses } = self;
        let mut addresses: Vec<_> = addresses.iter().copied().flat_map(both).collect();
        addresses.sort_by_key(|(address, _)| address.is_ipv6());
        let link = host.namespace.netlink(|netlink| {
            // Segmentation depends on checksums, so it goes first.
            for offload in [Offload::Gso, Offload::Tso, Offload::TxChecksum] {
                set_offload(&name, offload, Switch::Off)?;
            }
            let index = existing(netlink, &name)?;
            netlink.set_mtu(index, spec.mtu)?;
            for &(address, prefix_len) in &addresses {
                let deprecated = false;
                let link_index = index;
                netlink.add_address(&AddressSpec {
                    link_index,
                    address,
                    prefix_len,
                    deprecated,
                })?;
            }
            netlink.set_up(index)?;
            netlink.link(&name)
        })?;
        if let Some(link) = link {
            host.interfaces.push(Interface { name, index: link.index, mac: link.mac, addresses });
        }
        Ok(())
    }
}

fn default_route(host: &Host, router: Ipv4Addr) -> Result<(), Error> {
    let families = [
        (Ipv4Addr::UNSPECIFIED.into(), router.into()),
        (Ipv6Addr::UNSPECIFIED.into(), beside(router).into()),
    ];
    host.namespace.netlink(|netlink| {
        families.into_iter().try_for_each(|(destination, gateway)| {
            let gateway = Some(gateway);
            netlink.add_route(&RouteSpec { destination, prefix_len: 0, gateway, link_index: None })
        })
    })
}

/// The index of an interface made a moment ago.
fn existing(netlink: &mut Netlink, name: &str) -> seawall_datapath::netlink::Result<u32> {
    netlink.link(name)?.map(|link| link.index).ok_or_else(|| {
        seawall_datapath::netlink::Error::Refused {
            request: "find",
            object: format!("interface {name}"),
            explanation: None,
            source: std::io::ErrorKind::NotFound.into(),
        }
    })
}
