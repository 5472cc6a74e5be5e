//! Round robin (Linux, `net/netfilter/ipvs/ip_vs_rr.c`): each eligible server in turn.

use super::{Arrival, Candidate, Flags, Scheduler};

/// State of `rr`: where the last choice was.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    last: Option<usize>,
}

pub(super) fn build(_: Flags, _: &[Candidate]) -> RoundRobin {
    RoundRobin::default()
}

impl Scheduler for RoundRobin {
    fn schedule(&mut self, candidates: &[Candidate], _: &Arrival) -> Option<usize> {
        let start = self.last.map_or(0, |last| last + 1);
        let chosen = (0..candidates.len())
            .map(|step| (start + step) % candidates.len())
            .find(|at| candidates.get(*at).is_some_and(Candidate::is_eligible))?;
        self.last = Some(chosen);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, candidates};
    use super::{RoundRobin, Scheduler};

    #[test]
    fn takes_each_in_turn_and_skips_weight_zero() {
        let servers = candidates(&[1, 0, 5]);
        let mut scheduler = RoundRobin::default();
        let chosen: Vec<_> = (0..5).map(|_| scheduler.schedule(&servers, &ARRIVAL)).collect();
        assert_eq!(chosen, [Some(0), Some(2), Some(0), Some(2), Some(0)]);
    }

    #[test]
    fn none_when_none_is_eligible() {
        let mut scheduler = RoundRobin::default();
        assert_eq!(scheduler.schedule(&[], &ARRIVAL), None);
        assert_eq!(scheduler.schedule(&candidates(&[0, 0]), &ARRIVAL), None);
        let mut servers = candidates(&[1, 1]);
        servers[0].excluded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(1));
    }
}
