//! VIPs and local addresses that the host lacks: added after XDP is attached, written down before, so
//! that whoever ends us, or takes over, knows which they are.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use seawall_control::config::Config;
use seawall_datapath::Owned;
use seawall_datapath::netlink::{Address, AddressSpec, Netlink, Route, RouteKind};
use seawall_fastpath::Addr;

use super::interfaces::Interfaces;

/// The addresses that we, or the daemon before us, have added.
pub(super) struct Added {
    addresses: Vec<Address>,
    owned: Owned,
}

impl Added {
    /// Those that are written down.
    pub(super) fn new(owned: Owned) -> Result<Self> {
        Ok(Self { addresses: owned.all()?, owned })
    }

    /// Adds what `config` needs and the host lacks, each to the interface that its subnet is on,
    /// or else the first.
    pub(super) fn add(
        &mut self,
        config: &Config,
        interfaces: &Interfaces,
        netlink: &mut Netlink,
    ) -> Result<()> {
        if !config.manage_addresses {
            return Ok(());
        }
        let mut present: HashSet<IpAddr> =
            netlink.addresses()?.into_iter().map(|address| address.address).collect();
        for (address, deprecated) in wanted(config) {
            if present.insert(address) {
                let route = netlink.route_to(address)?;
                self.put(address, deprecated, &route, interfaces, netlink)?;
            }
        }
        Ok(())
    }

    /// Removes what `config` no longer needs of what the daemon before us has added.
    pub(super) fn drop_unwanted(&mut self, config: &Config, netlink: &mut Netlink) {
        let wanted: HashSet<IpAddr> = wanted(config).map(|(address, _)| address).collect();
        let unwanted: Vec<_> = self
            .addresses
            .iter()
            .map(|added| added.address)
            .filter(|address| !wanted.contains(address))
            .collect();
        for address in unwanted {
            self.remove(address.into(), netlink);
        }
    }

    /// Adds a VIP that the host may lack, likewise.
    pub(super) fn add_one(
        &mut self,
        address: IpAddr,
        interfaces: &Interfaces,
        netlink: &mut Netlink,
    ) -> Result<()> {
        let route = netlink.route_to(address)?;
        if route.kind == RouteKind::Local {
            return Ok(());
        }
        self.put(address, false, &route, interfaces, netlink)
    }

    /// Adds an address that the host lacks; `route` is the one to it.
    fn put(
        &mut self,
        address: IpAddr,
        deprecated: bool,
        route: &Route,
        interfaces: &Interfaces,
        netlink: &mut Netlink,
    ) -> Result<()> {
        let on_subnet = route.kind == RouteKind::Unicast && route.gateway.is_none();
        let link = interfaces
            .get(route.link_index)
            .filter(|_| on_subnet)
            .or(interfaces.iter().next())
            .map(|port| &port.link)
            .context("no interface to add addresses to")?;
        let prefix_len = if address.is_ipv4() { 32 } else { 128 };
        let link_index = link.index;
        let spec = AddressSpec { link_index, address, prefix_len, deprecated };
        let added = Address { link_index, address, prefix_len };
        self.owned.insert(&added)?;
        // Unless somebody has removed it meanwhile.
        self.addresses.retain(|known| known.address != address);
        self.addresses.push(added);
        netlink.add_address(&spec).with_context(|| format!("adding {address} to {}", link.name))?;
        Ok(())
    }

    /// Removes an address, if we have added it.
    pub(super) fn remove(&mut self, address: Addr, netlink: &mut Netlink) {
        let is_it = |added: &Address| Addr::from(added.address) == address;
        if let Some(at) = self.addresses.iter().position(is_it) {
            let added = self.addresses.swap_remove(at);
            let removed = netlink.delete_address(&added);
            if let Err(error) = removed {
                eprintln!("seawall: cannot remove {}: {error}", added.address);
            }
            if let Err(error) = self.owned.remove(added.address) {
                eprintln!("seawall: {error}");
            }
        }
    }
}

/// VIPs and local addresses, and whether the kernel must not choose it as a source.
fn wanted(config: &Config) -> impl Iterator<Item = (IpAddr, bool)> {
    let vips = config.services.iter().map(|service| (service.address.ip(), false));
    let pools = config.local_addresses.iter().flat_map(|pool| &pool.addresses);
    vips.chain(pools.flat_map(|range| range.value.iter()).map(|local| (local, true)))
}
