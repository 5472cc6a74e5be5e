//! Latencies in fixed memory, written by many threads and read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per power of two: a percentile is at most 1/64 above the truth.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Microseconds that still have a bucket of their own kind: 2^36, about 19 hours. Longer ones count
/// as that.
const RANGE_BITS: u32 = 36;

/// 64 exact buckets, then 64 for each further power of two: 1,984 words, 16 KiB.
const BUCKETS: usize = STEPS + (RANGE_BITS - STEP_BITS) as usize * STEPS;

/// Counts durations by size.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted by now.
    pub fn counts(&self) -> Counts {
        Counts(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect())
    }
}

/// What a [`Histogram`] held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(Box<[u64]>);

impl Counts {
    /// What was counted after `earlier`, a reading of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// How many durations there are.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that `percent` of all do not exceed, rounded up by at most 1/64; `None` without
    /// any. `percent` is taken as 0 to 100.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let total = self.total();
        let rank = (percent.clamp(0.0, 100.0) / 100.0 * total as f64).ceil() as u64;
        let mut seen = 0;
        let position = self.0.iter().position(|count| {
            seen += count;
            *count > 0 && seen >= rank
        })?;
        Some(Duration::from_micros(upper_bound(position)))
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.min((1 << RANGE_BITS) - 1);
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let shift = micros.ilog2() - STEP_BITS;
    // The top bits, the highest of which is always set: STEPS to 2 * STEPS - 1.
    let step = (micros >> shift) as usize;
    STEPS * shift as usize + step
}

/// The largest number of microseconds that belongs to a bucket.
const fn upper_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let step = (bucket % STEPS + STEPS) as u64;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_ends_where_the_next_begins() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper_bound(index)), index);
            assert_eq!(bucket(upper_bound(index) + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_close_and_never_low() {
        let histogram = Histogram::default();
        assert_eq!(histogram.counts().percentile(50.0), None);
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        let counts = histogram.counts();
        assert_eq!(counts.total(), 10_000);
        for (percent, truth) in [(0.0, 1), (50.0, 5_000), (99.0, 9_900), (100.0, 10_000)] {
            let micros = counts.percentile(percent).unwrap().as_micros();
            assert!((truth..=truth + truth / 64).contains(&micros), "{percent}: {micros}");
        }
    }

    #[test]
    fn a_difference_holds_only_what_came_later() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(5));
        let before = histogram.counts();
        histogram.record(Duration::from_micros(40));
        let later = histogram.counts().since(&before);
        assert_eq!(later.total(), 1);
        assert_eq!(later.percentile(50.0), Some(Duration::from_micros(40)));
    }
}
