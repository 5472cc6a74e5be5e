//! What a client sends before its real server may have it (SPEC A8).

use seawall_fastpath::TcpState;
use seawall_fastpath::native::Memory;
use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::counters::Counter;
use crate::engine::{Arrived, Engine};
use crate::store::{Room, Stored};

impl<M: Memory> Engine<M> {
    /// Whether a client's segment lies in the window that our SYN/ACK offered, with room to spare.
    pub(crate) fn is_early(&self, index: u32, arrived: &Arrived<'_>) -> bool {
        let Some(start) = self.client_start(index) else { return false };
        let seq = arrived.packet.tcp.seq;
        let room = u32::from(u16::MAX) + 1;
        seq.since(start).wrapping_add(arrived.packet.sequence_len()) <= room
            && seq.is_within(start, room)
    }

    /// The number of the first byte of a client whose handshake is pending.
    pub(crate) fn client_start(&self, index: u32) -> Option<SeqNumber> {
        let isn = SeqNumber(self.table.slot(index)?.client_isn.load());
        Some(isn.add(1 + self.preface_len(index)))
    }

    /// Keeps a client's segment until its PROXY header has been sent.
    pub(crate) fn keep_early(&mut self, index: u32, arrived: &Arrived<'_>) {
        if arrived.packet.tcp.flags.contains(Flags::SYN) || !self.is_early(index, arrived) {
            return self.count(Counter::EarlyInvalid);
        }
        self.keep(index, arrived);
    }

    /// Keeps a client's segment, if there is room.
    pub(crate) fn keep(&mut self, index: u32, arrived: &Arrived<'_>) {
        let limits = self.config.store;
        let session = self.sessions.get_mut(index as usize);
        let Some(handshake) = session.and_then(|session| session.handshake.as_deref_mut()) else {
            return;
        };
        let room = Room {
            segments: limits.segments,
            bytes: limits.bytes,
            total: limits.total_bytes.saturating_sub(self.early_bytes),
        };
        let (seq, len) = (arrived.packet.tcp.seq, arrived.packet.sequence_len());
        let counter = match handshake.early.keep(seq, len, arrived.frame, room) {
            Stored::Kept => {
                self.early_bytes += arrived.frame.len();
                Counter::EarlyStored
            }
            Stored::Duplicate => Counter::EarlyDuplicate,
            Stored::Full => Counter::QueueFull,
        };
        self.count(counter);
    }

    /// Forgets a session's handshake and gives its store back.
    pub(crate) fn end_handshake(&mut self, index: u32) {
        let session = self.sessions.get_mut(index as usize);
        if let Some(handshake) = session.and_then(|session| session.handshake.take()) {
            self.early_bytes -= handshake.early.bytes();
            if let Some(slot) = self.table.slot(index)
                && slot.state().state == TcpState::SynSent
            {
                slot.forget_kept();
            }
        }
    }
}
