//! Frames and tables in ordinary memory, for tests, fuzzing, the simulator and the engine.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use crate::cell::Cell64;
use crate::embryo::{self, EMBRYOS};
use crate::layout::{
    AddressEntry, AddressKey, Bucket, Entry, FULL_RECORD_FRAME, Filter, Header, InterfaceEntry,
    LedgerRecord, MAX_NEXT_HOPS, NextHop, RecordHeader, RecordKind, ServiceEntry, ServiceKey,
    Settings, Slot, Template, bucket_count, mark,
};
use crate::tables::Ring;
use crate::{Frame, Reason, Sessions, Tables};

extern crate std;
use std::collections::HashMap;

/// A frame at the front of a buffer that may be longer.
#[derive(Debug)]
pub struct Buffer<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> Buffer<'b> {
    /// The first `len` bytes of `bytes` (all of them if there are fewer); the rest is room to
    /// grow.
    #[must_use]
    pub fn new(bytes: &'b mut [u8], len: usize) -> Self {
        let len = len.min(bytes.len());
        Self { bytes, len }
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Frame for Buffer<'_> {
    type Window<'a, const N: usize>
        = &'a mut [u8]
    where
        Self: 'a;

    fn len(&self) -> usize {
        self.len
    }

    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(..self.len)?.get_mut(offset..)?.get_mut(..N)
    }

    fn resize(&mut self, len: usize) -> Option<()> {
        if len > self.bytes.len() {
            return None;
        }
        self.len = len;
        Some(())
    }

    fn grow_head(&mut self, by: i32) -> Option<()> {
        let len = self.len.checked_add_signed(by as isize)?;
        if by >= 0 {
            if len > self.bytes.len() {
                return None;
            }
            self.bytes.copy_within(..self.len, by as usize);
        } else {
            self.bytes.copy_within(self.len - len..self.len, 0);
        }
        self.len = len;
        Some(())
    }

    fn opaque(&self, value: usize) -> usize {
        value
    }
}

/// The arrays that XDP and the engine share.
pub trait Memory {
    /// The sessions; slot 0 is never used.
    fn slots(&self) -> &[Slot];
    /// The session index: a power of two of buckets and the stash.
    fn index(&self) -> &[Bucket];
    /// The index's filter: [`Filter::words`] of its buckets.
    fn filter(&self) -> &[Filter];
    /// The next hops; entry 0 is never valid.
    fn next_hops(&self) -> &[NextHop];
    /// The persistence templates.
    fn templates(&self) -> &[Template];
    /// The settings.
    fn settings(&self) -> &Settings;
    /// What the next engine is told beside the tables.
    fn header(&self) -> &Header;
    /// Whose numbers are whose.
    fn ledger(&self) -> &[LedgerRecord];
}

impl<M: Memory + ?Sized> Memory for Rc<M> {
    fn slots(&self) -> &[Slot] {
        (**self).slots()
    }

    fn index(&self) -> &[Bucket] {
        (**self).index()
    }

    fn filter(&self) -> &[Filter] {
        (**self).filter()
    }

    fn next_hops(&self) -> &[NextHop] {
        (**self).next_hops()
    }

    fn templates(&self) -> &[Template] {
        (**self).templates()
    }

    fn settings(&self) -> &Settings {
        (**self).settings()
    }

    fn header(&self) -> &Header {
        (**self).header()
    }

    fn ledger(&self) -> &[LedgerRecord] {
        (**self).ledger()
    }
}

/// Puts `entry` into `bucket` of the index; says whether there was room. Not for two threads at once.
pub fn put_entry(memory: &impl Memory, bucket: u32, entry: Entry) -> bool {
    let Some((entries, filter)) = bucket_of(memory, bucket) else { return false };
    filter.set_marks(bucket, filter.marks(bucket) | mark(entry.tag));
    let put = entries.entries.iter().any(|cell| cell.replace_if(0, entry.to_bits()));
    if !put {
        filter.set_marks(bucket, entries.marks());
    }
    put
}

/// Takes `entry` out of `bucket` of the index; says whether it was there. Not for two threads at
/// once.
pub fn take_entry(memory: &impl Memory, bucket: u32, entry: Entry) -> bool {
    let Some((entries, filter)) = bucket_of(memory, bucket) else { return false };
    let taken = entries.entries.iter().any(|cell| cell.replace_if(entry.to_bits(), 0));
    if taken {
        filter.set_marks(bucket, entries.marks());
    }
    taken
}

fn bucket_of<M: Memory>(memory: &M, bucket: u32) -> Option<(&Bucket, &Filter)> {
    let filter = memory.filter().get(Filter::word(bucket) as usize)?;
    Some((memory.index().get(bucket as usize)?, filter))
}

/// The shared arrays in ordinary memory.
#[derive(Debug)]
pub struct NativeMemory {
    slots: Vec<Slot>,
    index: Vec<Bucket>,
    filter: Vec<Filter>,
    next_hops: Vec<NextHop>,
    templates: Vec<Template>,
    settings: Settings,
    header: Header,
    ledger: Vec<LedgerRecord>,
}

/// Records in the ledger of a [`NativeMemory`]: enough for what is built on it.
const NATIVE_RECORDS: u32 = 256;

impl NativeMemory {
    /// Room for `sessions` sessions, and as many templates.
    #[must_use]
    pub fn new(sessions: u32) -> Self {
        let fill = |count: u32| (0..count).map(|_| ());
        let buckets = bucket_count(sessions);
        let settings = Settings::default();
        settings.bucket_mask.store(buckets - 1);
        Self {
            slots: fill(sessions + 1).map(|()| Slot::default()).collect(),
            index: fill(buckets + 1).map(|()| Bucket::default()).collect(),
            filter: fill(Filter::words(buckets + 1)).map(|()| Filter::default()).collect(),
            next_hops: fill(MAX_NEXT_HOPS).map(|()| NextHop::default()).collect(),
            templates: fill(sessions).map(|()| Template::default()).collect(),
            settings,
            header: Header::default(),
            ledger: fill(NATIVE_RECORDS).map(|()| LedgerRecord::default()).collect(),
        }
    }
}

impl Memory for NativeMemory {
    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn index(&self) -> &[Bucket] {
        &self.index
    }

    fn filter(&self) -> &[Filter] {
        &self.filter
    }

    fn next_hops(&self) -> &[NextHop] {
        &self.next_hops
    }

    fn templates(&self) -> &[Template] {
        &self.templates
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn header(&self) -> &Header {
        &self.header
    }

    fn ledger(&self) -> &[LedgerRecord] {
        &self.ledger
    }
}

/// A record that went up a ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Which ring.
    pub ring: Ring,
    /// Its header.
    pub header: RecordHeader,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Records that the rings hold before they are full.
pub const RING_RECORDS: usize = 4096;

/// The tables of one CPU in ordinary memory.
#[derive(Debug)]
pub struct NativeTables {
    /// What the engine shares.
    pub memory: Rc<NativeMemory>,
    /// Services by key.
    pub services: RefCell<HashMap<ServiceKey, ServiceEntry>>,
    /// Our addresses.
    pub addresses: RefCell<HashMap<AddressKey, AddressEntry>>,
    /// Our interfaces.
    pub interfaces: RefCell<HashMap<u32, InterfaceEntry>>,
    /// What went up the rings and was not taken yet.
    pub records: RefCell<VecDeque<Record>>,
    counters: RefCell<Vec<u64>>,
    embryos: Vec<Cell64>,
    now: Cell<u64>,
}

impl NativeTables {
    /// Empty tables around `memory`.
    #[must_use]
    pub fn new(memory: Rc<NativeMemory>) -> Self {
        Self {
            memory,
            services: RefCell::default(),
            addresses: RefCell::default(),
            interfaces: RefCell::default(),
            records: RefCell::default(),
            counters: RefCell::new(vec![0; Reason::ALL.len()]),
            embryos: (0..EMBRYOS).map(|_| Cell64::default()).collect(),
            now: Cell::new(0),
        }
    }

    /// Sets the clock, in milliseconds.
    pub fn set_now(&self, now: u64) {
        self.now.set(now);
    }

    /// The counter of `reason`.
    #[must_use]
    pub fn counter(&self, reason: Reason) -> u64 {
        self.counters.borrow().get(reason as usize).copied().unwrap_or(0)
    }
}

impl Sessions for NativeTables {
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.memory.index().get(index as usize)
    }

    fn filter(&self, word: u32) -> Option<&Filter> {
        self.memory.filter().get(word as usize)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.memory.slots().get(index as usize)
    }
}

impl Tables for NativeTables {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn settings(&self) -> Option<&Settings> {
        Some(self.memory.settings())
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        self.services.borrow().get(key).copied()
    }

    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        self.addresses.borrow().get(key).copied()
    }

    fn interface(&self, index: u32) -> Option<InterfaceEntry> {
        self.interfaces.borrow().get(&index).copied()
    }

    fn next_hop(&self, index: u32) -> Option<&NextHop> {
        self.memory.next_hops().get(index as usize)
    }

    fn embryo(&self, hash: u64) -> Option<&Cell64> {
        self.embryos.get(embryo::index(hash) as usize)
    }

    fn punt(&self, ring: Ring, header: &RecordHeader, frame: &mut impl Frame) -> bool {
        let mut records = self.records.borrow_mut();
        let bytes = if header.kind == RecordKind::StateChanged as u16 { 0 } else { frame.len() };
        if records.len() >= RING_RECORDS || bytes > FULL_RECORD_FRAME {
            return false;
        }
        let frame = (0..bytes)
            .map(|at| {
                use seawall_wire::Bytes;
                frame.window::<1>(at).map_or(0, |byte| byte.u8(0))
            })
            .collect();
        let header = RecordHeader { frame_len: bytes as u16, ..*header };
        records.push_back(Record { ring, header, frame });
        true
    }

    fn count(&self, reason: Reason) {
        if let Some(counter) = self.counters.borrow_mut().get_mut(reason as usize) {
            *counter += 1;
        }
    }
}
