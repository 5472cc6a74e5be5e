//! Totals and rates while sessions live: every two seconds each slot's counters are added to its real
//! server's, and the rates are estimated.
//!
//! A million slots are not looked at in one go: the scan goes through the array in steps, spread over
//! the interval, so that no step keeps packets waiting for more than a few milliseconds.

use seawall_fastpath::native::Memory;

use crate::accounts::{Counted, totals_of};
use crate::engine::Engine;
use crate::estimator::INTERVAL_MS;

/// Slots a step.
const STEP: usize = 65_536;

/// Where the scan is.
#[derive(Debug)]
pub(crate) struct Scan {
    /// When the interval began.
    since: u64,
    /// Steps of it that are done.
    done: usize,
}

impl Scan {
    pub(crate) const fn new(now: u64) -> Self {
        Self { since: now, done: 0 }
    }

    /// When the next of `steps` is due; the last one when the interval ends.
    const fn due(&self, steps: usize) -> u64 {
        self.since + INTERVAL_MS * (self.done as u64 + 1) / steps as u64
    }
}

impl<M: Memory> Engine<M> {
    fn steps(&self) -> usize {
        self.sessions.len().div_ceil(STEP).max(1)
    }

    /// When [`Engine::handle_statistics`] is next wanted.
    #[must_use]
    pub fn poll_statistics(&self) -> u64 {
        self.scan.due(self.steps())
    }

    /// Brings totals up to date, and every two seconds the rates.
    pub fn handle_statistics(&mut self, now: u64) {
        let steps = self.steps();
        while self.scan.due(steps) <= now {
            let from = self.scan.done * STEP;
            for index in from..(from + STEP).min(self.sessions.len()) {
                self.fold(index as u32);
            }
            self.scan.done += 1;
            if self.scan.done == steps {
                self.estimate();
                let ended = self.scan.since + INTERVAL_MS;
                // Whoever was stopped for longer does not make up for it, as in the kernel.
                let since = if now < ended + INTERVAL_MS { ended } else { now };
                self.scan = Scan::new(since);
            }
        }
    }

    /// Adds what a session has had since to its real server's totals.
    pub(crate) fn fold(&mut self, index: u32) {
        let session = self.sessions.get(index as usize);
        let Some(session) = session.filter(|session| session.counted != Counted::Not) else {
            return;
        };
        let Some(slot) = self.table.slot(index) else { return };
        let totals = totals_of(slot);
        let new = totals.since(&session.folded);
        self.tally(index, &new);
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.folded = totals;
        }
    }

    fn estimate(&mut self) {
        for service in &mut self.services {
            let mut totals = service.gone;
            for server in &mut service.servers {
                server.estimator.tick(&server.totals);
                totals.add(&server.totals);
            }
            service.estimator.tick(&totals);
        }
    }
}
