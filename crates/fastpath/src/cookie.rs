//! SYN cookies: our ISN carries what the client offered, and proves it (DESIGN, "Cookie").
//!
//! ```text
//!  31      30..27         26..24       23        22..0
//! +------+--------------+-----------+--------+---------+
//! | SACK | window scale | MSS class | parity |   MAC   |
//! +------+--------------+-----------+--------+---------+
//! ```
//!
//! The MAC is SipHash-2-4 over the 4-tuple, the client's ISN, the option byte, whether
//! timestamps are in use and the epoch, under the key of the epoch; 23 bits of it, so a blind
//! ACK passes with probability 2^-23. An epoch lasts [`EPOCH_MS`]; the parity bit says whether
//! the cookie is of the current one or the one before, so checking costs one MAC.
//!
//! Boxes that share a secret derive the keys and the epoch's number from it and the time of day,
//! and so check each other's cookies. Their clocks may differ by [`SKEW_MS`]: within that time
//! before an epoch ends, the other parity is the next epoch's, which a peer may be in already.
//! What that costs is the end of a life: a cookie of the previous epoch is 59 seconds old by then.

use seawall_wire::SeqNumber;

use crate::family::{Family, V4, V6, Version};
use crate::layout::{COOKIE_KEYS, NO_SCALE, Settings};
use crate::options::Timestamps;
use crate::{Transport, Tuple};

/// How long an epoch lasts, in milliseconds; a cookie lives for one to two.
pub const EPOCH_MS: u64 = 64_000;
/// How far the clocks of two boxes that share a secret may differ, in milliseconds: far more than
/// NTP leaves, and little of a cookie's life.
pub const SKEW_MS: u64 = 5_000;

const SCALE_NONE: u8 = 15;
const MAC_MASK: u32 = 0x007f_ffff;
const PARITY_SHIFT: u32 = 23;

/// What the client offered, as far as a cookie can carry it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Index into [`Family::MSS_CLASSES`].
    pub mss_class: u8,
    /// The client's window shift, or [`NO_SCALE`].
    pub window_scale: u8,
    /// SACK is permitted in both directions.
    pub sack: bool,
}

impl Offer {
    /// The option byte of the cookie.
    #[inline(always)]
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        let scale =
            if self.window_scale == NO_SCALE { SCALE_NONE } else { self.window_scale & 0xf };
        (self.sack as u8) << 7 | scale << 3 | (self.mss_class & 7)
    }

    /// The inverse of [`Offer::to_byte`].
    #[inline(always)]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        let scale = byte >> 3 & 0xf;
        Self {
            mss_class: byte & 7,
            window_scale: if scale == SCALE_NONE { NO_SCALE } else { scale },
            sack: byte >> 7 != 0,
        }
    }

    /// The MSS of a client that speaks `version`, rounded down to its class.
    #[must_use]
    pub fn mss(self, version: Version) -> u16 {
        let classes = match version {
            Version::V4 => V4::MSS_CLASSES,
            Version::V6 => V6::MSS_CLASSES,
        };
        classes[self.mss_class as usize & 7]
    }
}

/// The class of an MSS: the largest that is not above it, the smallest for anything below.
#[inline(always)]
#[must_use]
pub const fn mss_class(classes: [u16; 8], mss: u16) -> u8 {
    let mut class = 0;
    let mut at = 1;
    while at < classes.len() {
        class += (mss >= classes[at]) as u8;
        at += 1;
    }
    class
}

/// What a cookie is bound to beside the tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The client's ISN.
    pub client_isn: SeqNumber,
    /// The option byte.
    pub offer: u8,
    /// Timestamps are in use.
    pub timestamps: bool,
}

/// The ISN of our SYN/ACK.
#[inline(always)]
#[must_use]
pub fn make(settings: &Settings, tuple: &Tuple, claim: Claim) -> SeqNumber {
    let epoch = settings.epoch.load();
    let mac = mac(settings, tuple, claim, epoch);
    SeqNumber((claim.offer as u32) << 24 | (epoch & 1) << PARITY_SHIFT | mac)
}

/// What the client offered, if `cookie` is one of ours or of a peer's and at most two epochs old.
#[inline(always)]
#[must_use]
pub fn check(
    settings: &Settings,
    tuple: &Tuple,
    now: u64,
    cookie: SeqNumber,
    client_isn: SeqNumber,
    timestamps: bool,
) -> Option<Offer> {
    let current = settings.epoch.load();
    let parity = cookie.0 >> PARITY_SHIFT & 1;
    let epoch = if current & 1 == parity {
        current
    } else if now.wrapping_add(SKEW_MS) >= settings.epoch_ends.load() {
        current.wrapping_add(1)
    } else {
        current.wrapping_sub(1)
    };
    let offer = (cookie.0 >> 24) as u8;
    let mac = mac(settings, tuple, Claim { client_isn, offer, timestamps }, epoch);
    if mac == cookie.0 & MAC_MASK { Some(Offer::from_byte(offer)) } else { None }
}

#[inline(always)]
fn mac(settings: &Settings, tuple: &Tuple, claim: Claim, epoch: u32) -> u32 {
    let key = settings.cookie_keys[epoch as usize % COOKIE_KEYS].get();
    let options = (claim.offer as u32) << 1 | claim.timestamps as u32;
    tuple.mac(key, [claim.client_isn.0, options, epoch]) as u32 & MAC_MASK
}

/// Our timestamp clock towards the client of `tuple` (the tuple of its segments): milliseconds
/// that never step back, from an origin of its own for each tuple (RFC 7323, section 5.4). The
/// origin only hides the clock, so the cheaper of the two keyed functions will do.
#[inline(always)]
#[must_use]
pub fn clock(settings: &Settings, tuple: &Tuple, now: u64) -> u32 {
    let origin = tuple.hash(Transport::Tcp, settings.timestamp_key.get()) as u32;
    (now.wrapping_add(settings.timestamp_offset.load()) as u32).wrapping_add(origin)
}

/// Whether `timestamps`, of an ACK, echo our clock from within a cookie's life.
#[inline(always)]
#[must_use]
pub fn echoes_clock(settings: &Settings, tuple: &Tuple, now: u64, timestamps: Timestamps) -> bool {
    let skew = SKEW_MS as u32;
    let age = clock(settings, tuple, now).wrapping_add(skew).wrapping_sub(timestamps.echo);
    age <= 2 * EPOCH_MS as u32 + 2 * skew
}
