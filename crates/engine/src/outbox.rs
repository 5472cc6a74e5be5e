//! Frames on their way out.

/// Bytes that one frame may have: what the datapath's send buffers hold.
pub(crate) const MAX_FRAME: usize = 4096;
/// Frames that wait at once; more are dropped, as a full device queue would.
pub(crate) const MAX_WAITING: usize = 4096;

/// Frames and the interfaces they leave by, in one buffer that keeps its room.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    frames: Vec<(u32, usize)>,
}

impl Outbox {
    /// Whether so many more frames can wait.
    pub(crate) const fn has_room(&self, frames: usize) -> bool {
        self.frames.len() + frames <= MAX_WAITING
    }

    /// Queues `frame`; says whether there was room.
    pub(crate) fn push(&mut self, interface: u32, frame: &[u8]) -> bool {
        if self.frames.len() >= MAX_WAITING {
            return false;
        }
        self.bytes.extend_from_slice(frame);
        self.frames.push((interface, self.bytes.len()));
        true
    }

    /// Gives every frame to `send`, in order, and forgets them.
    pub(crate) fn drain(&mut self, mut send: impl FnMut(u32, &[u8])) {
        let mut start = 0;
        for (interface, end) in self.frames.drain(..) {
            send(interface, self.bytes.get(start..end).unwrap_or_default());
            start = end;
        }
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_WAITING, Outbox};

    #[test]
    fn frames_leave_in_order_and_the_queue_is_bounded() {
        let mut outbox = Outbox::default();
        for round in 0..2 {
            for at in 0..MAX_WAITING {
                assert!(outbox.push(at as u32, &[round; 3]));
            }
            assert!(!outbox.push(0, &[]));
            let mut next = 0;
            outbox.drain(|interface, frame| {
                assert_eq!((interface, frame), (next, &[round; 3][..]));
                next += 1;
            });
            assert_eq!(next as usize, MAX_WAITING);
        }
    }
}
