//! Never queue (Linux, `net/netfilter/ipvs/ip_vs_nq.c`): an idle server at once, or else as `sed`.

use super::load::least;
use super::{Arrival, Candidate, Flags, Scheduler};

/// `nq` keeps nothing.
#[derive(Debug)]
pub(super) struct NeverQueue;

pub(super) fn build(_: Flags, _: &[Candidate]) -> NeverQueue {
    NeverQueue
}

impl Scheduler for NeverQueue {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        let idle = |candidate: &Candidate| candidate.is_eligible() && candidate.active == 0;
        candidates
            .iter()
            .position(idle)
            .or_else(|| least(candidates, 0..candidates.len(), Candidate::expected_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, loaded};
    use super::{NeverQueue, Scheduler};

    #[test]
    fn an_idle_server_is_preferred_to_a_fast_one() {
        let chosen = |servers: &[_]| NeverQueue.schedule(&loaded(servers), &ARRIVAL);
        assert_eq!(chosen(&[(9, 1), (0, 0), (1, 0), (4, 0)]), Some(2));
        assert_eq!(chosen(&[(1, 1), (4, 2)]), Some(1));
        assert_eq!(chosen(&[(0, 0)]), None);
    }
}
