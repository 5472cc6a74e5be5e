//! Weighted failover (Linux, `net/netfilter/ipvs/ip_vs_fo.c`): all to the greatest weight.

use super::{Arrival, Candidate, Flags, Scheduler};

/// `fo` keeps nothing.
#[derive(Debug)]
pub(super) struct Failover;

pub(super) fn build(_: Flags, _: &[Candidate]) -> Failover {
    Failover
}

impl Scheduler for Failover {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        heaviest(candidates, Candidate::is_eligible)
    }
}

/// The place of the greatest weight among those that `takes` admits; of equals the first.
pub(super) fn heaviest(
    candidates: &[Candidate],
    takes: impl Fn(&Candidate) -> bool,
) -> Option<usize> {
    let admitted = candidates.iter().enumerate().filter(|(_, candidate)| takes(candidate));
    let greatest =
        admitted.reduce(|best, other| if other.1.weight > best.1.weight { other } else { best })?;
    Some(greatest.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, candidates};
    use super::{Failover, Scheduler};

    #[test]
    fn the_next_weight_takes_over() {
        let mut servers = candidates(&[1, 5, 5, 3]);
        assert_eq!(Failover.schedule(&servers, &ARRIVAL), Some(1));
        servers[1].excluded = true;
        assert_eq!(Failover.schedule(&servers, &ARRIVAL), Some(2));
        servers[2].set_weight(0);
        assert_eq!(Failover.schedule(&servers, &ARRIVAL), Some(3));
        assert_eq!(Failover.schedule(&candidates(&[0]), &ARRIVAL), None);
    }
}
