//! The flood generator.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use seawall_bpf::Packet;
use seawall_fastpath::Frame;
use seawall_wire::Bytes;

use crate::flood_layout::{FRAME_MAX, Field, Template, Turn, order};
use crate::random::{below, step};

/// Bounds offsets for the verifier: no less than [`FRAME_MAX`], all ones.
const OFFSET_MASK: u32 = 0xff;
const _: () = assert!(FRAME_MAX <= OFFSET_MASK as usize);

/// Makes `frame` the one that `template` describes, which `sent` others were before: every byte
/// of it, because frames come back as their receiver left them.
#[inline(always)]
pub(crate) fn fill(
    frame: &mut Packet,
    template: &Template,
    turn: &mut Turn,
    sent: u64,
) -> Option<()> {
    let mut bytes = frame.window::<FRAME_MAX>(0)?;
    let mut at = 0;
    while at < FRAME_MAX / 4 {
        bytes.set_u32(at * 4, u32::from_be(template.words[at]));
        at += 1;
    }
    if turn.random == 0 {
        // SAFETY: takes nothing.
        turn.random = unsafe { bpf_get_prandom_u32() } as u64 | 1 << 32;
    }
    let [a, b, c, d] = &template.fields;
    let draw = step(&mut turn.random);
    vary(frame, a, draw as u32, sent)?;
    vary(frame, b, (draw >> 32) as u32, sent)?;
    let draw = step(&mut turn.random);
    vary(frame, c, draw as u32, sent)?;
    vary(frame, d, (draw >> 32) as u32, sent)?;
    frame.resize(template.len as usize)
}

/// Gives `field` a value.
#[inline(always)]
fn vary(frame: &mut Packet, field: &Field, draw: u32, sent: u64) -> Option<()> {
    if field.count == 0 {
        return Some(());
    }
    let above = match field.order {
        order::RISING => (sent % field.count as u64) as u32,
        _ => below(draw, field.count),
    };
    let value = field.first.wrapping_add(above);
    let offset = (field.offset & OFFSET_MASK) as usize;
    if field.width == 4 {
        frame.window::<4>(offset)?.set_u32(0, value);
    } else {
        frame.window::<2>(offset)?.set_u16(0, value as u16);
    }
    add(frame, field.sums[0], value)?;
    add(frame, field.sums[1], value)
}

/// Adds a field that was 0 to the checksum at `offset` (RFC 1624). Never 0, which in UDP means that
/// there is none (RFC 768): the other zero of ones' complement is as right everywhere.
#[inline(always)]
fn add(frame: &mut Packet, offset: u32, value: u32) -> Option<()> {
    if offset == 0 {
        return Some(());
    }
    let mut bytes = frame.window::<2>((offset & OFFSET_MASK) as usize)?;
    let sum = (!bytes.u16(0) as u32) + (value >> 16) + (value & 0xffff);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // Without a branch: 0xffff becomes 0.
    let sum = sum + (sum + 1 >> 16);
    bytes.set_u16(0, !(sum as u16));
    Some(())
}
