//! Who has how many connections, packets and bytes: what `ipvsadm -Ln --stats` and `-Lnc` show.

use seawall_fastpath::layout::{Ends, Slot};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Endpoint, TcpState};

use crate::desired::{Forwarding, RealServerSpec, ServiceSpec};
use crate::engine::{Engine, Request};
use crate::scheduler::{Arrival, Candidate, Scheduler};

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
    fn add(&mut self, other: &Self) {
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
    /// Sessions in SYN_SENT, SYN_RECV and ESTABLISHED (Linux, `ip_vs_proto_tcp.c`,
    /// `tcp_state_active_table`).
    pub active: u32,
    /// Other sessions.
    pub inactive: u32,
    /// Packets and bytes.
    pub totals: Totals,
}

/// A service as it is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceReport {
    /// What was asked for.
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
    totals: Totals,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    scheduler: Box<dyn Scheduler>,
    pub(crate) servers: Vec<Server>,
    /// The servers as the scheduler walks them: in reverse. Their sessions are counted here.
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

/// Whether a session in `state` counts as active (Linux, `ip_vs_proto_tcp.c`,
/// `tcp_state_active_table`).
pub(crate) const fn is_active(state: TcpState) -> bool {
    match state {
        TcpState::SynSent | TcpState::SynRecv | TcpState::Established => true,
        TcpState::None
        | TcpState::FinWait
        | TcpState::TimeWait
        | TcpState::Close
        | TcpState::CloseWait
        | TcpState::LastAck => false,
    }
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
            let report = SessionReport {
                ends: slot.ends(),
                state,
                forwarding: self.server(session.service, session.server)?.forwarding,
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
        let servers = self.services.iter().flat_map(|service| &service.candidates);
        servers.map(|server| (server.active + server.inactive) as usize).sum()
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
        for report in &mut reports {
            for server in &report.servers {
                report.totals.add(&server.totals);
            }
        }
        reports
    }

    /// Chooses a real server of `service` for a client, never `excluded`.
    pub(crate) fn schedule(
        &mut self,
        now: u64,
        service: u32,
        client: Endpoint,
        excluded: Option<u32>,
    ) -> Option<u32> {
        let service = self.services.get_mut(service as usize)?;
        let arrival = Arrival { client, vip: service.spec.address, now };
        if let Some(candidate) = excluded.and_then(|server| service.candidate(server)) {
            candidate.excluded = true;
        }
        let place = service.scheduler.schedule(&service.candidates, &arrival);
        if let Some(candidate) = excluded.and_then(|server| service.candidate(server)) {
            candidate.excluded = false;
        }
        Some((service.servers.len() - 1).checked_sub(place?)? as u32)
    }

    /// Sets a real server's share of new connections. Its sessions go on, with 0 too.
    pub fn set_weight(&mut self, service: u32, server: u32, weight: u32) {
        let Some(found) = self.services.get_mut(service as usize) else { return };
        let Some(changed) = found.servers.get_mut(server as usize) else { return };
        changed.spec.weight = weight;
        if let Some(candidate) = found.candidate(server) {
            candidate.set_weight(weight);
        }
        found.scheduler.weights_changed(&found.candidates);
        self.request(Request::ServiceChanged(service));
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

    /// Counts a session as one in `state`.
    pub(crate) fn count_in(&mut self, index: u32, state: TcpState) {
        self.count_as(index, if is_active(state) { Counted::Active } else { Counted::Inactive });
    }

    pub(crate) fn count_as(&mut self, index: u32, to: Counted) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let from = std::mem::replace(&mut session.counted, to);
        let server = session.server;
        let service = self.services.get_mut(session.service as usize);
        let Some(server) = service.and_then(|service| service.candidate(server)) else { return };
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
    pub(crate) fn new(spec: ServiceSpec) -> Self {
        let servers: Vec<_> = spec
            .real_servers
            .iter()
            .map(|spec| Server { spec: *spec, totals: Totals::default() })
            .collect();
        let walked = spec.real_servers.iter().rev();
        let candidates: Vec<_> =
            walked.map(|server| Candidate::new(server.address, server.weight)).collect();
        Self {
            scheduler: spec.scheduler.build(spec.scheduler_flags, &candidates),
            spec,
            servers,
            candidates,
            refused: 0,
            cookie_epochs: 0,
            told: false,
        }
    }

    /// A server as the scheduler sees it.
    fn candidate(&mut self, server: u32) -> Option<&mut Candidate> {
        let place = self.candidates.len().checked_sub(server as usize + 1)?;
        self.candidates.get_mut(place)
    }

    fn report(&self) -> ServiceReport {
        let walked = self.candidates.iter().rev();
        let servers = self.servers.iter().zip(walked).map(|(server, candidate)| ServerReport {
            spec: server.spec,
            active: candidate.active,
            inactive: candidate.inactive,
            totals: server.totals,
        });
        let (spec, servers) = (self.spec.clone(), servers.collect());
        ServiceReport { spec, servers, totals: Totals::default() }
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
