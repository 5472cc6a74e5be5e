//! What the engine tells XDP in single words: clocks, keys, switches.

use crate::cell::{Cell32, Cell64};
use crate::siphash::Key;

/// How long the heartbeat may be silent before new connections are refused, in milliseconds
/// (DESIGN, "Next hops").
pub const HEARTBEAT_LIMIT_MS: u64 = 5_000;

/// Cookie keys held at once; at most three are in use, so a writer never touches one that is read.
pub const COOKIE_KEYS: usize = 4;

/// Bits of [`Settings::switches`].
pub mod switch {
    use crate::state::TcpState;

    /// Offer SACK to clients that do.
    pub const SACK: u32 = 1;
    /// Offer timestamps to clients that do.
    pub const TIMESTAMP: u32 = 1 << 1;
    /// Drop UDP to a VIP without a UDP service on that port (LVS `defence_udp_drop`).
    pub const UDP_DROP: u32 = 1 << 2;
    /// Drop IP fragments to a VIP (LVS `defence_frag_drop`).
    pub const FRAGMENT_DROP: u32 = 1 << 3;
    /// Some service takes all ports of its address; see [`super::super::ServiceKey::any`].
    pub const ANY_PORT: u32 = 1 << 4;

    /// The bit that lets a session in `state` be reused (LVS `synproxy_conn_reuse_*`).
    #[inline(always)]
    #[must_use]
    pub const fn reuse(state: TcpState) -> u32 {
        1 << (16 + state as u32)
    }
}

/// A cookie key as it lies in shared memory.
#[derive(Debug, Default)]
#[repr(C)]
pub struct CookieKey {
    k0: Cell64,
    k1: Cell64,
}

impl CookieKey {
    /// The key.
    #[inline(always)]
    pub fn get(&self) -> Key {
        Key(self.k0.load(), self.k1.load())
    }

    /// Sets the key; only for one that no reader uses (see [`Settings::epoch`]).
    pub fn set(&self, key: Key) {
        self.k0.store(key.0);
        self.k1.store(key.1);
    }
}

/// One value a box.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Settings {
    /// When the worker last polled its rings, in milliseconds of the monotonic clock.
    pub heartbeat: Cell64,
    /// Added to the monotonic clock, in milliseconds, gives our timestamp clock.
    pub timestamp_offset: Cell64,
    /// When the next cookie epoch begins, in milliseconds of the monotonic clock, on every box
    /// that shares the cookie keys; `u64::MAX` when nobody shares them. Stored before
    /// [`Settings::epoch`]: for the moment between the two only a peer that is ahead is judged
    /// wrongly, not the clients of our own last epoch.
    pub epoch_ends: Cell64,
    /// The cookie epoch; key `epoch % COOKIE_KEYS` is the current one, the one before it the
    /// previous. The key of the next epoch is written before this is; where keys are shared, the
    /// key of the one after it too.
    pub epoch: Cell32,
    /// Bits of [`switch`].
    pub switches: Cell32,
    /// Number of index buckets, without the stash, less one.
    pub bucket_mask: Cell32,
    /// Entries in the stash bucket.
    pub stashed: Cell32,
    /// Largest MSS that SYN/ACKs offer (LVS `synproxy_init_mss`).
    pub init_mss: Cell32,
    /// Window shift that SYN/ACKs offer, 0 to 14, or [`super::NO_SCALE`].
    pub window_scale: Cell32,
    /// Bytes of early data that a session may have.
    pub early_data: Cell32,
    /// TTL of SYN/ACKs (LVS `synproxy_synack_ttl`).
    pub ttl: Cell32,
    /// Repetitions of a bare ACK on either side that make a storm (LVS `synproxy_ack_storm_thresh`); 0
    /// means that none is cut. See [`crate::storm`].
    pub ack_storm_threshold: Cell32,
    /// Always zero; what [`crate::Frame::opaque`] reads.
    pub zero: Cell32,
    /// Key of the session index.
    pub index_key: CookieKey,
    /// Key of the per-tuple offsets of the timestamp clock.
    pub timestamp_key: CookieKey,
    /// See [`Settings::epoch`].
    pub cookie_keys: [CookieKey; COOKIE_KEYS],
    /// The next identification of an IPv4 header of ours that routers may cut in pieces: a number of its
    /// own for each (RFC 6864, section 4.3).
    pub ident: Cell32,
}
