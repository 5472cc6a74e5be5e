//! The PROXY header on its way: bytes that the client has not sent, in front of those that it has
//! (SPEC C7; HAProxy, `doc/proxy-protocol.txt`).
//!
//! The real server's side of the stream begins earlier by the header: a session's `client_isn` is
//! the client's less its length, so that every number that follows is right by the one `f`, and
//! under NAT by none. What is left to do until the real server has acknowledged the header
//! ([`flag::INTRODUCING`]) is done here, and both sides go through the engine for it:
//!
//! - The header is the first segment after the real server's SYN/ACK, with what the client sent early
//!   right behind it; it is sent again, a second later and then twice as long each time, until it is
//!   acknowledged. When `[timeouts] syn_sent` has passed, both ends are reset.
//! - Where the real server's window or MSS is smaller than the header it goes in parts, a window of
//!   zero is probed with a byte, and the client's data is kept until all of it has been sent.
//! - Acknowledgments of the header alone stay here. A segment with data that acknowledges less than
//!   all of it reaches the client as one that acknowledges nothing new of its, with as much less
//!   window.
//! - A client's reset reaches the real server with the number that it expects, and ends the session
//!   as it would have a moment before (SPEC A11).

use seawall_fastpath::Direction;
use seawall_fastpath::layout::{self, Scales, Slot, flag};
use seawall_fastpath::native::{Buffer, Memory};
use seawall_fastpath::options::Timestamps;
use seawall_fastpath::packet::Packet;
use seawall_fastpath::translate::window_bytes;
use seawall_fastpath::{Frame, TcpState};
use seawall_wire::checksum::Update;
use seawall_wire::tcp::option::{TIMESTAMPS, TIMESTAMPS_LEN as TIMESTAMPS_OPTION_LEN};
use seawall_wire::tcp::{Flags, HEADER_LEN};
use seawall_wire::{Bytes, SeqNumber};

use crate::change::change_flag;
use crate::counters::Counter;
use crate::engine::{Arrived, Engine};
use crate::handshake::{parse_options, window_to_server};
use crate::lengthen;
use crate::outbox::MAX_FRAME;
use crate::proxy_header::{ProxyHeader, ProxyProtocol};
use crate::send::{Says, copy};
use crate::table::Found;

/// First retransmission, in milliseconds; doubles each time (RFC 6298, section 2.1).
const TIMEOUT_MS: u64 = 1_000;
/// Longest time between two retransmissions is this many times as long.
const MAX_BACK_OFF: u32 = 64;
/// The smallest MSS that is believed; Linux sends no less either (`tcp_min_snd_mss`).
const MIN_MSS: u32 = 48;
/// Bytes of timestamps in a segment.
const TIMESTAMPS_LEN: u32 = 12;
/// Beyond what the real server can have acknowledged of the client's data meanwhile.
const REACH: u32 = 1 << 30;

/// A header that is not acknowledged yet. Positions are bytes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preface {
    protocol: ProxyProtocol,
    pub(crate) len: u32,
    acknowledged: u32,
    /// How far it has been sent at least once.
    sent: u32,
    /// The real server's window behind what it has acknowledged, in bytes.
    window: u32,
    /// Payload of a segment to it.
    mss: u32,
    /// Its latest clock.
    echo: Option<u32>,
    retransmissions: u32,
    /// When it is given up.
    ends: u64,
}

/// What the real server says of itself in its SYN/ACK.
pub(crate) struct Accepts {
    pub(crate) window: u32,
    pub(crate) mss: u16,
    /// Its clock, if timestamps are in use.
    pub(crate) clock: Option<u32>,
}

impl Preface {
    /// The header of that length; not begun.
    pub(crate) const fn new(protocol: ProxyProtocol, len: u32) -> Self {
        Self {
            protocol,
            len,
            acknowledged: 0,
            sent: 0,
            window: 0,
            mss: MIN_MSS,
            echo: None,
            retransmissions: 0,
            ends: 0,
        }
    }

    /// What the slot says of it while the real server has not answered.
    pub(crate) const fn left(&self) -> layout::Preface {
        let version = match self.protocol {
            ProxyProtocol::V1 => 1,
            ProxyProtocol::V2 => 2,
        };
        layout::Preface { version, mss: 0, clocks: None }
    }

    /// The same when it has; `value` is the clock of our SYN.
    pub(crate) fn begun(&self, accepts: &Accepts, value: u32) -> layout::Preface {
        let clocks = accepts.clock.map(|echo| Timestamps { value, echo });
        layout::Preface { mss: accepts.mss, clocks, ..self.left() }
    }

    /// The header that a slot speaks of, `acknowledged` bytes of which the real server has: not begun.
    pub(crate) fn of(slot: &Slot, acknowledged: u32) -> Option<Self> {
        let protocol = match slot.preface()?.version {
            1 => ProxyProtocol::V1,
            _ => ProxyProtocol::V2,
        };
        let len = ProxyHeader::new(protocol, &slot.ends()).bytes().len() as u32;
        let acknowledged = if acknowledged < len { acknowledged } else { 0 };
        let sent = acknowledged;
        Some(Self { acknowledged, sent, ..Self::new(protocol, len) })
    }

    /// The real server has accepted; it has until `ends`.
    pub(crate) fn begin(&mut self, accepts: &Accepts, ends: u64) {
        let options = if accepts.clock.is_some() { TIMESTAMPS_LEN } else { 0 };
        self.mss = u32::from(accepts.mss).max(MIN_MSS) - options;
        self.window = accepts.window;
        self.echo = accepts.clock;
        self.ends = ends;
    }

    /// Whether all of it has been sent.
    const fn is_out(&self) -> bool {
        self.sent >= self.len
    }

    /// The bytes from `from` on that the next segment takes, `least` of them in spite of the window.
    fn part(&self, from: u32, least: u32) -> u32 {
        let open = (self.acknowledged + self.window).saturating_sub(from).max(least);
        (self.len - from).min(self.mss).min(open)
    }

    fn wait(&self) -> u64 {
        TIMEOUT_MS * u64::from((1 << self.retransmissions.min(16)).min(MAX_BACK_OFF))
    }
}

impl<M: Memory> Engine<M> {
    /// The header that a session's real server is to acknowledge yet; in SYN_SENT, that it is to
    /// get.
    pub(crate) fn preface(&self, index: u32) -> Option<&Preface> {
        let handshake = self.sessions.get(index as usize)?.handshake.as_deref()?;
        handshake.preface.as_ref()
    }

    fn preface_mut(&mut self, index: u32) -> Option<&mut Preface> {
        let handshake = self.sessions.get_mut(index as usize)?.handshake.as_deref_mut()?;
        handshake.preface.as_mut()
    }

    /// Bytes of the header that a session's real server is to get before the client's.
    pub(crate) fn preface_len(&self, index: u32) -> u32 {
        self.preface(index).map_or(0, |preface| preface.len)
    }

    /// The real server has accepted: sends the header and what the client has said already.
    pub(crate) fn begin_preface(&mut self, now: u64, index: u32, accepts: &Accepts) {
        let ends = now + self.config.timeouts.get(TcpState::SynSent);
        let Some(preface) = self.preface_mut(index) else { return };
        preface.begin(accepts, ends);
        self.count(Counter::ProxyHeader);
        if !self.continue_preface(now, index) {
            // Nothing fits: the handshake is to be completed nonetheless.
            self.say_preface(index, 0, 0);
        }
        self.await_preface(now, index);
    }

    /// Sends what of the header has not been sent and fits the window, and when that is all, what the
    /// client has said meanwhile. Says whether anything of the header was sent.
    fn continue_preface(&mut self, now: u64, index: u32) -> bool {
        let mut said = false;
        while let Some(preface) = self.preface(index).filter(|preface| !preface.is_out()) {
            let (from, len) = (preface.sent, preface.part(preface.sent, 0));
            if len == 0 {
                return said;
            }
            self.say_preface(index, from, len);
            said = true;
            if let Some(preface) = self.preface_mut(index) {
                preface.sent = from + len;
            }
        }
        self.send_early(now, index);
        said
    }

    /// Sends `len` bytes of the header from `from` on.
    fn say_preface(&mut self, index: u32, from: u32, len: u32) {
        let Some(preface) = self.preface(index).copied() else { return };
        let session = self.sessions.get(index as usize);
        let Some(handshake) = session.and_then(|session| session.handshake.as_deref()) else {
            return;
        };
        let value = handshake.syn_value;
        let Some(slot) = self.table.slot(index) else { return };
        let header = ProxyHeader::new(preface.protocol, &slot.ends());
        let Some(part) = header.bytes().get(from as usize..(from + len) as usize) else { return };
        let push = if from + len == preface.len { Flags::PSH } else { Flags(0) };
        let says = Says {
            flags: Flags::ACK.with(push),
            seq: SeqNumber(slot.client_isn.load()).add(slot.f.load()).add(1 + from),
            ack: SeqNumber(slot.inbound.ack.load()).sub(slot.state().d),
            window: window_to_server(slot),
            syn: None,
            // That of the SYN: nothing that the real server has taken note of is later, for of what
            // comes behind the header it notes no clock before it has the header, and what the client
            // acknowledges between its parts bears this one too.
            timestamps: preface.echo.map(|echo| Timestamps { value, echo }),
        };
        self.say_with(index, Direction::Inbound, &says, part);
    }

    fn await_preface(&mut self, now: u64, index: u32) {
        if let Some(preface) = self.preface(index) {
            self.wheel.arm(index, preface.ends.min(now + preface.wait()));
        }
    }

    /// The real server has not acknowledged the header in time.
    pub(crate) fn preface_timeout(&mut self, now: u64, index: u32) {
        let Some(preface) = self.preface_mut(index) else { return };
        if now >= preface.ends {
            self.count(Counter::ProxyHeaderFailed);
            self.reset_both(index);
            return self.retire(now, index);
        }
        preface.retransmissions += 1;
        self.repeat_preface(index);
        if let Some(slot) = self.table.slot(index) {
            slot.allow_punts();
        }
        self.await_preface(now, index);
    }

    /// Sends the first part that is not acknowledged again; a byte of it if the window is shut (RFC
    /// 9293, section 3.8.6.1).
    fn repeat_preface(&mut self, index: u32) {
        let Some(preface) = self.preface_mut(index) else { return };
        let from = preface.acknowledged;
        let len = preface.part(from, 1);
        preface.sent = preface.sent.max(from + len);
        self.count(Counter::ProxyHeaderAgain);
        self.say_preface(index, from, len);
    }

    /// The real server has sent its SYN/ACK again: it has nothing of the header.
    pub(crate) fn preface_again(&mut self, index: u32, arrived: &Arrived<'_>) {
        let options = parse_options(arrived.frame);
        let clock = options.and_then(|options| options.timestamps);
        if let Some(preface) = self.preface_mut(index) {
            preface.echo = preface.echo.and(clock).map(|clock| clock.value).or(preface.echo);
            if preface.acknowledged + preface.window > 0 {
                return self.repeat_preface(index);
            }
        }
        self.say_preface(index, 0, 0);
    }

    /// A segment of the real server's, no SYN, while the header is not acknowledged.
    pub(crate) fn hear_preface(&mut self, now: u64, found: Found, arrived: &Arrived<'_>) {
        let index = found.index;
        let (tcp, space) = (&arrived.packet.tcp, arrived.packet.sequence_len());
        let Some(slot) = self.table.slot(index) else { return };
        let first = SeqNumber(slot.client_isn.load()).add(slot.f.load()).add(1);
        let window = window_bytes(&arrived.packet, Direction::Outbound, slot);
        let acknowledged = tcp.ack.since(first);
        if tcp.flags.contains(Flags::RST) {
            return self.pass_as_of(now, found, arrived, first.add(self.preface_len(index)));
        }
        if !tcp.flags.contains(Flags::ACK) || acknowledged > REACH {
            return self.count(Counter::RsInvalid);
        }
        self.refill(now, index);
        let clock = parse_options(arrived.frame).and_then(|options| options.timestamps);
        let Some(preface) = self.preface_mut(index) else { return };
        if acknowledged >= preface.len {
            self.end_preface(now, index);
            return self.pass_on(now, found, arrived.frame);
        }
        if acknowledged >= preface.acknowledged {
            preface.sent = preface.sent.max(acknowledged);
            preface.acknowledged = acknowledged;
            preface.window = window;
            preface.echo = preface.echo.and(clock).map(|clock| clock.value).or(preface.echo);
            let echo = preface.echo;
            if let Some(slot) = self.table.slot(index) {
                slot.outbound.ack.store(tcp.ack.sub(slot.f.load()).0);
                slot.outbound.window.store(window);
                note_echo(slot, echo);
            }
        }
        if space > 0 {
            let end = first.add(self.preface_len(index));
            self.pass_as_of(now, found, arrived, end);
        }
        self.continue_preface(now, index);
    }

    /// Passes a real server's segment on as if it acknowledged all of the header, which ends at `end`,
    /// and had as much less window behind it.
    fn pass_as_of(&mut self, now: u64, found: Found, arrived: &Arrived<'_>, end: SeqNumber) {
        let Some(slot) = self.table.slot(found.index) else { return };
        let ack = arrived.packet.tcp.ack;
        let missing = end.since(ack);
        let behind = arrived.packet.tcp.flags.contains(Flags::ACK) && missing <= REACH;
        if !behind {
            return self.pass_on(now, found, arrived.frame);
        }
        let window = window_bytes(&arrived.packet, Direction::Outbound, slot);
        let scale = Scales::from_bits(slot.scales.load()).real_server_shift();
        let window = (window.saturating_sub(missing) >> scale).min(u32::from(u16::MAX));
        let numbers =
            Numbers { seq: arrived.packet.tcp.seq, ack: end, window: window as u16, clock: None };
        self.pass_renumbered(now, found, arrived, numbers);
    }

    /// A segment of the client's while the header is not acknowledged.
    pub(crate) fn client_behind_preface(&mut self, now: u64, found: Found, arrived: &Arrived<'_>) {
        let tcp = &arrived.packet.tcp;
        let Some(preface) = self.preface(found.index) else { return };
        let missing = preface.len - preface.sent;
        if tcp.flags.contains(Flags::RST) {
            if !self.is_early(found.index, arrived) {
                return self.count(Counter::EarlyInvalid);
            }
            self.count(Counter::ClientAborted);
            self.reset_real_server(found.index);
            return self.retire(now, found.index);
        }
        if missing > 0 {
            if arrived.packet.sequence_len() > 0 {
                return self.keep_early(found.index, arrived);
            }
            // It acknowledges what the real server says; beyond its window it would not be heard.
            // There its clock is noted, and must not be later than that of the rest of the header.
            let (seq, clock) = (tcp.seq.sub(missing), self.first_clock(found.index));
            let numbers = Numbers { seq, ack: tcp.ack, window: tcp.window, clock };
            return self.pass_renumbered(now, found, arrived, numbers);
        }
        self.pass_on(now, found, arrived.frame);
    }

    /// The clock that the header bears, as the client counts.
    fn first_clock(&self, index: u32) -> Option<u32> {
        let handshake = self.sessions.get(index as usize)?.handshake.as_deref()?;
        let slot = self.table.slot(index)?;
        Some(handshake.syn_value.wrapping_sub(slot.ts_in.load()))
    }

    fn pass_renumbered(&mut self, now: u64, found: Found, arrived: &Arrived<'_>, numbers: Numbers) {
        let mut bytes = [0u8; MAX_FRAME];
        let renumbered = copy(&mut bytes, arrived.frame).and_then(|(mut buffer, packet)| {
            numbers.put(&mut buffer, &packet)?;
            Some(buffer.len())
        });
        match renumbered.and_then(|len| bytes.get(..len)) {
            Some(frame) => self.pass_on(now, found, frame),
            None => self.count(Counter::PassOnFailed),
        }
    }

    /// The real server has all of the header: the session is as any other.
    fn end_preface(&mut self, now: u64, index: u32) {
        self.send_early(now, index);
        self.end_handshake(index);
        self.introduced(index);
        if let Some(slot) = self.table.slot(index) {
            slot.set_preface(None);
        }
        self.state_changed(now, index);
    }

    /// Goes on with a header that another engine may have sent, from where the real server has
    /// acknowledged it: it is sent again as soon as timers run, with as much time as in the beginning.
    /// What the client has said since, it says again. Says whether there is a header.
    pub(crate) fn resume_preface(&mut self, now: u64, index: u32) -> bool {
        let ends = now + self.config.timeouts.get(TcpState::SynSent);
        let Some(slot) = self.table.slot(index) else { return false };
        let Some(left) = slot.preface() else { return false };
        let acknowledged =
            SeqNumber(slot.outbound.ack.load()).since(SeqNumber(slot.client_isn.load()).add(1));
        let Some(mut preface) = Preface::of(slot, acknowledged) else { return false };
        let accepts = Accepts {
            window: slot.outbound.window.load(),
            mss: left.mss,
            clock: left.clocks.map(|clocks| clocks.echo),
        };
        preface.begin(&accepts, ends);
        let mut handshake = self.resumed(slot, Some(preface));
        handshake.syn_value = left.clocks.unwrap_or_default().value;
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.handshake = Some(Box::new(handshake));
        }
        true
    }

    /// Sends what the client has said meanwhile, in order; what it says next comes after it.
    fn send_early(&mut self, now: u64, index: u32) {
        let session = self.sessions.get_mut(index as usize);
        let Some(handshake) = session.and_then(|session| session.handshake.as_deref_mut()) else {
            return;
        };
        let early = std::mem::take(&mut handshake.early);
        self.early_bytes -= early.bytes();
        let Some(slot) = self.table.slot(index) else { return };
        let generation = slot.generation.load();
        let found = Found { index, direction: Direction::Inbound };
        // One that takes no sequence space has nothing to say that the header did not.
        let mut said = early.segments().iter().filter(|kept| kept.len > 0).peekable();
        if said.peek().is_some() {
            change_flag(slot, generation, flag::OPENING, true);
            self.opening.push((index, generation, flag::OPENING));
        }
        for kept in said {
            self.pass_on(now, found, &kept.frame);
        }
    }
}

/// Keeps the real server's latest clock for an engine that has not heard it.
fn note_echo(slot: &Slot, echo: Option<u32>) {
    let left = slot.preface();
    if let (Some(left), Some(echo)) = (left, echo)
        && let Some(clocks) = left.clocks.filter(|clocks| clocks.echo != echo)
    {
        let clocks = Some(Timestamps { echo, ..clocks });
        slot.set_preface(Some(layout::Preface { clocks, ..left }));
    }
}

/// What a segment says in place of what it said.
struct Numbers {
    seq: SeqNumber,
    ack: SeqNumber,
    window: u16,
    /// Its TSval, if it has one.
    clock: Option<u32>,
}

impl Numbers {
    fn put(&self, frame: &mut Buffer<'_>, packet: &Packet) -> Option<()> {
        let tcp = &packet.tcp;
        let checksum = Update::new()
            .dword(tcp.seq.0, self.seq.0)
            .dword(tcp.ack.0, self.ack.0)
            .word(tcp.window, self.window)
            .apply(tcp.checksum);
        let header = frame.window::<HEADER_LEN>(packet.l4)?;
        header.set_u32(4, self.seq.0);
        header.set_u32(8, self.ack.0);
        header.set_u16(14, self.window);
        header.set_u16(16, checksum);
        let mut options = lengthen::options_of(frame, packet);
        let options = options.get_mut(..usize::from(tcp.header_len) - HEADER_LEN)?;
        if let Some(clock) = self.clock
            && let Some(at) = lengthen::find(options, TIMESTAMPS, TIMESTAMPS_OPTION_LEN)
        {
            options.get_mut(at + 2..at + 6)?.copy_from_slice(&clock.to_be_bytes());
            lengthen::set_options(frame, packet, options)?;
        }
        Some(())
    }
}
