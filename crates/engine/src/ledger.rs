//! What services and real servers are called and have carried, where the next engine finds it
//! ([`seawall_fastpath::layout::LedgerRecord`]).
//!
//! The engine's own memory is what it goes by; this follows it, record by record.

use seawall_fastpath::layout::{Account, LedgerRecord, Load};
use seawall_fastpath::native::Memory;

use crate::accounts::{Health, Server, Totals};
use crate::desired::ServiceSpec;
use crate::engine::Engine;

/// Which records are free: those that were given back, and those from `next` on.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) free: Vec<u32>,
    pub(crate) next: u32,
}

impl Ledger {
    fn take(&mut self, records: &[LedgerRecord]) -> Option<u32> {
        self.free.pop().or_else(|| {
            let index = self.next;
            records.get(index as usize)?;
            self.next += 1;
            Some(index)
        })
    }

    /// Frees a record.
    pub(crate) fn give_back(&mut self, records: &[LedgerRecord], record: u32) {
        if let Some(found) = records.get(record as usize) {
            found.set_account(None);
            self.free.push(record);
        }
    }
}

impl Totals {
    const fn to_array(self) -> [u64; 5] {
        let Self { connections, in_packets, in_bytes, out_packets, out_bytes } = self;
        [connections, in_packets, in_bytes, out_packets, out_bytes]
    }

    pub(crate) const fn from_array(from: [u64; 5]) -> Self {
        let [connections, in_packets, in_bytes, out_packets, out_bytes] = from;
        Self { connections, in_packets, in_bytes, out_packets, out_bytes }
    }
}

impl<M: Memory> Engine<M> {
    /// Writes down a service and all its real servers.
    pub(crate) fn enlist(&mut self, service: u32) {
        self.enlist_service(service);
        let servers = self.services.get(service as usize).map_or(0, |found| found.servers.len());
        for server in 0..servers as u32 {
            self.enlist_server(service, server);
        }
    }

    /// Writes down a service: its number, address and switches, and the totals of the real servers
    /// that it no longer knows.
    pub(crate) fn enlist_service(&mut self, service: u32) {
        let records = self.table.memory().ledger();
        let Some(found) = self.services.get_mut(service as usize) else { return };
        found.record = found.record.or_else(|| self.ledger.take(records));
        let Some(record) = found.record.and_then(|at| records.get(at as usize)) else { return };
        let proxied = found.spec.synproxy || found.cookie_epochs > 0;
        record.set_totals(found.gone.to_array());
        let ServiceSpec { transport, address, .. } = found.spec;
        record.set_account(Some(Account::Service { service, transport, address, proxied }));
    }

    /// Writes down a real server: its numbers, address and totals.
    pub(crate) fn enlist_server(&mut self, service: u32, server: u32) {
        let records = self.table.memory().ledger();
        let found = self.services.get_mut(service as usize);
        let Some(found) = found.and_then(|found| found.servers.get_mut(server as usize)) else {
            return;
        };
        found.record = found.record.or_else(|| self.ledger.take(records));
        let Some(record) = found.record.and_then(|at| records.get(at as usize)) else { return };
        record.set_totals(found.settled.to_array());
        let address = found.spec.address;
        record.set_account(Some(Account::Server { service, server, address }));
        record.set_load(found.load());
    }

    /// Writes down which real servers of a service are overloaded or down.
    pub(crate) fn save_load(&self, service: u32) {
        let records = self.table.memory().ledger();
        let Some(found) = self.services.get(service as usize) else { return };
        for server in &found.servers {
            if let Some(record) = server.record.and_then(|at| records.get(at as usize)) {
                record.set_load(server.load());
            }
        }
    }

    /// Writes down what a real server has had that no slot says.
    pub(crate) fn save_totals(&self, service: u32, server: u32) {
        let Some(found) = self.numbered(service, server) else { return };
        let record = found.record.and_then(|at| self.table.memory().ledger().get(at as usize));
        if let Some(record) = record {
            record.set_totals(found.settled.to_array());
        }
    }
}

impl Server {
    const fn load(&self) -> Load {
        Load {
            upper_threshold: self.spec.upper_threshold,
            overloaded: self.overloaded,
            down: matches!(self.health, Health::Down),
        }
    }
}
