//! Where keys come from: the operating system, or a secret that boxes share.

use anyhow::Result;
use hmac::{Hmac, Mac};
use seawall_control::config::SharedSecret;
use seawall_datapath::{clock, random};
use seawall_engine::{Epoch, Secrets, SharedEpoch};
use seawall_fastpath::cookie::EPOCH_MS;
use seawall_fastpath::layout::Settings;
use seawall_fastpath::siphash::Key;
use sha2::Sha256;

/// What a key derived from the secret is for. Boxes that run different versions of a derivation
/// do not understand each other's cookies: change the label when the meaning of a key changes.
const COOKIE: &str = "seawall cookie 1";
const TIMESTAMP: &str = "seawall timestamp 1";

/// The two clocks at one moment, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) monotonic: u64,
    pub(super) wall: u64,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { monotonic: clock::monotonic_ms(), wall: clock::wall_ms() }
    }

    /// What added to the monotonic clock gives the time of day; 0 on a box that believes it is
    /// the year of its birth.
    pub(super) const fn offset(self) -> u64 {
        self.wall.saturating_sub(self.monotonic)
    }
}

/// Gives the engine its keys.
pub(super) struct Keys {
    secret: Option<SharedSecret>,
}

/// A cookie epoch, and when the next one is due, in milliseconds of the monotonic clock.
pub(super) struct Begun {
    pub(super) epoch: Epoch,
    pub(super) next: u64,
}

impl Keys {
    pub(super) const fn new(secret: Option<SharedSecret>) -> Self {
        Self { secret }
    }

    /// The keys of an engine that starts now, and when its first epoch ends.
    pub(super) fn secrets(&self, now: Now) -> Result<(Secrets, u64)> {
        let timestamp = match &self.secret {
            Some(secret) => derive(secret, TIMESTAMP, 0),
            None => random_key()?,
        };
        let Begun { epoch, next } = self.epoch(now)?;
        let secrets =
            Secrets { index: random_key()?, timestamp, isn: random_key()?, cookie: epoch };
        Ok((secrets, next))
    }

    /// Whether the keys in `settings` are of this kind: from the same secret, or from none.
    pub(super) fn made(&self, settings: &Settings) -> bool {
        let shared = settings.epoch_ends.load() != u64::MAX;
        match &self.secret {
            Some(secret) => shared && derive(secret, TIMESTAMP, 0) == settings.timestamp_key.get(),
            None => !shared,
        }
    }

    /// The epoch to begin now.
    pub(super) fn epoch(&self, now: Now) -> Result<Begun> {
        let Some(secret) = &self.secret else {
            return Ok(Begun { epoch: Epoch::Own(random_key()?), next: now.monotonic + EPOCH_MS });
        };
        let number = (now.wall / EPOCH_MS) as u32;
        let ends = now.monotonic + EPOCH_MS - now.wall % EPOCH_MS;
        let keys = [number.wrapping_sub(1), number, number.wrapping_add(1)]
            .map(|number| derive(secret, COOKIE, number));
        let shared = SharedEpoch { number, keys, ends, timestamp_offset: now.offset() };
        Ok(Begun { epoch: Epoch::Shared(shared), next: ends })
    }
}

/// The key for `label` and `number`: HMAC-SHA-256 of both under the secret, cut to its size
/// (RFC 2104, section 5).
fn derive(secret: &SharedSecret, label: &str, number: u32) -> Key {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(label.as_bytes());
    mac.update(&[0]);
    mac.update(&number.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&digest[at..at + 8]);
        u64::from_be_bytes(word)
    };
    Key(word(0), word(8))
}

fn random_key() -> Result<Key> {
    let word = u128::from_ne_bytes(random::bytes()?);
    Ok(Key(word as u64, (word >> 64) as u64))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(bytes: &[u8]) -> SharedSecret {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!("interfaces = [\"eth0\"]\n[synproxy]\nsecret_file = {path:?}");
        let config = seawall_control::config::Config::parse("t", &text).unwrap();
        config.read_secret().unwrap().unwrap()
    }

    fn shared(keys: &Keys, now: Now) -> SharedEpoch {
        match keys.epoch(now).unwrap().epoch {
            Epoch::Shared(shared) => shared,
            Epoch::Own(_) => panic!("not shared"),
        }
    }

    /// Computed with Python's `hmac`; boxes of every later version must agree.
    #[test]
    fn the_derivation_is_fixed() {
        let secret = secret(&[0x42; 32]);
        let hex = |Key(first, second)| format!("{first:016x}{second:016x}");
        assert_eq!(hex(derive(&secret, COOKIE, 27_500_000)), "f933d7ab527fc99fd8e0890a41f80b74");
        assert_eq!(hex(derive(&secret, TIMESTAMP, 0)), "0ec73e41067c0fbbc2dc53b5d701c969");
    }

    #[test]
    fn boxes_agree_about_epochs_whenever_they_were_started() {
        let keys = Keys::new(Some(secret(&[7; 64])));
        let wall = 27_500_000 * EPOCH_MS + 63_999;
        let one = shared(&keys, Now { monotonic: 5_000, wall });
        let two = shared(&keys, Now { monotonic: 900_000_000, wall: wall + 1 });
        assert_eq!((one.number, two.number), (27_500_000, 27_500_001));
        assert_eq!((one.ends, two.ends), (5_001, 900_000_000 + EPOCH_MS));
        assert!(one.keys[1..] == two.keys[..2] && one.keys[1] != one.keys[2]);
        assert_eq!(one.timestamp_offset, wall - 5_000);
        let other = shared(&Keys::new(Some(secret(&[8; 64]))), Now { monotonic: 5_000, wall });
        assert!(other.number == one.number && other.keys[1] != one.keys[1]);
    }

    #[test]
    fn only_cookies_and_timestamps_are_shared() {
        let now = Now { monotonic: 1_000, wall: 1 << 40 };
        let keys = Keys::new(Some(secret(&[7; 64])));
        let (one, two) = (keys.secrets(now).unwrap().0, keys.secrets(now).unwrap().0);
        assert!(one.timestamp == two.timestamp && one.index != two.index && one.isn != two.isn);
        let own = Keys::new(None);
        let ((one, next), (two, _)) = (own.secrets(now).unwrap(), own.secrets(now).unwrap());
        assert!(one.timestamp != two.timestamp);
        assert!(matches!(one.cookie, Epoch::Own(_)));
        assert_eq!(next, 1_000 + EPOCH_MS);
    }

    #[test]
    fn a_clock_before_the_boot_does_not_underflow() {
        assert_eq!(Now { monotonic: 10, wall: 3 }.offset(), 0);
    }
}
