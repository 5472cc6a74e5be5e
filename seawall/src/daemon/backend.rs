//! What the API asks, answered by the worker between two rounds; and what takes long, so that packets
//! do not wait for it: files are read and routes looked up on the threads of those who ask.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use seawall_control::api::{Backend, Declined, NewFile, Stop};
use seawall_control::config::{Config, ConfigErrors, Difference};
use seawall_control::ipvs::{Change, Refusal, Table};
use seawall_control::report::{
    DiffReport, DropsReport, Health, HealthReport, Page, ReloadReport, ServerName, SessionsReport,
    StatsReport,
};
use seawall_datapath::Waker;
use seawall_datapath::netlink::Netlink;

use super::interfaces::Interfaces;
use super::ipvs::{LastTable, Reached};
use super::setup::{self, Way, Ways};

/// How long an answer may take; the worker answers between two rounds of a few milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A question from the API's thread.
pub(super) enum Command {
    Stats(Sender<StatsReport>),
    Drops(Sender<DropsReport>),
    Sessions(Page, Sender<SessionsReport>),
    /// A file that has been read.
    Reload {
        config: Box<Config>,
        /// How its real servers are reached.
        gateways: Ways,
        /// Until then whoever asked waits.
        until: Instant,
        answer: Sender<Result<ReloadReport, Declined>>,
    },
    Health(ServerName, Health, Sender<Result<HealthReport, Declined>>),
    /// How the real servers of the configuration that was served are reached now: `None` is one
    /// that is not, and for all, that they could not be looked up.
    Routes(Arc<Config>, Option<Vec<Vec<Option<Way>>>>),
    /// What is served.
    Config(Sender<Arc<Config>>),
    /// What is served, and how it does.
    Table(Sender<Table>),
    /// What the IPVS socket asks to change.
    Change {
        change: Box<Change>,
        /// How the real server is reached that it is about.
        reached: Reached,
        /// [`Remote::routes`] before that was looked up.
        routes: u64,
        /// Until then whoever asked waits.
        until: Instant,
        answer: Sender<Result<(), Refusal>>,
    },
    Stop(Stop),
}

/// The end of those who ask.
#[derive(Clone)]
pub(super) struct Remote {
    config: PathBuf,
    interfaces: Arc<Interfaces>,
    commands: Sender<Command>,
    waker: Waker,
    /// Held from the reading of the file until it is applied: what is read first is applied first.
    reloading: Arc<Mutex<()>>,
    /// How often routes may have changed.
    pub(super) routes: Arc<AtomicU64>,
    /// What the IPVS socket was told last.
    pub(super) table: LastTable,
    /// A signal's reload waits for its turn; it will do for the next signal too.
    waiting: Arc<AtomicBool>,
}

impl Remote {
    /// Both ends; `config` is the file that is read anew, `waker` wakes the worker.
    pub(super) fn new(
        config: &Path,
        interfaces: Interfaces,
        waker: Waker,
        routes: Arc<AtomicU64>,
    ) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        let (config, interfaces) = (config.to_owned(), Arc::new(interfaces));
        let (reloading, table, waiting) = Default::default();
        (Self { config, interfaces, commands, waker, reloading, routes, table, waiting }, receiver)
    }

    /// Has a thread look up the routes to the real servers of `config`, and tell the worker. Says
    /// whether there is one.
    pub(super) fn look_up_routes(&self, config: Arc<Config>) -> bool {
        let remote = self.clone();
        let look_up = move || {
            let netlink = Netlink::open();
            let found = netlink.and_then(|mut netlink| {
                setup::reachable(&config, &remote.interfaces, &mut netlink)
            });
            let _ = remote.commands.send(Command::Routes(config, found.ok()));
            remote.waker.wake();
        };
        Builder::new().name("routes".into()).spawn(look_up).is_ok()
    }

    /// Reloads on a thread of its own, and says on the standard streams what came of it.
    pub(super) fn reload_aside(&self) {
        if self.waiting.swap(true, Ordering::Relaxed) {
            return;
        }
        let remote = self.clone();
        let reload = move || match remote.reload() {
            Ok(report) => println!("reloaded: {}", report.to_line()),
            Err(Declined::Refused(error)) => {
                eprintln!("seawall: not reloaded, nothing changed: {error}");
            }
            Err(Declined::NoAnswer) => {
                eprintln!("seawall: not reloaded, nothing changed: too busy, or about to end");
            }
        };
        if let Err(error) = Builder::new().name("reload".into()).spawn(reload) {
            self.waiting.store(false, Ordering::Relaxed);
            eprintln!("seawall: not reloaded, nothing changed: {error}");
        }
    }

    /// The interfaces that the daemon runs on.
    pub(super) fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Held by whoever changes what is served.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.reloading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file as it is now, if it can take the place of what is served, and how real servers are
    /// reached.
    fn read(&self) -> anyhow::Result<(Config, Ways)> {
        let (config, difference) = self.compare(Config::load(&self.config))?;
        difference.at_run_time()?;
        let gateways = self.reach(&config)?;
        Ok((config, gateways))
    }

    /// A configuration with the services that come from no file, and what it has otherwise than
    /// what is served.
    fn compare(
        &self,
        config: Result<Config, ConfigErrors>,
    ) -> anyhow::Result<(Config, Difference)> {
        let served = self.ask(Command::Config).map_err(|_| anyhow::anyhow!("too busy"))?;
        let config = config?.with_others_of(&served)?;
        let difference = served.difference(&config);
        Ok((config, difference))
    }

    fn reach(&self, config: &Config) -> anyhow::Result<Ways> {
        setup::gateways(config, &self.interfaces, &mut Netlink::open()?)
    }

    pub(super) fn ask<A>(&self, command: impl FnOnce(Sender<A>) -> Command) -> Result<A, Declined> {
        let (answer, receiver) = channel();
        // A worker that has ended answers nothing, and the daemon is about to end.
        let _ = self.commands.send(command(answer));
        self.waker.wake();
        receiver.recv_timeout(PATIENCE).map_err(|_| Declined::NoAnswer)
    }
}

impl Backend for Remote {
    fn stats(&self) -> Result<StatsReport, Declined> {
        self.ask(Command::Stats)
    }

    fn drops(&self) -> Result<DropsReport, Declined> {
        self.ask(Command::Drops)
    }

    fn sessions(&self, page: Page) -> Result<SessionsReport, Declined> {
        self.ask(|answer| Command::Sessions(page, answer))
    }

    fn reload(&self) -> Result<ReloadReport, Declined> {
        let _turn = self.turn();
        self.waiting.store(false, Ordering::Relaxed);
        let (config, gateways) =
            self.read().map_err(|error| Declined::Refused(format!("{error:#}")))?;
        let (config, until) = (Box::new(config), Instant::now() + PATIENCE);
        self.table.forget();
        let asked = self.ask(|answer| Command::Reload { config, gateways, until, answer });
        self.table.forget();
        asked?
    }

    fn diff(&self, file: NewFile) -> Result<DiffReport, Declined> {
        let diff = || -> anyhow::Result<DiffReport> {
            let NewFile { name, bytes } = file;
            let (config, difference) = self.compare(Config::read(&name, bytes))?;
            let Difference { changes, restart, .. } = difference;
            if restart.is_empty() {
                // What would have a reload refused all the same.
                self.reach(&config)?;
                setup::services(&config)?;
            }
            let restart = restart.iter().map(ToString::to_string).collect();
            Ok(DiffReport { changes, restart })
        };
        diff().map_err(|error| Declined::Refused(format!("{error:#}")))
    }

    fn set_health(&self, name: ServerName, health: Health) -> Result<HealthReport, Declined> {
        self.ask(|answer| Command::Health(name, health, answer))?
    }

    fn stop(&self, what: Stop) {
        let _ = self.commands.send(Command::Stop(what));
        self.waker.wake();
    }
}
