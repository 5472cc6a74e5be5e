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
use seawall_bpf::Packet;
use seawall_fastpath::{Action, process};

use crate::tables::Maps;

/// Decides about one frame; see [`process`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn seawall(context: *mut xdp_md) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let ingress = unsafe { (*context).ingress_ifindex };
    let mut frame = Packet::new(context, maps::zero());
    match process(&mut frame, ingress, &Maps::new(context)).action {
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
