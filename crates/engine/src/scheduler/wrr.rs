//! Weighted round robin (Linux, `net/netfilter/ipvs/ip_vs_wrr.c`): rounds with a falling
//! threshold; in each, the servers whose weight reaches it take one connection in turn.

use super::{Arrival, Candidate, Flags, Scheduler};

/// State of `wrr`. Thresholds are 1 above a multiple of `step`, and 0 only while all weights are.
#[derive(Debug, Default)]
pub(super) struct WeightedRoundRobin {
    /// Where the last choice was; at the head of the list before the first.
    last: Option<usize>,
    /// Of this round (IPVS: `cw`).
    threshold: u32,
    /// Of the first round (IPVS: `mw`): the greatest at which a round takes all that it can.
    first: u32,
    /// From one round to the next (IPVS: `di`): the greatest common divisor of the weights.
    step: u32,
}

/// The threshold after the last addition depends on those before, so they are gone through.
pub(super) fn build(_: Flags, candidates: &[Candidate]) -> WeightedRoundRobin {
    let mut scheduler = WeightedRoundRobin { step: 1, ..WeightedRoundRobin::default() };
    let (mut divisor, mut greatest) = (0, 0);
    for candidate in candidates.iter().rev() {
        divisor = gcd(divisor, candidate.weight);
        greatest = greatest.max(candidate.weight);
        scheduler.adapt(divisor, greatest);
    }
    scheduler
}

impl WeightedRoundRobin {
    fn adapt(&mut self, divisor: u32, greatest: u32) {
        self.step = divisor.max(1);
        self.first = greatest.saturating_sub(self.step - 1);
        if self.threshold > self.first || self.threshold == 0 {
            self.threshold = self.first;
        } else if self.step > 1 {
            self.threshold = self.threshold / self.step * self.step + 1;
        }
    }

    /// The round that follows.
    const fn next_threshold(&self) -> u32 {
        if self.threshold > self.step { self.threshold - self.step } else { self.first }
    }

    /// The kernel goes through all rounds before it gives up; this is where that leaves it.
    fn give_up(&mut self) {
        if self.last.is_some() && self.threshold <= self.step {
            self.threshold = self.threshold.min(1);
        } else {
            self.last = None;
            self.threshold = self.first;
        }
    }

    fn find(&mut self, candidates: &[Candidate], from: usize) -> Option<usize> {
        let takes =
            |candidate: &Candidate| candidate.is_eligible() && candidate.weight >= self.threshold;
        let found = from + candidates.get(from..)?.iter().position(takes)?;
        self.last = Some(found);
        Some(found)
    }
}

impl Scheduler for WeightedRoundRobin {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        if self.first == 0 {
            return None;
        }
        if let Some(found) = self.find(candidates, self.last.map_or(0, |last| last + 1)) {
            return Some(found);
        }
        let eligible = candidates.iter().filter(|candidate| candidate.is_eligible());
        let Some(greatest) = eligible.map(|candidate| candidate.weight).max() else {
            self.give_up();
            return None;
        };
        self.threshold = self.next_threshold();
        // Rounds that nobody reaches are passed over at once.
        let over = self.threshold.saturating_sub(greatest);
        self.threshold -= over.div_ceil(self.step) * self.step;
        self.find(candidates, 0)
    }

    fn weights_changed(&mut self, candidates: &[Candidate]) {
        let weights = || candidates.iter().map(|candidate| candidate.weight);
        self.last = None;
        self.adapt(weights().fold(0, gcd), weights().max().unwrap_or(0));
    }
}

/// The greatest common divisor; that of 0 and a number is the number.
pub(super) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, candidates};
    use super::{Flags, Scheduler, build};

    fn sequence(weights: &[u32], count: usize) -> Vec<Option<usize>> {
        let candidates = candidates(weights);
        let mut scheduler = build(Flags::default(), &candidates);
        (0..count).map(|_| scheduler.schedule(&candidates, &ARRIVAL)).collect()
    }

    /// The example of LVS's documentation: weights 4, 3, 2 give AABABCABC. Where in it a service
    /// begins depends on how its servers were added: here, at the last round.
    #[test]
    fn is_the_documented_sequence() {
        let (a, b, c) = (Some(0), Some(1), Some(2));
        let chosen = sequence(&[4, 3, 2], 21);
        assert_eq!(chosen[..3], [a, b, c]);
        assert_eq!(chosen[3..12], [a, a, b, a, b, c, a, b, c]);
        assert_eq!(chosen[12..], [a, a, b, a, b, c, a, b, c]);
    }

    #[test]
    fn shares_follow_the_weights() {
        let chosen = sequence(&[3, 0, 1, 6], 1000);
        let count = |server| chosen.iter().filter(|choice| **choice == Some(server)).count();
        assert_eq!([count(0), count(1), count(2), count(3)], [300, 0, 100, 600]);
    }

    #[test]
    fn equal_weights_are_round_robin() {
        assert_eq!(sequence(&[7, 7], 4), [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!(sequence(&[0, 0], 1), [None]);
        assert_eq!(sequence(&[], 1), [None]);
        assert_eq!(sequence(&[u32::MAX], 2), [Some(0), Some(0)]);
    }

    #[test]
    fn a_change_starts_again_at_the_head() {
        let mut servers = candidates(&[1, 1, 1]);
        let mut scheduler = build(Flags::default(), &servers);
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(0));
        servers[1].set_weight(0);
        scheduler.weights_changed(&servers);
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(0));
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(2));
    }

    #[test]
    fn one_that_is_excluded_costs_no_rounds() {
        let mut servers = candidates(&[u32::MAX, 1]);
        let mut scheduler = build(Flags::default(), &servers);
        servers[0].excluded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(1));
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(1));
        servers[1].excluded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), None);
        servers[0].excluded = false;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(0));
    }
}
