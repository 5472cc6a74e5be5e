//! Locality-based least connections (Linux, `net/netfilter/ipvs/ip_vs_lblc.c`): a destination
//! address stays with its server, even at its upper threshold, until that one has more connections
//! than weight while another has less than half; then, and at first, as `wlc`.

use super::cache::Cache;
use super::load::{is_overloaded, least_overhead};
use super::{Arrival, Candidate, Flags, Scheduler};

/// State of `lblc`: the place of each address's server, about 1 MiB at most.
#[derive(Debug, Default)]
pub(super) struct Locality {
    cache: Cache<usize>,
}

pub(super) fn build(_: Flags, _: &[Candidate]) -> Locality {
    Locality::default()
}

impl Scheduler for Locality {
    fn schedule(&mut self, candidates: &[Candidate], arrival: &Arrival) -> Option<usize> {
        let Arrival { vip, now, .. } = *arrival;
        if let Some(place) = self.cache.get(vip.address, now).copied()
            && let Some(candidate) = candidates.get(place)
            && candidate.is_open()
            && !is_overloaded(candidates, candidate)
        {
            return Some(place);
        }
        let place = least_overhead(candidates)?;
        self.cache.insert(vip.address, now, place);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, candidates, loaded};
    use super::{Locality, Scheduler};

    #[test]
    fn an_address_stays_until_its_server_is_overloaded() {
        let mut scheduler = Locality::default();
        assert_eq!(scheduler.schedule(&candidates(&[2, 4]), &ARRIVAL), Some(0));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 2), (4, 0)]), &ARRIVAL), Some(0));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 3), (4, 2)]), &ARRIVAL), Some(0));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 3), (4, 1)]), &ARRIVAL), Some(1));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 0), (4, 4)]), &ARRIVAL), Some(1));
        let mut servers = loaded(&[(2, 0), (4, 1)]);
        servers[1].overloaded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(1));
        servers[1].excluded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(0));
        assert_eq!(scheduler.schedule(&candidates(&[0, 0]), &ARRIVAL), None);
    }
}
