//! Destination hashing (Linux, `net/netfilter/ipvs/ip_vs_dh.c`): one server for each destination
//! address, whatever the weights. If it takes nothing, the connection is refused.

use super::hash::{bucket, fold};
use super::{Arrival, Candidate, Flags, Scheduler};

/// The kernel deals its servers over 256 buckets in turn; that needs no table.
#[derive(Debug)]
pub(super) struct DestinationHashing;

pub(super) fn build(_: Flags, _: &[Candidate]) -> DestinationHashing {
    DestinationHashing
}

impl Scheduler for DestinationHashing {
    fn schedule(&mut self, candidates: &[Candidate], arrival: &Arrival) -> Option<usize> {
        let bucket = usize::from(bucket(fold(arrival.vip.address)));
        let place = bucket.checked_rem(candidates.len())?;
        candidates.get(place)?.is_eligible().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ARRIVAL, arrival, candidates};
    use super::{DestinationHashing, Scheduler};

    #[test]
    fn one_address_goes_to_one_server() {
        let mut servers = candidates(&[1, 9, 3]);
        let chosen = DestinationHashing.schedule(&servers, &ARRIVAL).unwrap();
        assert_eq!(DestinationHashing.schedule(&servers, &arrival(7, 7)), Some(chosen));
        servers[chosen].set_weight(0);
        assert_eq!(DestinationHashing.schedule(&servers, &ARRIVAL), None);
        assert_eq!(DestinationHashing.schedule(&[], &ARRIVAL), None);
    }
}
