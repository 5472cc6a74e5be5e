//! Services and real servers, as the ledger knows them.

use seawall_fastpath::layout::{Account, Load};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Endpoint, Transport};

use crate::accounts::{Health, Server, Service, Totals};
use crate::desired::{Forwarding, Introduction, RealServerSpec, ServiceSpec};
use crate::engine::Engine;
use crate::scheduler::{Flags, Kind};

impl<M: Memory> Engine<M> {
    /// Makes the services and real servers of the ledger, all of them removed. Numbers are dense, so
    /// that what comes after a gap is no account.
    pub(super) fn adopt_ledger(&mut self) {
        let mut services = Vec::new();
        let mut servers = Vec::new();
        for (index, record) in (0..).zip(self.table.memory().ledger()) {
            match record.account() {
                Some(Account::Service { service, transport, address, proxied }) => {
                    let spec = returning_spec(transport, address, proxied);
                    services.push((service, index, spec));
                }
                Some(Account::Server { service, server, address }) => {
                    servers.push((service, server, index, address));
                }
                None => continue,
            }
            self.ledger.next = index + 1;
        }
        services.sort_unstable_by_key(|(service, index, ..)| (*service, *index));
        for (number, record, spec) in services {
            if number as usize == self.services.len() {
                let totals = self.totals_in(record);
                self.services.push(returning_service(spec, record, totals));
            }
        }
        servers.sort_unstable_by_key(|(service, server, index, _)| (*service, *server, *index));
        for (service, number, record, address) in servers {
            let (totals, load) = (self.totals_in(record), self.load_in(record));
            let Some(found) = self.services.get_mut(service as usize) else { continue };
            if number as usize == found.servers.len() {
                found.servers.push(returning_server(address, record, totals, load));
            }
        }
        self.free_records();
    }

    /// Gives back the records that nobody has.
    fn free_records(&mut self) {
        let mut used = vec![false; self.ledger.next as usize];
        for service in &self.services {
            let servers = service.servers.iter().map(|server| server.record);
            for record in servers.chain([service.record]).flatten() {
                if let Some(used) = used.get_mut(record as usize) {
                    *used = true;
                }
            }
        }
        let records = self.table.memory().ledger();
        for (record, _) in (0..).zip(used).filter(|(_, used)| !used) {
            self.ledger.give_back(records, record);
        }
    }

    fn totals_in(&self, record: u32) -> Totals {
        let record = self.table.memory().ledger().get(record as usize);
        record.map(|record| Totals::from_array(record.totals())).unwrap_or_default()
    }

    fn load_in(&self, record: u32) -> Load {
        let record = self.table.memory().ledger().get(record as usize);
        record.map(|record| record.load()).unwrap_or_default()
    }

    /// Real servers are overloaded or not as they were: that goes by what they had before, not only by
    /// what they have (`ip_vs_unbind_dest`).
    pub(super) fn adopt_loads(&mut self) {
        let records = self.table.memory().ledger();
        for server in self.services.iter_mut().flat_map(|service| &mut service.servers) {
            let record = server.record.and_then(|at| records.get(at as usize));
            server.overloaded = record.is_some_and(|record| record.load().overloaded);
        }
    }

    /// What was cleared may have been what overloaded them, and nobody else would notice.
    pub(super) fn check_loads(&mut self) {
        for service in 0..self.services.len() as u32 {
            let Some(found) = self.services.get_mut(service as usize) else { continue };
            found.servers.iter_mut().for_each(Server::unbound);
            found.load_changed = true;
            self.load_changed(service);
        }
    }
}

/// A service as the ledger knows it: whatever is configured will take its place.
fn returning_spec(transport: Transport, address: Endpoint, proxied: bool) -> ServiceSpec {
    ServiceSpec {
        transport,
        address,
        persistence: None,
        one_packet: false,
        timeout: None,
        scheduler: Kind::RoundRobin,
        scheduler_flags: Flags::default(),
        synproxy: proxied,
        defer: false,
        introduction: Introduction::None,
        pool: None,
        real_servers: Vec::new(),
    }
}

fn returning_service(spec: ServiceSpec, record: u32, gone: Totals) -> Service {
    let mut service = Service::new(spec);
    (service.gone, service.removed, service.record) = (gone, true, Some(record));
    service
}

fn returning_server(address: Endpoint, record: u32, totals: Totals, load: Load) -> Server {
    let mut server = Server::new(RealServerSpec {
        address,
        forwarding: Forwarding::Nat,
        weight: 0,
        upper_threshold: load.upper_threshold,
        lower_threshold: 0,
        next_hop: 0,
    });
    (server.totals, server.settled) = (totals, totals);
    server.health = if load.down { Health::Down } else { Health::Up };
    (server.removed, server.left, server.record) = (true, true, Some(record));
    server
}
