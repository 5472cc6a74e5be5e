//! What the XDP program sends up: records from its ring buffers.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use seawall_fastpath::layout::RecordHeader;

/// One ring.
pub struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Ring")
    }
}

impl Ring {
    pub(crate) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Gives up to `budget` records to `handle`, oldest first, without a system call; returns
    /// how many there were. A record too short for what its header says is skipped.
    pub fn drain(&mut self, budget: usize, mut handle: impl FnMut(&RecordHeader, &[u8])) -> usize {
        for taken in 0..budget {
            let Some(record) = self.0.next() else { return taken };
            if let Some((header, frame)) = split(&record) {
                handle(&header, frame);
            }
        }
        budget
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn split(record: &[u8]) -> Option<(RecordHeader, &[u8])> {
    let (head, frame) = record.split_first_chunk::<{ size_of::<RecordHeader>() }>()?;
    let header = RecordHeader::from_bytes(head);
    Some((header, frame.get(..usize::from(header.frame_len))?))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn short_records_are_skipped() {
        let mut record = [0u8; 40];
        record[2] = 8;
        assert_eq!(split(&record).map(|(_, frame)| frame.len()), Some(8));
        record[2] = 9;
        assert!(split(&record).is_none());
        assert!(split(&record[..31]).is_none());
    }
}
