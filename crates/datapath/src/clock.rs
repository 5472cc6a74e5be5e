//! The two clocks, both in milliseconds.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time since boot without suspension (`CLOCK_MONOTONIC`): what `bpf_ktime_get_ns` counts, so
/// times in records and slots compare with it. Never steps back.
#[must_use]
pub fn monotonic_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::Monotonic))
}

/// Time since 1970 (`CLOCK_REALTIME`); steps when the administrator or NTP steps it. Zero before
/// 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::Realtime))
}

fn milliseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanoseconds / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::{Timespec, milliseconds, monotonic_ms, wall_ms};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn both_clocks_count_milliseconds() {
        let (monotonic, wall) = (monotonic_ms(), wall_ms());
        std::thread::sleep(Duration::from_millis(20));
        for passed in [monotonic_ms() - monotonic, wall_ms() - wall] {
            assert!((19..5_000).contains(&passed), "{passed} ms");
        }
        let std = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(std.abs_diff(wall_ms()) < 5_000);
    }

    #[test]
    fn a_time_before_1970_is_zero() {
        assert_eq!(milliseconds(Timespec { tv_sec: -1, tv_nsec: 0 }), 0);
        assert_eq!(milliseconds(Timespec { tv_sec: 2, tv_nsec: 3_999_999 }), 2_003);
    }
}
