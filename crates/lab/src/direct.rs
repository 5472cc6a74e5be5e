//! Real servers that answer clients themselves, past the balancer, as DR and TUNNEL want them.

use std::net::{IpAddr, Ipv4Addr};

use seawall_datapath::netlink::{AddressSpec, RouteSpec};

use crate::namespace::Error;
use crate::topology::{Host, VIP, VIP6, beside};
use crate::unwrap::Unwrapper;

/// The network of the client and the VIPs.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// Makes a real server of a one-armed topology such a one, as for any LVS: it has the VIPs, keeps quiet
/// about them, answers past the balancer, and takes packets out of tunnels.
///
/// # Errors
///
/// When its network cannot be changed.
pub fn answer_directly(host: &Host) -> Result<Unwrapper, Error> {
    host.namespace.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    host.namespace.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
    let link_index = host.interface("eth0").map(|interface| interface.index);
    host.namespace.netlink(|netlink| {
        let own: [(IpAddr, u8); 2] = [(VIP.into(), 32), (VIP6.into(), 128)];
        let loopback = netlink.link("lo")?.map_or(1, |link| link.index);
        for (address, prefix_len) in own {
            let deprecated = false;
            let spec = AddressSpec { link_index: loopback, address, prefix_len, deprecated };
            netlink.add_address(&spec)?;
        }
        let clients: [(IpAddr, u8); 2] = [(CLIENTS.into(), 24), (beside(CLIENTS).into(), 64)];
        clients.into_iter().try_for_each(|(destination, prefix_len)| {
            netlink.add_route(&RouteSpec { destination, prefix_len, gateway: None, link_index })
        })
    })?;
    Unwrapper::start(&host.namespace)
}
