//! VIPs and local addresses that the host lacks: added after XDP is attached, removed with it.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use seawall_control::config::Config;
use seawall_datapath::netlink::{Address, AddressSpec, Netlink, RouteKind};
use seawall_fastpath::Addr;

use super::interfaces::Interfaces;

/// The addresses that we have added; removed when dropped.
#[derive(Default)]
pub(super) struct Added {
    addresses: Vec<Address>,
}

impl Added {
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
        let vips = config.services.iter().map(|service| (service.address.ip(), false));
        let pools = config.local_addresses.iter().flat_map(|pool| &pool.addresses);
        let locals = pools.flat_map(|range| range.value.iter()).map(|local| (local, true));
        for (address, deprecated) in vips.chain(locals) {
            if !present.insert(address) {
                continue;
            }
            let route = netlink.route_to(address)?;
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
            netlink
                .add_address(&spec)
                .with_context(|| format!("adding {address} to {}", link.name))?;
            let added = Address { link_index, address, prefix_len };
            // Unless somebody has removed it meanwhile.
            if !self.addresses.contains(&added) {
                self.addresses.push(added);
            }
        }
        Ok(())
    }

    /// Removes an address, if we have added it.
    pub(super) fn remove(&mut self, address: Addr, netlink: &mut Netlink) {
        let is_it = |added: &Address| Addr::from(added.address) == address;
        if let Some(at) = self.addresses.iter().position(is_it) {
            delete(&self.addresses.swap_remove(at), netlink);
        }
    }
}

fn delete(address: &Address, netlink: &mut Netlink) {
    if let Err(error) = netlink.delete_address(address) {
        eprintln!("seawall: cannot remove {}: {error}", address.address);
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        let Ok(mut netlink) = Netlink::open() else { return };
        for address in &self.addresses {
            delete(address, &mut netlink);
        }
    }
}
