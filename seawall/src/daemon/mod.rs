//! The daemon: everything is checked, then attached, then served, then taken away again.

mod addresses;
mod adopt;
mod backend;
mod check;
mod health;
mod interfaces;
mod ipvs;
mod keys;
mod reload;
mod reports;
mod routes;
mod setup;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use seawall_control::api::{Declined, Server, Stop};
use seawall_control::config::{Config, Index};
use seawall_control::ipvs::Server as IpvsServer;
use seawall_datapath::netlink::{Event, Link, Monitor, Neighbour, NeighbourKey, Netlink};
use seawall_datapath::{
    Injector, Limits, MappedArray, Mode, Rings, SharedMemory, Signal, Signals, Sources, State,
    Waiter, Xdp, clock,
};
use seawall_engine::{Adoption, Desired, Engine, Gateway, Request, counter_names};
use seawall_fastpath::layout::{AddressEntry, AddressKey, Header, InterfaceEntry};
use seawall_fastpath::native::Memory;
use seawall_wire::ethernet::MacAddr;

use addresses::Added;
use backend::{Command, Remote};
use check::{Ground, ground};
pub(crate) use check::{Scope, check};
use interfaces::Interfaces;
use ipvs::Zeroed;
use keys::{Keys, Now};
use routes::Routes;

/// Records taken from one ring before the other has its turn.
const BUDGET: usize = 256;
/// Commands obeyed before packets have their turn.
const COMMANDS: usize = 64;
/// Longest wait, in milliseconds: the heartbeat must be younger than
/// [`seawall_fastpath::layout::HEARTBEAT_LIMIT_MS`].
const MAX_WAIT_MS: u64 = 500;
/// How often the kernel is asked to confirm the neighbours that only XDP sends to.
const PROBE_MS: u64 = 15_000;
/// How often it is asked about those it has not found yet.
const PROBE_UNRESOLVED_MS: u64 = 1_000;

/// Runs the daemon until a signal or the API ends it.
///
/// # Errors
/// What is missing or wrong; then nothing is attached or added.
pub(crate) fn run(path: &Path) -> Result<()> {
    let mut signals = Signals::open()?;
    let config = Config::load(path)?;
    let Ground { secret, mut netlink, interfaces, gateways } = ground(&config)?;
    let keys = Keys::new(secret);
    let state = State::open(&config.state)?;
    let server = Server::bind(&config.api.socket)?;
    let ipvs_socket = config.ipvs.socket.as_ref();
    let ipvs_server = ipvs_socket.map(|path| IpvsServer::bind(&path.value)).transpose()?;

    println!("{}", setup::worst_case(&config));
    for notice in config.not_yet_served() {
        println!("note: {notice}");
    }
    let mut worker = Worker::new(&config, state, keys, &interfaces, &gateways)?;
    for link in interfaces.attached() {
        let mode =
            worker.xdp.attach(link.index).with_context(|| format!("interface {}", link.name))?;
        if matches!(mode, Mode::Generic { .. }) {
            println!("note: {} has no native XDP; the generic mode is slower", link.name);
        }
    }
    worker.added.add(&config, &interfaces, &mut netlink)?;
    worker.added.drop_unwanted(&config, &mut netlink);
    worker.xdp.complete()?;

    let waiter = worker.waiter(&signals)?;
    let (remote, commands) =
        Remote::new(path, interfaces, waiter.waker(), Arc::clone(&worker.routes.count));
    let (reloading, changing) = (remote.clone(), remote.clone());
    let api = Serving::begin("api", move |end| server.run_blocking(Arc::new(remote), end))?;
    let ipvs = ipvs_server.map(|server| {
        Serving::begin("ipvs", move |end| server.run_blocking(Arc::new(changing), end))
    });
    let ipvs = ipvs.transpose()?;
    println!("ready");
    let served = worker.serve(waiter, &mut signals, &commands, &reloading);
    // What has failed may go better for the next daemon; the sessions need not end for it.
    let removed = match served {
        Ok(Stop::End) => worker.end(),
        Ok(Stop::Keep) | Err(_) => Ok(()),
    };
    drop(commands);
    ipvs.map(Serving::end).transpose().context("serving the IPVS socket")?;
    api.end().context("serving the API socket")?;
    removed?;
    served.map(drop)
}

/// Ends what a daemon that has died, or was told to keep it, has left in `directory`. Says whether there
/// was anything.
///
/// # Errors
/// When a daemon lives there, or something cannot be removed.
pub(crate) fn clear(directory: &Path) -> Result<bool> {
    match State::existing(directory)? {
        Some(state) => {
            state.remove()?;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// A thread that answers on a socket.
struct Serving {
    thread: JoinHandle<io::Result<()>>,
    /// What it ends without.
    running: Sender<()>,
}

impl Serving {
    fn begin(
        name: &str,
        serve: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (running, end) = std::sync::mpsc::channel();
        let serve = move || serve(Box::pin(async_end(end)));
        let thread = std::thread::Builder::new().name(name.into()).spawn(serve)?;
        Ok(Self { thread, running })
    }

    fn end(self) -> Result<()> {
        drop(self.running);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => anyhow::bail!("its thread panicked"),
        }
    }
}

/// Whether a signal asks for the end.
fn stop_wanted(signals: &mut Signals, remote: &Remote) -> bool {
    let mut stop = false;
    for signal in signals.take() {
        match signal {
            Signal::Stop => stop = true,
            Signal::Reload => remote.reload_aside(),
        }
    }
    stop
}

/// Ends when the other side of `end` is gone.
async fn async_end(end: Receiver<()>) {
    while end.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The engine's numbers for a service and its real servers, in the configuration's order.
struct Placed {
    service: u32,
    servers: Vec<u32>,
}

struct Worker {
    /// What is served.
    config: Arc<Config>,
    /// Where; one for each service.
    placed: Vec<Placed>,
    /// What finds its services.
    index: Index,
    /// Counters that somebody has set to 0.
    zeroed: Zeroed,
    /// Sessions do not know yet what has changed.
    unsettled: bool,
    /// When they may be told next.
    next_settle: u64,
    /// What has failed that leaves nothing to serve.
    broken: Option<anyhow::Error>,
    /// There are commands left for the next round.
    commanded: bool,
    /// Addresses that the host has from us.
    added: Added,
    engine: Engine<SharedMemory>,
    xdp: Xdp,
    rings: Rings,
    injector: Injector,
    /// What the next daemon is told.
    header: MappedArray<Header>,
    netlink: Netlink,
    monitor: Monitor,
    interfaces: Interfaces,
    keys: Keys,
    next_epoch: u64,
    next_probe: u64,
    next_probe_unresolved: u64,
    /// Events were lost; the network is to be read anew.
    overrun: bool,
    routes: Routes,
}

impl Worker {
    fn new(
        config: &Config,
        state: State,
        keys: Keys,
        interfaces: &Interfaces,
        gateways: &setup::Ways,
    ) -> Result<Self> {
        let monitor = Monitor::open()?;
        let limits: Limits = setup::limits(config);
        let begun = Instant::now();
        let mut xdp = Xdp::open(&limits, state, counter_names())?;
        let memory = SharedMemory::new(&xdp)?;
        let rings = xdp.take_rings().context("the rings of a program just loaded")?;
        let owned = xdp.take_owned().context("the addresses of a program just loaded")?;
        let added = Added::new(owned)?;
        let clocks = Now::read();
        let now = clocks.monotonic;
        let desired = Desired { pools: setup::pools(config), services: setup::services(config)? };
        if xdp.adopted() {
            adopt::check(config, &keys, memory.settings())?;
        }
        for pool in &desired.pools {
            for address in &pool.addresses {
                let (port_min, port_max) = (pool.port_min, pool.port_max);
                let entry = AddressEntry { flags: AddressEntry::LOCAL, port_min, port_max };
                xdp.set_address(&AddressKey(*address), &entry)?;
            }
        }
        for service in &desired.services {
            xdp.set_address(&AddressKey(service.address.address), &reload::VIP)?;
        }
        let engine_config = setup::engine_config(config, clocks.offset());
        let mut injector =
            Injector::open(&interfaces.attached().map(|link| link.index).collect::<Vec<_>>())?;
        let adopting = xdp.adopted();
        let (engine, next_epoch, found) = if adopting {
            let next_epoch = memory.header().next_epoch.load();
            injector.count_from(adopt::injected(memory.header()));
            let (engine, found) = Engine::adopt(memory, engine_config, desired.pools.clone(), now);
            (engine, next_epoch, found)
        } else {
            let (secrets, next_epoch) = keys.secrets(clocks)?;
            let desired = desired.clone();
            let engine = Engine::new(memory, engine_config, desired, &secrets, now);
            (engine, next_epoch, Adoption::default())
        };
        let mut worker = Self {
            config: Arc::new(config.clone()),
            placed: (0..)
                .zip(&config.services)
                .map(|(service, spec)| Placed {
                    service,
                    servers: (0..spec.real_servers.len() as u32).collect(),
                })
                .collect(),
            index: Index::new(&config.services),
            zeroed: Zeroed::default(),
            unsettled: false,
            next_settle: now,
            broken: None,
            commanded: false,
            added,
            header: xdp.header()?,
            engine,
            xdp,
            rings,
            injector,
            netlink: Netlink::open()?,
            monitor,
            interfaces: interfaces.clone(),
            keys,
            next_epoch,
            next_probe: now,
            next_probe_unresolved: now,
            overrun: false,
            routes: Routes::default(),
        };
        for port in interfaces.iter() {
            worker.set_link(&port.link)?;
        }
        if adopting {
            worker.adopt_services(desired, gateways, &found, begun)?;
            return Ok(worker);
        }
        for (service, gateways) in gateways.iter().enumerate() {
            for (server, way) in gateways.iter().enumerate() {
                let Some(way) = way else { continue };
                let hop = worker.engine.next_hop(way.gateway).context("too many next hops")?;
                let (service, server) = (service as u32, server as u32);
                worker.engine.set_route(service, server, hop);
                if let Some(source) = way.source {
                    worker.engine.set_tunnel_source(service, server, source);
                }
            }
        }
        for service in 0..config.services.len() as u32 {
            worker.set_service(service)?;
        }
        worker.read_network()?;
        worker.note_epoch();
        Ok(worker)
    }

    /// Tells the next daemon when the epoch ends.
    fn note_epoch(&self) {
        if let Some(header) = self.header.first() {
            header.next_epoch.store(self.next_epoch);
        }
    }

    /// Takes note of what an interface is, if it is one of ours.
    fn set_link(&mut self, link: &Link) -> Result<()> {
        let Some(port) = self.interfaces.update(link) else { return Ok(()) };
        self.engine.set_interface(link.index, port.interface());
        if port.is_attached() {
            self.xdp.set_interface(link.index, InterfaceEntry::new(MacAddr(link.mac)))?;
        }
        Ok(())
    }

    fn set_service(&mut self, service: u32) -> Result<()> {
        let reports = self.engine.service_key(service).zip(self.engine.service_entry(service));
        let Some((key, entry)) = reports else { return Ok(()) };
        Ok(self.xdp.set_service(&key, &entry)?)
    }

    /// What wakes this worker.
    fn waiter(&self, signals: &Signals) -> Result<Waiter> {
        Ok(Waiter::new(Sources {
            proven: Some(self.rings.proven.as_fd()),
            unproven: Some(self.rings.unproven.as_fd()),
            netlink: Some(self.monitor.as_fd()),
            signals: Some(signals.as_fd()),
        })?)
    }

    /// Serves until a signal or a command ends it.
    fn serve(
        &mut self,
        mut waiter: Waiter,
        signals: &mut Signals,
        commands: &Receiver<Command>,
        remote: &Remote,
    ) -> Result<Stop> {
        loop {
            let busy = self.round()?;
            self.look_up_routes(remote);
            let patience = if busy || self.commanded { 0 } else { self.patience() };
            let ready = waiter.wait(Duration::from_millis(patience))?;
            if (ready.woken || self.commanded)
                && let Some(stop) = self.obey(commands)
            {
                return Ok(stop);
            }
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            if ready.signals && stop_wanted(signals, remote) {
                return Ok(Stop::End);
            }
        }
    }

    /// Does what the engine asks for.
    fn handle_requests(&mut self) -> Result<()> {
        while let Some(request) = self.engine.poll_request() {
            match request {
                Request::Resolve(gateway) => self.probe(gateway),
                Request::ServiceChanged(service) => self.set_service(service)?,
            }
        }
        Ok(())
    }

    /// How long nothing needs doing, in milliseconds.
    fn patience(&self) -> u64 {
        let now = clock::monotonic_ms();
        let timers = self.engine.poll_timeout().unwrap_or(u64::MAX).min(self.next_epoch);
        let timers = timers.min(self.engine.poll_statistics());
        let settle = if self.unsettled { self.next_settle } else { u64::MAX };
        timers.min(settle).min(self.next_probe_unresolved).saturating_sub(now).min(MAX_WAIT_MS)
    }

    /// Takes what has come, and sends what follows. Says whether there may be more at once.
    fn round(&mut self) -> Result<bool> {
        let now = clock::monotonic_ms();
        let engine = &mut self.engine;
        let proven = self.rings.proven.for_each(BUDGET, |header, frame| {
            engine.handle_record(now, header, frame);
        });
        let unproven = self.rings.unproven.for_each(BUDGET, |header, frame| {
            engine.handle_record(now, header, frame);
        });
        self.settle(now);
        let engine = &mut self.engine;
        engine.handle_timeout(now);
        engine.handle_statistics(now);
        engine.handle_heartbeat(now);
        if now >= self.next_epoch {
            let begun = self.keys.epoch(Now::read())?;
            engine.handle_epoch(&begun.epoch);
            self.next_epoch = begun.next;
            self.note_epoch();
        }
        self.follow_network(now)?;
        self.handle_requests()?;
        let injector = &mut self.injector;
        self.engine.take_frames(|interface, frame| injector.send(interface, frame));
        injector.flush();
        self.engine.frames_sent();
        adopt::set_injected(&self.header, self.injector.counters());
        Ok(proven == BUDGET || unproven == BUDGET)
    }

    fn obey(&mut self, commands: &Receiver<Command>) -> Option<Stop> {
        for _ in 0..COMMANDS {
            let Ok(command) = commands.try_recv() else {
                self.commanded = false;
                return None;
            };
            // Whoever asked may have given up; then nobody wants the answer.
            match command {
                Command::Stats(answer) => {
                    let (xdp, engine) = (&self.xdp, &self.engine);
                    let _ = answer.send(reports::stats(&self.config, xdp, engine, &self.injector));
                }
                Command::Drops(answer) => {
                    let _ = answer.send(reports::drops(&self.xdp, &self.engine, &self.injector));
                }
                Command::Sessions(page, answer) => {
                    let now = clock::monotonic_ms();
                    let _ = answer.send(reports::sessions(&self.engine, now, page));
                }
                Command::Reload { config, gateways, until, answer } => {
                    // Nobody may be told that it has not been applied, and then it is.
                    if Instant::now() < until {
                        let refused = |error| Declined::Refused(format!("{error:#}"));
                        let _ = answer.send(self.reload(*config, &gateways).map_err(refused));
                    }
                }
                Command::Health(name, health, answer) => {
                    let refused = |error| Declined::Refused(format!("{error:#}"));
                    let _ = answer.send(self.set_health(&name, health).map_err(refused));
                }
                Command::Routes(config, gateways) => {
                    self.follow_routes(&config, gateways.as_deref())
                }
                Command::Config(answer) => {
                    let _ = answer.send(Arc::clone(&self.config));
                }
                Command::Table(answer) => {
                    let _ = answer.send(self.table());
                }
                Command::Change { change, reached, routes, until, answer } => {
                    // Nobody may be told that it has not been applied, and then it is.
                    if Instant::now() < until {
                        let result = self.change(&change, reached);
                        if routes != self.routes.count.load(Ordering::Relaxed) {
                            self.routes.changed = true;
                        }
                        let _ = answer.send(result);
                    }
                }
                Command::Stop(stop) => return Some(stop),
            }
        }
        self.commanded = true;
        None
    }

    /// Takes everything away.
    fn end(self) -> Result<()> {
        Ok(self.xdp.end()?)
    }

    /// Follows the kernel's interfaces and neighbours.
    fn follow_network(&mut self, now: u64) -> Result<()> {
        while let Some(event) = self.monitor.next_event()? {
            match event {
                Event::Neighbour(neighbour) => self.learn(&neighbour),
                Event::Link(link) => {
                    self.set_link(&link)?;
                    // An interface that goes down takes its routes along, unsaid.
                    self.routes.note();
                }
                Event::Overrun => self.overrun = true,
                Event::NeighbourGone(key) => self.engine.forget_neighbour(gateway(key)),
                Event::Route | Event::LinkGone { .. } | Event::AddressGone(_) => {
                    self.routes.note();
                }
                Event::Address(_) => {}
            }
        }
        if self.overrun {
            self.routes.note();
            // What cannot be read now, because it changes too fast, is read in the next round.
            self.overrun = self.read_network().is_err();
        }
        let all = now >= self.next_probe;
        if all || now >= self.next_probe_unresolved {
            let wanted: Vec<_> = self
                .engine
                .gateways()
                .filter_map(|(gateway, known)| (all || !known).then_some(gateway))
                .collect();
            for gateway in wanted {
                self.probe(gateway);
            }
            self.next_probe_unresolved = now + PROBE_UNRESOLVED_MS;
            if all {
                self.next_probe = now + PROBE_MS;
            }
        }
        Ok(())
    }

    /// Reads what events have told otherwise.
    fn read_network(&mut self) -> Result<()> {
        for link in self.netlink.links()? {
            self.set_link(&link)?;
        }
        for neighbour in self.netlink.neighbours()? {
            self.learn(&neighbour);
        }
        Ok(())
    }

    fn learn(&mut self, neighbour: &Neighbour) {
        let Some(mac) = neighbour.mac.filter(|_| neighbour.state.is_valid()) else { return };
        let (link_index, address) = (neighbour.link_index, neighbour.address);
        self.engine.set_neighbour(gateway(NeighbourKey { link_index, address }), MacAddr(mac));
    }

    /// Asks the kernel for a neighbour's MAC; the answer comes through the monitor. If the
    /// kernel refuses, it is asked again soon.
    fn probe(&mut self, gateway: Gateway) {
        let key = NeighbourKey { link_index: gateway.interface, address: gateway.address.into() };
        let _ = self.netlink.probe_neighbour(key);
    }
}

/// What the engine calls a neighbour of the kernel's.
fn gateway(key: NeighbourKey) -> Gateway {
    Gateway { interface: key.link_index, address: key.address.into() }
}
