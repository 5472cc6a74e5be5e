//! What the API asks, answered by the worker between two rounds; and what takes long, so that packets
//! do not wait for it: files are read and routes looked up on the threads of those who ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use seawall_control::api::{Backend, Declined};
use seawall_control::config::Config;
use seawall_control::report::{DropsReport, Page, ReloadReport, SessionsReport, StatsReport};
use seawall_datapath::Waker;
use seawall_datapath::netlink::Netlink;
use seawall_engine::Gateway;

use super::interfaces::Interfaces;
use super::setup::{self, Gateways};

/// How long an answer may take; the worker answers between two rounds of a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question from the API's thread.
pub(super) enum Command {
    Stats(Sender<StatsReport>),
    Drops(Sender<DropsReport>),
    Sessions(Page, Sender<SessionsReport>),
    /// A file that has been read, and how its real servers are reached.
    Reload(Box<Config>, Gateways, Sender<Result<ReloadReport, Declined>>),
    /// How the real servers of the configuration that was served are reached now; `None` is one
    /// that is not.
    Routes(Arc<Config>, Vec<Vec<Option<Gateway>>>),
    Stop,
}

/// The end of those who ask.
#[derive(Clone)]
pub(super) struct Remote {
    config: PathBuf,
    interfaces: Arc<Interfaces>,
    commands: Sender<Command>,
    waker: Waker,
}

impl Remote {
    /// Both ends; `config` is the file that is read anew, `waker` wakes the worker.
    pub(super) fn new(
        config: &Path,
        interfaces: Interfaces,
        waker: Waker,
    ) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        let (config, interfaces) = (config.to_owned(), Arc::new(interfaces));
        (Self { config, interfaces, commands, waker }, receiver)
    }

    /// Has a thread look up the routes to the real servers of `config`, and tell the worker.
    pub(super) fn look_up_routes(&self, config: Arc<Config>) {
        let remote = self.clone();
        std::thread::spawn(move || {
            let netlink = Netlink::open();
            let found = netlink.and_then(|mut netlink| {
                setup::reachable(&config, &remote.interfaces, &mut netlink)
            });
            // Without an answer nothing is known to have changed, and the worker may ask again.
            let _ = remote.commands.send(Command::Routes(config, found.unwrap_or_default()));
            remote.waker.wake();
        });
    }

    /// The file as it is now, and how its real servers are reached.
    fn read(&self) -> anyhow::Result<(Config, Gateways)> {
        let config = Config::load(&self.config)?;
        let gateways = setup::gateways(&config, &self.interfaces, &mut Netlink::open()?)?;
        Ok((config, gateways))
    }

    fn ask<A>(&self, command: impl FnOnce(Sender<A>) -> Command) -> Result<A, Declined> {
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
        let (config, gateways) =
            self.read().map_err(|error| Declined::Refused(format!("{error:#}")))?;
        self.ask(|answer| Command::Reload(Box::new(config), gateways, answer))?
    }

    fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
    }
}
