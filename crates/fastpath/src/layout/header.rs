//! What a daemon leaves to the next one beside the tables (DESIGN, "Adoption"). One a state
//! directory; written by the engine and the daemon, and by no packet path.

use super::settings::CookieKey;
use crate::cell::{Cell32, Cell64};

/// Counters that a [`Header`] has room for.
pub const COUNTER_CELLS: usize = 128;

/// One value a box. What stands first never moves, whatever [`super::VERSION`]: by it a daemon
/// tells what it finds.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Header {
    /// [`super::VERSION`] of the daemon that made all this; 0 until its start was complete.
    pub version: Cell32,
    /// The number of the last program generation.
    pub generation: Cell32,
    /// The network namespace that all this belongs to (`SO_NETNS_COOKIE`).
    pub network: Cell64,
    /// Stands for the names of all counters, in their order: other counters start anew.
    pub names: Cell64,
    /// When the next cookie epoch begins, in milliseconds of the monotonic clock.
    pub next_epoch: Cell64,
    /// Key of the ISNs and clocks towards real servers (RFC 6528).
    pub isn_key: CookieKey,
    /// Spare, zero.
    pub spare: [Cell64; 2],
    /// The engine's counters from the front, the datapath's from the back.
    pub counters: [Cell64; COUNTER_CELLS],
}

impl Default for Header {
    fn default() -> Self {
        Self {
            version: Cell32::default(),
            generation: Cell32::default(),
            network: Cell64::default(),
            names: Cell64::default(),
            next_epoch: Cell64::default(),
            isn_key: CookieKey::default(),
            spare: Default::default(),
            counters: core::array::from_fn(|_| Cell64::default()),
        }
    }
}
