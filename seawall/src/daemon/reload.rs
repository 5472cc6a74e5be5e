//! Another configuration takes the place of the one that is served (SPEC D1).

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use seawall_control::config::{Config, Index, Place, Reload, ServiceConfig};
use seawall_control::report::ReloadReport;
use seawall_datapath::clock;
use seawall_engine::{Forwarding, Proxy, RealServerSpec, ServiceSpec};
use seawall_fastpath::Addr;
use seawall_fastpath::layout::{AddressEntry, AddressKey, ServiceKey};

use super::keys::Now;
use super::setup::{self, Way, Ways};
use super::{Placed, Worker};

/// What XDP must know of a VIP.
pub(super) const VIP: AddressEntry =
    AddressEntry { flags: AddressEntry::VIP, port_min: 0, port_max: 0 };

/// A VIP whose services are not there yet: the kernel, which has none at all, must not refuse
/// connections to them.
pub(super) const HELD: AddressEntry =
    AddressEntry { flags: AddressEntry::LOCAL, port_min: 0, port_max: u16::MAX };

impl Worker {
    /// Serves `new` from now on. Sessions go on.
    ///
    /// # Errors
    /// What is wrong with it on this machine, or needs a new start; then nothing has changed.
    pub(super) fn reload(&mut self, new: Config, gateways: &Ways) -> Result<ReloadReport> {
        let Reload { config, services, changes } = self.config.reload(new)?;
        let mut specs = setup::services(&config)?;
        for ((spec, ways), place) in specs.iter_mut().zip(gateways).zip(&services) {
            self.reach(spec, ways, place)?;
        }
        let new = &vips(&config) - &vips(&self.config);
        if let Err(error) = self.add_addresses(&config, &new) {
            self.drop_addresses(new);
            return Err(error);
        }
        // From here on nothing fails that leaves something to serve.
        self.engine.set_config(setup::engine_config(&config, Now::read().offset()));
        self.remove_services(&services);
        let places = specs.iter().zip(&config.services).zip(&services);
        let placed: Vec<_> =
            places.map(|((spec, service), place)| self.place(spec, service, place)).collect();
        self.placed = placed;
        self.index = Index::new(&config.services);
        self.zeroed.keep(&config.services);
        let old = std::mem::replace(&mut self.config, Arc::new(config));
        if let Err(error) = self.show(new) {
            self.broken = Some(error);
        }
        if !changes.is_empty() {
            self.engine.settle(clock::monotonic_ms());
        }
        self.drop_addresses(&vips(&old) - &vips(&self.config));
        // Neighbours of the kernel's that only now are next hops of ours.
        self.overrun = true;
        Ok(ReloadReport { changes })
    }

    /// Has XDP serve what it holds back for VIPs that are new.
    pub(super) fn show(&mut self, new: impl IntoIterator<Item = Addr>) -> Result<()> {
        self.handle_requests()?;
        for address in new {
            self.xdp.set_address(&AddressKey(address), &VIP)?;
        }
        Ok(())
    }

    /// Gives the real servers of a service their ways. One that has none keeps what it had; a new one
    /// gets no packets until there is a route.
    pub(super) fn reach(
        &mut self,
        spec: &mut ServiceSpec,
        ways: &[Option<Way>],
        place: &Place,
    ) -> Result<()> {
        let placed = place.service.map(|at| &self.placed[at]);
        let servers = spec.real_servers.iter_mut().zip(ways).zip(&place.real_servers);
        for ((server, way), was) in servers {
            let before = placed.zip(*was).and_then(|(placed, was)| {
                self.engine.server_spec(placed.service, placed.servers[was])
            });
            let wrapped = matches!(server.forwarding, Forwarding::Tunnel { .. });
            // A tunnel that has no source has no way.
            let way = way.filter(|way| !wrapped || way.source.is_some());
            if let Some(way) = way {
                let hop = self.engine.next_hop(way.gateway);
                server.next_hop = hop.context("there are too many next hops")?;
            } else if let Some(before) = before {
                server.next_hop = before.next_hop;
            }
            if let Forwarding::Tunnel { source, .. } = &mut server.forwarding {
                let before = before.map(|before| before.forwarding);
                *source = match (way.and_then(|way| way.source), before) {
                    (Some(source), _) | (None, Some(Forwarding::Tunnel { source, .. })) => source,
                    (None, _) => Addr::default(),
                };
            }
        }
        Ok(())
    }

    /// Adds the VIPs that are `new`; XDP has them first.
    fn add_addresses(&mut self, config: &Config, new: &HashSet<Addr>) -> Result<()> {
        for address in new {
            self.xdp.set_address(&AddressKey(*address), &HELD)?;
        }
        self.added.add(config, &self.interfaces, &mut self.netlink)
    }

    pub(super) fn drop_addresses(&mut self, vips: impl IntoIterator<Item = Addr>) {
        for address in vips {
            self.added.remove(address, &mut self.netlink);
            // It is there, unless setting it is what has failed.
            let _ = self.xdp.remove_address(&AddressKey(address));
        }
    }

    /// Removes the services that no new one has been.
    fn remove_services(&mut self, places: &[Place]) {
        let mut there = vec![false; self.placed.len()];
        for place in places.iter().filter_map(|place| place.service) {
            there[place] = true;
        }
        let config = Arc::clone(&self.config);
        for (at, service) in config.services.iter().enumerate().filter(|(at, _)| !there[*at]) {
            self.stop_serving(service, self.placed[at].service);
        }
    }

    /// Has neither XDP nor the engine serve a service, whose number that is.
    pub(super) fn stop_serving(&mut self, service: &ServiceConfig, number: u32) {
        let key = ServiceKey::of(setup::transport(service.protocol), service.address.into());
        // It has been set at start, or when it was added.
        let _ = self.xdp.remove_service(&key);
        self.engine.remove_service(number);
    }

    /// Puts a service where it belongs; gives its numbers.
    pub(super) fn place(
        &mut self,
        spec: &ServiceSpec,
        new: &ServiceConfig,
        place: &Place,
    ) -> Placed {
        let before = place.service.map(|at| (&self.config.services[at], &self.placed[at]));
        let (service, servers) = match before {
            None => (self.engine.add_service(spec.clone()), Vec::new()),
            Some((old, placed)) => {
                let service = placed.service;
                if old.synproxy != new.synproxy {
                    let proxy = if new.synproxy { Proxy::On } else { Proxy::Off };
                    self.engine.set_synproxy(service, proxy);
                }
                if old.defer != new.defer {
                    self.engine.set_defer(service, new.defer);
                }
                if old.toa != new.toa || old.proxy_protocol != new.proxy_protocol {
                    self.engine.set_introduction(service, spec.introduction);
                }
                let flags = spec.scheduler_flags;
                if old.scheduler != new.scheduler || old.scheduler_flags != new.scheduler_flags {
                    self.engine.set_scheduler(service, spec.scheduler, flags);
                }
                self.engine.set_one_packet(service, spec.one_packet);
                self.engine.set_timeout(service, spec.timeout);
                if old.persistent != new.persistent {
                    self.engine.set_persistence(service, spec.persistence);
                }
                self.engine.set_pool(service, spec.pool);
                (service, placed.servers.clone())
            }
        };
        let mut there = vec![false; servers.len()];
        for at in place.real_servers.iter().flatten() {
            there[*at] = true;
        }
        for (server, _) in servers.iter().zip(there).filter(|(_, there)| !there) {
            self.engine.remove_server(service, *server);
        }
        let mut put = |(spec, at): (&RealServerSpec, &Option<usize>)| match at {
            Some(at) => {
                self.engine.set_server(service, servers[*at], *spec);
                Some(servers[*at])
            }
            None => self.engine.add_server(service, *spec),
        };
        let servers = spec.real_servers.iter().zip(&place.real_servers);
        let servers = servers.filter_map(&mut put).collect();
        Placed { service, servers }
    }
}

fn vips(config: &Config) -> HashSet<Addr> {
    config.services.iter().map(|service| service.address.ip().into()).collect()
}
