//! What the API asks, answered by the worker between two rounds.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use seawall_control::api::Backend;
use seawall_control::report::{DropsReport, Page, SessionsReport, StatsReport};
use seawall_datapath::Waker;

/// How long an answer may take; the worker answers between two rounds of a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question from the API's thread.
pub(super) enum Command {
    Stats(Sender<StatsReport>),
    Drops(Sender<DropsReport>),
    Sessions(Page, Sender<SessionsReport>),
    Stop,
}

/// The API's end.
pub(super) struct Remote {
    commands: Sender<Command>,
    waker: Waker,
}

impl Remote {
    /// Both ends; `waker` wakes the worker.
    pub(super) fn new(waker: Waker) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        (Self { commands, waker }, receiver)
    }

    fn ask<A: Default>(&self, command: impl FnOnce(Sender<A>) -> Command) -> A {
        let (answer, receiver) = channel();
        // A worker that has ended answers nothing, and the daemon is about to end.
        let _ = self.commands.send(command(answer));
        self.waker.wake();
        receiver.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

impl Backend for Remote {
    fn stats(&self) -> StatsReport {
        self.ask(Command::Stats)
    }

    fn drops(&self) -> DropsReport {
        self.ask(Command::Drops)
    }

    fn sessions(&self, page: Page) -> SessionsReport {
        self.ask(|answer| Command::Sessions(page, answer))
    }

    fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
    }
}
