//! UDP services: a session a flow, or none at all (SPEC C2, B6).
//!
//! The first datagram of a flow has the engine choose a real server, open a session and send it on;
//! what follows never comes here ([`seawall_fastpath::datagram`]). Datagrams of a flow that were on
//! their way up meanwhile are sent on too, and those that come behind them may overtake them, as
//! datagrams may.
//!
//! # Limits
//!
//! Anybody can send a datagram in anybody's name. So sessions that are not confirmed take at most
//! one in [`UNCONFIRMED_SHARE`] of the table, and all sessions of UDP together one in [`SHARE`]:
//! more are refused and counted, nothing is evicted, and TCP always finds room. While more than
//! half of the unconfirmed share is taken, an unconfirmed session ends after [`PRESSED_MS`] without
//! a datagram (as IPVS's `drop_entry` defence ends entries early), so that the share is free again
//! that soon after a flood, and confirmed sessions go on all the while. So does one towards a real
//! server towards which local ports have run out, until half of them are free. As in IPVS a session
//! counts as inactive all its life, and its timeout starts anew with each datagram of either side.
//!
//! By DR and TUNNEL no answer is ever seen, so nothing confirms a session: those are within the share of
//! the unconfirmed all their life.
//!
//! # Persistence
//!
//! As over TCP ([`crate::persistence`]). The template of a client that has not been confirmed takes from
//! the quarter of those who have proved nothing ([`crate::templates`]); since who guesses may be
//! confirmed, all templates of UDP services together have at most one in [`SHARE`] too. While the
//! quarter is more than half taken, an unconfirmed session with a template ends early as well.
//!
//! # One-packet scheduling
//!
//! Each datagram to a service with it goes to the engine and is scheduled by itself, so at most as
//! many a second as the ring of the unproven and one worker take. IPVS forgets the connection at
//! once and leaves the answer to connection tracking or to direct routing. Here the answer's way
//! is a slot of its own, one for a client's port and a real server, to which no datagram of the
//! client's leads: the packet path translates the answers by it. It ends [`ANSWER_MS`] after the
//! last datagram, counts towards the shares above, and not among the connections that schedulers
//! see. So it works by NAT and by FULLNAT. By DR and TUNNEL no packet leads to it; it is what the
//! datagrams go by.
//!
//! With persistence each datagram goes to the real server of its client's template and begins the
//! template's time anew, as each is a connection of its own in IPVS, which has ended before the next
//! one comes: such a slot never keeps a template.

use seawall_fastpath::datagram::{self, Datagram};
use seawall_fastpath::layout::{Ends, NO_SCALE, RecordHeader, Scales, Word, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::one_way::{self, Way};
use seawall_fastpath::{Direction, Endpoint, Reason, TcpState, Transport, Tuple};
use seawall_wire::SeqNumber;

use crate::counters::Counter;
use crate::engine::{Engine, Opening};
use crate::next_hops::Sender;
use crate::outbox::MAX_FRAME;
use crate::ports::Ports;
use crate::send::buffer;
use crate::table::Found;
use crate::unproxied;

/// Of the sessions, one in this many may be of UDP.
pub(crate) const SHARE: u32 = 2;
/// Of the sessions, one in this many may be of UDP and unconfirmed.
const UNCONFIRMED_SHARE: u32 = 4;
/// How long an unconfirmed session, or a template of none, may be idle while many are, in milliseconds.
pub(crate) const PRESSED_MS: u64 = 5_000;
/// How long the way of an answer is kept, in milliseconds: as Linux's connection tracking keeps a
/// flow without answer (`nf_conntrack_udp_timeout`).
pub(crate) const ANSWER_MS: u64 = 30_000;

/// Whose answers a slot is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AnswerKey {
    pub(crate) service: u32,
    pub(crate) server: u32,
    pub(crate) client: Endpoint,
    /// That the client has asked, of a service that takes them all.
    pub(crate) port: u16,
}

/// A datagram that came up the ring.
struct Arrived<'a> {
    datagram: Datagram,
    frame: &'a [u8],
    interface: u32,
    service: u32,
}

impl<M: Memory> Engine<M> {
    /// A datagram to a UDP service that belonged to no session.
    pub(crate) fn handle_datagram(&mut self, now: u64, header: &RecordHeader, frame: &[u8]) {
        let mut bytes = [0u8; MAX_FRAME];
        let parsed = buffer(&mut bytes, frame)
            .and_then(|mut buffer| datagram::parse(&mut buffer, frame.len()));
        let Some(datagram) = parsed else { return self.count(Counter::RecordInvalid) };
        let tuple = datagram.tuple;
        if !self.serves(header.service, Transport::Udp, tuple.destination) {
            // Removed while the record was on its way.
            return self.count(Counter::NoDestination);
        }
        if let Some(found) = self.table.find(Transport::Udp, &tuple) {
            // The datagram before it has opened the session.
            return self.pass_datagram_on(now, found, frame);
        }
        let (interface, service) = (header.interface, header.service);
        let arrived = Arrived { datagram, frame, interface, service };
        if let Err(counter) = self.place(now, &arrived) {
            self.count(counter);
        }
    }

    /// Gives a datagram a real server, and sends it there.
    fn place(&mut self, now: u64, arrived: &Arrived<'_>) -> Result<(), Counter> {
        let service = arrived.service;
        let one_packet = self.services.get(service as usize).is_some_and(|it| it.spec.one_packet);
        if !one_packet && !self.has_room_for_udp() {
            return Err(Counter::ExceededUdp);
        }
        let Tuple { source: client, destination: vip } = arrived.datagram.tuple;
        let choice = self.choose(now, service, client, None).ok_or(Counter::NoDestination)?;
        let server = choice.server;
        let key = AnswerKey { service, server, client, port: vip.port };
        let known = self.answers.get(&key).copied();
        let index = match known.filter(|_| one_packet) {
            Some(index) => {
                // Another connection to IPVS.
                self.tally_connection(index);
                index
            }
            None if self.has_room_for_udp() => self.open_udp(now, arrived, server, one_packet)?,
            None => return Err(Counter::ExceededUdp),
        };
        let unproven = self.is_unconfirmed_udp(index);
        let sender = if unproven { Sender::Unproven } else { Sender::Proven };
        self.control(now, index, choice, sender);
        self.pass_datagram_on(now, Found { index, direction: Direction::Inbound }, arrived.frame);
        Ok(())
    }

    fn open_udp(
        &mut self,
        now: u64,
        arrived: &Arrived<'_>,
        server: u32,
        one_packet: bool,
    ) -> Result<u32, Counter> {
        let service = arrived.service;
        let Tuple { source: client, destination: vip } = arrived.datagram.tuple;
        let spec = self.server(service, server).ok_or(Counter::NoDestination)?.for_vip(vip);
        self.has_room_for(&spec)?;
        let local = self.local_end_udp(now, service, &spec, client)?;
        let ends = Ends { client, vip, local, real: spec.address };
        let hops = self.table.memory().next_hops();
        let link = arrived.datagram.network.link;
        let next_hop_out =
            self.next_hops.learned(hops, arrived.interface, link, Sender::Unproven)?;
        let (one_way, ts_in) = unproxied::one_way(spec.forwarding);
        let (zero, none) = (SeqNumber(0), NO_SCALE);
        let index = self.open(
            now,
            &Opening {
                service,
                server,
                ends,
                next_hop_out,
                cookie: zero,
                prior_cookie: zero,
                client_isn: zero,
                f: 0,
                ts_in,
                scales: Scales { client: none, ours: none, real_server: none },
                word: Word { state: TcpState::SynRecv, flags: flag::UDP | one_way, d: 0 },
                one_packet,
                kept: None,
            },
        )?;
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.unproven = true;
            self.unconfirmed_udp += 1;
        }
        if one_packet {
            self.answers.insert(AnswerKey { service, server, client, port: vip.port }, index);
        }
        self.wheel.arm(index, now + self.timeout(index, TcpState::SynRecv).min(PRESSED_MS));
        Ok(index)
    }

    /// Whether one more session of UDP, unconfirmed as all are in the beginning, is within the
    /// shares.
    fn has_room_for_udp(&self) -> bool {
        let sessions = self.sessions.len() as u32;
        self.udp < sessions / SHARE && self.unconfirmed_udp < sessions / UNCONFIRMED_SHARE
    }

    /// When a session ends early because too many are unconfirmed, of all, of those with a template or of
    /// those that can have a port towards its real server; `u64::MAX` if it does not.
    pub(crate) fn pressed_deadline(&self, index: u32) -> u64 {
        let Some(slot) = self.table.slot(index).filter(|_| self.is_unconfirmed_udp(index)) else {
            return u64::MAX;
        };
        let many = self.unconfirmed_udp > self.sessions.len() as u32 / UNCONFIRMED_SHARE / 2;
        let templates = self.templates.are_pressed(self.table.memory().templates());
        let has_one = self.sessions.get(index as usize).is_some_and(|it| it.template.is_some());
        let is_short = |pool: &Ports| pool.is_short(Transport::Udp, slot.ends().real);
        if many || templates && has_one || self.pools.iter().any(is_short) {
            slot.last_seen() + PRESSED_MS
        } else {
            u64::MAX
        }
    }

    /// When a session must be looked at again, however late it expires.
    pub(crate) fn next_look(&self, now: u64, index: u32) -> u64 {
        if self.is_unconfirmed_udp(index) { now + PRESSED_MS } else { u64::MAX }
    }

    fn is_unconfirmed_udp(&self, index: u32) -> bool {
        let session = self.sessions.get(index as usize);
        session.is_some_and(|session| session.unproven && session.transport == Transport::Udp)
    }

    /// A session of UDP has ended.
    pub(crate) fn forget_udp(&mut self, index: u32) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        if session.transport != Transport::Udp {
            return;
        }
        self.udp = self.udp.saturating_sub(1);
        if session.one_packet
            && let Some(slot) = self.table.slot(index)
        {
            let (service, server, ends) = (session.service, session.server, slot.ends());
            let key = AnswerKey { service, server, client: ends.client, port: ends.vip.port };
            self.answers.remove(&key);
        }
    }

    fn pass_datagram_on(&mut self, now: u64, found: Found, frame: &[u8]) {
        let mut bytes = [0u8; MAX_FRAME];
        let Some(mut buffer) = buffer(&mut bytes, frame) else {
            return self.count(Counter::RecordInvalid);
        };
        let memory = self.table.memory();
        let Some(slot) = memory.slots().get(found.index as usize) else { return };
        let hop = memory.next_hops().get(slot.next_hop(found.direction) as usize);
        let datagram = datagram::parse(&mut buffer, frame.len());
        let forwarded = match datagram.zip(hop) {
            Some((it, next_hop)) if slot.state().flags & flag::ONE_WAY != 0 => {
                let hash = self.table.hash(Transport::Udp, &it.tuple);
                let way = Way { slot, next_hop, settings: memory.settings(), hash };
                one_way::forward_datagram(&mut buffer, &it, &way, now)
            }
            Some((it, hop)) => datagram::forward(&mut buffer, &it, found.direction, slot, hop, now),
            None => Err(Reason::NextHopMissing),
        };
        if forwarded == Err(Reason::MtuExceeded) {
            let mtu = hop.map_or(0, |hop| one_way::room(slot, hop));
            return self.tell_sender(found, mtu, &mut buffer);
        }
        let sent = forwarded.ok().map(|it| (it.interface, it.confirmed));
        self.send_on(now, found, sent, buffer.bytes());
    }
}
