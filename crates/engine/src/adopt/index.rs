//! The session index and its filter.

use seawall_fastpath::Direction;
use seawall_fastpath::layout::{ENTRIES_PER_BUCKET, Filter};
use seawall_fastpath::native::Memory;

use super::Adoption;
use crate::counters::Counter;
use crate::engine::Engine;

const _: () = assert!(ENTRIES_PER_BUCKET == u8::BITS as usize);

impl<M: Memory> Engine<M> {
    /// Makes the filter say what the index says. A crash between an entry and its mark leaves a mark too
    /// many; one too few would hide sessions.
    pub(super) fn adopt_filter(&self) {
        let memory = self.table.memory();
        for (number, bucket) in (0..).zip(memory.index()) {
            let filter = memory.filter().get(Filter::word(number) as usize);
            let marks = bucket.marks();
            if let Some(filter) = filter.filter(|filter| filter.marks(number) != marks) {
                filter.set_marks(number, marks);
            }
        }
    }

    /// Removes every entry but those of each session, and counts the stash anew.
    pub(super) fn adopt_index(&mut self, found: &mut Adoption) {
        let buckets = self.table.memory().index().len();
        let mut ours = vec![0_u8; buckets];
        for index in self.live.iter() {
            let Some(slot) = self.table.slot(index) else { continue };
            let ends = slot.ends();
            for (tuple, direction) in
                [(ends.inbound(), Direction::Inbound), (ends.outbound(), Direction::Outbound)]
            {
                if let Some((bucket, place)) = self.table.locate(&tuple, index, direction)
                    && let Some(ours) = ours.get_mut(bucket as usize)
                {
                    *ours |= 1 << place;
                }
            }
        }
        let mut orphans = 0;
        for (bucket, ours) in self.table.memory().index().iter().zip(&ours) {
            for (place, cell) in bucket.entries.iter().enumerate() {
                if cell.load() != 0 && ours & 1 << place == 0 {
                    cell.store(0);
                    orphans += 1;
                }
            }
        }
        if orphans > 0 {
            self.adopt_filter();
        }
        let stashed = ours.last().map_or(0, |ours| ours.count_ones());
        self.table.settings().stashed.store(stashed);
        found.orphan_entries = orphans;
        for _ in 0..orphans {
            self.count(Counter::OrphanEntry);
        }
    }
}
