//! XDP programs for tests, benches and the demo; their driver is in `crates/lab`.
#![no_std]
#![no_main]

mod connections;
#[path = "../../../crates/lab/src/connections_layout.rs"]
#[allow(dead_code)]
mod connections_layout;
mod flood;
#[path = "../../../crates/lab/src/flood_layout.rs"]
#[allow(dead_code)]
mod flood_layout;
mod link;
#[path = "../../../crates/lab/src/link_layout.rs"]
#[allow(dead_code)]
mod link_layout;
mod random;
mod segment;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use seawall_bpf::Packet;
use seawall_fastpath::Frame;
use seawall_wire::Bytes;
use seawall_wire::ethernet::{self, EtherType};
use seawall_wire::ipv4::{self, Protocol};
use seawall_wire::tcp::{self, Flags};

use crate::flood_layout::{Received, TEMPLATES, Template, Turn};

#[map]
static LAB_TEMPLATES: Array<Template> = Array::with_max_entries(TEMPLATES, 0);
#[map]
static LAB_TURN: PerCpuArray<Turn> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LAB_SENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(TEMPLATES, 0);
#[map]
static LAB_DROPS: PerCpuArray<Received> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LAB_SINK: PerCpuArray<Received> = PerCpuArray::with_max_entries(1, 0);

const L3: usize = ethernet::HEADER_LEN;
const L4: usize = L3 + ipv4::HEADER_LEN;

/// See [`flood_layout::program::PASS`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_pass(_: *mut xdp_md) -> u32 {
    xdp_action::XDP_PASS
}

/// See [`flood_layout::program::DROP_COUNT`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_drop_count(context: *mut xdp_md) -> u32 {
    count(&LAB_DROPS, &mut Packet::new(context, 0));
    xdp_action::XDP_DROP
}

/// See [`flood_layout::program::REFLECT`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_reflect(context: *mut xdp_md) -> u32 {
    match reflect(&mut Packet::new(context, 0)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

/// See [`flood_layout::program::SINK`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_sink(context: *mut xdp_md) -> u32 {
    let mut frame = Packet::new(context, 0);
    if is_neighbour_discovery(&mut frame) {
        return xdp_action::XDP_PASS;
    }
    count(&LAB_SINK, &mut frame);
    xdp_action::XDP_DROP
}

/// See [`flood_layout::program::FLOOD`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_flood(context: *mut xdp_md) -> u32 {
    match flood(&mut Packet::new(context, 0)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn flood(frame: &mut Packet) -> Option<()> {
    let turn = LAB_TURN.get_ptr_mut(0)?;
    // SAFETY: only this CPU writes its element, and a program does not interrupt itself.
    let turn = unsafe { &mut *turn };
    let (mut at, mut template) = (turn.next as u32, LAB_TEMPLATES.get(turn.next as u32));
    if template.is_none_or(|template| template.len == 0) {
        (at, template) = (0, LAB_TEMPLATES.get(0));
    }
    turn.next = at as u64 + 1;
    let sent = LAB_SENT.get_ptr_mut(at)?;
    // SAFETY: as above.
    let sent = unsafe { &mut *sent };
    flood::fill(frame, template?, turn, *sent)?;
    *sent = sent.wrapping_add(1);
    Some(())
}

#[inline(always)]
fn count(counts: &PerCpuArray<Received>, frame: &mut Packet) {
    let Some(counts) = counts.get_ptr_mut(0) else { return };
    // SAFETY: as in `flood`.
    let counts = unsafe { &mut *counts };
    counts.packets = counts.packets.wrapping_add(1);
    counts.bytes = counts.bytes.wrapping_add(frame.len() as u64);
    if is_syn_ack(frame) {
        counts.syn_acks = counts.syn_acks.wrapping_add(1);
    }
}

/// ARP, or its like in ICMPv6 (RFC 4861: types 133 to 137).
#[inline(always)]
fn is_neighbour_discovery(frame: &mut Packet) -> bool {
    const ARP: u16 = 0x0806;
    const IPV6: u16 = 0x86dd;
    const ICMPV6: u8 = 58;
    const NEXT_HEADER: usize = L3 + 6;
    const TYPE: usize = L3 + 40;
    match frame.window::<L3>(0).map(|bytes| bytes.u16(12)) {
        Some(ARP) => true,
        Some(IPV6) => frame.window::<{ TYPE + 1 }>(0).is_some_and(|bytes| {
            bytes.u8(NEXT_HEADER) == ICMPV6 && (133..=137).contains(&bytes.u8(TYPE))
        }),
        _ => false,
    }
}

#[inline(always)]
fn is_syn_ack(frame: &mut Packet) -> bool {
    const NO_IP_OPTIONS: u8 = 0x45;
    let wanted = Flags::SYN.with(Flags::ACK);
    frame.window::<{ L4 + tcp::HEADER_LEN }>(0).is_some_and(|bytes| {
        bytes.u16(12) == EtherType::IPV4.0
            && bytes.u8(L3) == NO_IP_OPTIONS
            && bytes.u8(L3 + 9) == Protocol::TCP.0
            && bytes.u8(L4 + 13) & 0x17 == wanted.0 as u8
    })
}

#[inline(always)]
fn reflect(frame: &mut Packet) -> Option<()> {
    let mut bytes = frame.window::<{ L4 + 4 }>(0)?;
    if bytes.u16(12) != EtherType::IPV4.0 {
        return None;
    }
    let ethernet = ethernet::Header::read(&bytes);
    ethernet::Header {
        destination: ethernet.source,
        source: ethernet.destination,
        ethertype: ethernet.ethertype,
    }
    .write(&mut bytes);
    let (source, destination) = (bytes.u32(L3 + 12), bytes.u32(L3 + 16));
    bytes.set_u32(L3 + 12, destination);
    bytes.set_u32(L3 + 16, source);
    bytes.set_u32(L4, bytes.u32(L4).rotate_left(16));
    Some(())
}

/// The helpers used here are for programs under a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
