//! Handshakes that another engine has begun.

use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{Kept, NO_SCALE, Slot};
use seawall_fastpath::link::Link;
use seawall_fastpath::native::{Buffer, Memory};
use seawall_fastpath::segment::{self, Segment, SynOptions};
use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::counters::Counter;
use crate::engine::{Engine, offer};
use crate::handshake::Handshake;
use crate::outbox::MAX_FRAME;
use crate::preface::Preface;
use crate::store::{Early, Room, Stored};

impl<M: Memory> Engine<M> {
    /// Goes on with a handshake in SYN_SENT: the accepted ACK is written again from the slot, if the
    /// store has room, and the real server asked again as soon as timers run. What the client has sent
    /// since, it sends again.
    pub(super) fn resume_handshake(&mut self, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let mut handshake = self.resumed(slot, Preface::of(slot, 0));
        let mut bytes = [0u8; MAX_FRAME];
        let mut buffer = Buffer::new(&mut bytes, 0);
        let written = self.accepted_ack(slot, &handshake);
        if let Some(ack) = written.filter(|ack| segment::write(&mut buffer, ack).is_some()) {
            let limits = self.config.store;
            let room = Room {
                segments: limits.segments,
                bytes: limits.bytes,
                total: limits.total_bytes.saturating_sub(self.early_bytes),
            };
            if handshake.early.keep(ack.seq, 0, buffer.bytes(), room) == Stored::Full {
                // The real server is answered without it.
                self.count(Counter::QueueFull);
            }
        }
        self.early_bytes += handshake.early.bytes();
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.handshake = Some(Box::new(handshake));
        }
    }

    /// What the slot says of a handshake; nothing is kept.
    pub(crate) fn resumed(&self, slot: &Slot, preface: Option<Preface>) -> Handshake {
        let Kept { window, timestamps } = slot.kept();
        let offer = offer(slot.cookie.load() >> 24);
        Handshake {
            started: slot.inbound.last_seen.load(),
            early: Early::default(),
            syn: SynOptions {
                mss: offer.mss(Version::of(slot.ends().client.address)),
                window_scale: offer.window_scale,
                sack_permitted: offer.sack,
            },
            timestamps,
            syn_value: timestamps.unwrap_or_default().value.wrapping_add(slot.ts_in.load()),
            window,
            retransmissions: 0,
            bare_acks: 0,
            second_server: false,
            preface,
            resumed: true,
        }
    }

    /// The ACK that completed the client's handshake, without what it carried.
    fn accepted_ack(&self, slot: &Slot, handshake: &Handshake) -> Option<Segment> {
        let hop = self.table.memory().next_hops().get(slot.next_hop_out.load() as usize)?;
        let scale = handshake.syn.window_scale;
        let shift = if scale == NO_SCALE { 0 } else { scale };
        let before = handshake.preface.map_or(0, |preface| preface.len);
        Some(Segment {
            // Where it came from is where the client's next hop is.
            link: Link {
                destination: hop.source(),
                source: hop.destination().unwrap_or(hop.source()),
                tags: hop.tags(),
            },
            tuple: slot.ends().inbound(),
            seq: SeqNumber(slot.client_isn.load()).add(1 + before),
            ack: SeqNumber(slot.cookie.load()).add(1),
            flags: Flags::ACK,
            window: u16::try_from(handshake.window >> shift).unwrap_or(u16::MAX),
            ttl: self.config.ttl,
            syn: None,
            timestamps: handshake.timestamps,
        })
    }
}
