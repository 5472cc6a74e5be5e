//! Source hashing (Linux, `net/netfilter/ipvs/ip_vs_sh.c`): one server for each client.
//!
//! If it takes nothing, the connection is refused, unless `sh-fallback` has it look further;
//! `sh-port` hashes the client's port too.

use super::hash::{bucket, fold};
use super::{Arrival, Candidate, Flags, Scheduler};

/// Buckets (Linux: `IP_VS_SH_TAB_SIZE`).
const BUCKETS: usize = 256;

/// State of `sh`: 512 bytes a service. Of more than 256 servers the first 256 are used.
#[derive(Debug)]
pub(super) struct SourceHashing {
    flags: Flags,
    /// The place of each bucket's server; empty if there is none.
    buckets: Vec<u16>,
}

pub(super) fn build(flags: Flags, candidates: &[Candidate]) -> SourceHashing {
    SourceHashing { flags, buckets: assign(candidates) }
}

/// Deals the buckets, as many at a time as the weight says, but one to weight 0 too.
fn assign(candidates: &[Candidate]) -> Vec<u16> {
    let shares = candidates.iter().take(BUCKETS).enumerate();
    let dealt = shares.flat_map(|(place, candidate)| {
        let share = (candidate.weight as usize).clamp(1, BUCKETS);
        std::iter::repeat_n(place as u16, share)
    });
    dealt.cycle().take(BUCKETS).collect()
}

impl SourceHashing {
    /// The server of a bucket, if it takes connections.
    fn server(&self, candidates: &[Candidate], bucket: u8) -> Option<usize> {
        let place = usize::from(*self.buckets.get(usize::from(bucket))?);
        candidates.get(place)?.is_eligible().then_some(place)
    }
}

impl Scheduler for SourceHashing {
    fn schedule(&mut self, candidates: &[Candidate], arrival: &Arrival) -> Option<usize> {
        let port = if self.flags.port { arrival.client.port } else { 0 };
        let start = bucket(fold(arrival.client.address).wrapping_add(u32::from(port)));
        let found = self.server(candidates, start);
        if found.is_some() || !self.flags.fallback {
            return found;
        }
        // The walk begins as far behind the bucket as the bucket is from the first.
        let from = start.wrapping_add(start);
        (0..=u8::MAX).find_map(|step| self.server(candidates, from.wrapping_add(step)))
    }

    fn weights_changed(&mut self, candidates: &[Candidate]) {
        self.buckets = assign(candidates);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{arrival, candidates};
    use super::{BUCKETS, Flags, Scheduler, assign, build};

    #[test]
    fn buckets_are_dealt_by_weight() {
        assert_eq!(assign(&candidates(&[2, 0, 1]))[..6], [0, 0, 1, 2, 0, 0]);
        assert_eq!(assign(&candidates(&[u32::MAX, 1])), [0; BUCKETS]);
        assert_eq!(assign(&candidates(&vec![1; 300])).last(), Some(&255));
        assert!(assign(&[]).is_empty());
    }

    #[test]
    fn the_port_counts_only_with_its_flag() {
        let servers = candidates(&[1; 16]);
        let distinct = |flags| {
            let mut scheduler = build(flags, &servers);
            let chosen = (0..64).map(|port| scheduler.schedule(&servers, &arrival(7, port)));
            chosen.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(distinct(Flags::default()), 1);
        assert!(distinct(Flags { port: true, ..Flags::default() }) > 8);
    }

    #[test]
    fn only_fallback_finds_another() {
        for fallback in [false, true] {
            let mut servers = candidates(&[1, 1]);
            let mut scheduler = build(Flags { fallback, port: false }, &servers);
            let chosen = scheduler.schedule(&servers, &arrival(7, 1)).unwrap();
            servers[chosen].excluded = true;
            let other = scheduler.schedule(&servers, &arrival(7, 1));
            assert_eq!(other, fallback.then_some(1 - chosen));
            servers[1 - chosen].set_weight(0);
            scheduler.weights_changed(&servers);
            assert_eq!(scheduler.schedule(&servers, &arrival(7, 1)), None);
        }
    }
}
