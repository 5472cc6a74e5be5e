//! What the XDP program hands up: records in a BPF ring buffer, read without a system call.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use seawall_fastpath::layout::RecordHeader;

/// Bytes of [`RecordHeader`].
const HEADER_LEN: usize = size_of::<RecordHeader>();

/// One ring, for one reader. Ready for epoll(7) ([`AsFd`]) while it holds records.
///
/// When it is full the XDP program drops the packet and counts it.
pub struct Ring {
    ring: RingBuf<MapData>,
    malformed: u64,
}

impl Ring {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, malformed: 0 }
    }

    /// Hands up to `budget` records to `handle`, oldest first, each with the bytes of frame that
    /// it carries (none if the record has no frame); says how many. A record's place in the ring
    /// is free once `handle` returns.
    ///
    /// Fewer than `budget` means that the ring was empty.
    pub fn for_each(
        &mut self,
        budget: usize,
        mut handle: impl FnMut(&RecordHeader, &[u8]),
    ) -> usize {
        let mut handled = 0;
        while handled < budget {
            let Some(record) = self.ring.next() else { break };
            match parse(&record) {
                Some((header, frame)) => handle(&header, frame),
                None => self.malformed += 1,
            }
            handled += 1;
        }
        handled
    }

    /// Records that were shorter than they said. Other than 0 only if the XDP program and this
    /// one are of different builds.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// The header and as much of the rest as it claims; `None` if that is more than there is. Records
/// have one of a few sizes, so there may be more.
fn parse(record: &[u8]) -> Option<(RecordHeader, &[u8])> {
    let (bytes, rest) = record.split_first_chunk::<HEADER_LEN>()?;
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let header = RecordHeader {
        kind: u16::from_ne_bytes([bytes[0], bytes[1]]),
        frame_len: u16::from_ne_bytes([bytes[2], bytes[3]]),
        interface: word(4),
        service: word(8),
        slot: word(12),
        generation: word(16),
        detail: word(20),
        time: u64::from_ne_bytes([
            bytes[24], bytes[25], bytes[26], bytes[27], bytes[28], bytes[29], bytes[30], bytes[31],
        ]),
    };
    Some((header, rest.get(..usize::from(header.frame_len))?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn records_shorter_than_they_say_are_refused() {
        let mut record: Vec<u8> = (0..64).collect();
        record[2..4].copy_from_slice(&32_u16.to_ne_bytes());
        let (header, frame) = parse(&record).unwrap();
        assert_eq!(frame, &record[32..]);
        assert_eq!(header.kind, u16::from_ne_bytes([0, 1]));
        assert_eq!(header.interface, u32::from_ne_bytes([4, 5, 6, 7]));
        assert_eq!(header.service, u32::from_ne_bytes([8, 9, 10, 11]));
        assert_eq!(header.slot, u32::from_ne_bytes([12, 13, 14, 15]));
        assert_eq!(header.generation, u32::from_ne_bytes([16, 17, 18, 19]));
        assert_eq!(header.detail, u32::from_ne_bytes([20, 21, 22, 23]));
        assert_eq!(header.time, u64::from_ne_bytes([24, 25, 26, 27, 28, 29, 30, 31]));
        for short in 0..64 {
            assert!(parse(&record[..short]).is_none(), "{short} bytes");
        }
        record[2..4].copy_from_slice(&7_u16.to_ne_bytes());
        assert_eq!(parse(&record).unwrap().1, &record[32..39]);
    }
}
