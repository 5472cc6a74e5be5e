//! Rates as IPVS has them (Linux 6.1, `net/netfilter/ipvs/ip_vs_est.c`): every 2 s a quarter of the
//! way from what they were to what was counted since, in fixed point.

use crate::accounts::Totals;

/// How often rates are estimated, in milliseconds.
pub(crate) const INTERVAL_MS: u64 = 2_000;
/// An average moves by this part of the difference: 2^-2.
const WEIGHT: u32 = 2;
/// Binary places of connections and packets a second, and of bytes a second.
const PLACES: [u32; FIELDS] = [10, 10, 10, 5, 5];
const FIELDS: usize = 5;

/// What comes in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// Connections scheduled (ipvsadm: `CPS`).
    pub connections: u64,
    /// Packets from clients (`InPPS`).
    pub in_packets: u64,
    /// Packets to clients (`OutPPS`).
    pub out_packets: u64,
    /// Bytes from clients (`InBPS`).
    pub in_bytes: u64,
    /// Bytes to clients (`OutBPS`).
    pub out_bytes: u64,
}

/// The rates of one real server or service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimator {
    last: [u64; FIELDS],
    scaled: [u64; FIELDS],
}

impl Estimator {
    /// What has been counted up to now is in no rate.
    pub(crate) const fn begin(&mut self, totals: &Totals) {
        self.last = counted(totals);
    }

    /// Takes note of what has been counted, [`INTERVAL_MS`] after it did so before.
    pub(crate) fn tick(&mut self, totals: &Totals) {
        let counted = counted(totals);
        for (at, places) in PLACES.iter().enumerate() {
            let new = counted[at].wrapping_sub(std::mem::replace(&mut self.last[at], counted[at]));
            // Of two seconds.
            let rate = new << (places - 1);
            let step = (rate as i64).wrapping_sub(self.scaled[at] as i64) >> WEIGHT;
            self.scaled[at] = self.scaled[at].wrapping_add_signed(step);
        }
    }

    /// Begins anew from no rate (`ip_vs_zero_estimator()`).
    pub(crate) fn restart(&mut self) {
        self.scaled = [0; FIELDS];
    }

    pub(crate) fn rates(&self) -> Rates {
        let rate = |at: usize| {
            let scaled: u64 = self.scaled[at];
            // All but a half is rounded up, as the kernel does.
            (scaled + (1 << (PLACES[at] - 1)) - 1) >> PLACES[at]
        };
        Rates {
            connections: rate(0),
            in_packets: rate(1),
            out_packets: rate(2),
            in_bytes: rate(3),
            out_bytes: rate(4),
        }
    }
}

const fn counted(totals: &Totals) -> [u64; FIELDS] {
    let Totals { connections, in_packets, in_bytes, out_packets, out_bytes } = *totals;
    [connections, in_packets, out_packets, in_bytes, out_bytes]
}

#[cfg(test)]
mod tests {
    use super::{Estimator, Rates};
    use crate::accounts::Totals;

    fn totals(all: u64) -> Totals {
        Totals {
            connections: all,
            in_packets: all,
            in_bytes: 100 * all,
            out_packets: 2 * all,
            out_bytes: 1_000 * all,
        }
    }

    /// From `estimation_timer` and `ip_vs_read_estimator`, computed apart: 10 connections in 2 s are
    /// `10 << 9` = 5120; from there 5120 >> 2 = 1280, shown as (1280 + 511) >> 10 = 1, and so on.
    #[test]
    fn rates_are_the_kernels_fixed_point() {
        let mut estimator = Estimator::default();
        let mut shown = Vec::new();
        for counted in [10, 20, 30, 40, 40, 40, 40, 40, 40, 40, 40, 40] {
            estimator.tick(&totals(counted));
            let rates = estimator.rates();
            shown.push((estimator.scaled[0], rates.connections, rates.in_bytes, rates.out_bytes));
        }
        let expected = [
            (1_280, 1, 125, 1_250),
            (2_240, 2, 219, 2_187),
            (2_960, 3, 289, 2_891),
            (3_500, 3, 342, 3_418),
            (2_625, 3, 256, 2_563),
            (1_968, 2, 192, 1_923),
            (1_476, 1, 144, 1_442),
            (1_107, 1, 108, 1_081),
            (830, 1, 81, 811),
            (622, 1, 61, 608),
            (466, 0, 46, 456),
            (349, 0, 34, 342),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_steady_rate_is_shown_as_it_is_and_none_as_none() {
        let mut estimator = Estimator::default();
        for round in 1..=60 {
            estimator.tick(&totals(2_000 * round));
        }
        let steady = Rates {
            connections: 1_000,
            in_packets: 1_000,
            out_packets: 2_000,
            in_bytes: 100_000,
            out_bytes: 1_000_000,
        };
        assert_eq!(estimator.rates(), steady);
        for _ in 0..100 {
            estimator.tick(&totals(120_000));
        }
        assert_eq!(estimator.rates(), Rates::default());
        assert_eq!(estimator.scaled, [0; 5]);
    }
}
