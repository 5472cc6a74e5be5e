//! What is to be done with a TCP segment, once it is clear whose it is.
//!
//! Everything here is flat for the reason given in [`crate::decision`].

use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::layout::{RecordKind, ServiceEntry, Settings, Slot, Word, flag, switch};
use crate::packet::Packet;
use crate::tables::Hit;
use crate::{Direction, Reason, TcpState};

/// How often a SYN on an established session goes to the real server, in milliseconds (SPEC A1).
const SYN_INTERVAL_MS: u64 = 1_000;

/// Whose a segment is: a service's, a session's, or both.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    /// The service; without flags if there is none.
    pub(crate) service: ServiceEntry,
    /// Whether there is a service.
    pub(crate) is_service: bool,
    /// The slot of the session, 0 if there is none.
    pub(crate) slot: u32,
    /// Which way the segment goes in the session.
    pub(crate) direction: Direction,
}

impl Owner {
    /// For no service yet.
    #[inline(always)]
    pub(crate) fn new(hit: Option<Hit<'_>>) -> Self {
        let (slot, direction) = match hit {
            Some(hit) => (hit.index, hit.direction),
            None => (0, Direction::Inbound),
        };
        let service = ServiceEntry { id: 0, flags: 0 };
        Self { service, is_service: false, slot, direction }
    }

    #[inline(always)]
    pub(crate) const fn set_service(&mut self, service: Option<ServiceEntry>) {
        if let Some(service) = service {
            self.is_service = true;
            self.service = service;
        }
    }

    #[inline(always)]
    pub(crate) const fn is_session(&self) -> bool {
        self.slot != 0
    }
}

/// What is to be done.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// Drop it.
    Drop(Reason),
    /// Answer the SYN with a cookie.
    Answer,
    /// Take the ACK if its cookie is right. If it belongs to a session, that is over; if the
    /// cookie is wrong, the segment still belongs to it.
    Accept,
    /// Give it to the engine.
    Punt(RecordKind),
    /// Translate and send.
    Forward,
    /// Send on: the real server answers past us, and [`crate::past`] does it.
    OneWay,
    /// The real server has lost its half of the session: close it.
    Close,
}

/// The plan for a segment to a service that belongs to no session.
#[inline(always)]
pub(crate) const fn newcomer(packet: &Packet, service: ServiceEntry) -> Plan {
    let flags = packet.tcp.flags;
    let syn = flags.contains(Flags::SYN);
    let ack = flags.contains(Flags::ACK);
    if syn && !ack {
        return connect(service);
    }
    if service.takes_cookies() && ack && !syn && !flags.contains(Flags::RST) {
        return Plan::Accept;
    }
    Plan::Drop(Reason::TcpDrop)
}

#[inline(always)]
const fn connect(service: ServiceEntry) -> Plan {
    if !service.has(ServiceEntry::USABLE) {
        let overloaded = service.has(ServiceEntry::OVERLOADED);
        Plan::Drop(match (service.has(ServiceEntry::SYNPROXY), overloaded) {
            (true, false) => Reason::NoDestination,
            (true, true) => Reason::Overloaded,
            (false, false) => Reason::NoDestinationUnproxied,
            (false, true) => Reason::OverloadedUnproxied,
        })
    } else if service.has(ServiceEntry::SYNPROXY) {
        Plan::Answer
    } else {
        Plan::Punt(RecordKind::Unproxied)
    }
}

/// Whether a client's segment lies where the session in `slot` stands.
#[inline(always)]
fn is_near(packet: &Packet, slot: &Slot) -> bool {
    let reach = slot.outbound.window.load() | 0xffff;
    let known = SeqNumber(slot.outbound.ack.load());
    packet.tcp.seq.since(known.sub(reach)) <= reach.wrapping_mul(2)
}

/// Whether a client's segment goes on where the session in `slot` stands, by both its numbers.
/// Segments of a new connection from the same port can overtake the ACK that opens it; the old real
/// server would answer them with a reset that the client accepts. In
/// a half-closed session, which may go on for long, such a segment is never taken for a new
/// handshake: one ACK in 2^23 bears a valid cookie by chance. Of new handshakes, whose
/// acknowledgment number is as good as random, hardly one goes on there.
#[inline(always)]
pub(crate) fn continues(packet: &Packet, slot: &Slot) -> bool {
    let reach = slot.inbound.window.load() | 0xffff;
    let known = SeqNumber(slot.inbound.ack.load());
    slot.state().state != TcpState::None
        && is_near(packet, slot)
        && packet.tcp.ack.since(known.sub(0xffff)) <= reach.wrapping_add(0xffff)
}

/// Whether a real server answers the SYN that last went to it on an established session as if it
/// were the first it hears: with a reset, or, when it listens again, with a SYN/ACK. If it knew the
/// session it would have challenged the SYN (RFC 9293, section 3.10.7.4). Whoever forges the answer
/// must know the number of the SYN, and be where the real server is.
#[inline(always)]
fn refuses_syn(packet: &Packet, slot: &Slot, now: u64) -> bool {
    packet.tcp.flags.contains(Flags::ACK)
        && packet.tcp.flags.intersects(Flags::RST.with(Flags::SYN))
        && now.wrapping_sub(slot.inbound.syn_forwarded.load()) < SYN_INTERVAL_MS
        && packet.tcp.ack.0.wrapping_sub(slot.f.load())
            == slot.inbound.syn_seq.load().wrapping_add(1)
}

/// The plan for a segment that belongs to the session in `slot`.
#[inline(always)]
pub(crate) fn of_session(
    packet: &Packet,
    settings: &Settings,
    now: u64,
    owner: &Owner,
    slot: &Slot,
) -> Plan {
    let word = slot.state();
    let flags = packet.tcp.flags;
    let syn = flags.contains(Flags::SYN);
    match owner.direction {
        // Given back between the look-up and now: there is no session.
        Direction::Inbound if word.state == TcpState::None && owner.is_service => {
            newcomer(packet, owner.service)
        }
        _ if word.state == TcpState::None => Plan::Drop(Reason::TcpDrop),
        Direction::Outbound => {
            if word.state == TcpState::Established
                && word.flags & flag::PROXIED != 0
                && refuses_syn(packet, slot, now)
            {
                return Plan::Close;
            }
            let handshake =
                syn && (word.flags & flag::PROXIED != 0 || word.state == TcpState::SynRecv);
            let introducing = word.flags & flag::INTRODUCING != 0;
            if word.state == TcpState::SynSent || handshake || introducing {
                return Plan::Punt(RecordKind::FromRealServer);
            }
            Plan::Forward
        }
        // No client of ours sends a SYN/ACK (SPEC B1).
        Direction::Inbound if syn && flags.contains(Flags::ACK) => Plan::Drop(Reason::TcpDrop),
        Direction::Inbound if syn => match word.state {
            TcpState::Established => {
                let last = &slot.inbound.syn_forwarded;
                if now.wrapping_sub(last.load()) < SYN_INTERVAL_MS {
                    return Plan::Drop(Reason::SynLimited);
                }
                last.store(now);
                slot.inbound.syn_seq.store(packet.tcp.seq.0);
                forward(word)
            }
            TcpState::SynRecv => forward(word),
            TcpState::None
            | TcpState::SynSent
            | TcpState::FinWait
            | TcpState::TimeWait
            | TcpState::Close
            | TcpState::CloseWait
            | TcpState::LastAck => {
                if owner.is_service {
                    connect(owner.service)
                } else {
                    Plan::Drop(Reason::TcpDrop)
                }
            }
        },
        Direction::Inbound => {
            if word.state == TcpState::SynSent || word.flags & flag::OPENING != 0 {
                return Plan::Punt(RecordKind::FromClient);
            }
            let reusable = settings.switches.load() & switch::reuse(word.state) != 0;
            let acks = flags.contains(Flags::ACK) && !flags.contains(Flags::RST);
            let over = word.state == TcpState::TimeWait || word.state == TcpState::Close;
            if reusable
                && acks
                && owner.service.takes_cookies()
                && packet.tcp.ack.0.wrapping_sub(1) != slot.cookie.load()
                && packet.tcp.ack.0.wrapping_sub(1) != slot.prior_cookie.load()
                && (over || !continues(packet, slot))
            {
                return Plan::Accept;
            }
            onward(word)
        }
    }
}

/// The plan for a client's SYN that goes on to its real server.
#[inline(always)]
const fn forward(word: Word) -> Plan {
    if word.flags & flag::ONE_WAY == 0 { Plan::Forward } else { Plan::OneWay }
}

/// The plan for a client's segment that goes on to its real server.
#[inline(always)]
pub(crate) const fn onward(word: Word) -> Plan {
    if word.flags & (flag::INTRODUCING | flag::ONE_WAY) == 0 {
        Plan::Forward
    } else if word.flags & flag::ONE_WAY != 0 {
        Plan::OneWay
    } else if word.flags & flag::PROXIED != 0 {
        Plan::Punt(RecordKind::FromClient)
    } else {
        Plan::Punt(RecordKind::FromUnproxied)
    }
}
