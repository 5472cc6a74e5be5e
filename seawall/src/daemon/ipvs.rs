//! Services that come and go one by one, as ipvsadm and keepalived ask by the IPVS socket.
//!
//! They are part of the configuration that is served, and have no line in its file. A reload leaves
//! them be, unless the file now has a service of the same address: then it is as the file says. What
//! the socket has made of a service that the file has lasts until the next reload.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seawall_control::api::{self, Declined};
use seawall_control::config::{
    Config, ConfigErrors, Place, Protocol, ServiceConfig, TimeoutsConfig,
};
use seawall_control::ipvs::{Backend, Change, Edit, Errno, Refusal, Table, Target, edit};
use seawall_control::report::{Page, ServiceReport, SessionsReport, Totals};
use seawall_datapath::netlink::Netlink;
use seawall_engine::ServiceSpec;
use seawall_fastpath::layout::AddressKey;

use super::backend::{Command, PATIENCE, Remote};
use super::keys::Now;
use super::setup::{self, Way};
use super::{Worker, reload, reports};

/// Least time between two looks at all sessions, in milliseconds.
const SETTLE_MS: u64 = 100;

/// The table that was asked for last, and when.
#[derive(Clone, Default)]
pub(super) struct LastTable(Arc<Mutex<Dated>>);

type Dated = Option<(Instant, Arc<Table>)>;

impl LastTable {
    /// The last one if it is no older than that, else the one that `ask` gets. Nobody forgets it
    /// meanwhile, so that none stays that is older than a change.
    fn get(
        &self,
        age: Duration,
        ask: impl FnOnce() -> Result<Table, Declined>,
    ) -> Result<Arc<Table>, Declined> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = last.as_ref().filter(|(at, _)| at.elapsed() < age) {
            return Ok(Arc::clone(table));
        }
        *last = None;
        let table = Arc::new(ask()?);
        *last = Some((Instant::now(), Arc::clone(&table)));
        Ok(table)
    }

    /// Forgets it: before a change, so that the worker alone has the configuration, and after it.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// How the real server is reached that a change is about.
#[derive(Clone, Copy)]
pub(super) enum Reached {
    /// So.
    By(SocketAddr, Way),
    /// It is this machine.
    Own,
    /// It is not, as far as one can tell; the kernel's IPVS takes those too.
    Not,
}

impl Backend for Remote {
    fn config(&self) -> Result<Arc<Config>, Declined> {
        self.ask(Command::Config)
    }

    fn table(&self, age: Duration) -> Result<Arc<Table>, Declined> {
        self.table.get(age, || self.ask(Command::Table))
    }

    fn sessions(&self, page: Page) -> Result<SessionsReport, Declined> {
        api::Backend::sessions(self, page)
    }

    fn change(&self, change: &Change) -> Result<(), Refusal> {
        let routes = self.routes.load(Ordering::Relaxed);
        let reached = reached(self, change);
        // What is reloaded has read what there is, and must not undo what comes meanwhile.
        let _turn = self.turn();
        self.table.forget();
        let (change, until) = (Box::new(change.clone()), Instant::now() + PATIENCE);
        let asked = self.ask(|answer| Command::Change { change, reached, routes, until, answer });
        self.table.forget();
        asked.map_err(|_| Refusal::from(Errno::AGAIN))?
    }

    fn refused(&self, change: &Change, refusal: &Refusal) {
        if !refusal.reason.is_empty() {
            eprintln!("seawall: ipvs: {} is refused: {}", name(change), refusal.reason);
        }
    }
}

/// A change in a few words.
fn name(change: &Change) -> String {
    let target = |target: &Target| match target {
        Target::Address { address, protocol: 6 } => format!("service {address}/tcp"),
        Target::Address { address, protocol: 17 } => format!("service {address}/udp"),
        Target::Address { address, protocol } => format!("service {address}/{protocol}"),
        Target::Mark { mark, .. } => format!("service of firewall mark {mark}"),
    };
    let server = |service: &Target, address: Option<SocketAddr>| match address {
        Some(address) => format!("real server {address} of {}", target(service)),
        None => format!("a real server of {}", target(service)),
    };
    match change {
        Change::AddService(it, _) => format!("adding {}", target(it)),
        Change::SetService(it, _) => format!("changing {}", target(it)),
        Change::RemoveService(it) => format!("removing {}", target(it)),
        Change::AddDestination(it, _) => format!("adding {}", server(it, destination(change))),
        Change::SetDestination(it, _) => format!("changing {}", server(it, destination(change))),
        Change::RemoveDestination(it, _) => {
            format!("removing {}", server(it, destination(change)))
        }
        Change::Flush => "removing all services".to_owned(),
        Change::Zero(_) => "zeroing counters".to_owned(),
        Change::SetTimeouts(_) => "setting timeouts".to_owned(),
    }
}

/// The real server that a change is about.
fn destination(change: &Change) -> Option<SocketAddr> {
    let (target, name) = match change {
        Change::AddDestination(target, Ok(settings))
        | Change::SetDestination(target, Ok(settings)) => (target, settings.name),
        Change::RemoveDestination(target, Ok(name)) => (target, *name),
        _ => return None,
    };
    let Target::Address { address, .. } = target else { return None };
    name.address(*address)
}

/// How the real server is reached that a change adds or sets.
fn reached(remote: &Remote, change: &Change) -> Reached {
    let server = match change {
        Change::AddDestination(..) | Change::SetDestination(..) => destination(change),
        _ => None,
    };
    let route = |server: SocketAddr| Netlink::open().ok()?.route_to(server.ip()).ok();
    let Some((server, route)) = server.and_then(|server| Some((server, route(server)?))) else {
        return Reached::Not;
    };
    if setup::is_own(&route) {
        return Reached::Own;
    }
    let way = setup::way(&route, server.ip(), remote.interfaces());
    way.map_or(Reached::Not, |way| Reached::By(server, way))
}

/// Counters as they were when somebody set them to 0.
#[derive(Default)]
pub(super) struct Zeroed(HashMap<(SocketAddr, Protocol), ZeroedService>);

#[derive(Default)]
struct ZeroedService {
    totals: Totals,
    servers: HashMap<SocketAddr, Totals>,
}

impl ZeroedService {
    fn keep(&mut self, service: &ServiceConfig) {
        let own: HashSet<_> = service.real_servers.iter().map(|server| server.address).collect();
        self.servers.retain(|address, _| own.contains(address));
    }
}

impl Zeroed {
    fn zero(&mut self, report: &ServiceReport) {
        let servers = report.real_servers.iter().map(|server| (server.address, server.totals));
        let zeroed = ZeroedService { totals: report.totals, servers: servers.collect() };
        self.0.insert((report.address, report.protocol), zeroed);
    }

    /// Keeps what `services` have: whoever comes back later counts on from where it was.
    pub(super) fn keep(&mut self, services: &[ServiceConfig]) {
        let own: HashMap<_, _> =
            services.iter().map(|service| ((service.address, service.protocol), service)).collect();
        self.0.retain(|key, _| own.contains_key(key));
        for (key, zeroed) in &mut self.0 {
            zeroed.keep(own[key]);
        }
    }

    fn forget(&mut self, service: &ServiceConfig) {
        self.0.remove(&(service.address, service.protocol));
    }

    fn keep_of(&mut self, service: &ServiceConfig) {
        if let Some(zeroed) = self.0.get_mut(&(service.address, service.protocol)) {
            zeroed.keep(service);
        }
    }

    fn apply(&self, report: &mut ServiceReport) {
        let Some(zeroed) = self.0.get(&(report.address, report.protocol)) else { return };
        since(&mut report.totals, &zeroed.totals);
        for server in &mut report.real_servers {
            if let Some(zeroed) = zeroed.servers.get(&server.address) {
                since(&mut server.totals, zeroed);
            }
        }
    }
}

/// What has come since.
fn since(totals: &mut Totals, zeroed: &Totals) {
    for (now, then) in [
        (&mut totals.connections, zeroed.connections),
        (&mut totals.in_packets, zeroed.in_packets),
        (&mut totals.in_bytes, zeroed.in_bytes),
        (&mut totals.out_packets, zeroed.out_packets),
        (&mut totals.out_bytes, zeroed.out_bytes),
    ] {
        *now = now.saturating_sub(then);
    }
}

impl Worker {
    /// What is served, as the IPVS socket shows it.
    pub(super) fn table(&self) -> Table {
        let mut reports = reports::services(&self.config, &self.engine);
        reports.iter_mut().for_each(|report| self.zeroed.apply(report));
        Table { config: Arc::clone(&self.config), reports }
    }

    /// Changes what is served. Sessions go on; those that end with their real server do so after
    /// [`Worker::settle`].
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub(super) fn change(&mut self, change: &Change, reached: Reached) -> Result<(), Refusal> {
        match edit(&self.config, &self.index, change)? {
            Edit::Put { at, service } => self.put(at, *service, reached)?,
            Edit::Remove(at) => self.remove(at),
            Edit::RemoveAll => (0..self.config.services.len()).rev().for_each(|at| self.remove(at)),
            Edit::Zero(at) => self.zero(at),
            Edit::Timeouts(timeouts) => self.set_timeouts(timeouts),
        }
        Ok(())
    }

    /// Serves a service in the place of that at `at`, or a new one.
    fn put(
        &mut self,
        at: Option<usize>,
        service: ServiceConfig,
        reached: Reached,
    ) -> Result<(), Refusal> {
        let refused = |errno, reason: String| Refusal { errno, reason };
        let old = at.and_then(|at| self.config.services.get(at));
        if let Err(errors) = self.config.check(&self.index, old, &service) {
            return Err(refused(Errno::INVAL, in_words(&errors)));
        }
        let way = match reached {
            Reached::By(address, way) => Some((address, way)),
            Reached::Not => None,
            Reached::Own => {
                let reason = "its address is this machine's own, and what XDP forwards never comes \
                              back to this one's sockets";
                return Err(refused(Errno::INVAL, reason.to_owned()));
            }
        };
        let source = way.and_then(|(_, way)| way.source).map(IpAddr::from);
        let in_pool = |ip: &IpAddr| setup::in_pool(&self.config, &service, *ip).is_some();
        if let Some(source) = source.filter(in_pool) {
            let reason = format!("local address {source} is one that this machine sends from");
            return Err(refused(Errno::INVAL, reason));
        }
        let place = Place::new(at, old, &service);
        let mut spec = setup::service(&self.config, &service)
            .map_err(|error| refused(Errno::INVAL, format!("{error:#}")))?;
        if let Some((_, way)) = way {
            // A neighbour that the kernel has known before it was a next hop of ours.
            self.overrun |= !self.engine.gateways().any(|(gateway, _)| gateway == way.gateway);
        }
        let ways = service.real_servers.iter().map(|server| {
            way.filter(|(address, _)| *address == server.address).map(|(_, way)| way)
        });
        let ways: Vec<_> = ways.collect();
        self.reach(&mut spec, &ways, &place)
            .map_err(|error| refused(Errno::NOMEM, format!("{error:#}")))?;
        let vip = service.address.ip();
        let new_vip = !self.index.is_vip(vip);
        if new_vip {
            self.hold(vip).map_err(|error| refused(Errno::ADDRNOTAVAIL, format!("{error:#}")))?;
        }
        // From here on nothing fails that leaves something to serve.
        if let Err(error) = self.put_in_place(service, &spec, &place, new_vip) {
            self.broken = Some(error);
        }
        Ok(())
    }

    fn put_in_place(
        &mut self,
        service: ServiceConfig,
        spec: &ServiceSpec,
        place: &Place,
        new_vip: bool,
    ) -> anyhow::Result<()> {
        let placed = self.place(spec, &service, place);
        self.unsettled = true;
        let vip = service.address.ip();
        self.zeroed.keep_of(&service);
        let config = Arc::make_mut(&mut self.config);
        match place.service {
            Some(at) => {
                self.index.remove(&config.services[at]);
                self.index.add(at, &service);
                config.services[at] = service;
                self.placed[at] = placed;
            }
            None => {
                self.index.add(config.services.len(), &service);
                config.services.push(service);
                self.placed.push(placed);
            }
        }
        self.show(new_vip.then(|| vip.into()))
    }

    /// Has the host and XDP have a VIP that is new.
    fn hold(&mut self, vip: IpAddr) -> anyhow::Result<()> {
        self.xdp.set_address(&AddressKey(vip.into()), &reload::HELD)?;
        let added = if self.config.manage_addresses {
            self.added.add_one(vip, &self.interfaces, &mut self.netlink)
        } else {
            Ok(())
        };
        if added.is_err() {
            let _ = self.xdp.remove_address(&AddressKey(vip.into()));
        }
        added
    }

    fn remove(&mut self, at: usize) {
        let config = Arc::make_mut(&mut self.config);
        let service = config.services.swap_remove(at);
        let placed = self.placed.swap_remove(at);
        self.index.remove(&service);
        if let Some(moved) = config.services.get(at) {
            self.index.move_to(at, moved);
        }
        self.zeroed.forget(&service);
        self.stop_serving(&service, placed.service);
        self.unsettled = true;
        let vip = service.address.ip();
        self.drop_addresses((!self.index.is_vip(vip)).then(|| vip.into()));
    }

    fn zero(&mut self, at: Option<usize>) {
        let all = reports::services(&self.config, &self.engine);
        let services = match at {
            None => 0..all.len(),
            Some(at) => at..at + 1,
        };
        for at in services {
            let Some(report) = all.get(at) else { continue };
            self.zeroed.zero(report);
            self.engine.restart_rates(self.placed[at].service);
        }
    }

    fn set_timeouts(&mut self, timeouts: TimeoutsConfig) {
        let config = Arc::make_mut(&mut self.config);
        config.timeouts = timeouts;
        let config = setup::engine_config(&self.config, Now::read().offset());
        self.engine.set_config(config);
    }

    /// Tells sessions what has become of their real servers, once for the changes of a while: it
    /// looks at all of them.
    pub(super) fn settle(&mut self, now: u64) {
        if self.unsettled && now >= self.next_settle {
            self.unsettled = false;
            self.next_settle = now + SETTLE_MS;
            self.engine.settle(now);
        }
    }
}

/// What is wrong with a service that has no lines.
fn in_words(errors: &ConfigErrors) -> String {
    let words = errors.errors().iter().map(|error| match error.line {
        None => format!("{}; {}", error.message, error.remedy),
        Some(_) => error.to_string(),
    });
    words.collect::<Vec<_>>().join("\n")
}
