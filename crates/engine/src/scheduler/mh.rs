//! Maglev hashing (Linux, `net/netfilter/ipvs/ip_vs_mh.c`; Eisenbud et al., "Maglev", NSDI 2016,
//! section 3.4): one server for each client, and few clients move when servers change.
//!
//! A server of weight 0 keeps its part of the table, so that its clients come back to it. Meanwhile
//! they are refused, unless `mh-fallback` has them look further; `mh-port` hashes the client's port
//! too. The hash is that of 64-bit kernels (`hsiphash` is SipHash-1-3 there).

use std::hash::Hasher;

use seawall_fastpath::Endpoint;
use siphasher::sip::SipHasher13;

use super::hash::fold;
use super::wrr::gcd;
use super::{Arrival, Candidate, Flags, Scheduler};

/// Entries of the table, a prime (Linux: `IP_VS_MH_TAB_SIZE` for `CONFIG_IP_VS_MH_TAB_INDEX` 12,
/// the default).
pub(super) const ENTRIES: usize = 4093;
/// Bits that a server's turns are held to (Linux: `IP_VS_MH_TAB_BITS`).
const TURN_BITS: u32 = 6;
/// Keys of the two hashes (`generate_hash_secret`).
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// State of `mh`: 8 KiB a service. Like the kernel it takes no more than 4,093 servers; of more,
/// those added first are used.
#[derive(Debug)]
pub(super) struct Maglev {
    flags: Flags,
    /// The place of each entry's server; empty if there is none.
    entries: Vec<u16>,
    /// Weights have changed. A table costs as much as thousands of connections, so several changes
    /// at once make one.
    stale: bool,
}

pub(super) fn build(flags: Flags, _: &[Candidate]) -> Maglev {
    Maglev { flags, entries: Vec::new(), stale: true }
}

/// What a server asks for: entries `start`, `start + skip`, …, so many in a row.
struct Preference {
    next: usize,
    skip: usize,
    turns: u32,
}

fn hash(endpoint: Endpoint, key: u64, offset: usize) -> usize {
    let port = u32::from(endpoint.port);
    let value = fold(endpoint.address).wrapping_add(port).wrapping_add(offset as u32);
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&value.to_le_bytes());
    hasher.finish() as u32 as usize
}

fn populate(candidates: &[Candidate]) -> Vec<u16> {
    let weights = || candidates.iter().map(|candidate| candidate.last_weight);
    let divisor = weights().fold(0, gcd);
    let Some(greatest) = weights().max().and_then(|greatest| greatest.checked_div(divisor)) else {
        return Vec::new();
    };
    let shift = (u32::BITS - greatest.leading_zeros()).saturating_sub(TURN_BITS);
    let preference = |candidate: &Candidate| {
        let weight = candidate.last_weight;
        Preference {
            next: hash(candidate.address, KEYS[0], 0) % ENTRIES,
            skip: hash(candidate.address, KEYS[1], 0) % (ENTRIES - 1) + 1,
            turns: ((weight / divisor) >> shift).max(u32::from(weight != 0)),
        }
    };
    let mut preferences: Vec<_> = candidates.iter().map(preference).collect();
    let mut entries = vec![None; ENTRIES];
    let mut free = ENTRIES;
    // Ends: some server has a turn, and each turn takes an entry.
    'dealing: loop {
        for (place, preference) in preferences.iter_mut().enumerate() {
            for _ in 0..preference.turns {
                // The number of entries is prime, so a server's sequence reaches all of them.
                while entries.get(preference.next).is_some_and(Option::is_some) {
                    preference.next = (preference.next + preference.skip) % ENTRIES;
                }
                if let Some(entry) = entries.get_mut(preference.next) {
                    *entry = Some(place as u16);
                }
                free -= 1;
                if free == 0 {
                    break 'dealing;
                }
            }
        }
    }
    entries.into_iter().flatten().collect()
}

impl Maglev {
    /// The server of an entry, if it takes connections.
    fn server(&self, candidates: &[Candidate], entry: usize) -> Option<usize> {
        let place = usize::from(*self.entries.get(entry)?);
        candidates.get(place)?.is_eligible().then_some(place)
    }
}

impl Scheduler for Maglev {
    fn schedule(&mut self, candidates: &[Candidate], arrival: &Arrival) -> Option<usize> {
        // Those added first are last.
        let beyond = candidates.len().saturating_sub(ENTRIES);
        let known = candidates.get(beyond..)?;
        if std::mem::take(&mut self.stale) {
            self.entries = populate(known);
        }
        let port = if self.flags.port { arrival.client.port } else { 0 };
        let client = Endpoint { port, ..arrival.client };
        let start = hash(client, KEYS[0], 0) % ENTRIES;
        let entry = |step| hash(client, KEYS[0], (start + step) % ENTRIES) % ENTRIES;
        let found = self.server(known, start);
        let found = found.or_else(|| {
            let mut steps = if self.flags.fallback { 0..ENTRIES } else { 0..0 };
            steps.find_map(|step| self.server(known, entry(step)))
        })?;
        Some(beyond + found)
    }

    fn weights_changed(&mut self, _: &[Candidate]) {
        self.stale = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{arrival, candidates};
    use super::{Candidate, ENTRIES, Flags, Scheduler, build, populate};

    fn share(entries: &[u16], place: u16) -> usize {
        entries.iter().filter(|entry| **entry == place).count()
    }

    #[test]
    fn entries_are_dealt_by_weight() {
        let entries = populate(&candidates(&[300, 100, 0]));
        assert_eq!(entries.len(), ENTRIES);
        assert!(share(&entries, 0).abs_diff(ENTRIES * 3 / 4) <= 3, "{}", share(&entries, 0));
        assert_eq!(share(&entries, 2), 0);
        let entries = populate(&candidates(&[u32::MAX, 1]));
        assert!(share(&entries, 1).abs_diff(ENTRIES / 64) <= 1, "{}", share(&entries, 1));
        assert!(populate(&candidates(&[0, 0])).is_empty());
        assert!(populate(&[]).is_empty());
    }

    #[test]
    fn a_server_that_rests_keeps_its_clients() {
        let mut servers = candidates(&[1, 1, 1]);
        let mut scheduler = build(Flags::default(), &servers);
        let mut all = |servers: &[Candidate], changed: bool| {
            if changed {
                scheduler.weights_changed(servers);
            }
            let chosen = (0..200).map(|client| scheduler.schedule(servers, &arrival(client, 1)));
            chosen.collect::<Vec<_>>()
        };
        let before = all(&servers, false);
        servers[1].set_weight(0);
        let without: Vec<_> = before.iter().map(|place| place.filter(|at| *at != 1)).collect();
        assert_eq!(all(&servers, true), without);
        servers[1].set_weight(1);
        assert_eq!(all(&servers, true), before);
    }

    #[test]
    fn only_fallback_finds_another() {
        for fallback in [false, true] {
            let mut servers = candidates(&[1, 1]);
            let mut scheduler = build(Flags { fallback, port: true }, &servers);
            let chosen = scheduler.schedule(&servers, &arrival(7, 1)).unwrap();
            servers[chosen].excluded = true;
            let other = scheduler.schedule(&servers, &arrival(7, 1));
            assert_eq!(other, fallback.then_some(1 - chosen));
        }
    }

    #[test]
    fn of_too_many_servers_those_added_first_are_used() {
        let servers = candidates(&vec![1; ENTRIES + 10]);
        let mut scheduler = build(Flags::default(), &servers);
        for client in 0..1_000 {
            assert!(scheduler.schedule(&servers, &arrival(client, 1)).unwrap() >= 10);
        }
    }
}
