//! The XDP shell around [`seawall_fastpath`]: the frame, the maps and the actions.
//!
//! Everything that decides lives in `fastpath`; here is only what the kernel makes different.
#![no_std]
#![no_main]

mod maps;
mod record;
mod tables;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::programs::XdpContext;
use seawall_bpf::Packet;
use seawall_fastpath::family::{Family, V4, V6, Version};
use seawall_fastpath::layout::program;
use seawall_fastpath::packet::version;
use seawall_fastpath::{Action, Reason, Tables, Verdict, detour_as, process_as};

use crate::tables::Maps;

/// Decides about one frame; see [`process_as`]. The one that is attached: it does IPv4 itself and
/// hands IPv6 on.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall(context: *mut xdp_md) -> u32 {
    let mut frame = Packet::new(context, maps::zero());
    if version(&mut frame) == Some(Version::V6) {
        return hand_on(context, program::IPV6);
    }
    run::<V4>(context, frame, program::DETOUR)
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall_ipv6(context: *mut xdp_md) -> u32 {
    run::<V6>(context, Packet::new(context, maps::zero()), program::DETOUR_IPV6)
}

/// What is not TCP, or is rare; see [`detour_as`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall_detour(context: *mut xdp_md) -> u32 {
    detour::<V4>(context)
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall_detour_ipv6(context: *mut xdp_md) -> u32 {
    detour::<V6>(context)
}

#[inline(always)]
fn run<V: Family>(context: *mut xdp_md, mut frame: Packet, next: u32) -> u32 {
    let ingress = ingress(context);
    match process_as::<V, _, _>(&mut frame, ingress, &Maps::new(context)) {
        Some(verdict) => act(verdict, ingress),
        None => hand_on(context, next),
    }
}

#[inline(always)]
fn detour<V: Family>(context: *mut xdp_md) -> u32 {
    let ingress = ingress(context);
    let mut frame = Packet::new(context, maps::zero());
    act(detour_as::<V, _, _>(&mut frame, ingress, &Maps::new(context)), ingress)
}

#[inline(always)]
fn ingress(context: *mut xdp_md) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*context).ingress_ifindex }
}

#[inline(always)]
fn act(verdict: Verdict, ingress: u32) -> u32 {
    match verdict.action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop | Action::Punt => xdp_action::XDP_DROP,
        Action::Send { interface } if interface == ingress => xdp_action::XDP_TX,
        // SAFETY: the helper takes any interface index.
        Action::Send { interface } => unsafe { bpf_redirect(interface, 0) as u32 },
    }
}

/// Goes on with another program of [`maps::PROGRAMS`].
#[inline(always)]
fn hand_on(context: *mut xdp_md, program: u32) -> u32 {
    // SAFETY: nothing here needs to be dropped; on success this does not return.
    unsafe { maps::PROGRAMS.tail_call(&XdpContext::new(context), program) };
    // Only while the daemon sets the program up.
    Maps::new(context).count(Reason::NotSetUp);
    xdp_action::XDP_DROP
}

/// The helpers used here are for programs under a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
