//! The flood generator.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use seawall_bpf::Packet;
use seawall_fastpath::Frame;
use seawall_wire::checksum::Sum;
use seawall_wire::ethernet::{self, EtherType, MacAddr};
use seawall_wire::ipv4::{self, Protocol};
use seawall_wire::tcp::{self, Flags};
use seawall_wire::{Bytes, SeqNumber};

use crate::flood_layout::{Flood, Sent, kind};
use crate::random::{below, step};
use crate::{L3, L4};

const PAYLOAD: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const WINDOW: u16 = 64_240;
const TTL: u8 = 64;
/// More fragments, 1,480 bytes into the packet.
const MIDDLE_FRAGMENT: u16 = 0x2000 | 1_480 / 8;
/// MSS 1460, SACK permitted and timestamps, as Linux sends them; the clock and the window scale
/// follow.
const OPTIONS: [u32; 2] = [0x0204_05b4, 0x0402_080a];
const WINDOW_SCALE: u32 = 0x0103_0307;

/// Makes `frame` the next one of `flood`: every byte of it, because frames come back as their
/// receiver left them.
#[inline(always)]
pub(crate) fn next(frame: &mut Packet, flood: &Flood, sent: &mut Sent) -> Option<()> {
    if flood.limit != 0 && sent.packets >= flood.limit {
        return None;
    }
    let draw = Draw::new(sent);
    let kind = if flood.kind == kind::MIX { draw.kind } else { flood.kind };
    let source = flood.source.wrapping_add(draw.below(flood.source_count));
    let options = flood.options != 0;
    let short = kind != kind::UDP && kind != kind::FRAGMENT && !options;
    let packet = ipv4::Header {
        version: 4,
        header_len: ipv4::HEADER_LEN as u8,
        tos: 0,
        total_len: (ipv4::HEADER_LEN + if short { tcp::HEADER_LEN } else { PAYLOAD }) as u16,
        ident: draw.ident,
        fragment: if kind == kind::FRAGMENT { MIDDLE_FRAGMENT } else { ipv4::DONT_FRAGMENT },
        ttl: TTL,
        protocol: if kind == kind::UDP { Protocol::UDP } else { Protocol::TCP },
        checksum: 0,
        source,
        destination: flood.destination,
    };
    let mut bytes = frame.window::<{ ethernet::HEADER_LEN }>(0)?;
    ethernet::Header {
        destination: mac(flood.destination_mac),
        source: mac(flood.source_mac),
        ethertype: EtherType::IPV4,
    }
    .write(&mut bytes);
    let mut bytes = frame.window::<{ ipv4::HEADER_LEN }>(L3)?;
    packet.write(&mut bytes);
    let mut bytes = frame.window::<PAYLOAD>(L4)?;
    let port = flood.destination_port as u16;
    if kind == kind::UDP {
        udp(&mut bytes, &packet, draw.port, port);
    } else {
        segment(&mut bytes, &packet, &draw, port, flags(kind), options);
    }
    sent.packets = sent.packets.wrapping_add(1);
    Some(())
}

#[inline(always)]
fn udp(bytes: &mut impl Bytes, packet: &ipv4::Header, source_port: u16, port: u16) {
    let len = PAYLOAD as u16;
    let sum = pseudo_header(packet, len).word(source_port).word(port).word(len);
    bytes.set_u16(0, source_port);
    bytes.set_u16(2, port);
    bytes.set_u16(4, len);
    bytes.set_u16(6, sum.finish());
    let mut at = UDP_HEADER_LEN;
    while at < PAYLOAD {
        bytes.set_u32(at, 0);
        at += 4;
    }
}

#[inline(always)]
fn segment(
    bytes: &mut impl Bytes,
    packet: &ipv4::Header,
    draw: &Draw,
    port: u16,
    flags: Flags,
    options: bool,
) {
    let words = if options { [OPTIONS[0], OPTIONS[1], draw.ack, 0, WINDOW_SCALE] } else { [0; 5] };
    let len = if options { PAYLOAD } else { tcp::HEADER_LEN } as u16;
    let ack = if flags.contains(Flags::ACK) { draw.ack } else { 0 };
    let mut sum = pseudo_header(packet, len)
        .word(draw.port)
        .word(port)
        .dword(draw.seq)
        .dword(ack)
        .word(len << 10 | flags.0)
        .word(WINDOW);
    let mut at = 0;
    while at < words.len() {
        bytes.set_u32(tcp::HEADER_LEN + at * 4, words[at]);
        sum = sum.dword(words[at]);
        at += 1;
    }
    tcp::Header {
        source_port: draw.port,
        destination_port: port,
        seq: SeqNumber(draw.seq),
        ack: SeqNumber(ack),
        header_len: len as u8,
        flags,
        window: WINDOW,
        checksum: sum.finish(),
        urgent: 0,
    }
    .write(bytes);
}

#[inline(always)]
fn pseudo_header(packet: &ipv4::Header, len: u16) -> Sum {
    Sum::new()
        .dword(packet.source)
        .dword(packet.destination)
        .word(packet.protocol.0 as u16)
        .word(len)
}

#[inline(always)]
const fn flags(of: u32) -> Flags {
    const URG: Flags = Flags(0x20);
    match of {
        kind::ACK | kind::FRAGMENT => Flags::ACK,
        kind::RST => Flags::RST,
        kind::FIN => Flags::FIN.with(Flags::ACK),
        kind::SYN_ACK => Flags::SYN.with(Flags::ACK),
        kind::NULL => Flags(0),
        kind::XMAS => Flags::FIN.with(Flags::PSH).with(URG),
        _ => Flags::SYN,
    }
}

#[inline(always)]
const fn mac(bits: u64) -> MacAddr {
    MacAddr::from_parts((bits >> 32) as u16, bits as u32)
}

/// The random parts of a frame.
struct Draw {
    address: u32,
    seq: u32,
    ack: u32,
    port: u16,
    ident: u16,
    kind: u32,
}

impl Draw {
    #[inline(always)]
    fn new(sent: &mut Sent) -> Self {
        if sent.random == 0 {
            // SAFETY: takes nothing.
            sent.random = unsafe { bpf_get_prandom_u32() } as u64 | 1 << 32;
        }
        let (first, second) = (step(&mut sent.random), step(&mut sent.random));
        Self {
            address: (first >> 32) as u32,
            seq: first as u32,
            ack: (second >> 32) as u32,
            port: second as u16 | 0x400,
            ident: (second >> 16) as u16,
            kind: below(second as u32, kind::MIX),
        }
    }

    #[inline(always)]
    fn below(&self, count: u32) -> u32 {
        below(self.address, count)
    }
}
