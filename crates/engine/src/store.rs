//! The early-data store: a client's segments while its real server is being asked (SPEC A8).

use seawall_wire::SeqNumber;

/// A kept segment.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its first sequence number.
    pub(crate) seq: SeqNumber,
    /// What it takes of the sequence space.
    pub(crate) len: u32,
    /// The frame.
    pub(crate) frame: Vec<u8>,
}

/// The segments of one session, in order of sequence numbers, none twice.
#[derive(Debug, Default)]
pub(crate) struct Early {
    segments: Vec<Kept>,
    bytes: usize,
}

/// What became of a segment that was to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// It is kept.
    Kept,
    /// Nothing in it is new.
    Duplicate,
    /// There is no room.
    Full,
}

/// How much room there is for one more segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Segments a session.
    pub(crate) segments: usize,
    /// Bytes a session.
    pub(crate) bytes: usize,
    /// Bytes that all sessions together may still take.
    pub(crate) total: usize,
}

impl Early {
    /// Keeps a segment. The first is always the accepted ACK, whatever it carries; after it,
    /// segments that take no sequence space say nothing that it does not.
    pub(crate) fn keep(&mut self, seq: SeqNumber, len: u32, frame: &[u8], room: Room) -> Stored {
        let end = seq.add(len);
        let covers = |kept: &Kept| !kept.seq.is_after(seq) && !end.is_after(kept.seq.add(kept.len));
        if self.segments.iter().any(covers) || (len == 0 && !self.segments.is_empty()) {
            return Stored::Duplicate;
        }
        if self.segments.len() >= room.segments
            || self.bytes + frame.len() > room.bytes
            || frame.len() > room.total
        {
            return Stored::Full;
        }
        let place = self
            .segments
            .iter()
            .position(|kept| kept.seq.is_after(seq))
            .unwrap_or(self.segments.len());
        self.segments.insert(place, Kept { seq, len, frame: frame.to_vec() });
        self.bytes += frame.len();
        Stored::Kept
    }

    /// Bytes kept.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The segments, in order.
    pub(crate) fn segments(&self) -> &[Kept] {
        &self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::{Early, Room, Stored};
    use seawall_wire::SeqNumber;

    const ROOM: Room = Room { segments: 4, bytes: 100, total: 1000 };

    fn seqs(early: &Early) -> Vec<u32> {
        early.segments().iter().map(|kept| kept.seq.0).collect()
    }

    /// SPEC A8: in order, across the wrap, and nothing twice.
    #[test]
    fn keeps_in_order_and_once() {
        let mut early = Early::default();
        let start = SeqNumber(u32::MAX - 9);
        assert_eq!(early.keep(start, 0, &[0; 10], ROOM), Stored::Kept, "the accepted ACK");
        assert_eq!(early.keep(start, 0, &[0; 10], ROOM), Stored::Duplicate, "sent again");
        assert_eq!(early.keep(start.add(10), 10, &[2; 10], ROOM), Stored::Kept);
        assert_eq!(early.keep(start, 10, &[1; 10], ROOM), Stored::Kept);
        assert_eq!(early.keep(start.add(12), 5, &[9; 10], ROOM), Stored::Duplicate);
        assert_eq!(early.keep(start.add(10), 11, &[3; 10], ROOM), Stored::Kept, "a FIN more");
        assert_eq!(seqs(&early), [start.0, start.0, 0, 0]);
        assert_eq!(early.bytes(), 40);
    }

    #[test]
    fn is_bounded_by_segments_bytes_and_the_total() {
        let mut early = Early::default();
        for at in 0..4 {
            assert_eq!(early.keep(SeqNumber(at * 10), 10, &[0; 10], ROOM), Stored::Kept);
        }
        assert_eq!(early.keep(SeqNumber(90), 10, &[0; 10], ROOM), Stored::Full);
        let mut early = Early::default();
        assert_eq!(early.keep(SeqNumber(0), 10, &[0; 101], ROOM), Stored::Full);
        let total = Room { total: 9, ..ROOM };
        assert_eq!(early.keep(SeqNumber(0), 10, &[0; 10], total), Stored::Full);
        assert_eq!(early.bytes(), 0);
    }
}
