//! Who has how many connections, packets and bytes: what `ipvsadm -Ln --stats` and `-Lnc` show.

use seawall_fastpath::layout::{Ends, Slot, Tunnel, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Endpoint, TcpState, Transport};

use crate::desired::{Forwarding, RealServerSpec, ServiceSpec};
use crate::engine::Engine;
use crate::estimator::{Estimator, Rates};
use crate::scheduler::{Arrival, Candidate, Scheduler};
use crate::udp::ANSWER_MS;

/// Packets, bytes and connections (IPVS: `struct ip_vs_kstats`).
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

    /// What has come since `earlier`.
    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            connections: self.connections.wrapping_sub(earlier.connections),
            in_packets: self.in_packets.wrapping_sub(earlier.in_packets),
            in_bytes: self.in_bytes.wrapping_sub(earlier.in_bytes),
            out_packets: self.out_packets.wrapping_sub(earlier.out_packets),
            out_bytes: self.out_bytes.wrapping_sub(earlier.out_bytes),
        }
    }
}

/// A real server as it is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerReport {
    /// What was asked for.
    pub spec: RealServerSpec,
    /// Sessions in SYN_SENT, SYN_RECV and ESTABLISHED (Linux, `ip_vs_proto_tcp.c`,
    /// `tcp_state_active_table`); those of UDP never: all begin as inactive (`ip_vs_ctl.c`,
    /// `__ip_vs_update_dest`; `ip_vs_conn.c`, `ip_vs_bind_dest`), and only TCP's states change that
    /// (`ip_vs_proto_tcp.c`, `set_tcp_state`).
    pub active: u32,
    /// Other sessions.
    pub inactive: u32,
    /// Persistence templates (IPVS: `persistconns`).
    pub persistent: u32,
    /// Whether it has as many sessions as it may.
    pub overloaded: bool,
    /// Whether it was marked down.
    pub health: Health,
    /// Packets and bytes.
    pub totals: Totals,
    /// What of them comes in a second.
    pub rates: Rates,
}

/// Whether a real server works, as somebody who watches it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// It does.
    #[default]
    Up,
    /// It does not: it gets no new sessions, whatever its weight.
    Down,
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
    /// What of them comes in a second.
    pub rates: Rates,
}

/// A session as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionReport {
    /// Its four ends.
    pub ends: Ends,
    /// What carries it.
    pub transport: Transport,
    /// Its state; over UDP `SYN_RECV` until it is confirmed and `ESTABLISHED` from then on.
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
    uncounted: u32,
    /// Its templates.
    pub(crate) persistent: u32,
    /// See [`Candidate::overloaded`].
    pub(crate) overloaded: bool,
    pub(crate) health: Health,
    pub(crate) totals: Totals,
    /// What of them cannot be read from the slots of sessions that live.
    pub(crate) settled: Totals,
    pub(crate) estimator: Estimator,
    /// Only its sessions are left of it.
    pub(crate) removed: bool,
    /// An engine before this one has left it, and it has not been added again.
    pub(crate) left: bool,
    /// Where it is among the candidates, unless it has been removed.
    place: usize,
    /// See [`Candidate::last_weight`].
    last_weight: u32,
    /// Its record in the ledger, if there was room.
    pub(crate) record: Option<u32>,
}

impl Server {
    pub(crate) fn new(spec: RealServerSpec) -> Self {
        Self {
            spec,
            active: 0,
            inactive: 0,
            uncounted: 0,
            persistent: 0,
            overloaded: false,
            health: Health::Up,
            totals: Totals::default(),
            settled: Totals::default(),
            estimator: Estimator::default(),
            removed: false,
            left: false,
            place: 0,
            last_weight: spec.weight,
            record: None,
        }
    }

    pub(crate) const fn sessions(&self) -> u32 {
        self.active + self.inactive + self.uncounted
    }

    /// Its sessions as IPVS counts them (`ip_vs_dest_totalconns`).
    pub(crate) const fn connections(&self) -> u32 {
        self.active + self.inactive
    }

    /// Whether a session or template knows it by its number.
    pub(crate) const fn is_referred_to(&self) -> bool {
        self.sessions() + self.persistent > 0
    }

    /// The weight that it is scheduled by.
    pub(crate) const fn weight(&self) -> u32 {
        match self.health {
            Health::Up => self.spec.weight,
            Health::Down => 0,
        }
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
    pub(crate) estimator: Estimator,
    /// Of [`Service::takes`], what the packet path was last told.
    pub(crate) advertised: u32,
    /// What [`Service::takes`] says may have changed since.
    pub(crate) load_changed: bool,
    /// Only its sessions are left of it.
    pub(crate) removed: bool,
    /// Which servers there are has changed since the candidates were listed.
    pub(crate) stale: bool,
    /// Weights have changed since the scheduler last chose.
    reweighed: bool,
    /// The servers as the scheduler walks them: in reverse.
    candidates: Vec<Candidate>,
    /// Options that a real server has refused: `ServiceEntry::NO_*`.
    pub(crate) refused: u32,
    /// Epochs for which cookies are taken although the proxy is off.
    pub(crate) cookie_epochs: u32,
    /// A [`crate::Request::ServiceChanged`] is on its way.
    pub(crate) told: bool,
    /// Its record in the ledger, if there was room.
    pub(crate) record: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Counted {
    #[default]
    Not,
    /// Live, but no connection: for the answers to datagrams that are scheduled one by one.
    Uncounted,
    Inactive,
    Active,
}

impl Counted {
    /// Whether it is one to schedulers and thresholds.
    const fn is_connection(self) -> bool {
        match self {
            Self::Not | Self::Uncounted => false,
            Self::Inactive | Self::Active => true,
        }
    }
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
            let expires = self.deadline(index, slot, state);
            let ends = slot.ends();
            let report = SessionReport {
                ends,
                transport: session.transport,
                state,
                forwarding: forwarding_of(slot, &ends),
                idle: (now + self.timeout(index, state)).saturating_sub(expires),
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
        for index in self.live.iter() {
            let Some(session) = self.sessions.get(index as usize) else { continue };
            let Some(slot) = self.table.slot(index) else { continue };
            let unfolded = totals_of(slot).since(&session.folded);
            let server = reports
                .get_mut(session.service as usize)
                .and_then(|report| report.servers.get_mut(session.server as usize));
            if let Some(server) = server {
                server.totals.add(&unfolded);
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
        service.choose(&arrival, excluded)
    }

    /// The real server's spec.
    pub(crate) fn server(&self, service: u32, server: u32) -> Option<RealServerSpec> {
        self.numbered(service, server).map(|server| server.spec)
    }

    /// The real server of these numbers, also one that has been removed.
    pub(crate) fn numbered(&self, service: u32, server: u32) -> Option<&Server> {
        self.services.get(service as usize)?.servers.get(server as usize)
    }

    pub(crate) fn deadline(&self, index: u32, slot: &Slot, state: TcpState) -> u64 {
        slot.last_seen().saturating_add(self.timeout(index, state))
    }

    /// How long a session may be idle in `state`, in milliseconds.
    pub(crate) fn timeout(&self, index: u32, state: TcpState) -> u64 {
        let timeouts = &self.config.timeouts;
        let Some(session) = self.sessions.get(index as usize) else { return timeouts.get(state) };
        let service = self.services.get(session.service as usize);
        let own = service.and_then(|service| service.spec.timeout);
        match session.transport {
            Transport::Udp if session.one_packet => own.unwrap_or(timeouts.udp).min(ANSWER_MS),
            Transport::Udp => own.unwrap_or(timeouts.udp),
            Transport::Tcp if state == TcpState::Established => {
                own.unwrap_or_else(|| timeouts.get(state))
            }
            Transport::Tcp => timeouts.get(state),
        }
    }

    /// Counts a session as one in `state`.
    pub(crate) fn count_in(&mut self, index: u32, state: TcpState) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let counted = match session.transport {
            Transport::Udp if session.one_packet => Counted::Uncounted,
            Transport::Tcp if is_active(state) => Counted::Active,
            Transport::Udp | Transport::Tcp => Counted::Inactive,
        };
        self.count_as(index, counted);
    }

    pub(crate) fn count_as(&mut self, index: u32, to: Counted) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let from = std::mem::replace(&mut session.counted, to);
        if from == to {
            return;
        }
        let (service, server) = (session.service, session.server);
        if from == Counted::Not {
            self.live.insert(index);
        } else if to == Counted::Not {
            self.live.remove(index);
        }
        if let Some(found) = self.services.get_mut(service as usize) {
            found.recount(server, from, to);
            self.load_changed(service);
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
        self.tally_connection(index);
    }

    pub(crate) fn tally_connection(&mut self, index: u32) {
        let one = Totals { connections: 1, ..Totals::default() };
        self.tally(index, &one);
        self.tally_settled(index, &one);
    }

    /// Adds to what a session's real server shows.
    pub(crate) fn tally(&mut self, index: u32, totals: &Totals) {
        if let Some(server) = self.server_of(index) {
            server.totals.add(totals);
        }
    }

    /// Adds to what is written down for the next engine: no slot will say it again.
    pub(crate) fn tally_settled(&mut self, index: u32, totals: &Totals) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let (service, server) = (session.service, session.server);
        if let Some(found) = self.server_of(index) {
            found.settled.add(totals);
            self.save_totals(service, server);
        }
    }

    fn server_of(&mut self, index: u32) -> Option<&mut Server> {
        let session = self.sessions.get(index as usize)?;
        let service = self.services.get_mut(session.service as usize)?;
        service.servers.get_mut(session.server as usize)
    }
}

impl Service {
    pub(crate) fn new(mut spec: ServiceSpec) -> Self {
        let servers = std::mem::take(&mut spec.real_servers);
        let servers: Vec<_> = servers.into_iter().map(Server::new).collect();
        let mut service = Self {
            scheduler: spec.scheduler.build(spec.scheduler_flags, &[]),
            spec,
            order: (0..servers.len() as u32).collect(),
            candidates: Vec::with_capacity(servers.len()),
            servers,
            gone: Totals::default(),
            estimator: Estimator::default(),
            advertised: 0,
            load_changed: false,
            removed: false,
            stale: true,
            reweighed: false,
            refused: 0,
            cookie_epochs: 0,
            told: false,
            record: None,
        };
        service.advertised = service.takes(false);
        service
    }

    fn choose(&mut self, arrival: &Arrival, excluded: Option<u32>) -> Option<u32> {
        self.refresh();
        self.exclude(excluded, true);
        let place = self.scheduler.schedule(&self.candidates, arrival);
        self.exclude(excluded, false);
        let last = self.order.len().checked_sub(1)?;
        self.order.get(last.checked_sub(place?)?).copied()
    }

    /// Tells the scheduler what has changed. With other servers it starts anew, once for all that
    /// have come and gone together.
    fn refresh(&mut self) {
        if std::mem::take(&mut self.stale) {
            self.reweighed = false;
            self.candidates.clear();
            for number in self.order.iter().rev() {
                let Some(server) = self.servers.get_mut(*number as usize) else { continue };
                server.place = self.candidates.len();
                self.candidates.push(Candidate {
                    last_weight: server.last_weight,
                    active: server.active,
                    inactive: server.inactive,
                    overloaded: server.overloaded,
                    ..Candidate::new(server.spec.address, server.weight())
                });
            }
            let Self { spec, candidates, .. } = self;
            self.scheduler = spec.scheduler.build(spec.scheduler_flags, candidates);
        } else if std::mem::take(&mut self.reweighed) {
            self.scheduler.weights_changed(&self.candidates);
        }
    }

    /// Sets what is asked for of a real server, but for its address.
    pub(crate) fn set_server(&mut self, number: u32, spec: RealServerSpec) {
        self.change_server(number, |server| server.set_spec(spec));
    }

    /// Changes a real server that may then have another weight.
    pub(crate) fn change_server(&mut self, number: u32, change: impl FnOnce(&mut Server)) {
        let Some(server) = self.servers.get_mut(number as usize) else { return };
        let before = server.weight();
        change(server);
        let (weight, overloaded) = (server.weight(), server.overloaded);
        if weight != before && weight != 0 {
            server.last_weight = weight;
        }
        self.reweighed |= weight != before;
        if let Some(candidate) = self.candidate(number) {
            candidate.overloaded = overloaded;
            candidate.set_weight(weight);
        }
    }

    /// Whether a template that names this real server holds.
    pub(crate) fn keeps(&self, number: u32, expire_quiescent: bool) -> bool {
        self.servers.get(number as usize).is_some_and(|server| {
            !server.removed
                && server.health == Health::Up
                && !(expire_quiescent && server.spec.weight == 0)
        })
    }

    fn exclude(&mut self, server: Option<u32>, excluded: bool) {
        if let Some(candidate) = server.and_then(|server| self.candidate(server)) {
            candidate.excluded = excluded;
        }
    }

    /// A server as the scheduler sees it, if it does.
    fn candidate(&mut self, number: u32) -> Option<&mut Candidate> {
        let server = self.servers.get(number as usize)?;
        if server.removed || self.stale {
            return None;
        }
        self.candidates.get_mut(server.place)
    }

    /// Counts a session of a real server in another way.
    fn recount(&mut self, number: u32, from: Counted, to: Counted) {
        let Some(server) = self.servers.get_mut(number as usize) else { return };
        match from {
            Counted::Not => {}
            Counted::Uncounted => server.uncounted = server.uncounted.saturating_sub(1),
            Counted::Inactive => server.inactive = server.inactive.saturating_sub(1),
            Counted::Active => server.active = server.active.saturating_sub(1),
        }
        match to {
            Counted::Not => {}
            Counted::Uncounted => server.uncounted += 1,
            Counted::Inactive => server.inactive += 1,
            Counted::Active => server.active += 1,
        }
        let overloaded = server.overloaded;
        match (from.is_connection(), to.is_connection()) {
            (false, true) => server.bound(),
            (true, false) => server.unbound(),
            (true, true) | (false, false) => {}
        }
        self.load_changed |= server.overloaded != overloaded;
        self.show_load(number);
    }

    /// Counts a template of a real server's in or out.
    pub(crate) fn count_template(&mut self, number: u32, change: i32) {
        let Some(server) = self.servers.get_mut(number as usize) else { return };
        let before = (server.persistent > 0, server.overloaded);
        server.persistent = server.persistent.saturating_add_signed(change);
        if change > 0 {
            server.bound();
        } else {
            server.unbound();
        }
        self.load_changed |= before != (server.persistent > 0, server.overloaded);
        self.show_load(number);
    }

    /// Tells the scheduler what a real server has to do.
    fn show_load(&mut self, number: u32) {
        let Some(server) = self.servers.get(number as usize) else { return };
        let (active, inactive, overloaded) = (server.active, server.inactive, server.overloaded);
        if let Some(candidate) = self.candidate(number) {
            (candidate.active, candidate.inactive) = (active, inactive);
            candidate.overloaded = overloaded;
        }
    }

    fn report(&self) -> ServiceReport {
        let servers = self.servers.iter().map(|server| ServerReport {
            spec: server.spec,
            active: server.active,
            inactive: server.inactive,
            persistent: server.persistent,
            overloaded: server.overloaded,
            health: server.health,
            totals: server.totals,
            rates: server.estimator.rates(),
        });
        let (spec, servers) = (self.spec.clone(), servers.collect());
        ServiceReport { spec, servers, totals: self.gone, rates: self.estimator.rates() }
    }

    /// Whether a session or template knows it by its number.
    pub(crate) fn is_referred_to(&self) -> bool {
        self.servers.iter().any(Server::is_referred_to)
    }
}

/// How a session's packets reach its real server.
fn forwarding_of(slot: &Slot, ends: &Ends) -> Forwarding {
    let flags = slot.state().flags;
    if flags & flag::TUNNEL != 0 {
        let tunnel = Tunnel::from_bits(slot.ts_in.load());
        Forwarding::Tunnel { tunnel, source: ends.local.address }
    } else if flags & flag::ONE_WAY != 0 {
        Forwarding::Dr
    } else if ends.local == ends.client {
        Forwarding::Nat
    } else {
        Forwarding::FullNat
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

#[cfg(test)]
mod tests {
    use seawall_fastpath::{Addr, Endpoint, Transport};

    use super::{Arrival, Service};
    use crate::desired::{Forwarding, Introduction, RealServerSpec, ServiceSpec};
    use crate::scheduler::{Flags, Kind};

    const fn at(address: u32) -> Endpoint {
        Endpoint { address: Addr::v4(address), port: 80 }
    }

    fn service(scheduler: Kind, servers: u32) -> Service {
        let server = |number| RealServerSpec {
            address: at(number),
            forwarding: Forwarding::Nat,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            next_hop: 0,
        };
        Service::new(ServiceSpec {
            transport: Transport::Tcp,
            address: at(0x0a00_0001),
            persistence: None,
            scheduler,
            scheduler_flags: Flags::default(),
            synproxy: false,
            defer: false,
            one_packet: false,
            timeout: None,
            introduction: Introduction::None,
            pool: None,
            real_servers: (0..servers).map(server).collect(),
        })
    }

    const ARRIVAL: Arrival = Arrival { client: at(7), vip: at(0x0a00_0001), now: 0 };

    #[test]
    fn without_servers_nobody_is_chosen() {
        for kind in Kind::ALL {
            assert_eq!(service(*kind, 0).choose(&ARRIVAL, None), None, "{kind:?}");
            assert_eq!(service(*kind, 0).choose(&ARRIVAL, Some(0)), None, "{kind:?}");
        }
    }

    #[test]
    fn the_one_added_last_comes_first_and_an_excluded_one_never() {
        for kind in Kind::ALL {
            let mut service = service(*kind, 3);
            let hashes =
                [Kind::DestinationHashing, Kind::SourceHashing, Kind::Maglev].contains(kind);
            for excluded in 0..3 {
                let chosen = service.choose(&ARRIVAL, Some(excluded));
                assert!(chosen.is_some() || hashes, "{kind:?}");
                assert_ne!(chosen, Some(excluded), "{kind:?}");
            }
            if !hashes {
                assert_eq!(self::service(*kind, 3).choose(&ARRIVAL, None), Some(2), "{kind:?}");
            }
        }
    }
}
