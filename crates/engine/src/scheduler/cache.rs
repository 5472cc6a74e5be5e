//! What `lblc` and `lblcr` remember of destination addresses.

use std::collections::BTreeMap;

use seawall_fastpath::Addr;

/// Addresses that are remembered (Linux: 16 for each of `IP_VS_LBLC_TAB_SIZE`).
const LIMIT: usize = 16 * 1024;
/// After so long without use an entry may make room (Linux: `ENTRY_TIMEOUT`), in milliseconds.
const IDLE: u64 = 6 * 60 * 1_000;
/// So often at most is room looked for (Linux: `CHECK_EXPIRE_INTERVAL`), in milliseconds.
const INTERVAL: u64 = 60 * 1_000;
/// After so long without use an entry is none (Linux: `DEFAULT_EXPIRATION`), in milliseconds. The
/// kernel notices within half an hour more.
pub(super) const EXPIRATION: u64 = 24 * 60 * 60 * 1_000;

/// Entries by address, at most 16,384. The kernel goes over that limit for as long as all of them
/// are in use; here what is new is not remembered then.
#[derive(Debug)]
pub(super) struct Cache<T> {
    entries: BTreeMap<[u64; 2], Entry<T>>,
    /// When room may be looked for again.
    next_search: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    used: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next_search: 0 }
    }
}

impl<T> Cache<T> {
    /// What is known of `address`. It counts as used.
    pub(super) fn get(&mut self, address: Addr, now: u64) -> Option<&mut T> {
        if now >= self.entries.get(&address.0)?.used + EXPIRATION {
            self.entries.remove(&address.0);
            return None;
        }
        let entry = self.entries.get_mut(&address.0)?;
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Remembers `value` for `address`, if there is room.
    pub(super) fn insert(&mut self, address: Addr, now: u64, value: T) {
        let known = self.entries.contains_key(&address.0);
        if !known && self.entries.len() >= LIMIT {
            if now < self.next_search {
                return;
            }
            self.next_search = now + INTERVAL;
            self.entries.retain(|_, entry| now < entry.used + IDLE);
            if self.entries.len() >= LIMIT {
                return;
            }
        }
        self.entries.insert(address.0, Entry { value, used: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: usize) -> Addr {
        Addr::v4(number as u32)
    }

    #[test]
    fn what_is_not_used_for_a_day_is_forgotten() {
        let mut cache = Cache::default();
        cache.insert(at(1), 5, 'a');
        assert_eq!(cache.get(at(1), 4 + EXPIRATION), Some(&mut 'a'));
        assert_eq!(cache.get(at(1), 3 + 2 * EXPIRATION), Some(&mut 'a'));
        assert_eq!(cache.get(at(1), 3 + 3 * EXPIRATION), None);
        assert_eq!(cache.get(at(2), 0), None);
    }

    #[test]
    fn a_full_cache_gives_up_what_is_idle() {
        let mut cache = Cache::default();
        for number in 0..LIMIT {
            cache.insert(at(number), 0, ());
        }
        assert!(cache.get(at(7), IDLE - 1).is_some());
        cache.insert(at(LIMIT), IDLE - 1, ());
        assert!(cache.get(at(LIMIT), IDLE - 1).is_none(), "all are in use");
        cache.insert(at(LIMIT), IDLE, ());
        assert!(cache.get(at(LIMIT), IDLE).is_none(), "once a minute");
        cache.insert(at(LIMIT), IDLE - 1 + INTERVAL, ());
        assert_eq!(cache.entries.len(), 2);
        assert!(cache.get(at(7), IDLE + INTERVAL).is_some());
        assert!(cache.get(at(LIMIT), IDLE + INTERVAL).is_some());
    }
}
