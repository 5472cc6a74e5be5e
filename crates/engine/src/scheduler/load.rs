//! How loaded real servers are, and which of them is least so.

use super::Candidate;

impl Candidate {
    /// An active connection weighs as much as 256 inactive ones (Linux, `include/net/ip_vs.h`,
    /// `ip_vs_dest_conn_overhead`).
    pub(super) const fn overhead(&self) -> u64 {
        ((self.active as u64) << 8) + self.inactive as u64
    }

    /// What it would have with one connection more, inactive ones aside (`ip_vs_sed.c`,
    /// `ip_vs_sed_dest_overhead`).
    pub(super) const fn expected_delay(&self) -> u64 {
        self.active as u64 + 1
    }
}

/// The place, among those given, of the eligible server with the least load for its weight; of
/// equals the first.
pub(super) fn least(
    candidates: &[Candidate],
    places: impl Iterator<Item = usize>,
    load: impl Fn(&Candidate) -> u64,
) -> Option<usize> {
    let known = places.filter_map(|place| Some((place, candidates.get(place)?)));
    let eligible = known.filter(|(_, candidate)| candidate.is_eligible());
    let less = |least: (usize, &Candidate), other: (usize, &Candidate)| {
        // The quotients' order, without dividing.
        let mine = u128::from(load(least.1)) * u128::from(other.1.weight);
        let theirs = u128::from(load(other.1)) * u128::from(least.1.weight);
        mine > theirs
    };
    let chosen = eligible.reduce(|least, other| if less(least, other) { other } else { least })?;
    Some(chosen.0)
}

/// The least of all, by [`Candidate::overhead`]: what `wlc`, `lblc` and `lblcr` take.
pub(super) fn least_overhead(candidates: &[Candidate]) -> Option<usize> {
    least(candidates, 0..candidates.len(), Candidate::overhead)
}

/// Whether `lblc` and `lblcr` look for another server in place of `candidate` (`ip_vs_lblc.c`,
/// `is_overloaded`): it has more connections than weight, and some server is at less than half.
pub(super) fn is_overloaded(candidates: &[Candidate], candidate: &Candidate) -> bool {
    candidate.active > candidate.weight
        && candidates.iter().any(|other| u64::from(other.active) * 2 < u64::from(other.weight))
}
