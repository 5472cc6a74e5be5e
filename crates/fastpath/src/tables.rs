//! What the packet path looks things up in, and how it finds a session.

use crate::layout::{
    AddressEntry, AddressKey, Bucket, ENTRIES_PER_BUCKET, Entry, Filter, InterfaceEntry, NextHop,
    RecordHeader, ServiceEntry, ServiceKey, Settings, Slot, first_bucket, second_bucket, tag,
};
use crate::state::Direction;
use crate::tuple::{Transport, Tuple};
use crate::{Frame, Reason};

/// The sessions and their index.
pub trait Sessions {
    /// A bucket of the session index.
    fn bucket(&self, index: u32) -> Option<&Bucket>;
    /// A word of the index's filter.
    fn filter(&self, word: u32) -> Option<&Filter>;
    /// A session.
    fn slot(&self, index: u32) -> Option<&Slot>;
}

/// The tables: BPF maps in the kernel, ordinary memory elsewhere.
pub trait Tables: Sessions {
    /// The monotonic clock, in milliseconds.
    fn now(&self) -> u64;
    /// The one [`Settings`].
    fn settings(&self) -> Option<&Settings>;
    /// The service with this key.
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry>;
    /// What this address is, if it is ours.
    fn address(&self, key: &AddressKey) -> Option<AddressEntry>;
    /// The interface with this index.
    fn interface(&self, index: u32) -> Option<InterfaceEntry>;
    /// A next hop.
    fn next_hop(&self, index: u32) -> Option<&NextHop>;
    /// The word of the embryo table that `hash` maps to; see [`crate::embryo`].
    fn embryo(&self, hash: u64) -> Option<&crate::cell::Cell64>;
    /// Sends `header` and the frame (none of it for
    /// [`crate::layout::RecordKind::StateChanged`]) up the ring; says whether there was room.
    fn punt(&self, ring: Ring, header: &RecordHeader, frame: &mut impl Frame) -> bool;
    /// Adds one to the counter of `reason`.
    fn count(&self, reason: Reason);
}

/// Which ring a record goes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// Clients with a valid cookie, and both sides of sessions.
    Proven,
    /// Services without the proxy, and UDP: anybody can fill it.
    Unproven,
}

/// A session that a packet belongs to.
#[derive(Clone, Copy)]
pub struct Hit<'a> {
    /// Its slot.
    pub slot: &'a Slot,
    /// The number of the slot.
    pub index: u32,
    /// Which way the packet goes.
    pub direction: Direction,
}

/// Finds the session that a packet of `transport` and `tuple`, whose hash is `hash`, belongs to: in
/// two buckets, and in the stash while something is in it; of these, in what the filter does not
/// rule out.
#[inline(always)]
pub fn find<'a, T: Sessions>(
    tables: &'a T,
    settings: &Settings,
    transport: Transport,
    tuple: &Tuple,
    hash: u64,
) -> Option<Hit<'a>> {
    let mask = settings.bucket_mask.load();
    let stash = mask.wrapping_add(1);
    let first = filtered(tables, first_bucket(hash, mask), stash, hash)?;
    if let Some(hit) = find_in(tables, first, transport, tuple, hash) {
        return Some(hit);
    }
    let second = filtered(tables, second_bucket(hash, mask), stash, hash)?;
    if let Some(hit) = find_in(tables, second, transport, tuple, hash) {
        return Some(hit);
    }
    if settings.stashed.load() != 0 {
        return find_in(tables, stash, transport, tuple, hash);
    }
    None
}

/// `bucket`, or, if the filter rules out that a tuple of this `hash` is in it, the stash, which is
/// at hand: chosen without a branch, of which the verifier would walk both ways on.
#[inline(always)]
fn filtered<T: Sessions>(tables: &T, bucket: u32, stash: u32, hash: u64) -> Option<u32> {
    let held = tables.filter(Filter::word(bucket))?.held(bucket, tag(hash));
    Some(stash ^ (bucket ^ stash).wrapping_mul(held))
}

#[inline(always)]
fn find_in<'a, T: Sessions>(
    tables: &'a T,
    bucket: u32,
    transport: Transport,
    tuple: &Tuple,
    hash: u64,
) -> Option<Hit<'a>> {
    let wanted = tag(hash);
    let bucket = tables.bucket(bucket)?;
    let mut at = 0;
    while at < ENTRIES_PER_BUCKET {
        let bits = bucket.entries[at].load();
        at += 1;
        if (bits >> 32) as u32 != wanted {
            continue;
        }
        let Some(entry) = Entry::from_bits(bits) else { continue };
        let Some(slot) = tables.slot(entry.slot) else { continue };
        if slot.matches(transport, tuple, entry.direction) {
            return Some(Hit { slot, index: entry.slot, direction: entry.direction });
        }
    }
    None
}
