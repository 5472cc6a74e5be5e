//! Where the services of a configuration are, and who has which address: kept beside a configuration
//! that changes service by service, so that a change need not look at all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use super::{Forwarding, Protocol, RealServerConfig, ServiceConfig};

/// An index of the services of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    services: HashMap<(SocketAddr, Protocol), usize>,
    /// How many services have the address.
    vips: HashMap<IpAddr, usize>,
    /// How many real servers have the address.
    real_servers: HashMap<IpAddr, usize>,
    /// How many real servers with the address are told of their clients by TOA.
    told: HashMap<IpAddr, usize>,
    /// How many get packets of TCP as they are.
    direct: HashMap<IpAddr, usize>,
    /// Real servers over all services.
    total: usize,
}

/// How many real servers of `service` have the address and are told of their clients by TOA.
pub(super) fn told(service: &ServiceConfig, address: IpAddr) -> usize {
    let servers = service.real_servers.iter().filter(|server| server.address.ip() == address);
    if service.toa { servers.count() } else { 0 }
}

/// How many have it and are direct.
pub(super) fn direct(service: &ServiceConfig, address: IpAddr) -> usize {
    let servers = service.real_servers.iter().filter(|server| server.address.ip() == address);
    servers.filter(|server| is_direct(service, server)).count()
}

/// Whether a real server gets packets of TCP as they are.
pub(super) fn is_direct(service: &ServiceConfig, server: &RealServerConfig) -> bool {
    match server.forwarding {
        Forwarding::Nat | Forwarding::FullNat => false,
        Forwarding::Dr | Forwarding::Tunnel => service.protocol == Protocol::Tcp,
    }
}

impl Index {
    /// The index of `services`.
    pub fn new(services: &[ServiceConfig]) -> Self {
        let mut index = Self::default();
        for (at, service) in services.iter().enumerate() {
            index.add(at, service);
        }
        index
    }

    /// Takes note of a service that is now at `at`.
    pub fn add(&mut self, at: usize, service: &ServiceConfig) {
        self.services.insert((service.address, service.protocol), at);
        *self.vips.entry(service.address.ip()).or_default() += 1;
        for server in &service.real_servers {
            let ip = server.address.ip();
            *self.real_servers.entry(ip).or_default() += 1;
            if service.toa {
                *self.told.entry(ip).or_default() += 1;
            }
            if is_direct(service, server) {
                *self.direct.entry(ip).or_default() += 1;
            }
        }
        self.total += service.real_servers.len();
    }

    /// Takes note that a service has moved to `at`.
    pub fn move_to(&mut self, at: usize, service: &ServiceConfig) {
        self.services.insert((service.address, service.protocol), at);
    }

    /// Takes note that a service is gone from its place; others keep theirs.
    pub fn remove(&mut self, service: &ServiceConfig) {
        self.services.remove(&(service.address, service.protocol));
        one_less(&mut self.vips, service.address.ip());
        for server in &service.real_servers {
            let ip = server.address.ip();
            one_less(&mut self.real_servers, ip);
            if service.toa {
                one_less(&mut self.told, ip);
            }
            if is_direct(service, server) {
                one_less(&mut self.direct, ip);
            }
        }
        self.total -= service.real_servers.len();
    }

    /// The place of a service.
    pub fn find(&self, address: SocketAddr, protocol: Protocol) -> Option<usize> {
        self.services.get(&(address, protocol)).copied()
    }

    /// Services that there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Real servers over all services.
    pub fn real_servers(&self) -> usize {
        self.total
    }

    /// How many real servers with the address are told of their clients by TOA.
    pub(super) fn told(&self, address: IpAddr) -> usize {
        self.told.get(&address).copied().unwrap_or(0)
    }

    /// How many of them get packets of TCP as they are.
    pub(super) fn direct(&self, address: IpAddr) -> usize {
        self.direct.get(&address).copied().unwrap_or(0)
    }

    /// Whether a service has the address.
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains_key(&address)
    }

    /// Whether a real server has the address.
    pub fn is_real_server(&self, address: IpAddr) -> bool {
        self.real_servers.contains_key(&address)
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
