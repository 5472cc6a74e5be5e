//! What an operator changes while traffic flows (SPEC A15, C4, D1).
//!
//! Services and real servers have numbers, which sessions carry. A number is given again only
//! when no session has it. Whoever removes calls [`Engine::settle`] when all is removed and added:
//! one walk over the sessions, however much has changed.
//!
//! As in IPVS, the sessions of a real server that has been removed stay: their client's segments are
//! dropped until it is added again or they expire; with `expire_nodest_conn` they end at once. Those
//! of one that is marked down go on; with `expire_nodest_conn` they end too. What it has not answered
//! yet ends with either, so that the client may go to another.

use seawall_fastpath::layout::{Settings, Slot, Word, flag, switch};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{TcpState, Transport};

use crate::accounts::{Health, Server, Service};
use crate::desired::{Config, Forwarding, Introduction, RealServerSpec, ServiceSpec};
use crate::engine::{Engine, Request};
use crate::scheduler::{Flags, Kind};

/// Whether SYNs are answered with cookies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proxy {
    /// They are.
    On,
    /// They go to a real server.
    Off,
}

/// Epochs that may begin while a cookie lives.
const COOKIE_EPOCHS: u32 = 2;

impl<M: Memory> Engine<M> {
    /// Takes another configuration from now on. Cookies in flight promise the window scale, and
    /// sessions go by the clock, so those two stay as they were. Timers that run are not shortened.
    pub fn set_config(&mut self, config: Config) {
        let Config { window_scale, timestamp_offset, expire_quiescent_template, .. } = self.config;
        self.config = Config { window_scale, timestamp_offset, ..config };
        self.publish();
        if expire_quiescent_template != config.expire_quiescent_template {
            for service in 0..self.services.len() as u32 {
                self.request(Request::ServiceChanged(service));
            }
        }
    }

    /// Adds a service without real servers, whatever `spec` lists; gives its number. One that was
    /// removed comes back with its sessions: its real servers only have to be added again.
    pub fn add_service(&mut self, spec: ServiceSpec) -> u32 {
        let key = spec.key();
        let mut service = Service::new(ServiceSpec { real_servers: Vec::new(), ..spec });
        let proxied = service.spec.synproxy;
        let returns = |old: &Service| old.removed && old.spec.key() == key;
        let unused = |old: &Service| old.removed && !old.is_referred_to();
        let all = &self.services;
        let at = all.iter().position(returns).or_else(|| all.iter().position(unused));
        let number = match at.and_then(|at| Some((at, self.services.get_mut(at)?))) {
            Some((at, old)) => {
                service.record = old.record;
                if old.spec.key() == key {
                    service.servers = std::mem::take(&mut old.servers);
                    service.gone = old.gone;
                    service.estimator = std::mem::take(&mut old.estimator);
                    if !proxied && (old.spec.synproxy || old.cookie_epochs > 0) {
                        service.cookie_epochs = COOKIE_EPOCHS;
                    }
                } else {
                    let records = self.table.memory().ledger();
                    for record in old.servers.iter().filter_map(|server| server.record) {
                        self.ledger.give_back(records, record);
                    }
                }
                *old = service;
                at
            }
            None => {
                self.services.push(service);
                self.services.len() - 1
            }
        };
        self.publish();
        self.enlist_service(number as u32);
        self.request(Request::ServiceChanged(number as u32));
        self.believers = None;
        number as u32
    }

    /// Removes a service and its real servers. The packet path must no longer have it.
    pub fn remove_service(&mut self, service: u32) {
        let Some(found) = self.services.get_mut(service as usize) else { return };
        found.removed = true;
        found.order.clear();
        found.stale = true;
        for server in &mut found.servers {
            server.removed = true;
        }
        self.believers = None;
        self.publish();
    }

    /// Switches a service's proxy. Its sessions go on, and so do handshakes that the proxy began:
    /// their cookies are taken as long as they live (SPEC A15).
    pub fn set_synproxy(&mut self, service: u32, proxy: Proxy) {
        let Some(found) = self.services.get_mut(service as usize) else { return };
        let on = proxy == Proxy::On;
        if found.spec.synproxy && !on {
            found.cookie_epochs = COOKIE_EPOCHS;
        }
        found.spec.synproxy = on;
        self.enlist_service(service);
        self.request(Request::ServiceChanged(service));
    }

    /// Sets whether only an ACK with data completes a handshake with a service (SPEC A5).
    pub fn set_defer(&mut self, service: u32, defer: bool) {
        let Some(found) = self.services.get_mut(service as usize) else { return };
        found.spec.defer = defer;
        self.request(Request::ServiceChanged(service));
    }

    /// Sets whether datagrams to a UDP service are scheduled one by one. Sessions that there are go
    /// on, as in IPVS.
    pub fn set_one_packet(&mut self, service: u32, one_packet: bool) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.spec.one_packet = one_packet;
        }
    }

    /// Sets how long sessions of a service may be idle; see [`ServiceSpec::timeout`]. Timers that run
    /// are not shortened: a session goes by it when its timer is next set.
    pub fn set_timeout(&mut self, service: u32, timeout: Option<u64>) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.spec.timeout = timeout;
        }
    }

    /// Sets how real servers of a service learn who their client is, in new sessions.
    pub fn set_introduction(&mut self, service: u32, introduction: Introduction) {
        let Some(found) = self.services.get_mut(service as usize) else { return };
        found.spec.introduction = introduction;
        self.believers = None;
        self.request(Request::ServiceChanged(service));
    }

    /// Has another scheduler choose, from its start.
    pub fn set_scheduler(&mut self, service: u32, kind: Kind, flags: Flags) {
        if let Some(found) = self.services.get_mut(service as usize) {
            (found.spec.scheduler, found.spec.scheduler_flags) = (kind, flags);
            found.stale = true;
            self.request(Request::ServiceChanged(service));
        }
    }

    /// Takes the local addresses of new sessions from another pool.
    pub fn set_pool(&mut self, service: u32, pool: Option<usize>) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.spec.pool = pool;
        }
    }

    /// Adds a real server to a service, or one back that was removed; gives its number, `None` if
    /// there is no such service.
    pub fn add_server(&mut self, service: u32, spec: RealServerSpec) -> Option<u32> {
        let found = self.services.get_mut(service as usize).filter(|found| !found.removed)?;
        let returns = |old: &Server| old.removed && old.spec.address == spec.address;
        let unused = |old: &Server| old.removed && !old.is_referred_to();
        let servers = &found.servers;
        let place = servers.iter().position(returns).or_else(|| servers.iter().position(unused));
        let at = match place.and_then(|at| Some((at, found.servers.get_mut(at)?))) {
            Some((at, old)) => {
                if old.spec.address == spec.address {
                    old.set_spec(spec);
                    old.removed = false;
                    // Whoever marked one that an engine before this one had still means it.
                    if !std::mem::take(&mut old.left) {
                        old.health = Health::Up;
                    }
                } else {
                    let mut new = Server::new(spec);
                    new.record = old.record;
                    found.gone.add(&std::mem::replace(old, new).totals);
                }
                at
            }
            None => {
                found.servers.push(Server::new(spec));
                found.servers.len() - 1
            }
        };
        found.order.push(at as u32);
        found.stale = true;
        self.believers = None;
        // The service too: what was the totals of another is among its own now. In this order nothing
        // is lost in between.
        self.enlist_service(service);
        self.enlist_server(service, at as u32);
        self.request(Request::ServiceChanged(service));
        Some(at as u32)
    }

    /// Sets a real server's weight, thresholds, forwarding and next hop. Its sessions go on, with weight 0
    /// too; forwarding is that of new ones. The address stays as it is.
    pub fn set_server(&mut self, service: u32, server: u32, spec: RealServerSpec) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.set_server(server, spec);
            self.save_load(service);
            self.request(Request::ServiceChanged(service));
        }
    }

    /// Marks a real server up or down; [`Engine::settle_server`] must follow. Down, it gets no new sessions,
    /// not from templates either, and what waits for it asks another. It keeps its weight.
    pub fn set_health(&mut self, service: u32, server: u32, health: Health) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.change_server(server, |server| server.health = health);
            self.save_load(service);
            self.request(Request::ServiceChanged(service));
        }
    }

    /// Whether a real server was marked down; `None` if there is none of these numbers.
    #[must_use]
    pub fn health(&self, service: u32, server: u32) -> Option<Health> {
        self.numbered(service, server).map(|server| server.health)
    }

    /// Removes a real server: no new session comes to it.
    pub fn remove_server(&mut self, service: u32, server: u32) {
        let Some(found) = self.services.get_mut(service as usize) else { return };
        if let Some(server) = found.servers.get_mut(server as usize) {
            server.removed = true;
        }
        found.order.retain(|at| *at != server);
        found.stale = true;
        self.believers = None;
        // What it has refused, others may take.
        found.refused = 0;
        self.request(Request::ServiceChanged(service));
    }

    /// Tells the sessions which of their real servers are there, and how they are reached; looks at
    /// every live one. Those that end with their real server do so as [`Engine::handle_timeout`] is
    /// called next, no more at once than frames can be sent.
    pub fn settle(&mut self, now: u64) {
        if std::mem::take(&mut self.adopting) {
            self.finish_adoption(now);
        }
        let mut used = vec![false; self.table.memory().next_hops().len()];
        for place in 0..self.live.len() {
            let Some(index) = self.live.at(place) else { continue };
            self.settle_session(now, index);
            let Some(slot) = self.table.slot(index) else { continue };
            for hop in [slot.next_hop_in.load(), slot.next_hop_out.load()] {
                if let Some(used) = used.get_mut(hop as usize) {
                    *used = true;
                }
            }
        }
        let there = self.services.iter().flat_map(|service| &service.servers);
        for server in there.filter(|server| !server.removed) {
            if let Some(used) = used.get_mut(server.spec.next_hop as usize) {
                *used = true;
            }
        }
        self.next_hops.sweep(self.table.memory().next_hops(), &used);
    }

    /// [`Engine::settle`] when nothing has changed but the health of one real server: only its sessions
    /// hear of it.
    pub fn settle_server(&mut self, now: u64, service: u32, server: u32) {
        for place in 0..self.live.len() {
            let Some(index) = self.live.at(place) else { continue };
            let session = self.sessions.get(index as usize);
            if session.is_some_and(|its| (its.service, its.server) == (service, server)) {
                self.settle_session(now, index);
            }
        }
    }

    /// Tells a session whether its real server is there, and how it is reached.
    fn settle_session(&mut self, now: u64, index: u32) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let server = self.numbered(session.service, session.server);
        let down = server.is_some_and(|server| server.health == Health::Down);
        let removed = server.is_none_or(|server| server.removed);
        let lost = removed || down && self.config.expire_nodest_conn;
        let Some(slot) = self.table.slot(index) else { return };
        if let Some(server) = server {
            slot.next_hop_in.store(server.spec.next_hop);
            rewrap(slot, server.spec.forwarding);
        }
        let state = slot.state().state;
        if state == TcpState::SynSent {
            let session = self.sessions.get_mut(index as usize).filter(|_| removed || down);
            if let Some(handshake) = session.and_then(|it| it.handshake.as_deref_mut()) {
                handshake.give_up();
                self.wheel.arm(index, now);
            }
            return;
        }
        change_flag(slot, slot.generation.load(), flag::NO_SERVER, lost);
        let real = slot.ends().real.address;
        if self.table.transport(index) == Transport::Tcp && self.believes_toa(real) {
            let Some(slot) = self.table.slot(index) else { return };
            change_flag(slot, slot.generation.load(), flag::TOA, true);
        }
        if (removed || down) && self.ends_with_server(state) {
            self.wheel.arm(index, now);
        }
    }

    /// Whether a session in `state` ends when its real server is removed or marked down. Before the
    /// real server has answered, a client without the proxy may as well go to another.
    pub(crate) fn ends_with_server(&self, state: TcpState) -> bool {
        self.config.expire_nodest_conn || state == TcpState::SynRecv
    }

    /// Tells the packet path what it must know beside the services.
    pub(crate) fn publish(&self) {
        let mut there = self.services.iter().filter(|service| !service.removed);
        let any_port = there.any(|service| service.spec.address.port == 0);
        publish(self.table.settings(), &self.config, any_port);
    }

    /// Whether a session's real server has been marked down.
    pub(crate) fn is_server_down(&self, index: u32) -> bool {
        let session = self.sessions.get(index as usize);
        let server = session.and_then(|session| self.numbered(session.service, session.server));
        server.is_some_and(|server| server.health == Health::Down)
    }

    /// Whether a session's real server has been removed.
    pub(crate) fn is_server_removed(&self, index: u32) -> bool {
        let session = self.sessions.get(index as usize);
        let server = session.and_then(|session| self.numbered(session.service, session.server));
        server.is_some_and(|server| server.removed)
    }
}

/// A session keeps the way it was opened by; but if that is a tunnel, it goes through it as it is
/// now, as in IPVS.
fn rewrap(slot: &Slot, forwarding: Forwarding) {
    let Forwarding::Tunnel { tunnel, source } = forwarding else { return };
    if slot.state().flags & flag::TUNNEL == 0 {
        return;
    }
    slot.ts_in.store(tunnel.to_bits());
    if slot.local_address() != source {
        slot.set_local_address(source);
    }
}

/// Sets or clears a flag of a session, while it is of that generation.
pub(crate) fn change_flag(slot: &Slot, generation: u32, flag: u32, on: bool) {
    // The packet path may change the state meanwhile, a few times in a session's life.
    while slot.generation.load() == generation {
        let bits = slot.word.load();
        let word = Word::from_bits(bits);
        let flags = if on { word.flags | flag } else { word.flags & !flag };
        if flags == word.flags || slot.word.replace_if(bits, Word { flags, ..word }.to_bits()) {
            break;
        }
    }
}

/// Tells the packet path what of a configuration may change; `any_port` is whether a service has
/// port 0.
pub(crate) fn publish(settings: &Settings, config: &Config, any_port: bool) {
    let switches = config.switches & !switch::ANY_PORT;
    settings.switches.store(if any_port { switches | switch::ANY_PORT } else { switches });
    settings.init_mss.store(u32::from(config.init_mss));
    settings.ttl.store(u32::from(config.ttl));
    settings.ack_storm_threshold.store(u32::from(config.ack_storm_threshold));
    settings.early_data.store(u32::try_from(config.store.bytes).unwrap_or(u32::MAX));
}
