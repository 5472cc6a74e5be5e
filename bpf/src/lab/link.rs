//! The lossy link: drops, doubles and delays frames on their way from one veth to another.

use aya_ebpf::bindings::{BPF_F_BROADCAST, xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_xdp_adjust_head};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, CpuMap, DevMap, PerCpuArray};
use seawall_bpf::Packet;
use seawall_fastpath::Frame;
use seawall_wire::Bytes;

use crate::link_layout::{Link, Passed, STAMP, WHOLE};
use crate::random::{below, step};

#[map]
static LAB_LINK: Array<Link> = Array::with_max_entries(1, 0);
#[map]
static LAB_PASSED: PerCpuArray<Passed> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LAB_OUT: DevMap = DevMap::with_max_entries(2, 0);
#[map]
static LAB_HOLD: CpuMap = CpuMap::with_max_entries(1, 0);

/// See [`crate::link_layout::program::LINK`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_link(context: *mut xdp_md) -> u32 {
    let (Some(link), Some(passed)) = (LAB_LINK.get(0), passed()) else {
        return xdp_action::XDP_ABORTED;
    };
    let draw = below(step(&mut passed.random) as u32, WHOLE as u32) as u64;
    passed.frames = passed.frames.wrapping_add(1);
    let len = Packet::new(context, 0).len() as u64;
    if len > passed.longest {
        passed.longest = len;
    }
    if draw < link.drop {
        passed.dropped = passed.dropped.wrapping_add(1);
        return xdp_action::XDP_DROP;
    }
    let doubled = link.drop.wrapping_add(link.duplicate);
    if draw < doubled {
        passed.duplicated = passed.duplicated.wrapping_add(1);
        return out(BPF_F_BROADCAST as u64);
    }
    if draw < doubled.wrapping_add(link.reorder)
        && stamp(context, now().wrapping_add(link.hold)).is_some()
    {
        passed.held = passed.held.wrapping_add(1);
        // On another CPU than the sender's, which could send nothing meanwhile.
        let next = cpu().wrapping_add(1);
        return hold(if (next as u64) < link.cpus { next } else { 0 });
    }
    out(0)
}

/// See [`crate::link_layout::program::REDIRECT`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_redirect(_: *mut xdp_md) -> u32 {
    out(0)
}

/// See [`crate::link_layout::program::RELEASE`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp/cpumap")]
pub extern "C" fn lab_release(context: *mut xdp_md) -> u32 {
    let Some(release) = stamped(context) else { return xdp_action::XDP_ABORTED };
    if now() < release {
        return hold(cpu());
    }
    // SAFETY: no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(context, STAMP as i32) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    if let Some(passed) = passed() {
        passed.released = passed.released.wrapping_add(1);
    }
    out(0)
}

/// This CPU's counts. Both programs run with softirqs off, so neither interrupts the other.
#[inline(always)]
fn passed() -> Option<&'static mut Passed> {
    // SAFETY: only this CPU writes its element, one program at a time, which asks once.
    LAB_PASSED.get_ptr_mut(0).map(|passed| unsafe { &mut *passed })
}

#[inline(always)]
fn out(flags: u64) -> u32 {
    LAB_OUT.redirect(0, flags).unwrap_or(xdp_action::XDP_ABORTED)
}

#[inline(always)]
fn hold(cpu: u32) -> u32 {
    LAB_HOLD.redirect(cpu, 0).unwrap_or(xdp_action::XDP_ABORTED)
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: takes nothing.
    unsafe { bpf_get_smp_processor_id() }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn stamp(context: *mut xdp_md, release: u64) -> Option<()> {
    // SAFETY: no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(context, -(STAMP as i32)) } != 0 {
        return None;
    }
    let mut frame = Packet::new(context, 0);
    let mut bytes = frame.window::<STAMP>(0)?;
    bytes.set_u32(0, (release >> 32) as u32);
    bytes.set_u32(4, release as u32);
    Some(())
}

#[inline(always)]
fn stamped(context: *mut xdp_md) -> Option<u64> {
    let mut frame = Packet::new(context, 0);
    let bytes = frame.window::<STAMP>(0)?;
    Some((bytes.u32(0) as u64) << 32 | bytes.u32(4) as u64)
}
