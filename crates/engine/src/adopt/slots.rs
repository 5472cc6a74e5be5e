//! Sessions: slots that the index leads to.

use std::collections::HashMap;

use seawall_fastpath::layout::{NO_SCALE, Scales, Slot, Word, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Addr, Direction, TcpState, Transport, Tuple};

use super::Adoption;
use crate::accounts::totals_of;
use crate::change::change_flag;
use crate::counters::Counter;
use crate::engine::{Engine, Session};
use crate::udp::AnswerKey;

/// How far a slot's time may be ahead of the clock that was read before, in milliseconds.
const CLOCK_SLACK_MS: u64 = 60_000;
/// The largest window shift (RFC 7323, section 2.3).
const MAX_SCALE: u8 = 14;

impl<M: Memory> Engine<M> {
    pub(super) fn adopt_slots(&mut self, now: u64, found: &mut Adoption) {
        let slots = self.table.memory().slots();
        let taken: Vec<bool> = slots.iter().map(|slot| slot.word.load() != 0).collect();
        // Those that are freed below rest first.
        self.table.occupy(|index| taken.get(index as usize).is_some_and(|taken| *taken));
        for index in 1..self.sessions.len() as u32 {
            let Some(slot) = self.table.slot(index) else { continue };
            if slot.word.load() == 0 {
                continue;
            }
            let word = slot.state();
            if word.state != TcpState::None && self.is_whole(index, slot) {
                self.adopt_session(now, index, word);
                found.sessions += 1;
                found.handshakes += u32::from(word.state == TcpState::SynSent);
                self.count(Counter::Adopted);
            } else {
                self.forget_slot(now, index);
                found.orphan_slots += 1;
                self.count(Counter::OrphanSlot);
            }
        }
    }

    /// Whether both tuples of a slot lead to it and to no other (of UDP, that of the answers; by DR and
    /// TUNNEL, the client's), and its numbers are some.
    fn is_whole(&self, index: u32, slot: &Slot) -> bool {
        let (ends, transport) = (slot.ends(), slot.state().transport());
        let leads = |tuple: Tuple, direction| {
            self.table
                .find(transport, &tuple)
                .is_some_and(|found| found.index == index && found.direction == direction)
        };
        let Scales { client, ours, real_server } = Scales::from_bits(slot.scales.load());
        let is_scale = |scale| scale <= MAX_SCALE || scale == NO_SCALE;
        self.numbered(slot.service.load(), slot.real_server.load()).is_some()
            && [client, ours, real_server].into_iter().all(is_scale)
            && if slot.state().flags & flag::ONE_WAY != 0 {
                leads(ends.inbound(), Direction::Inbound)
            } else {
                (transport == Transport::Udp || leads(ends.inbound(), Direction::Inbound))
                    && leads(ends.outbound(), Direction::Outbound)
            }
    }

    fn adopt_session(&mut self, now: u64, index: u32, word: Word) {
        let Some(slot) = self.table.memory().slots().get(index as usize) else { return };
        let (service, server) = (slot.service.load(), slot.real_server.load());
        for flow in [&slot.inbound, &slot.outbound] {
            if flow.last_seen.load() > now + CLOCK_SLACK_MS {
                flow.last_seen.store(now);
            }
        }
        // Nobody has taken what was punted meanwhile.
        slot.allow_punts();
        change_flag(slot, slot.generation.load(), flag::OPENING, false);
        let next_hop = slot.next_hop_in.load();
        let (state, transport) = (word.state, word.transport());
        let unproven = state == TcpState::SynRecv && word.flags & flag::PROXIED == 0;
        match transport {
            Transport::Tcp => self.unproven += u32::from(unproven),
            Transport::Udp => self.unconfirmed_udp += u32::from(unproven),
        }
        self.udp += u32::from(transport == Transport::Udp);
        let one_way = word.flags & flag::ONE_WAY != 0;
        self.one_way += u32::from(one_way);
        let returns = self.services.get_mut(service as usize);
        if let Some(returns) = returns.and_then(|found| found.servers.get_mut(server as usize)) {
            // Until a route is set, and for good if it does not come back.
            returns.spec.next_hop = next_hop;
        }
        // The answer to a datagram that was scheduled by itself has only the way back.
        let ends = slot.ends();
        let one_packet = self.table.locate(&ends.inbound(), index, Direction::Inbound).is_none();
        if one_packet {
            let key = AnswerKey { service, server, client: ends.client, port: ends.vip.port };
            self.answers.insert(key, index);
        }
        if let Some(session) = self.sessions.get_mut(index as usize) {
            *session = Session {
                service,
                server,
                transport,
                one_packet,
                one_way,
                unproven,
                ..Session::default()
            };
        }
        self.count_in(index, state);
        if state == TcpState::SynSent {
            self.resume_handshake(index);
        } else if is_prefaced(word)
            && (state == TcpState::Close || !self.resume_preface(now, index))
            && let Some(slot) = self.table.slot(index)
        {
            // Who is reset asks for no header, and who has acknowledged it for no more of it.
            change_flag(slot, slot.generation.load(), flag::INTRODUCING, false);
        }
    }

    /// Starts the timer of a session that was taken over; one whose real server is to be asked or told
    /// again fires at once.
    pub(super) fn start_timer(&mut self, now: u64, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let session = self.sessions.get(index as usize);
        if session.is_some_and(|session| session.handshake.is_some()) {
            return self.wheel.arm(index, now);
        }
        let deadline = self.deadline(index, slot, slot.state().state);
        self.wheel.arm(index, deadline.min(self.next_look(now, index)));
    }

    /// Frees a slot that is no session, and what there is of its entries.
    fn forget_slot(&mut self, now: u64, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let (ends, totals) = (slot.ends(), totals_of(slot));
        let (service, server) = (slot.service.load(), slot.real_server.load());
        self.table.remove(&ends.inbound(), index, Direction::Inbound);
        self.table.remove(&ends.outbound(), index, Direction::Outbound);
        let found = self.services.get_mut(service as usize);
        if let Some(found) = found.and_then(|found| found.servers.get_mut(server as usize)) {
            found.totals.add(&totals);
            found.settled.add(&totals);
            self.save_totals(service, server);
        }
        self.table.release(index, now);
    }

    /// Where the search for local ports goes on. Which are in use the index knows.
    pub(super) fn adopt_ports(&mut self) {
        let mut used: HashMap<Addr, Vec<u16>> = HashMap::new();
        for index in self.live.iter() {
            if let Some(slot) = self.table.slot(index) {
                let local = slot.ends().local;
                used.entry(local.address).or_default().push(local.port);
            }
        }
        for pool in &mut self.pools {
            pool.adopt(&mut used);
        }
    }
}

/// Whether packets go through the engine for the sake of a PROXY header.
const fn is_prefaced(word: Word) -> bool {
    let flags = word.flags & (flag::INTRODUCING | flag::PROXIED | flag::BEARS_TOA);
    flags == flag::INTRODUCING | flag::PROXIED
}
