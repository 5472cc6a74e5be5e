//! Weighted least connections (Linux, `net/netfilter/ipvs/ip_vs_wlc.c`): the fewest for the weight.

use super::load::least_overhead;
use super::{Arrival, Candidate, Flags, Scheduler};

/// `wlc` keeps nothing.
#[derive(Debug)]
pub(super) struct WeightedLeastConnections;

pub(super) fn build(_: Flags, _: &[Candidate]) -> WeightedLeastConnections {
    WeightedLeastConnections
}

impl Scheduler for WeightedLeastConnections {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        least_overhead(candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, loaded};
    use super::{Scheduler, WeightedLeastConnections};

    #[test]
    fn takes_the_least_for_its_weight_and_of_equals_the_first() {
        let chosen = |servers: &[_]| WeightedLeastConnections.schedule(&loaded(servers), &ARRIVAL);
        assert_eq!(chosen(&[(1, 2), (4, 7), (2, 4)]), Some(1));
        assert_eq!(chosen(&[(0, 0), (1, 1), (2, 2), (3, 3)]), Some(1));
        assert_eq!(chosen(&[(0, 0)]), None);
        assert_eq!(chosen(&[(u32::MAX, u32::MAX), (u32::MAX, u32::MAX - 1)]), Some(1));
    }
}
