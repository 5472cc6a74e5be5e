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
use seawall_fastpath::layout::IPV6_PROGRAM;
use seawall_fastpath::packet::version;
use seawall_fastpath::{Action, Reason, Tables, process_as};

use crate::tables::Maps;

/// Decides about one frame; see [`process_as`]. The one that is attached: it does IPv4 itself and
/// hands IPv6 on.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall(context: *mut xdp_md) -> u32 {
    let mut frame = Packet::new(context, maps::zero());
    if version(&mut frame) == Some(Version::V6) {
        // SAFETY: nothing here needs to be dropped; on success this does not return.
        unsafe { maps::PROGRAMS.tail_call(&XdpContext::new(context), IPV6_PROGRAM) };
        // Only while the daemon sets the program up.
        Maps::new(context).count(Reason::NotSetUp);
        return xdp_action::XDP_DROP;
    }
    run::<V4>(context, frame)
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall_ipv6(context: *mut xdp_md) -> u32 {
    run::<V6>(context, Packet::new(context, maps::zero()))
}

#[inline(always)]
fn run<V: Family>(context: *mut xdp_md, mut frame: Packet) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let ingress = unsafe { (*context).ingress_ifindex };
    match process_as::<V, _, _>(&mut frame, ingress, &Maps::new(context)).action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop | Action::Punt => xdp_action::XDP_DROP,
        Action::Send { interface } if interface == ingress => xdp_action::XDP_TX,
        // SAFETY: the helper takes any interface index.
        Action::Send { interface } => unsafe { bpf_redirect(interface, 0) as u32 },
    }
}

/// The helpers used here are for programs under a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
