//! What the API asks, answered by the worker between two rounds.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use seawall_control::api::{Backend, Declined};
use seawall_control::config::Config;
use seawall_control::report::{DropsReport, Page, ReloadReport, SessionsReport, StatsReport};
use seawall_datapath::Waker;

/// How long an answer may take; the worker answers between two rounds of a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question from the API's thread.
pub(super) enum Command {
    Stats(Sender<StatsReport>),
    Drops(Sender<DropsReport>),
    Sessions(Page, Sender<SessionsReport>),
    /// A file that has been read.
    Reload(Box<Config>, Sender<Result<ReloadReport, Declined>>),
    Stop,
}

/// The end of those who ask.
#[derive(Clone)]
pub(super) struct Remote {
    config: PathBuf,
    commands: Sender<Command>,
    waker: Waker,
}

impl Remote {
    /// Both ends; `config` is the file that is read anew, `waker` wakes the worker.
    pub(super) fn new(config: &Path, waker: Waker) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        (Self { config: config.to_owned(), commands, waker }, receiver)
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
        let config = Config::load(&self.config);
        let config = config.map_err(|errors| Declined::Refused(errors.to_string()))?;
        self.ask(|answer| Command::Reload(Box::new(config), answer))?
    }

    fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
    }
}
