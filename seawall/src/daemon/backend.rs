//! What the API asks, answered by the worker between two rounds.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use seawall_control::api::Backend;
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
    Reload(Box<Config>, Sender<Result<ReloadReport, String>>),
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

    fn ask<A>(&self, command: impl FnOnce(Sender<A>) -> Command) -> Option<A> {
        let (answer, receiver) = channel();
        // A worker that has ended answers nothing, and the daemon is about to end.
        let _ = self.commands.send(command(answer));
        self.waker.wake();
        receiver.recv_timeout(PATIENCE).ok()
    }
}

impl Backend for Remote {
    fn stats(&self) -> StatsReport {
        self.ask(Command::Stats).unwrap_or_default()
    }

    fn drops(&self) -> DropsReport {
        self.ask(Command::Drops).unwrap_or_default()
    }

    fn sessions(&self, page: Page) -> SessionsReport {
        self.ask(|answer| Command::Sessions(page, answer)).unwrap_or_default()
    }

    fn reload(&self) -> Result<ReloadReport, String> {
        let config = Config::load(&self.config).map_err(|errors| errors.to_string())?;
        self.ask(|answer| Command::Reload(Box::new(config), answer))
            .unwrap_or_else(|| Err("the daemon is about to end".to_owned()))
    }

    fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
    }
}
