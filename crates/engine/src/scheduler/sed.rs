//! Shortest expected delay (Linux, `net/netfilter/ipvs/ip_vs_sed.c`): the new connection counts.

use super::load::least;
use super::{Arrival, Candidate, Flags, Scheduler};

/// `sed` keeps nothing.
#[derive(Debug)]
pub(super) struct ShortestExpectedDelay;

pub(super) fn build(_: Flags, _: &[Candidate]) -> ShortestExpectedDelay {
    ShortestExpectedDelay
}

impl Scheduler for ShortestExpectedDelay {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        least(candidates, 0..candidates.len(), Candidate::expected_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, loaded};
    use super::{Scheduler, ShortestExpectedDelay};

    #[test]
    fn a_fast_server_is_preferred_to_an_idle_one() {
        let chosen = |servers: &[_]| ShortestExpectedDelay.schedule(&loaded(servers), &ARRIVAL);
        assert_eq!(chosen(&[(1, 0), (4, 2)]), Some(1));
        assert_eq!(chosen(&[(1, 0), (4, 3)]), Some(0));
        assert_eq!(chosen(&[(0, 0)]), None);
    }
}
