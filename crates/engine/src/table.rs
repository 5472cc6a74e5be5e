//! The session array from the engine's side: slots taken and given back, index entries put in
//! and taken out.

use std::collections::VecDeque;

use seawall_fastpath::layout::{
    Bucket, Entry, Filter, Settings, Slot, first_bucket, second_bucket, tag,
};
use seawall_fastpath::native::{Memory, put_entry, take_entry};
use seawall_fastpath::{Direction, Hit, Sessions, Transport, Tuple, find};

/// How long a slot rests between its last index entry and its next use, in milliseconds. An XDP
/// program that still holds it is done within microseconds; records that name it are told apart
/// by the generation.
pub const GRACE_MS: u64 = 100;

/// The slots and the index.
#[derive(Debug)]
pub(crate) struct Table<M> {
    memory: M,
    free: Vec<u32>,
    resting: VecDeque<(u64, u32)>,
}

/// The shared arrays as [`find`] wants them.
struct View<'a, M>(&'a M);

impl<M: Memory> Sessions for View<'_, M> {
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.0.index().get(index as usize)
    }

    fn filter(&self, word: u32) -> Option<&Filter> {
        self.0.filter().get(word as usize)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.0.slots().get(index as usize)
    }
}

/// A session that a tuple leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) direction: Direction,
}

impl<M: Memory> Table<M> {
    /// All slots of `memory` but the first, which stands for none.
    pub(crate) fn new(memory: M) -> Self {
        let count = memory.slots().len() as u32;
        Self { memory, free: (1..count).rev().collect(), resting: VecDeque::new() }
    }

    /// Takes the slots that are live from those that are free.
    pub(crate) fn occupy(&mut self, is_live: impl Fn(u32) -> bool) {
        self.free.retain(|index| !is_live(*index));
    }

    /// Where the entry of a tuple stands, by bucket and place.
    pub(crate) fn locate(
        &self,
        tuple: &Tuple,
        index: u32,
        direction: Direction,
    ) -> Option<(u32, usize)> {
        let hash = self.hash(self.transport(index), tuple);
        let entry = Entry { tag: tag(hash), direction, slot: index }.to_bits();
        let mask = self.settings().bucket_mask.load();
        let buckets = [first_bucket(hash, mask), second_bucket(hash, mask), mask.wrapping_add(1)];
        buckets.into_iter().find_map(|at| {
            let entries = &self.memory.index().get(at as usize)?.entries;
            Some((at, entries.iter().position(|cell| cell.load() == entry)?))
        })
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.memory.settings()
    }

    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        self.memory.slots().get(index as usize)
    }

    /// Takes a free slot.
    pub(crate) fn allocate(&mut self, now: u64) -> Option<u32> {
        while let Some((since, index)) = self.resting.front().copied() {
            if since + GRACE_MS > now {
                break;
            }
            self.resting.pop_front();
            self.free.push(index);
        }
        self.free.pop()
    }

    /// Gives a slot back that no index entry leads to.
    pub(crate) fn release(&mut self, index: u32, now: u64) {
        if let Some(slot) = self.slot(index) {
            slot.word.publish(0);
            slot.generation.fetch_add(1);
            self.resting.push_back((now, index));
        }
    }

    /// The session that a packet of `transport` and `tuple` belongs to.
    pub(crate) fn find(&self, transport: Transport, tuple: &Tuple) -> Option<Found> {
        let hash = self.hash(transport, tuple);
        let view = View(&self.memory);
        let hit: Option<Hit<'_>> = find(&view, self.settings(), transport, tuple, hash);
        hit.map(|hit| Found { index: hit.index, direction: hit.direction })
    }

    /// Publishes that `tuple`, of the transport that its word says, leads to slot `index`: into the
    /// emptier of its two buckets, or the stash. Says whether there was room.
    pub(crate) fn insert(&self, tuple: &Tuple, index: u32, direction: Direction) -> bool {
        let hash = self.hash(self.transport(index), tuple);
        let entry = Entry { tag: tag(hash), direction, slot: index };
        let mask = self.settings().bucket_mask.load();
        let (first, second) = (first_bucket(hash, mask), second_bucket(hash, mask));
        let (fuller, emptier) =
            if self.load(first) <= self.load(second) { (second, first) } else { (first, second) };
        if self.put(emptier, entry) || self.put(fuller, entry) {
            return true;
        }
        // Readers look into the stash only while it is announced, so announce first.
        self.settings().stashed.fetch_add(1);
        let put = self.put(mask.wrapping_add(1), entry);
        if !put {
            self.settings().stashed.fetch_add(u32::MAX);
        }
        put
    }

    /// Takes back what [`Table::insert`] published.
    pub(crate) fn remove(&self, tuple: &Tuple, index: u32, direction: Direction) {
        let hash = self.hash(self.transport(index), tuple);
        let entry = Entry { tag: tag(hash), direction, slot: index };
        let mask = self.settings().bucket_mask.load();
        if self.take(first_bucket(hash, mask), entry) || self.take(second_bucket(hash, mask), entry)
        {
            return;
        }
        if self.take(mask.wrapping_add(1), entry) {
            self.settings().stashed.fetch_add(u32::MAX);
        }
    }

    /// What carries the session in a slot, while it has one.
    pub(crate) fn transport(&self, index: u32) -> Transport {
        self.slot(index).map_or(Transport::Tcp, |slot| slot.state().transport())
    }

    pub(crate) fn hash(&self, transport: Transport, tuple: &Tuple) -> u64 {
        tuple.hash(transport, self.settings().index_key.get())
    }

    fn load(&self, bucket: u32) -> usize {
        let bucket = self.memory.index().get(bucket as usize);
        bucket.map_or(0, |bucket| bucket.entries.iter().filter(|entry| entry.load() != 0).count())
    }

    fn put(&self, bucket: u32, entry: Entry) -> bool {
        put_entry(&self.memory, bucket, entry)
    }

    fn take(&self, bucket: u32, entry: Entry) -> bool {
        take_entry(&self.memory, bucket, entry)
    }
}

#[cfg(test)]
mod tests {
    use super::{GRACE_MS, Table};
    use seawall_fastpath::layout::Ends;
    use seawall_fastpath::native::{Memory, NativeMemory};
    use seawall_fastpath::{Addr, Direction, Endpoint, Transport};

    fn ends(number: u32) -> Ends {
        let end = |address, port| Endpoint { address: Addr::v4(address), port };
        Ends {
            client: end(number, 1000),
            vip: end(1, 80),
            local: end(2, (number % 60_000) as u16),
            real: end(number / 60_000, 8080),
        }
    }

    /// At half load, with two choices, everything has a place, is found, and is gone again.
    #[test]
    fn a_full_table_finds_all_and_forgets_all() {
        const SESSIONS: u32 = 20_000;
        let mut table = Table::new(NativeMemory::new(SESSIONS));
        for number in 0..SESSIONS {
            let index = table.allocate(0).expect("as many slots as sessions");
            table.slot(index).unwrap().set_ends(&ends(number));
            assert!(table.insert(&ends(number).inbound(), index, Direction::Inbound));
            assert!(table.insert(&ends(number).outbound(), index, Direction::Outbound));
        }
        assert_eq!(table.allocate(0), None);
        for number in 0..SESSIONS {
            let found = table.find(Transport::Tcp, &ends(number).inbound()).expect("inserted");
            assert_eq!(table.slot(found.index).unwrap().ends(), ends(number));
            assert_eq!(
                table.find(Transport::Tcp, &ends(number).outbound()).unwrap().index,
                found.index
            );
            table.remove(&ends(number).inbound(), found.index, Direction::Inbound);
            table.remove(&ends(number).outbound(), found.index, Direction::Outbound);
            assert_eq!(table.find(Transport::Tcp, &ends(number).inbound()), None);
            table.release(found.index, 5);
        }
        let left = table.memory().index().iter().flat_map(|bucket| &bucket.entries);
        assert_eq!(left.filter(|entry| entry.load() != 0).count(), 0);
        let mut buckets = (0..).zip(table.memory().filter());
        assert!(buckets.all(|(word, filter)| (0..8).all(|at| filter.marks(word * 8 + at) == 0)));
        assert_eq!(table.settings().stashed.load(), 0);
        assert_eq!(table.allocate(5 + GRACE_MS - 1), None, "slots rest");
        assert!(table.allocate(5 + GRACE_MS).is_some());
    }

    /// More tuples in two buckets than they hold go to the stash, and are found there.
    #[test]
    fn the_stash_takes_the_overflow() {
        let mut table = Table::new(NativeMemory::new(2));
        table.settings().bucket_mask.store(0);
        let mut placed = Vec::new();
        let index = table.allocate(0).unwrap();
        for number in 0..20 {
            table.slot(index).unwrap().set_ends(&ends(number));
            if table.insert(&ends(number).inbound(), index, Direction::Inbound) {
                placed.push(number);
            }
        }
        assert_eq!((placed.len(), table.settings().stashed.load()), (16, 8));
        for number in &placed {
            table.slot(index).unwrap().set_ends(&ends(*number));
            assert!(table.find(Transport::Tcp, &ends(*number).inbound()).is_some());
        }
        for number in placed {
            table.remove(&ends(number).inbound(), index, Direction::Inbound);
        }
        assert_eq!(table.settings().stashed.load(), 0);
    }
}
