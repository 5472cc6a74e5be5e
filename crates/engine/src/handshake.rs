//! The handshake with the real server, for a client that has proved its address (SPEC A4, A6 to
//! A12; seed sections 4.2.2, 4.5, 4.6).

use seawall_fastpath::family::{Family, V4, V6, Version};
use seawall_fastpath::layout::{Ends, Kept, NO_SCALE, Scales, ServiceEntry, Slot, Word, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::options::{self, Timestamps};
use seawall_fastpath::segment::SynOptions;
use seawall_fastpath::{Direction, TcpState, Transport};
use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::counters::Counter;
use crate::desired::{Forwarding, Introduction};
use crate::engine::{Arrived, Engine, Opening, Request, offer};
use crate::next_hops::Sender;
use crate::outbox::MAX_FRAME;
use crate::preface::{Accepts, Preface};
use crate::proxy_header::ProxyHeader;
use crate::send::{Says, copy};
use crate::store::Early;
use crate::table::Found;

/// First retransmission of a SYN to a real server, in milliseconds; doubles each time (RFC 6298,
/// section 2.1).
const SYN_TIMEOUT_MS: u64 = 1_000;
/// Bare ACKs from one real server's past before another local port is taken (SPEC A6).
const MAX_BARE_ACKS: u32 = 2;
/// Sessions that wait for a neighbour at once; further ones are sent by their timers.
const MAX_WAITING: usize = 4096;

/// What is known of a session until its real server has answered.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// When the client proved its address, in milliseconds.
    pub(crate) started: u64,
    pub(crate) early: Early,
    pub(crate) syn: SynOptions,
    /// Timestamps of the accepted ACK, if they are in use.
    pub(crate) timestamps: Option<Timestamps>,
    /// TSval of every SYN to the same real server from the same local address.
    pub(crate) syn_value: u32,
    /// The client's window, in bytes.
    pub(crate) window: u32,
    pub(crate) retransmissions: u32,
    pub(crate) bare_acks: u32,
    pub(crate) second_server: bool,
    /// The PROXY header that goes before all that is kept, if there is one.
    pub(crate) preface: Option<Preface>,
    /// Another engine has asked; whether it was heard nobody knows.
    pub(crate) resumed: bool,
}

impl Handshake {
    /// Nothing more is to be hoped for from the real server that has been asked; any other may be
    /// asked in its place.
    pub(crate) const fn give_up(&mut self) {
        self.retransmissions = u32::MAX;
        self.second_server = false;
        self.resumed = false;
    }
}

impl<M: Memory> Engine<M> {
    /// An ACK with a valid cookie.
    pub(crate) fn handle_accepted(&mut self, now: u64, arrived: &Arrived<'_>) {
        let cookie = arrived.packet.tcp.ack.sub(1);
        let mut prior_cookie = cookie;
        if let Some(found) = arrived.found {
            let Some(slot) = self.table.slot(found.index) else { return };
            let state = slot.state().state;
            if slot.prior_cookie.load() == cookie.0 && slot.cookie.load() != cookie.0 {
                // Of the connection before: late, and no handshake of this one's.
                return self.count(Counter::AckDuplicate);
            }
            if slot.cookie.load() == cookie.0 {
                self.count(Counter::AckDuplicate);
                return self.handle_client(now, arrived);
            }
            if !self.is_reusable(state) {
                return self.count(Counter::RecordInvalid);
            }
            prior_cookie = SeqNumber(slot.cookie.load());
            self.reuse(now, found.index, state);
        }
        match self.accept(now, arrived, prior_cookie) {
            Ok(()) => self.count(Counter::OkAck),
            Err(counter) => {
                self.count(counter);
                self.refuse(arrived);
            }
        }
    }

    /// Makes room for a new handshake of the same client port (SPEC A12).
    pub(crate) fn reuse(&mut self, now: u64, index: u32, state: TcpState) {
        self.count(Counter::Reused);
        let counter = match state {
            TcpState::TimeWait => Counter::ReusedTimeWait,
            TcpState::FinWait => Counter::ReusedFinWait,
            TcpState::CloseWait => Counter::ReusedCloseWait,
            TcpState::LastAck => Counter::ReusedLastAck,
            TcpState::Close
            | TcpState::None
            | TcpState::Established
            | TcpState::SynSent
            | TcpState::SynRecv => Counter::ReusedClose,
        };
        self.count(counter);
        if state != TcpState::Close {
            self.reset_real_server(index);
        }
        self.retire(now, index);
    }

    /// Resets the real server's half with the next number it expects; nothing where it answers the
    /// client itself: what it expects is not known.
    pub(crate) fn reset_real_server(&mut self, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        if slot.state().flags & flag::ONE_WAY != 0 {
            return;
        }
        let next = SeqNumber(slot.outbound.ack.load()).add(slot.f.load());
        self.say(index, Direction::Inbound, &Says::reset(next));
    }

    /// Resets both ends of an established session, each with the next number it expects. UDP has
    /// nothing to say it with.
    pub(crate) fn reset_both(&mut self, index: u32) {
        if self.table.transport(index) == Transport::Udp {
            return;
        }
        self.reset_real_server(index);
        let Some(slot) = self.table.slot(index) else { return };
        if slot.state().flags & flag::ONE_WAY != 0 {
            return;
        }
        let next = SeqNumber(slot.inbound.ack.load());
        self.say(index, Direction::Outbound, &Says::reset(next));
    }

    fn accept(
        &mut self,
        now: u64,
        arrived: &Arrived<'_>,
        prior_cookie: SeqNumber,
    ) -> Result<(), Counter> {
        let packet = &arrived.packet;
        let service = arrived.service;
        let offer = offer(arrived.detail);
        let mut bytes = [0u8; MAX_FRAME];
        let parsed = copy(&mut bytes, arrived.frame)
            .and_then(|(mut buffer, packet)| options::parse(&mut buffer, &packet).ok());
        let Some(options) = parsed else { return Err(Counter::RecordInvalid) };
        let client = packet.tuple.source;
        let vip = packet.tuple.destination;
        let choice = self.choose(now, service, client, None).ok_or(Counter::NoDestination)?;
        let server = choice.server;
        let spec = self.server(service, server).ok_or(Counter::NoDestination)?.for_vip(vip);
        if spec.forwarding.is_one_way() {
            // The proxy was on when the client got its cookie, and these came when it was off.
            return Err(Counter::NoDestination);
        }
        let local = self.local_end(now, service, &spec, client, Sender::Proven)?;
        let ends = Ends { client, vip, local, real: spec.address };
        let introduction = self.introduction(service);
        let preface = match introduction {
            Introduction::Proxy(protocol) => {
                let len = ProxyHeader::new(protocol, &ends).bytes().len();
                Some(Preface::new(protocol, len as u32))
            }
            Introduction::None | Introduction::Toa => None,
        };
        // What the real server gets before the client's first byte comes after our SYN.
        let before = preface.map_or(0, |preface| preface.len);
        let client_isn = packet.tcp.seq.sub(1).sub(before);
        let toa = if introduction == Introduction::Toa { flag::BEARS_TOA } else { 0 };
        let (f, syn_value) = match spec.forwarding {
            Forwarding::Nat | Forwarding::Dr | Forwarding::Tunnel { .. } => {
                (0, options.timestamps.unwrap_or_default().value)
            }
            Forwarding::FullNat => (
                self.isn(&ends.outbound(), now).since(client_isn),
                self.local_clock(local.address, now),
            ),
        };
        let hops = self.table.memory().next_hops();
        let next_hop_out =
            self.next_hops.learned(hops, arrived.interface, packet.link, Sender::Proven)?;
        let ours = if offer.window_scale == NO_SCALE { NO_SCALE } else { self.config.window_scale };
        let shift = if offer.window_scale == NO_SCALE { 0 } else { offer.window_scale };
        let window = u32::from(packet.tcp.window) << shift;
        let opening = Opening {
            service,
            server,
            ends,
            next_hop_out,
            cookie: packet.tcp.ack.sub(1),
            prior_cookie,
            client_isn,
            f,
            ts_in: syn_value.wrapping_sub(options.timestamps.unwrap_or_default().value),
            scales: Scales { client: offer.window_scale, ours, real_server: NO_SCALE },
            word: Word { state: TcpState::SynSent, flags: flag::PROXIED | toa, d: 0 },
            one_packet: false,
            kept: Some((Kept { window, timestamps: options.timestamps }, preface)),
        };
        let index = self.open(now, &opening)?;
        self.control(now, index, choice, Sender::Proven);
        let handshake = Handshake {
            started: now,
            early: Early::default(),
            syn: SynOptions {
                mss: offer.mss(packet.version()),
                window_scale: offer.window_scale,
                sack_permitted: offer.sack,
            },
            timestamps: options.timestamps,
            syn_value,
            window,
            retransmissions: 0,
            bare_acks: 0,
            second_server: false,
            preface,
            resumed: false,
        };
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.handshake = Some(Box::new(handshake));
        }
        self.keep(index, arrived);
        self.count(Counter::SynSent);
        self.send_syn(index);
        self.await_answer(now, index, SYN_TIMEOUT_MS);
        Ok(())
    }

    /// Gives a real server `wait` milliseconds to answer, but all of them together no more than
    /// `[timeouts] syn_sent`.
    fn await_answer(&mut self, now: u64, index: u32, wait: u64) {
        let session = self.sessions.get(index as usize);
        let handshake = session.and_then(|session| session.handshake.as_deref());
        let started = handshake.map_or(now, |handshake| handshake.started);
        let ends = started.saturating_add(self.config.timeouts.get(TcpState::SynSent));
        self.wheel.arm(index, ends.min(now + wait));
    }

    /// Sends the SYN of a session, or waits for the MAC of its next hop.
    pub(crate) fn send_syn(&mut self, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let hop = slot.next_hop_in.load();
        let seq = SeqNumber(slot.client_isn.load()).add(slot.f.load());
        let generation = slot.generation.load();
        if slot.state().state != TcpState::SynSent {
            return;
        }
        let session = self.sessions.get(index as usize);
        let Some(handshake) = session.and_then(|session| session.handshake.as_deref()) else {
            return;
        };
        let says = Says {
            flags: Flags::SYN,
            seq,
            ack: SeqNumber(0),
            window: u16::try_from(handshake.window).unwrap_or(u16::MAX),
            syn: Some(handshake.syn),
            timestamps: handshake
                .timestamps
                .map(|_| Timestamps { value: handshake.syn_value, echo: 0 }),
        };
        if self.say(index, Direction::Inbound, &says) {
            return;
        }
        self.count(Counter::Unresolved);
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push((index, generation));
        }
        self.resolve(hop);
    }

    /// A client's segment that the packet path could not place: early data, or late in the ring.
    pub(crate) fn handle_client(&mut self, now: u64, arrived: &Arrived<'_>) {
        let Some(found) = arrived.found else { return self.count(Counter::RecordInvalid) };
        let Some(slot) = self.table.slot(found.index) else { return };
        let Word { state, flags, .. } = slot.state();
        if flags & flag::INTRODUCING != 0 && flags & flag::NO_SERVER != 0 {
            return self.count(Counter::PassOnFailed);
        }
        if state != TcpState::SynSent {
            return if self.preface(found.index).is_some() {
                self.client_behind_preface(now, found, arrived)
            } else {
                self.pass_on(now, found, arrived.frame)
            };
        }
        let tcp = &arrived.packet.tcp;
        let acked = tcp.ack.sub(1).0 == slot.cookie.load();
        if !self.is_early(found.index, arrived) {
            return self.count(Counter::EarlyInvalid);
        }
        if tcp.flags.contains(Flags::RST) {
            self.count(Counter::ClientAborted);
            self.reset_real_server(found.index);
            return self.retire(now, found.index);
        }
        if !acked || !tcp.flags.contains(Flags::ACK) || tcp.flags.contains(Flags::SYN) {
            return self.count(Counter::EarlyInvalid);
        }
        self.keep(found.index, arrived);
    }

    /// A real server's segment: part of its handshake, or a SYN/ACK sent again.
    pub(crate) fn handle_real_server(&mut self, now: u64, arrived: &Arrived<'_>) {
        let Some(found) = arrived.found else { return self.count(Counter::RecordInvalid) };
        let Some(slot) = self.table.slot(found.index) else { return };
        let word = slot.state();
        let tcp = &arrived.packet.tcp;
        let first = SeqNumber(slot.client_isn.load()).add(slot.f.load()).add(1);
        let syn_ack = tcp.flags.contains(Flags::SYN.with(Flags::ACK));
        match word.state {
            // Whatever it says: it has been removed since it was asked.
            TcpState::SynSent if self.is_server_removed(found.index) => {
                self.handshake_timeout(now, found.index);
            }
            TcpState::SynSent if tcp.flags.contains(Flags::RST) => {
                if tcp.flags.contains(Flags::ACK) && tcp.ack == first {
                    self.refused(now, found.index);
                } else {
                    self.count(Counter::RsInvalid);
                }
            }
            TcpState::SynSent if syn_ack && tcp.ack == first => {
                self.established(now, found, arrived)
            }
            TcpState::SynSent if tcp.flags.contains(Flags::ACK) => {
                self.bare_ack(now, found.index, arrived);
            }
            TcpState::SynSent => self.count(Counter::RsInvalid),
            TcpState::SynRecv if syn_ack => self.unproxied_syn_ack(now, found, arrived),
            _ if !tcp.flags.contains(Flags::SYN) => self.hear(now, found, arrived),
            // The client's first ACK, with the option, got lost.
            _ if syn_ack
                && word.flags & (flag::PROXIED | flag::INTRODUCING) == flag::INTRODUCING =>
            {
                self.pass_on(now, found, arrived.frame);
            }
            _ if syn_ack && word.flags & flag::PROXIED != 0 && tcp.ack == first => {
                self.acknowledge_again(found.index, arrived);
            }
            _ => self.count(Counter::RsInvalid),
        }
    }

    /// The real server accepts: the deltas are known, and what was kept is sent.
    fn established(&mut self, now: u64, found: Found, arrived: &Arrived<'_>) {
        let Some(options) = parse_options(arrived.frame) else {
            return self.count(Counter::RsInvalid);
        };
        let Some(session) = self.sessions.get_mut(found.index as usize) else { return };
        let Some(mut handshake) = session.handshake.take() else { return };
        let service = session.service;
        let early = std::mem::take(&mut handshake.early);
        self.early_bytes -= early.bytes();
        self.learn(service, &handshake, &options);
        let Some(ends) = self.table.slot(found.index).map(Slot::ends) else { return };
        let believes = self.believes_toa(ends.real.address);
        let Some(slot) = self.table.slot(found.index) else { return };
        let tcp = &arrived.packet.tcp;
        let toa = slot.state().flags & flag::BEARS_TOA;
        let mut flags = flag::PROXIED | flag::OPENING | toa;
        if toa != 0 || believes {
            flags |= flag::TOA;
        }
        if handshake.preface.is_some() || toa != 0 && ends.local != ends.client {
            flags |= flag::INTRODUCING;
        }
        if let (Some(client), Some(server)) = (handshake.timestamps, options.timestamps) {
            flags |= flag::TIMESTAMPS;
            slot.ts_out.store(client.echo.wrapping_sub(server.value));
        }
        let mut scales = Scales::from_bits(slot.scales.load());
        // A real server scales only if our SYN offered it (RFC 7323, section 2.2).
        scales.real_server =
            if scales.client == NO_SCALE { NO_SCALE } else { options.window_scale };
        if scales.real_server != scales.ours {
            flags |= flag::RESCALE;
        }
        slot.scales.store(scales.to_bits());
        slot.forget_kept();
        slot.outbound.window.store(u32::from(tcp.window));
        slot.inbound.window.store(handshake.window);
        slot.outbound.last_seen.store(now);
        slot.allow_punts();
        let accepts = Accepts {
            window: u32::from(tcp.window),
            mss: options.mss.unwrap_or_else(|| default_mss(arrived)),
            clock: handshake.timestamps.and(options.timestamps).map(|clock| clock.value),
        };
        if let Some(preface) = &handshake.preface {
            slot.set_preface(Some(preface.begun(&accepts, handshake.syn_value)));
        }
        let d = slot.cookie.load().wrapping_sub(tcp.seq.0);
        let generation = slot.generation.load();
        slot.word.publish(Word { state: TcpState::Established, flags, d }.to_bits());
        self.opening.push((found.index, generation, flag::OPENING));
        self.count(Counter::Established);
        self.state_changed(now, found.index);
        if handshake.preface.is_some() {
            self.early_bytes += early.bytes();
            handshake.early = early;
            if let Some(session) = self.sessions.get_mut(found.index as usize) {
                session.handshake = Some(handshake);
            }
            return self.begin_preface(now, found.index, &accepts);
        }
        let inbound = Found { direction: Direction::Inbound, ..found };
        for kept in early.segments() {
            self.pass_on(now, inbound, &kept.frame);
        }
        if early.segments().is_empty() {
            // The store was full; the real server must not wait for the client to say more.
            self.acknowledge_again(found.index, arrived);
        }
    }

    /// Notes which options a real server has refused, so that no further client of its service
    /// is offered them (SPEC A7).
    fn learn(&mut self, service: u32, handshake: &Handshake, options: &options::Options) {
        let mut refused = 0;
        if handshake.syn.sack_permitted && !options.sack_permitted {
            refused |= ServiceEntry::NO_SACK;
        }
        if handshake.syn.window_scale != NO_SCALE && options.window_scale == NO_SCALE {
            refused |= ServiceEntry::NO_WINDOW_SCALE;
        }
        if handshake.timestamps.is_some() && options.timestamps.is_none() {
            refused |= ServiceEntry::NO_TIMESTAMP;
        }
        let Some(found) = self.services.get_mut(service as usize) else { return };
        if found.refused | refused != found.refused {
            found.refused |= refused;
            self.request(Request::ServiceChanged(service));
        }
    }

    /// The real server did not hear that we accepted.
    fn acknowledge_again(&mut self, index: u32, arrived: &Arrived<'_>) {
        let Some(options) = parse_options(arrived.frame) else {
            return self.count(Counter::RsInvalid);
        };
        let Some(slot) = self.table.slot(index) else { return };
        let tcp = &arrived.packet.tcp;
        if slot.cookie.load().wrapping_sub(tcp.seq.0) != slot.state().d {
            return self.count(Counter::RsInvalid);
        }
        if self.preface(index).is_some() {
            return self.preface_again(index, arrived);
        }
        let says = Says {
            flags: Flags::ACK,
            seq: tcp.ack,
            ack: tcp.seq.add(1),
            window: window_to_server(slot),
            syn: None,
            // It echoes the last clock of ours that it heard, so this one does not step back.
            timestamps: options
                .timestamps
                .map(|theirs| Timestamps { value: theirs.echo, echo: theirs.value }),
        };
        self.say(index, Direction::Inbound, &says);
    }

    /// The real server refuses (SPEC A10).
    fn refused(&mut self, now: u64, index: u32) {
        self.count(Counter::RsRefused);
        self.reset_client(index);
        self.end_handshake(index);
        if let Some(slot) = self.table.slot(index) {
            let word = Word { state: TcpState::Close, flags: flag::PROXIED, d: 0 };
            slot.word.publish(word.to_bits());
        }
        self.state_changed(now, index);
    }

    /// The tuple lives on at the real server, in TIME_WAIT or ESTABLISHED (SPEC A6).
    fn bare_ack(&mut self, now: u64, index: u32, arrived: &Arrived<'_>) {
        self.count(Counter::RsBareAck);
        self.say(index, Direction::Inbound, &Says::reset(arrived.packet.tcp.ack));
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let (service, server) = (session.service, session.server);
        let Some(handshake) = session.handshake.as_deref_mut() else { return };
        handshake.bare_acks += 1;
        let again = handshake.bare_acks;
        let forwarding = self.server(service, server).map(|spec| spec.forwarding);
        if again < MAX_BARE_ACKS {
            self.send_syn(index);
        } else if again == MAX_BARE_ACKS && forwarding == Some(Forwarding::FullNat) {
            self.redirect(now, index, server);
        }
        // Under NAT the port is the client's; the timer tries again, then another server.
    }

    /// Points a session that waits for its real server at `server`, from a fresh local port, and
    /// starts over with it. Says whether it could.
    fn redirect(&mut self, now: u64, index: u32, server: u32) -> bool {
        let Some(service) = self.sessions.get(index as usize).map(|session| session.service) else {
            return false;
        };
        let Some(spec) = self.server(service, server) else { return false };
        if spec.forwarding.is_one_way() {
            return false;
        }
        let Some(slot) = self.table.slot(index) else { return false };
        let old = slot.ends();
        let spec = spec.for_vip(old.vip);
        let local = match self.local_end(now, service, &spec, old.client, Sender::Proven) {
            Ok(local) => local,
            Err(counter) => {
                self.count(counter);
                return false;
            }
        };
        let ends = Ends { local, real: spec.address, ..old };
        let isn = self.isn(&ends.outbound(), now);
        let clock = self.local_clock(local.address, now);
        let Some(slot) = self.table.slot(index) else { return false };
        if !self.table.insert(&ends.outbound(), index, Direction::Outbound) {
            self.count(Counter::IndexFull);
            return false;
        }
        slot.set_ends(&ends);
        self.table.remove(&old.outbound(), index, Direction::Outbound);
        slot.next_hop_in.store(spec.next_hop);
        slot.real_server.store(server);
        let f = match spec.forwarding {
            Forwarding::Nat | Forwarding::Dr | Forwarding::Tunnel { .. } => 0,
            Forwarding::FullNat => isn.since(SeqNumber(slot.client_isn.load())),
        };
        slot.f.store(f);
        slot.allow_punts();
        let session = self.sessions.get_mut(index as usize);
        if let Some(handshake) = session.and_then(|session| session.handshake.as_deref_mut()) {
            handshake.retransmissions = 0;
            // Each local address has a clock of its own, and what this one's past left in TIME_WAIT
            // at the real server goes by it. Nothing that was kept has been sent yet.
            if let Some(client) = handshake.timestamps {
                handshake.syn_value = match spec.forwarding {
                    Forwarding::Nat | Forwarding::Dr | Forwarding::Tunnel { .. } => client.value,
                    Forwarding::FullNat => clock,
                };
                slot.ts_in.store(handshake.syn_value.wrapping_sub(client.value));
            }
        }
        self.port_freed(Transport::Tcp, &old);
        self.send_syn(index);
        self.await_answer(now, index, SYN_TIMEOUT_MS);
        true
    }

    /// The real server has not answered (SPEC A9).
    pub(crate) fn handshake_timeout(&mut self, now: u64, index: u32) {
        let retries = self.config.syn_retry;
        let limit = self.config.timeouts.get(TcpState::SynSent);
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let (service, server) = (session.service, session.server);
        let Some(handshake) = session.handshake.as_deref_mut() else {
            // Only a handshake makes SYN_SENT; without one there is nobody to ask again.
            self.count(Counter::Expired);
            return self.retire(now, index);
        };
        let in_time = now < handshake.started.saturating_add(limit);
        if std::mem::take(&mut handshake.resumed) && in_time {
            self.count(Counter::SynRetransmitted);
            self.send_syn(index);
            return self.await_answer(now, index, SYN_TIMEOUT_MS);
        }
        if in_time && handshake.retransmissions < retries {
            handshake.retransmissions += 1;
            let wait = SYN_TIMEOUT_MS << handshake.retransmissions.min(6);
            self.count(Counter::SynRetransmitted);
            self.send_syn(index);
            return self.await_answer(now, index, wait);
        }
        let second = std::mem::replace(&mut handshake.second_server, true);
        handshake.bare_acks = 0;
        self.reset_real_server(index);
        let client = self.table.slot(index).map(|slot| slot.ends().client);
        if in_time
            && !second
            && let Some(client) = client
            && let Some(choice) = self.choose(now, service, client, Some(server))
        {
            self.move_to(index, choice.server);
            self.uncontrol(index);
            if self.redirect(now, index, choice.server) {
                self.control(now, index, choice, Sender::Proven);
                return self.count(Counter::SecondServer);
            }
        }
        self.count(Counter::RsError);
        self.reset_client(index);
        self.retire(now, index);
    }

    /// Resets a client whose real server never answered: it has had nothing but our SYN/ACK.
    fn reset_client(&mut self, index: u32) {
        let Some(slot) = self.table.slot(index) else { return };
        let Some(start) = self.client_start(index) else { return };
        let says = Says {
            flags: Flags::RST.with(Flags::ACK),
            ack: start,
            ..Says::reset(SeqNumber(slot.cookie.load()).add(1))
        };
        self.say(index, Direction::Outbound, &says);
    }
}

/// The client's window as a segment to its real server says it.
pub(crate) fn window_to_server(slot: &Slot) -> u16 {
    let window = slot.inbound.window.load();
    let scales = Scales::from_bits(slot.scales.load());
    let scaled = scales.client != NO_SCALE && scales.real_server != NO_SCALE;
    let shift = if scaled { scales.client } else { 0 };
    u16::try_from(window >> shift).unwrap_or(u16::MAX)
}

/// What a SYN/ACK without an MSS stands for (RFC 9293, section 3.7.1).
fn default_mss(arrived: &Arrived<'_>) -> u16 {
    match arrived.packet.version() {
        Version::V4 => V4::DEFAULT_MSS,
        Version::V6 => V6::DEFAULT_MSS,
    }
}

/// The options of a segment that came up a ring.
pub(crate) fn parse_options(frame: &[u8]) -> Option<options::Options> {
    let mut bytes = [0u8; MAX_FRAME];
    let (mut buffer, packet) = copy(&mut bytes, frame)?;
    options::parse(&mut buffer, &packet).ok()
}
