//! Weighted overflow (Linux, `net/netfilter/ipvs/ip_vs_ovf.c`): all to the greatest weight until it
//! has more connections than that, then to the next.

use super::fo::heaviest;
use super::{Arrival, Candidate, Flags, Scheduler};

/// `ovf` keeps nothing.
#[derive(Debug)]
pub(super) struct Overflow;

pub(super) fn build(_: Flags, _: &[Candidate]) -> Overflow {
    Overflow
}

impl Scheduler for Overflow {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        let has_room = |candidate: &Candidate| candidate.active <= candidate.weight;
        heaviest(candidates, |candidate| candidate.is_eligible() && has_room(candidate))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, loaded};
    use super::{Overflow, Scheduler};

    #[test]
    fn a_server_takes_one_more_than_its_weight() {
        let chosen = |servers: &[_]| Overflow.schedule(&loaded(servers), &ARRIVAL);
        assert_eq!(chosen(&[(1, 0), (3, 3)]), Some(1));
        assert_eq!(chosen(&[(1, 0), (3, 4)]), Some(0));
        assert_eq!(chosen(&[(1, 2), (3, 4)]), None);
        assert_eq!(chosen(&[(0, 0)]), None);
    }
}
