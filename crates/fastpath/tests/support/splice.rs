//! What a segment of one side of a session must become for the other, from DESIGN's "Splice
//! arithmetic", field by field and with no regard to checksums: the builder makes new ones.

use seawall_fastpath::Direction;
use seawall_fastpath::layout::{NO_SCALE, flag};

use super::packet::{ACK, Opt, SYN, Segment};
use super::world::{INSIDE_MAC, OUTSIDE_MAC, REAL_MAC, ROUTER_MAC, Session};

/// The numbers of a session, named as in DESIGN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) d: u32,
    pub(crate) f: u32,
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) flags: u32,
    /// The client's shift, ours, and the real server's.
    pub(crate) scales: (u8, u8, u8),
}

impl Numbers {
    pub(crate) const PLAIN: Self = Self {
        d: 0x7777_1111,
        f: 0x0101_0101,
        a: 1_000,
        b: 0xffff_0000,
        flags: flag::PROXIED | flag::TIMESTAMPS,
        scales: (7, 7, 7),
    };
}

fn shift(scale: u8) -> u32 {
    if scale == NO_SCALE { 0 } else { u32::from(scale) }
}

fn window(segment: &Segment, direction: Direction, numbers: &Numbers) -> u16 {
    if segment.flags & SYN != 0 || numbers.flags & flag::RESCALE == 0 {
        return segment.window;
    }
    let (client, ours, real_server) = numbers.scales;
    let raw = u128::from(segment.window);
    let bytes = match direction {
        Direction::Outbound => raw * (1 << shift(real_server)) / (1 << shift(ours)),
        Direction::Inbound if real_server == NO_SCALE => raw * (1 << shift(client)),
        Direction::Inbound => raw,
    };
    // An open window never looks shut.
    bytes.clamp(u128::from(segment.window != 0), 65_535) as u16
}

pub(crate) fn expected(segment: &Segment, direction: Direction, session: &Session) -> Segment {
    let numbers = &session.numbers;
    let mut out = segment.clone();
    let (seq_add, ack_sub, value_add, echo_sub);
    match direction {
        Direction::Inbound => {
            (seq_add, ack_sub) = (numbers.f, numbers.d);
            (value_add, echo_sub) = (numbers.a, numbers.b);
            (out.source, out.destination) = (session.local, session.real);
            (out.source_mac, out.destination_mac) = (INSIDE_MAC, REAL_MAC);
        }
        Direction::Outbound => {
            (seq_add, ack_sub) = (numbers.d, numbers.f);
            (value_add, echo_sub) = (numbers.b, numbers.a);
            (out.source, out.destination) = (session.vip, session.client);
            (out.source_mac, out.destination_mac) = (OUTSIDE_MAC, ROUTER_MAC);
        }
    }
    let acks = segment.flags & ACK != 0;
    out.ttl -= 1;
    out.seq = segment.seq.wrapping_add(seq_add);
    if acks {
        out.ack = segment.ack.wrapping_sub(ack_sub);
    }
    out.window = window(segment, direction, numbers);
    for option in &mut out.options {
        match option {
            Opt::End => break,
            Opt::Timestamps(value, echo) if numbers.flags & flag::TIMESTAMPS != 0 => {
                *value = value.wrapping_add(value_add);
                if acks {
                    *echo = echo.wrapping_sub(echo_sub);
                }
            }
            Opt::Sack(blocks) if acks => {
                for (left, right) in blocks {
                    *left = left.wrapping_sub(ack_sub);
                    *right = right.wrapping_sub(ack_sub);
                }
            }
            _ => {}
        }
    }
    out
}
