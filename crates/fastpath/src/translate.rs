//! The splice: makes a segment of one side of a session the same segment of the other (SPEC A7;
//! DESIGN, "Splice arithmetic").
//!
//! Inbound: `seq += f`, `ack -= d`, SACK edges `-= d`, TSval `+= a`, TSecr `-= b`. Outbound:
//! `seq += d`, `ack -= f`, SACK edges `-= f`, TSval `+= b`, TSecr `-= a`. All wrap. Checksums
//! are updated incrementally, so a segment that came in corrupt leaves corrupt. On a service with
//! TOA, options that a client forged become NOPs (SPEC C7).

use seawall_wire::Bytes;
use seawall_wire::checksum::Update;
use seawall_wire::tcp::option::{
    ALIGNED_TIMESTAMPS, END, NOP, SACK, TIMESTAMPS, TIMESTAMPS_LEN, TOA_V4, TOA_V6,
};
use seawall_wire::tcp::{Flags, HEADER_LEN, MAX_HEADER_LEN};

use crate::family::{Family, Ip, Readdress};
use crate::layout::{NO_SCALE, NextHop, Scales, Slot, Word, flag};
use crate::link::Link;
use crate::packet::Packet;
use crate::{Direction, Frame, Reason};

/// What is added to and subtracted from the numbers of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Deltas {
    seq_add: u32,
    ack_sub: u32,
    value_add: u32,
    echo_sub: u32,
    /// TOA options are overwritten: only our own may reach the real server.
    without_toa: bool,
}

/// Translates the checked segment `packet` in `frame` for the session in `slot`, whose word is
/// `word`, and addresses it to `next_hop`. Gives the interface to leave by.
///
/// # Errors
/// The reason to drop it; the frame may have changed.
#[inline(always)]
pub fn translate<V: Family, F: Frame>(
    frame: &mut F,
    packet: &Packet,
    direction: Direction,
    slot: &Slot,
    word: Word,
    next_hop: &NextHop,
) -> Result<u32, Reason> {
    let link = onward(&packet.ip, next_hop)?;
    let deltas = deltas(packet, direction, slot, word);
    let to = slot.translated(direction);
    let readdress = Readdress {
        source: to.source.address,
        destination: to.destination.address,
        ttl: packet.ip.ttl.wrapping_sub(1),
    };
    if !V::has(readdress.source) || !V::has(readdress.destination) {
        return Err(Reason::NotSetUp);
    }
    let addresses = V::update(Update::new(), &packet.ip, &readdress);
    let Ok(options) = translate_options(frame, packet, deltas, addresses) else {
        return Err(Reason::OptionsMalformed);
    };

    let mut tcp = packet.tcp;
    tcp.source_port = to.source.port;
    tcp.destination_port = to.destination.port;
    tcp.seq = packet.tcp.seq.add(deltas.seq_add);
    tcp.ack = packet.tcp.ack.sub(deltas.ack_sub);
    tcp.window = window(packet, direction, slot, word);
    tcp.checksum = options
        .dword(packet.tuple.ports(), to.ports())
        .dword(packet.tcp.seq.0, tcp.seq.0)
        .dword(packet.tcp.ack.0, tcp.ack.0)
        .word(packet.tcp.window, tcp.window)
        .apply(packet.tcp.checksum);
    let Some(()) = frame.window::<{ HEADER_LEN }>(packet.l4).map(|mut bytes| {
        bytes.set_u16(0, tcp.source_port);
        bytes.set_u16(2, tcp.destination_port);
        bytes.set_u32(4, tcp.seq.0);
        bytes.set_u32(8, tcp.ack.0);
        bytes.set_u16(14, tcp.window);
        bytes.set_u16(16, tcp.checksum);
    }) else {
        return Err(Reason::TcpMalformed);
    };

    let Some(()) = V::readdress(frame, packet.l3, &packet.ip, &readdress) else {
        return Err(Reason::IpMalformed);
    };
    relink::<V, F>(frame, packet.l3, link)?;
    Ok(next_hop.interface.load())
}

/// The link header with which a packet goes on to `next_hop`.
///
/// # Errors
/// Why it cannot.
#[inline(always)]
pub(crate) fn onward(ip: &Ip, next_hop: &NextHop) -> Result<Link, Reason> {
    let Some(destination) = next_hop.destination() else { return Err(Reason::NextHopMissing) };
    if ip.ttl <= 1 {
        return Err(Reason::TtlExceeded);
    }
    if ip.len > next_hop.mtu.load() {
        return Err(Reason::MtuExceeded);
    }
    Ok(Link { destination, source: next_hop.source(), tags: next_hop.tags() })
}

/// Gives `frame`, whose IP header is at `l3`, another link header.
///
/// # Errors
/// The reason to drop it; the frame may have changed.
#[inline(always)]
pub(crate) fn relink<V: Family, F: Frame>(
    frame: &mut F,
    l3: usize,
    link: Link,
) -> Result<(), Reason> {
    let grow = (link.header_len() as i32).wrapping_sub(l3 as i32);
    if grow != 0 && frame.grow_head(grow).is_none() {
        return Err(Reason::ResizeFailed);
    }
    match link.write(frame, V::ETHERTYPE) {
        Some(()) => Ok(()),
        None => Err(Reason::IpMalformed),
    }
}

/// What is not to be translated gets a delta of zero: branches in the walk over the options would
/// multiply the verifier's work.
#[inline(always)]
fn deltas(packet: &Packet, direction: Direction, slot: &Slot, word: Word) -> Deltas {
    let f = slot.f.load();
    let (a, b) = if word.flags & flag::TIMESTAMPS != 0 {
        (slot.ts_in.load(), slot.ts_out.load())
    } else {
        (0, 0)
    };
    let deltas = match direction {
        Direction::Inbound => Deltas {
            seq_add: f,
            ack_sub: word.d,
            value_add: a,
            echo_sub: b,
            without_toa: word.flags & flag::TOA != 0,
        },
        Direction::Outbound => {
            Deltas { seq_add: word.d, ack_sub: f, value_add: b, echo_sub: a, without_toa: false }
        }
    };
    if packet.tcp.flags.contains(Flags::ACK) {
        deltas
    } else {
        // The acknowledgment number, and by RFC 7323, section 3.2, TSecr mean something only
        // where ACK is set.
        Deltas { ack_sub: 0, echo_sub: 0, ..deltas }
    }
}

/// The window as the other side must read it: the shift that each side applies is the one it
/// was offered, which with a cookie was ours and not the real server's.
#[inline(always)]
fn window(packet: &Packet, direction: Direction, slot: &Slot, word: Word) -> u16 {
    let window = packet.tcp.window;
    if word.flags & flag::RESCALE == 0 || packet.tcp.flags.contains(Flags::SYN) {
        return window;
    }
    let scales = Scales::from_bits(slot.scales.load());
    match direction {
        Direction::Outbound => {
            let scaled = (window as u32) << shift(scales.real_server) >> shift(scales.ours);
            // An open window must not look shut: the client would wait for news that a real
            // server with nothing to say never sends. Too much by less than one step of ours.
            if scaled == 0 && window != 0 { 1 } else { saturate(scaled) }
        }
        Direction::Inbound if scales.real_server == NO_SCALE => {
            saturate((window as u32) << shift(scales.client))
        }
        Direction::Inbound => window,
    }
}

/// The window of `packet` in bytes, by the shift of the side that sent it.
#[inline(always)]
pub fn window_bytes(packet: &Packet, direction: Direction, slot: &Slot) -> u32 {
    let window = packet.tcp.window as u32;
    if packet.tcp.flags.contains(Flags::SYN) {
        return window;
    }
    let scales = Scales::from_bits(slot.scales.load());
    match direction {
        Direction::Inbound => window << shift(scales.client),
        Direction::Outbound => window << shift(scales.real_server),
    }
}

#[inline(always)]
const fn shift(scale: u8) -> u32 {
    if scale == NO_SCALE { 0 } else { (scale & 0xf) as u32 }
}

#[inline(always)]
const fn saturate(window: u32) -> u16 {
    if window > 0xffff { 0xffff } else { window as u16 }
}

struct Malformed;

#[inline(always)]
fn translate_options<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    deltas: Deltas,
    update: Update,
) -> Result<Update, Malformed> {
    let header_len = packet.tcp.header_len as usize;
    if header_len <= HEADER_LEN {
        return Ok(update);
    }
    if header_len == 32
        && let Some(update) = translate_aligned(frame, packet, deltas, update)
    {
        return Ok(update);
    }
    walk_options(frame, packet, deltas, update)
}

#[inline(always)]
fn translate_aligned<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    deltas: Deltas,
    update: Update,
) -> Option<Update> {
    let mut bytes = frame.window::<12>(packet.l4 + HEADER_LEN)?;
    if bytes.u32(0) != ALIGNED_TIMESTAMPS {
        return None;
    }
    Some(translate_timestamps::<4>(&mut bytes, HEADER_LEN, deltas, update))
}

#[inline(always)]
fn walk_options<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    deltas: Deltas,
    update: Update,
) -> Result<Update, Malformed> {
    let header_len = packet.tcp.header_len as usize;
    let mut update = update;
    let mut at = HEADER_LEN;
    let mut steps = HEADER_LEN;
    // Bytes of an option that is being overwritten: one a step, as no step may take fewer.
    let mut erase = 0;
    while steps < MAX_HEADER_LEN {
        steps += 1;
        at = frame.opaque(at) & 0x3f;
        erase = frame.opaque(erase) & 0x3f;
        if at >= header_len {
            break;
        }
        if erase > 0 {
            update = overwrite(frame, packet.l4, at, update)?;
            erase -= 1;
            at += 1;
            continue;
        }
        let Some(kind) = frame.window::<1>(packet.l4 + at).map(|byte| byte.u8(0)) else {
            return Err(Malformed);
        };
        if kind == END {
            break;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let Some(len) = frame.window::<2>(packet.l4 + at).map(|bytes| bytes.u8(1) as usize) else {
            return Err(Malformed);
        };
        if len < 2 || at + len > header_len {
            return Err(Malformed);
        }
        if deltas.without_toa && is_toa(kind) {
            update = overwrite(frame, packet.l4, at, update)?;
            erase = len - 1;
            at += 1;
            continue;
        }
        if kind == TIMESTAMPS && len == TIMESTAMPS_LEN as usize {
            let Some(mut bytes) = frame.window::<10>(packet.l4 + at) else {
                return Err(Malformed);
            };
            update = translate_timestamps::<2>(&mut bytes, at, deltas, update);
        } else if kind == SACK {
            update = translate_sack(frame, packet.l4, at, len, deltas.ack_sub, update)?;
        }
        at += len;
    }
    Ok(update)
}

/// Whether an option of this kind may be taken for a TOA option of either version.
#[inline(always)]
const fn is_toa(kind: u8) -> bool {
    kind.wrapping_sub(TOA_V6) <= TOA_V4 - TOA_V6
}

/// Puts a NOP in place of the byte at `at` in the header.
#[inline(always)]
fn overwrite<F: Frame>(
    frame: &mut F,
    l4: usize,
    at: usize,
    update: Update,
) -> Result<Update, Malformed> {
    let Some(mut byte) = frame.window::<1>(l4 + at) else { return Err(Malformed) };
    let old = byte.u8(0);
    byte.set_u8(0, NOP);
    Ok(update.byte_at(at, old, NOP))
}

/// Translates the timestamps `VALUE` bytes into those at `at` in the header.
#[inline(always)]
fn translate_timestamps<const VALUE: usize>(
    bytes: &mut impl Bytes,
    at: usize,
    deltas: Deltas,
    update: Update,
) -> Update {
    let (value, echo) = (bytes.u32(VALUE), bytes.u32(VALUE + 4));
    let new_value = value.wrapping_add(deltas.value_add);
    let new_echo = echo.wrapping_sub(deltas.echo_sub);
    bytes.set_u32(VALUE, new_value);
    bytes.set_u32(VALUE + 4, new_echo);
    update.dword_at(at, value, new_value).dword_at(at, echo, new_echo)
}

/// Edges of a SACK option: two a block, four blocks at most (RFC 2018, section 3).
const MAX_EDGES: usize = 8;

#[inline(always)]
fn translate_sack<F: Frame>(
    frame: &mut F,
    l4: usize,
    at: usize,
    len: usize,
    ack_sub: u32,
    update: Update,
) -> Result<Update, Malformed> {
    let mut update = update;
    let mut edge = 0;
    while edge < MAX_EDGES {
        let from = 2 + edge * 4;
        edge += 1;
        if from + 4 > len {
            break;
        }
        let Some(mut bytes) = frame.window::<4>(l4 + at + from) else { return Err(Malformed) };
        let old = bytes.u32(0);
        let new = old.wrapping_sub(ack_sub);
        bytes.set_u32(0, new);
        update = update.dword_at(at, old, new);
    }
    Ok(update)
}
