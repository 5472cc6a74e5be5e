//! Totals and rates while sessions live: every two seconds each slot's counters are added to its real
//! server's, and the rates are estimated.
//!
//! A million sessions are not looked at in one go: the scan goes through those that live in steps,
//! spread over the interval, so that no step keeps packets waiting for more than a few milliseconds.

use seawall_fastpath::native::Memory;

use crate::accounts::{Counted, Totals, totals_of};
use crate::engine::Engine;
use crate::estimator::{Estimator, INTERVAL_MS};

/// Sessions a step.
const STEP: usize = 65_536;

/// Where the scan is.
#[derive(Debug)]
pub(crate) struct Scan {
    /// When the interval began.
    since: u64,
    /// Steps of it, and how many of them are done.
    steps: usize,
    done: usize,
    /// The place among the live sessions before which it has not been yet; all of them in the beginning.
    place: usize,
}

impl Scan {
    /// One of about so many live sessions. The first step begins at the last that lives then; the last
    /// one takes what is left.
    pub(crate) fn new(now: u64, live: usize) -> Self {
        Self { since: now, steps: live.div_ceil(STEP).max(1), done: 0, place: usize::MAX }
    }

    /// When the next step is due; the last one when the interval ends.
    const fn due(&self) -> u64 {
        self.since + INTERVAL_MS * (self.done as u64 + 1) / self.steps as u64
    }
}

impl<M: Memory> Engine<M> {
    /// When [`Engine::handle_statistics`] is next wanted.
    #[must_use]
    pub const fn poll_statistics(&self) -> u64 {
        self.scan.due()
    }

    /// Brings totals up to date, and every two seconds the rates.
    pub fn handle_statistics(&mut self, now: u64) {
        while self.scan.due() <= now {
            let from = self.scan.place.min(self.live.len());
            let last = self.scan.done + 1 == self.scan.steps;
            let to = if last { 0 } else { from.saturating_sub(STEP) };
            for place in (to..from).rev() {
                if let Some(index) = self.live.at(place) {
                    self.fold(index);
                }
            }
            self.scan.place = to;
            self.scan.done += 1;
            if self.scan.done == self.scan.steps {
                self.estimate();
                let ended = self.scan.since + INTERVAL_MS;
                // Whoever was stopped for longer does not make up for it, as in the kernel.
                let since = if now < ended + INTERVAL_MS { ended } else { now };
                self.scan = Scan::new(since, self.live.len());
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

    /// Has the rates of a service and its real servers begin anew from none.
    pub fn restart_rates(&mut self, service: u32) {
        let Some(service) = self.services.get_mut(service as usize) else { return };
        service.estimator.restart();
        service.servers.iter_mut().for_each(|server| server.estimator.restart());
    }

    fn estimate(&mut self) {
        self.each_estimator(|estimator, totals| estimator.tick(totals));
    }

    /// Brings totals up to date, and has rates begin from there.
    pub(crate) fn begin_estimates(&mut self) {
        for place in 0..self.live.len() {
            if let Some(index) = self.live.at(place) {
                self.fold(index);
            }
        }
        self.each_estimator(|estimator, totals| estimator.begin(totals));
    }

    fn each_estimator(&mut self, take: impl Fn(&mut Estimator, &Totals)) {
        for service in &mut self.services {
            let mut totals = service.gone;
            for server in &mut service.servers {
                take(&mut server.estimator, &server.totals);
                totals.add(&server.totals);
            }
            take(&mut service.estimator, &totals);
        }
    }
}
