//! Weighted round robin (Linux, `net/netfilter/ipvs/ip_vs_wrr.c`): rounds with a falling
//! threshold; in each, the servers whose weight reaches it take one connection in turn.

use super::{Candidate, Scheduler};

/// State of `wrr`: where the last choice was and the threshold of the round.
#[derive(Debug, Default)]
pub(super) struct WeightedRoundRobin {
    last: Option<usize>,
    threshold: u32,
}

impl Scheduler for WeightedRoundRobin {
    fn schedule(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let weights = || candidates.iter().filter(|c| c.is_eligible()).map(|c| c.weight);
        let greatest = weights().max()?;
        let step = weights().fold(0, gcd);
        // The kernel's `mw`: the greatest weight at which the round changes nothing.
        let start = greatest - (step - 1);
        if self.threshold == 0 || self.threshold > start {
            self.threshold = start;
        }
        let mut at = self.last.map_or(0, |last| last + 1);
        loop {
            while let Some(candidate) = candidates.get(at) {
                if candidate.is_eligible() && candidate.weight >= self.threshold {
                    self.last = Some(at);
                    return Some(at);
                }
                at += 1;
            }
            // Ends: the threshold is at most the greatest weight once it has wrapped.
            at = 0;
            self.threshold = if self.threshold > step { self.threshold - step } else { start };
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Scheduler, WeightedRoundRobin};

    fn sequence(weights: &[u32], count: usize) -> Vec<Option<usize>> {
        let candidates: Vec<_> =
            weights.iter().map(|weight| Candidate { weight: *weight, excluded: false }).collect();
        let mut scheduler = WeightedRoundRobin::default();
        (0..count).map(|_| scheduler.schedule(&candidates)).collect()
    }

    /// The example of `ip_vs_wrr.c`'s documentation: weights 4, 3, 2 give AABABCABC.
    #[test]
    fn is_the_documented_sequence() {
        let (a, b, c) = (Some(0), Some(1), Some(2));
        assert_eq!(sequence(&[4, 3, 2], 9), [a, a, b, a, b, c, a, b, c]);
        assert_eq!(sequence(&[4, 3, 2], 18)[9..], [a, a, b, a, b, c, a, b, c]);
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
}
