//! Who has how many connections, packets and bytes: what `ipvsadm -Ln --stats` and `-Lnc` show.

use seawall_fastpath::TcpState;
use seawall_fastpath::layout::{Ends, Slot};
use seawall_fastpath::native::Memory;

use crate::desired::{Forwarding, RealServerSpec, ServiceSpec};
use crate::engine::Engine;
use crate::scheduler::{Candidate, Scheduler};

/// Packets, bytes and connections of finished sessions (IPVS: `ip_vs_kstats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
        self.out_packets += other.out_packets;
        self.out_bytes += other.out_bytes;
    }
}

/// A real server as it is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerReport {
    /// What was asked for.
    pub spec: RealServerSpec,
    /// Established sessions.
    pub active: u32,
    /// Other sessions.
    pub inactive: u32,
    /// Packets and bytes.
    pub totals: Totals,
}

/// A service as it is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceReport {
    /// What was asked for, but for the real servers.
    pub spec: ServiceSpec,
    /// Its real servers.
    pub servers: Vec<ServerReport>,
    /// Packets and bytes over all of them.
    pub totals: Totals,
}

/// A session as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionReport {
    /// Its four ends.
    pub ends: Ends,
    /// Its state.
    pub state: TcpState,
    /// How packets reach its real server.
    pub forwarding: Forwarding,
    /// Milliseconds since its last packet.
    pub idle: u64,
    /// Milliseconds until it expires if nothing more comes.
    pub expires: u64,
    /// Its packets and bytes.
    pub totals: Totals,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) spec: RealServerSpec,
    active: u32,
    inactive: u32,
    pub(crate) totals: Totals,
    /// Only its sessions are left of it.
    pub(crate) removed: bool,
}

impl Server {
    pub(crate) fn new(spec: RealServerSpec) -> Self {
        Self { spec, active: 0, inactive: 0, totals: Totals::default(), removed: false }
    }

    pub(crate) const fn sessions(&self) -> u32 {
        self.active + self.inactive
    }
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    pub(crate) scheduler: Box<dyn Scheduler>,
    /// By number, those included that have been removed.
    pub(crate) servers: Vec<Server>,
    /// Numbers of those that are there, in the order in which they were added.
    pub(crate) order: Vec<u32>,
    /// Of real servers whose number has been given again.
    pub(crate) gone: Totals,
    /// Only its sessions are left of it.
    pub(crate) removed: bool,
    candidates: Vec<Candidate>,
    /// Options that a real server has refused: `ServiceEntry::NO_*`.
    pub(crate) refused: u32,
    /// Epochs for which cookies are taken although the proxy is off.
    pub(crate) cookie_epochs: u32,
    /// A [`crate::Request::ServiceChanged`] is on its way.
    pub(crate) told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Counted {
    #[default]
    Not,
    Inactive,
    Active,
}

impl<M: Memory> Engine<M> {
    /// Live sessions, by slot, from slot `from` on, at most `limit`.
    pub fn sessions(&self, now: u64, from: u32, limit: usize) -> Vec<(u32, SessionReport)> {
        let live = (from..self.sessions.len() as u32).filter_map(|index| {
            let slot = self.table.slot(index)?;
            let state = slot.state().state;
            let session = self.sessions.get(index as usize)?;
            if state == TcpState::None || session.counted == Counted::Not {
                return None;
            }
            let expires = self.deadline(slot, state);
            let ends = slot.ends();
            let report = SessionReport {
                ends,
                state,
                forwarding: if ends.local == ends.client {
                    Forwarding::Nat
                } else {
                    Forwarding::FullNat
                },
                idle: (now + self.config.timeouts.get(state)).saturating_sub(expires),
                expires: expires.saturating_sub(now),
                totals: totals_of(slot),
            };
            Some((index, report))
        });
        live.take(limit).collect()
    }

    /// Number of live sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        let servers = self.services.iter().flat_map(|service| &service.servers);
        servers.map(|server| server.sessions() as usize).sum()
    }

    /// Every service as it is doing; looks at every live session.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceReport> {
        let mut reports: Vec<_> = self.services.iter().map(Service::report).collect();
        for (index, session) in self.sessions.iter().enumerate() {
            if session.counted == Counted::Not {
                continue;
            }
            let Some(slot) = self.table.slot(index as u32) else { continue };
            let server = reports
                .get_mut(session.service as usize)
                .and_then(|report| report.servers.get_mut(session.server as usize));
            if let Some(server) = server {
                server.totals.add(&totals_of(slot));
            }
        }
        for (report, service) in reports.iter_mut().zip(&self.services) {
            for server in &report.servers {
                report.totals.add(&server.totals);
            }
            let all = std::mem::take(&mut report.servers);
            let there = all.into_iter().zip(&service.servers).filter(|(_, own)| !own.removed);
            report.servers = there.map(|(server, _)| server).collect();
        }
        let there = reports.into_iter().zip(&self.services).filter(|(_, own)| !own.removed);
        there.map(|(report, _)| report).collect()
    }

    /// Chooses a real server of `service`, never `excluded`.
    pub(crate) fn schedule(&mut self, service: u32, excluded: Option<u32>) -> Option<u32> {
        let service = self.services.get_mut(service as usize)?;
        service.candidates.clear();
        let servers = &service.servers;
        service.candidates.extend(service.order.iter().filter_map(|number| {
            let weight = servers.get(*number as usize)?.spec.weight;
            Some(Candidate { weight, excluded: excluded == Some(*number) })
        }));
        let at = service.scheduler.schedule(&service.candidates)?;
        service.order.get(at).copied()
    }

    /// The real server's spec.
    pub(crate) fn server(&self, service: u32, server: u32) -> Option<RealServerSpec> {
        self.services
            .get(service as usize)
            .and_then(|found| found.servers.get(server as usize))
            .map(|server| server.spec)
    }

    pub(crate) fn deadline(&self, slot: &Slot, state: TcpState) -> u64 {
        let last = slot.inbound.last_seen.load().max(slot.outbound.last_seen.load());
        last + self.config.timeouts.get(state)
    }

    pub(crate) fn count_as(&mut self, index: u32, to: Counted) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let from = std::mem::replace(&mut session.counted, to);
        let server = self
            .services
            .get_mut(session.service as usize)
            .and_then(|service| service.servers.get_mut(session.server as usize));
        let Some(server) = server else { return };
        match from {
            Counted::Not => {}
            Counted::Inactive => server.inactive = server.inactive.saturating_sub(1),
            Counted::Active => server.active = server.active.saturating_sub(1),
        }
        match to {
            Counted::Not => {}
            Counted::Inactive => server.inactive += 1,
            Counted::Active => server.active += 1,
        }
    }

    /// Moves a session to another real server of its service.
    pub(crate) fn move_to(&mut self, index: u32, server: u32) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let counted = session.counted;
        self.count_as(index, Counted::Not);
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.server = server;
        }
        self.count_as(index, counted);
        self.tally(index, &Totals { connections: 1, ..Totals::default() });
    }

    pub(crate) fn tally(&mut self, index: u32, totals: &Totals) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let server = self
            .services
            .get_mut(session.service as usize)
            .and_then(|service| service.servers.get_mut(session.server as usize));
        if let Some(server) = server {
            server.totals.add(totals);
        }
    }
}

impl Service {
    pub(crate) fn new(mut spec: ServiceSpec) -> Self {
        let servers = std::mem::take(&mut spec.real_servers);
        let servers: Vec<_> = servers.into_iter().map(Server::new).collect();
        Self {
            scheduler: spec.scheduler.build(),
            spec,
            order: (0..servers.len() as u32).collect(),
            candidates: Vec::with_capacity(servers.len()),
            servers,
            gone: Totals::default(),
            removed: false,
            refused: 0,
            cookie_epochs: 0,
            told: false,
        }
    }

    fn report(&self) -> ServiceReport {
        let servers = self.servers.iter().map(|server| ServerReport {
            spec: server.spec,
            active: server.active,
            inactive: server.inactive,
            totals: server.totals,
        });
        let (spec, servers) = (self.spec.clone(), servers.collect());
        ServiceReport { spec, servers, totals: self.gone }
    }

    /// Live sessions of all its real servers.
    pub(crate) fn sessions(&self) -> u32 {
        self.servers.iter().map(Server::sessions).sum()
    }
}

pub(crate) fn totals_of(slot: &Slot) -> Totals {
    Totals {
        connections: 0,
        in_packets: slot.inbound.packets.load(),
        in_bytes: slot.inbound.bytes.load(),
        out_packets: slot.outbound.packets.load(),
        out_bytes: slot.outbound.bytes.load(),
    }
}
