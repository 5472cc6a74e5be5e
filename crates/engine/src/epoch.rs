//! Cookie epochs: whose keys are in the packet path's ring, and until when.

use seawall_fastpath::layout::{COOKIE_KEYS, Settings};
use seawall_fastpath::siphash::Key;

/// A cookie epoch, as the world begins it.
#[derive(Clone, Copy)]
pub enum Epoch {
    /// The one after the current, with a random key that no other box knows.
    Own(Key),
    /// The one that every box which shares the secret is in.
    Shared(SharedEpoch),
}

/// What boxes that share a secret know without asking each other, from it and the time of day.
#[derive(Clone, Copy)]
pub struct SharedEpoch {
    /// The epoch's number: the time of day divided by
    /// [`EPOCH_MS`](seawall_fastpath::cookie::EPOCH_MS).
    pub number: u32,
    /// The keys of the epoch before it, of itself and of the one after it.
    pub keys: [Key; 3],
    /// When the one after it begins, in milliseconds of the monotonic clock.
    pub ends: u64,
    /// What added to the monotonic clock gives the time of day, in milliseconds. The timestamp
    /// clock follows it forwards only, for it must not step back (RFC 7323, section 5.4).
    pub timestamp_offset: u64,
}

impl Epoch {
    /// Begins with it, before any packet path reads `settings`.
    pub(crate) fn first(&self, settings: &Settings) {
        match self {
            Self::Own(key) => {
                for cell in &settings.cookie_keys {
                    cell.set(*key);
                }
                settings.epoch_ends.store(u64::MAX);
            }
            Self::Shared(shared) => shared.follow(settings),
        }
    }

    /// Goes on to it. The keys that the packet path uses meanwhile are not touched, unless the
    /// time of day has been set by more than an epoch.
    pub(crate) fn follow(&self, settings: &Settings) {
        match self {
            Self::Own(key) => {
                let next = settings.epoch.load().wrapping_add(1);
                set(settings, next, *key);
                settings.epoch.publish(next);
            }
            Self::Shared(shared) => shared.follow(settings),
        }
    }
}

impl SharedEpoch {
    /// A key that is in the ring already is set to what it is.
    fn follow(&self, settings: &Settings) {
        for (key, step) in self.keys.iter().zip([u32::MAX, 0, 1]) {
            set(settings, self.number.wrapping_add(step), *key);
        }
        let offset = settings.timestamp_offset.load().max(self.timestamp_offset);
        settings.timestamp_offset.store(offset);
        settings.epoch_ends.publish(self.ends);
        settings.epoch.publish(self.number);
    }
}

fn set(settings: &Settings, number: u32, key: Key) {
    if let Some(cell) = settings.cookie_keys.get(number as usize % COOKIE_KEYS) {
        cell.set(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(number: u32, timestamp_offset: u64) -> Epoch {
        let key = |step: u32| Key(u64::from(number.wrapping_add(step)), 9);
        let keys = [key(u32::MAX), key(0), key(1)];
        Epoch::Shared(SharedEpoch { number, keys, ends: 64_000, timestamp_offset })
    }

    fn ring(settings: &Settings) -> Vec<u64> {
        settings.cookie_keys.iter().map(|cell| cell.get().0).collect()
    }

    /// The last one's key stays for as long as its cookies live, and the next one's is there.
    #[test]
    fn shared_keys_overlap() {
        let settings = Settings::default();
        shared(7, 5).first(&settings);
        assert_eq!(ring(&settings), [8, 0, 6, 7]);
        shared(8, 5).follow(&settings);
        assert_eq!(ring(&settings), [8, 9, 6, 7]);
        shared(9, 5).follow(&settings);
        assert_eq!(ring(&settings), [8, 9, 10, 7]);
        assert_eq!((settings.epoch.load(), settings.epoch_ends.load()), (9, 64_000));
        // The time of day was set back a little: what was valid is so again.
        shared(8, 5).follow(&settings);
        assert_eq!(ring(&settings), [8, 9, 10, 7]);
        assert_eq!(settings.epoch.load(), 8);
    }

    #[test]
    fn shared_numbers_wrap() {
        let settings = Settings::default();
        shared(u32::MAX, 5).first(&settings);
        let last = u64::from(u32::MAX);
        assert_eq!(ring(&settings), [0, 0, last - 1, last]);
        shared(0, 5).follow(&settings);
        assert_eq!(ring(&settings), [0, 1, last - 1, last]);
    }

    #[test]
    fn the_timestamp_clock_only_goes_forwards() {
        let settings = Settings::default();
        shared(7, 500).first(&settings);
        for (offset, expected) in [(500, 500), (499, 500), (501, 501), (0, 501)] {
            shared(7, offset).follow(&settings);
            assert_eq!(settings.timestamp_offset.load(), expected);
        }
    }

    #[test]
    fn own_epochs_have_no_end_that_anybody_knows() {
        let settings = Settings::default();
        Epoch::Own(Key(1, 1)).first(&settings);
        assert_eq!(ring(&settings), [1, 1, 1, 1]);
        Epoch::Own(Key(2, 2)).follow(&settings);
        assert_eq!(ring(&settings), [1, 2, 1, 1]);
        assert_eq!((settings.epoch.load(), settings.epoch_ends.load()), (1, u64::MAX));
    }
}
