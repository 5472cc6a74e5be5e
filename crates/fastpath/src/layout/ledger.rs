//! Which service and real server has which number, and what their finished sessions have carried:
//! what outlives the daemon that gave the numbers.
//!
//! Only the engine reads and writes it, and reads it only when it takes over from another.

use crate::cell::{Cell32, Cell64};
use crate::tuple::{Addr, Endpoint, Transport};

/// Records that the ledger holds: every service and real server that a configuration may have, and
/// half as many again that have been removed and still have sessions. One that finds no room
/// works, but its sessions end with the daemon.
pub const LEDGER_RECORDS: u32 = 131_072;
/// Numbers in the totals of a record.
pub const TOTALS: usize = 5;

const SERVICE: u32 = 1;
const SERVER: u32 = 2;
/// Set beside [`SERVICE`] for a service of UDP.
const UDP: u32 = 1 << 8;

/// Flags of a service: see [`Account::Service`].
const PROXIED: u32 = 1;
/// Flags of a real server: see [`Load`].
const OVERLOADED: u32 = 1;
const DOWN: u32 = 1 << 1;

/// A service or real server. 80 bytes.
#[derive(Debug, Default)]
#[repr(C)]
pub struct LedgerRecord {
    kind: Cell32,
    flags: Cell32,
    service: Cell32,
    server: Cell32,
    upper_threshold: Cell32,
    spare: Cell32,
    address: [Cell64; 2],
    totals: [Cell64; TOTALS],
}

/// What a [`LedgerRecord`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Account {
    /// A service.
    Service {
        /// Its number.
        service: u32,
        /// What carries its sessions.
        transport: Transport,
        /// Where it is.
        address: Endpoint,
        /// Whether SYNs are answered with cookies, or were a moment ago.
        proxied: bool,
    },
    /// A real server.
    Server {
        /// Its service's number.
        service: u32,
        /// Its number there.
        server: u32,
        /// Where it is.
        address: Endpoint,
    },
}

/// What of a real server cannot be counted anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// How many sessions it may have.
    pub upper_threshold: u32,
    /// It has had as many, and not yet few enough again.
    pub overloaded: bool,
    /// Somebody has marked it down.
    pub down: bool,
}

impl LedgerRecord {
    /// What it says, if it is in use.
    pub fn account(&self) -> Option<Account> {
        let kind = self.kind.load();
        let address = Addr([self.address[0].load(), self.address[1].load()]);
        let address = Endpoint { address, port: (kind >> 16) as u16 };
        let (service, server) = (self.service.load(), self.server.load());
        match kind & 0xff {
            SERVICE => {
                let transport = transport_of(kind);
                let proxied = self.flags.load() & PROXIED != 0;
                Some(Account::Service { service, transport, address, proxied })
            }
            SERVER => Some(Account::Server { service, server, address }),
            _ => None,
        }
    }

    /// Sets what it says, or that it is free. Whoever reads after a crash sees all of it or nothing; if
    /// it is the same service or real server, all of it.
    pub fn set_account(&self, to: Option<Account>) {
        let (kind, service, server, address, flags) = match to {
            None => return self.kind.publish(0),
            Some(Account::Service { service, transport, address, proxied }) => {
                let kind = match transport {
                    Transport::Tcp => SERVICE,
                    Transport::Udp => SERVICE | UDP,
                };
                (kind, service, 0, address, if proxied { PROXIED } else { 0 })
            }
            Some(Account::Server { service, server, address }) => {
                (SERVER, service, server, address, 0)
            }
        };
        match (self.account(), to) {
            (Some(old @ Account::Server { .. }), Some(new)) if old == new => return,
            (Some(Account::Service { service: old, address: at, transport: by, .. }), Some(_))
                if (old, at) == (service, address) && by == transport_of(kind) =>
            {
                return self.flags.store(flags);
            }
            _ => self.kind.publish(0),
        }
        self.service.store(service);
        self.server.store(server);
        self.flags.store(flags);
        self.upper_threshold.store(0);
        for (cell, word) in self.address.iter().zip(address.address.0) {
            cell.store(word);
        }
        self.kind.publish(u32::from(address.port) << 16 | kind);
    }

    /// What there is to know of a real server.
    pub fn load(&self) -> Load {
        let flags = self.flags.load();
        Load {
            upper_threshold: self.upper_threshold.load(),
            overloaded: flags & OVERLOADED != 0,
            down: flags & DOWN != 0,
        }
    }

    /// Sets what there is to know of a real server, after its account.
    pub fn set_load(&self, to: Load) {
        self.upper_threshold.store(to.upper_threshold);
        let overloaded = if to.overloaded { OVERLOADED } else { 0 };
        self.flags.store(overloaded | if to.down { DOWN } else { 0 });
    }

    /// Its totals; what they are is the engine's business.
    pub fn totals(&self) -> [u64; TOTALS] {
        self.totals.each_ref().map(Cell64::load)
    }

    /// Sets its totals.
    pub fn set_totals(&self, to: [u64; TOTALS]) {
        for (cell, value) in self.totals.iter().zip(to) {
            cell.store(value);
        }
    }
}

const fn transport_of(kind: u32) -> Transport {
    if kind & UDP == 0 { Transport::Tcp } else { Transport::Udp }
}

#[cfg(test)]
mod tests {
    use super::{Account, LedgerRecord, Load};
    use crate::tuple::{Addr, Endpoint, Transport};

    #[test]
    fn records_survive_both_ways() {
        let record = LedgerRecord::default();
        assert_eq!(record.account(), None);
        let address = Endpoint { address: Addr([1 << 63, 2]), port: 65_535 };
        for account in [
            Account::Service { service: 7, transport: Transport::Tcp, address, proxied: true },
            Account::Service { service: 8, transport: Transport::Udp, address, proxied: false },
            Account::Server { service: 7, server: u32::MAX, address },
        ] {
            record.set_account(Some(account));
            assert_eq!(record.account(), Some(account));
        }
        let load = Load { upper_threshold: u32::MAX, overloaded: true, down: true };
        record.set_load(load);
        // The same one: nothing of it is lost in between.
        record.set_account(record.account());
        assert_eq!(record.load(), load);
        record.set_load(Load { down: false, ..load });
        assert_eq!(record.load(), Load { down: false, ..load });
        record.set_account(Some(Account::Server { service: 7, server: 0, address }));
        assert_eq!(record.load(), Load::default());
        let service =
            |proxied| Account::Service { service: 1, transport: Transport::Tcp, address, proxied };
        for proxied in [true, false] {
            record.set_account(Some(service(proxied)));
            assert_eq!(record.account(), Some(service(proxied)));
        }
        record.set_totals([1, 2, 3, 4, u64::MAX]);
        assert_eq!(record.totals(), [1, 2, 3, 4, u64::MAX]);
        record.set_account(None);
        assert_eq!(record.account(), None);
    }
}
