//! Which sessions live, so that a walk over them is as long as they are many and not as the table.

/// The slots of live sessions, in no order. Two words a slot, live or not.
#[derive(Debug)]
pub(crate) struct Live {
    slots: Vec<u32>,
    /// Where each slot stands in that list, if it does.
    places: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Live {
    /// Bytes a slot.
    pub(crate) const BYTES: usize = 2 * size_of::<u32>();

    /// None, of `limit` slots.
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: Vec::with_capacity(limit), places: vec![NOWHERE; limit] }
    }

    /// Takes a slot in; at once if it is there.
    pub(crate) fn insert(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize) else { return };
        if *place == NOWHERE {
            *place = self.slots.len() as u32;
            self.slots.push(slot);
        }
    }

    /// Takes a slot out; the last one takes its place.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place == NOWHERE {
            return;
        }
        self.slots.swap_remove(place as usize);
        if let Some(moved) = self.slots.get(place as usize)
            && let Some(at) = self.places.get_mut(*moved as usize)
        {
            *at = place;
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot at `place`. Who walks from the last place to the first meets each that lives all the
    /// while, whatever is taken in and out.
    pub(crate) fn at(&self, place: usize) -> Option<u32> {
        self.slots.get(place).copied()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Live;

    /// A walk in steps, between which others come and go.
    #[test]
    fn a_walk_from_the_last_to_the_first_meets_all_that_stay() {
        let mut live = Live::new(1_000);
        (0..500).for_each(|slot| live.insert(slot));
        live.insert(7);
        assert_eq!(live.len(), 500);
        let (mut met, mut place, mut number) = (HashSet::new(), live.len(), 0u32);
        while place > 0 {
            place = (place - 1).min(live.len() - 1);
            met.extend(live.at(place));
            // Of the even ones each goes at some time, and others come.
            number += 1;
            live.remove(number * 274 % 500);
            live.insert(500 + number % 300);
        }
        assert!((1..500).step_by(2).all(|slot| met.contains(&slot)));
        live.remove(999);
        let all: HashSet<_> = live.iter().collect();
        assert_eq!(all.len(), live.len());
        (0..1_000).for_each(|slot| live.remove(slot));
        assert_eq!(live.len(), 0);
        live.insert(3);
        assert_eq!((live.at(0), live.at(1)), (Some(3), None));
    }
}
