//! Locality-based least connections with replication (Linux,
//! `net/netfilter/ipvs/ip_vs_lblcr.c`): a destination address has a set of servers, the least
//! loaded of which takes the connection; an overloaded set grows, and one that has not changed for
//! a day loses its most loaded server.

use std::cmp::Ordering;

use super::cache::{Cache, EXPIRATION};
use super::load::{is_overloaded, least, least_overhead};
use super::{Arrival, Candidate, Flags, Scheduler};

/// State of `lblcr`: a set of places for each address, at most 16,384 sets with at most each of the
/// service's servers once, 8 bytes a server.
#[derive(Debug)]
pub(super) struct LocalityReplicated {
    cache: Cache<Set>,
    /// How long a set stays as it is (Linux: `lblcr_expiration`), in milliseconds.
    pub(super) expiration: u64,
}

/// The servers of one address.
#[derive(Debug)]
struct Set {
    /// Those added last come first.
    places: Vec<usize>,
    changed: u64,
}

pub(super) fn build(_: Flags, _: &[Candidate]) -> LocalityReplicated {
    LocalityReplicated { cache: Cache::default(), expiration: EXPIRATION }
}

impl Set {
    fn add(&mut self, place: usize, now: u64) {
        if !self.places.contains(&place) {
            self.places.insert(0, place);
            self.changed = now;
        }
    }

    fn shrink(&mut self, candidates: &[Candidate], now: u64) {
        if let Some(most) = most(candidates, &self.places) {
            self.places.retain(|place| *place != most);
            self.changed = now;
        }
    }
}

/// The server with the greatest load for its weight, if that is not 0; of equals the first.
fn most(candidates: &[Candidate], places: &[usize]) -> Option<usize> {
    let known = places.iter().filter_map(|place| Some((*place, candidates.get(*place)?)));
    let load = |candidate: &Candidate, other: &Candidate| {
        u128::from(candidate.overhead()) * u128::from(other.weight)
    };
    let greater = |most: (usize, _), other: (usize, _)| {
        let (mine, theirs) = (load(most.1, other.1), load(other.1, most.1));
        if mine.cmp(&theirs) == Ordering::Less { other } else { most }
    };
    known.filter(|(_, found)| found.weight > 0).reduce(greater).map(|(place, _)| place)
}

impl Scheduler for LocalityReplicated {
    fn schedule(&mut self, candidates: &[Candidate], arrival: &Arrival) -> Option<usize> {
        let Arrival { vip, now, .. } = *arrival;
        let Some(set) = self.cache.get(vip.address, now) else {
            let place = least_overhead(candidates)?;
            self.cache.insert(vip.address, now, Set { places: vec![place], changed: now });
            return Some(place);
        };
        let chosen = least(candidates, set.places.iter().copied(), Candidate::overhead);
        if set.places.len() > 1 && now > set.changed + self.expiration {
            set.shrink(candidates, now);
        }
        if let Some(place) = chosen
            && let Some(candidate) = candidates.get(place)
            && !is_overloaded(candidates, candidate)
        {
            return Some(place);
        }
        let place = least_overhead(candidates)?;
        set.add(place, now);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, candidates, loaded};
    use super::{Arrival, EXPIRATION, Flags, Scheduler, build};

    #[test]
    fn a_set_grows_under_load_and_shrinks_with_time() {
        let mut scheduler = build(Flags::default(), &[]);
        let at = |now| Arrival { now, ..ARRIVAL };
        assert_eq!(scheduler.schedule(&candidates(&[2, 4]), &at(0)), Some(0));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 3), (4, 2)]), &at(1)), Some(0));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 3), (4, 1)]), &at(2)), Some(1));
        // Both are in the set now; the less loaded takes it.
        assert_eq!(scheduler.schedule(&loaded(&[(2, 0), (4, 1)]), &at(3)), Some(0));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 2), (4, 1)]), &at(EXPIRATION)), Some(1));
        // The first, more loaded, goes.
        assert_eq!(scheduler.schedule(&loaded(&[(2, 2), (4, 1)]), &at(EXPIRATION + 3)), Some(1));
        assert_eq!(scheduler.schedule(&loaded(&[(2, 0), (4, 4)]), &at(EXPIRATION + 4)), Some(1));
    }

    #[test]
    fn none_when_none_is_eligible() {
        let mut scheduler = build(Flags::default(), &[]);
        assert_eq!(scheduler.schedule(&candidates(&[0, 0]), &ARRIVAL), None);
        let mut servers = candidates(&[1, 1]);
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(0));
        servers[0].excluded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), Some(1));
        servers[1].excluded = true;
        assert_eq!(scheduler.schedule(&servers, &ARRIVAL), None);
    }
}
