//! Services without the proxy: the client's SYN goes to the real server, as in IPVS.
//!
//! Anybody can make these sessions, so those that no client has confirmed may take only a share
//! of the table (SPEC B6).

use seawall_fastpath::layout::{Ends, NO_SCALE, Scales, Word, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Direction, TcpState};
use seawall_wire::SeqNumber;

use crate::counters::Counter;
use crate::desired::{Forwarding, Introduction, RealServerSpec};
use crate::engine::{Arrived, Engine, Opening};
use crate::handshake::parse_options;
use crate::next_hops::Sender;
use crate::outbox::MAX_FRAME;
use crate::send::copy;
use crate::table::Found;
use crate::toa;

/// Of the sessions, one in this many may be unconfirmed.
const SHARE: u32 = 4;
/// Of the sessions, all but one in this many may be of real servers that answer clients themselves:
/// that such a client is there cannot be known.
const SPARE: u32 = 4;

impl<M: Memory> Engine<M> {
    /// A SYN to a service without the proxy.
    pub(crate) fn handle_unproxied(&mut self, now: u64, arrived: &Arrived<'_>) {
        if let Some(found) = arrived.found {
            let Some(slot) = self.table.slot(found.index) else { return };
            let inbound = found.direction == Direction::Inbound;
            // The SYN that opened the session, late or repeated, is no new connection; only after
            // a reset may a client try again with the number it had.
            let opened = slot.client_isn.load() == arrived.packet.tcp.seq.0;
            match slot.state().state {
                TcpState::SynSent => return self.count(Counter::RecordInvalid),
                TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck
                    if slot.state().flags & flag::ONE_WAY != 0 && !opened =>
                {
                    return self.begin_again(now, found, arrived);
                }
                TcpState::Close if inbound => {}
                TcpState::TimeWait if inbound && !opened => self.reset_real_server(found.index),
                // One that is half-closed only its own real server can end: it answers with a
                // challenge ACK, as for an established one.
                TcpState::Close
                | TcpState::TimeWait
                | TcpState::None
                | TcpState::Established
                | TcpState::SynRecv
                | TcpState::FinWait
                | TcpState::CloseWait
                | TcpState::LastAck => return self.pass_on(now, found, arrived.frame),
            }
            self.retire(now, found.index);
        }
        if let Err(counter) = self.open_unproxied(now, arrived) {
            self.count(counter);
        }
    }

    /// A client comes back on the port of a session of which we see one direction, and which it has
    /// ended: whether its real server has too is not known. It is for that one to say, as in IPVS.
    fn begin_again(&mut self, now: u64, found: Found, arrived: &Arrived<'_>) {
        let Some(slot) = self.table.slot(found.index) else { return };
        let isn = arrived.packet.tcp.seq;
        slot.client_isn.store(isn.0);
        slot.outbound.ack.store(isn.add(1).0);
        slot.allow_punts();
        let bits = slot.word.load();
        let word = Word { state: TcpState::SynRecv, ..Word::from_bits(bits) };
        // If it fails the client's old segments go on; it will send its SYN again.
        if slot.word.replace_if(bits, word.to_bits()) {
            self.state_changed(now, found.index);
        }
        self.pass_on(now, found, arrived.frame);
    }

    fn open_unproxied(&mut self, now: u64, arrived: &Arrived<'_>) -> Result<(), Counter> {
        if self.unproven >= self.sessions.len() as u32 / SHARE {
            return Err(Counter::ExceededUnproxied);
        }
        let packet = &arrived.packet;
        let service = arrived.service;
        let options = parse_options(arrived.frame).ok_or(Counter::RecordInvalid)?;
        let client = packet.tuple.source;
        let vip = packet.tuple.destination;
        let choice = self.choose(now, service, client, None).ok_or(Counter::NoDestination)?;
        let server = choice.server;
        let spec = self.server(service, server).ok_or(Counter::NoDestination)?.for_vip(vip);
        self.has_room_for(&spec)?;
        let local = self.local_end(now, service, &spec, client, Sender::Unproven)?;
        let ends = Ends { client, vip, local, real: spec.address };
        let hops = self.table.memory().next_hops();
        let next_hop_out =
            self.next_hops.learned(hops, arrived.interface, packet.link, Sender::Unproven)?;
        let client_isn = packet.tcp.seq;
        let (mut flags, mut ts_in) = one_way(spec.forwarding);
        let toa = self.introduction(service) == Introduction::Toa;
        if toa {
            flags |= flag::BEARS_TOA;
        }
        if toa || self.believes_toa(spec.address.address) {
            flags |= flag::TOA;
        }
        let mut f = 0;
        if spec.forwarding == Forwarding::FullNat {
            f = self.isn(&ends.outbound(), now).since(client_isn);
            if toa {
                flags |= flag::INTRODUCING;
            }
            if let Some(timestamps) = options.timestamps {
                flags |= flag::TIMESTAMPS;
                ts_in = self.local_clock(local.address, now).wrapping_sub(timestamps.value);
            }
        }
        let scale = options.window_scale;
        let index = self.open(
            now,
            &Opening {
                service,
                server,
                ends,
                next_hop_out,
                cookie: SeqNumber(0),
                prior_cookie: SeqNumber(0),
                client_isn,
                f,
                ts_in,
                scales: Scales { client: scale, ours: scale, real_server: scale },
                word: Word { state: TcpState::SynRecv, flags, d: 0 },
                one_packet: false,
                kept: None,
            },
        )?;
        self.control(now, index, choice, Sender::Unproven);
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.unproven = true;
            self.unproven += 1;
        }
        self.wheel.arm(index, now + self.config.timeouts.get(TcpState::SynRecv));
        self.count(Counter::SynSent);
        self.pass_on(now, Found { index, direction: Direction::Inbound }, arrived.frame);
        Ok(())
    }

    /// # Errors
    /// What to count when sessions of this kind have all that is theirs.
    pub(crate) fn has_room_for(&self, spec: &RealServerSpec) -> Result<(), Counter> {
        let all = self.sessions.len() as u32;
        if spec.forwarding.is_one_way() && self.one_way >= all - all / SPARE {
            return Err(Counter::ExceededUnproxied);
        }
        Ok(())
    }

    /// The real server's SYN/ACK: it goes on to the client, and says how windows are scaled.
    pub(crate) fn unproxied_syn_ack(&mut self, now: u64, found: Found, arrived: &Arrived<'_>) {
        let Some(options) = parse_options(arrived.frame) else {
            return self.count(Counter::RsInvalid);
        };
        let Some(slot) = self.table.slot(found.index) else { return };
        let offered = Scales::from_bits(slot.scales.load()).client;
        let scales = if offered == NO_SCALE || options.window_scale == NO_SCALE {
            Scales { client: NO_SCALE, ours: NO_SCALE, real_server: NO_SCALE }
        } else {
            let server = options.window_scale;
            Scales { client: offered, ours: server, real_server: server }
        };
        slot.scales.store(scales.to_bits());
        // No acknowledgment of the client's is known yet; this is the one that must come.
        slot.inbound.ack.store(arrived.packet.tcp.seq.add(1).0);
        slot.cookie.store(arrived.packet.tcp.seq.0);
        let bits = slot.word.load();
        let word = Word::from_bits(bits);
        // If it fails the real server has just closed, and nothing is to be proved any more.
        slot.word.replace_if(bits, Word { flags: word.flags | flag::ANSWERED, ..word }.to_bits());
        let client = slot.ends().client.address;
        let mut bytes = [0u8; MAX_FRAME];
        if word.flags & flag::INTRODUCING != 0
            && let Some((mut buffer, packet)) = copy(&mut bytes, arrived.frame)
            && toa::leave_room(&mut buffer, &packet, client).is_some()
        {
            return self.pass_on(now, found, buffer.bytes());
        }
        self.pass_on(now, found, arrived.frame);
    }
}

/// What a slot says of a session that does not come back through us: its flags, and how it is
/// wrapped.
pub(crate) const fn one_way(forwarding: Forwarding) -> (u32, u32) {
    match forwarding {
        Forwarding::Nat | Forwarding::FullNat => (0, 0),
        Forwarding::Dr => (flag::ONE_WAY, 0),
        Forwarding::Tunnel { tunnel, .. } => (flag::ONE_WAY | flag::TUNNEL, tunnel.to_bits()),
    }
}
