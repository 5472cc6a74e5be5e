//! Clocks and randomness: what the engine takes as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

use seawall_fastpath::siphash::Key;

/// The monotonic clock in milliseconds, the one that `bpf_ktime_get_ns` reads.
#[must_use]
pub fn monotonic_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

/// The wall clock in milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A key from the operating system's random source.
///
/// # Errors
/// When there is none.
pub fn random_key() -> std::io::Result<Key> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    let word = u128::from_ne_bytes(bytes);
    Ok(Key(word as u64, (word >> 64) as u64))
}
