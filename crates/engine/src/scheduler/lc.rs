//! Least connections (Linux, `net/netfilter/ipvs/ip_vs_lc.c`), whatever the weights.

use super::{Arrival, Candidate, Flags, Scheduler};

/// `lc` keeps nothing.
#[derive(Debug)]
pub(super) struct LeastConnections;

pub(super) fn build(_: Flags, _: &[Candidate]) -> LeastConnections {
    LeastConnections
}

impl Scheduler for LeastConnections {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        let eligible = candidates.iter().enumerate().filter(|(_, found)| found.is_eligible());
        eligible.min_by_key(|(_, candidate)| candidate.overhead()).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, loaded};
    use super::{LeastConnections, Scheduler};

    #[test]
    fn an_active_connection_weighs_256_inactive_ones() {
        let mut servers = loaded(&[(1, 2), (9, 1), (0, 0), (1, 1)]);
        assert_eq!(LeastConnections.schedule(&servers, &ARRIVAL), Some(1));
        servers[1].inactive = 1;
        assert_eq!(LeastConnections.schedule(&servers, &ARRIVAL), Some(3));
        servers[3].inactive = 257;
        servers[1].inactive = 257;
        assert_eq!(LeastConnections.schedule(&servers, &ARRIVAL), Some(0));
        assert_eq!(LeastConnections.schedule(&loaded(&[(0, 0)]), &ARRIVAL), None);
    }
}
