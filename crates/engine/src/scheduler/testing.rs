//! What the tests of the schedulers start from.

use seawall_fastpath::{Addr, Endpoint};

use super::{Arrival, Candidate};

/// One connection.
pub(super) const ARRIVAL: Arrival = arrival(0x0a01_0001, 1024);

/// A connection of a client's.
pub(super) const fn arrival(client: u32, port: u16) -> Arrival {
    Arrival {
        client: Endpoint { address: Addr::v4(client), port },
        vip: Endpoint { address: Addr::v4(0x0a00_00fe), port: 80 },
        now: 0,
    }
}

/// Servers of these weights, in the order in which the scheduler walks them.
pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let candidate = |(number, weight): (usize, &u32)| {
        let address = Addr::v4(0xc0a8_0701 + number as u32);
        Candidate::new(Endpoint { address, port: 8080 }, *weight)
    };
    weights.iter().enumerate().map(candidate).collect()
}

/// Servers of these weights that have so many active sessions.
pub(super) fn loaded(servers: &[(u32, u32)]) -> Vec<Candidate> {
    let weights: Vec<_> = servers.iter().map(|(weight, _)| *weight).collect();
    let mut candidates = candidates(&weights);
    for (candidate, (_, active)) in candidates.iter_mut().zip(servers) {
        candidate.active = *active;
    }
    candidates
}
