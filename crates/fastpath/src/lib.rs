//! The packet path: one frame and the tables in, one [`Verdict`] out.
//!
//! The same source is compiled into the XDP program, where [`Frame`] is the packet and
//! [`Tables`] the BPF maps, and natively into tests, fuzzers, the simulator and the engine,
//! where they are ordinary memory ([`native`]). Nothing here allocates, locks, logs, reads a
//! clock or draws a random number, no input makes it panic, and the work for a packet is
//! bounded by constants.
//!
//! Order of reading: [`process`] decides, [`packet`] parses, [`cookie`] makes and checks ISNs,
//! [`synack`] answers a SYN, [`translate`] splices, [`datagram`] does so for UDP and `icmp` for errors,
//! [`one_way`] sends on what does not come back through us, [`segment`] writes
//! segments of our own, [`too_big`] errors of our own, [`detour_as`] does what is not TCP or is rare, [`family`] is the IP version as a type, [`layout`] is the memory shared with user space, [`Reason`] names every outcome.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", allow(internal_features))]

#[cfg(feature = "native")]
extern crate alloc;

pub mod cell;
pub mod cookie;
pub mod datagram;
mod decision;
mod detour;
pub mod embryo;
pub mod family;
mod frame;
mod icmp;
pub mod layout;
pub mod link;
#[cfg(feature = "native")]
pub mod native;
pub mod one_way;
pub mod options;
pub mod packet;
mod past;
mod plan;
mod process;
mod reason;
pub mod segment;
pub mod siphash;
pub mod splice;
mod state;
pub mod storm;
pub mod synack;
mod tables;
pub mod too_big;
pub mod translate;
mod tunnel;
mod tuple;
mod wrapped;

pub use detour::detour_as;
pub use frame::Frame;
pub use process::{process, process_as};
pub use reason::{Outcome, Reason};
pub use state::{Direction, Event, STATES, TcpState};
pub use tables::{Hit, Ring, Sessions, Tables, find};
pub use tuple::{Addr, Endpoint, Transport, Tuple};

/// What becomes of a frame. Each comes with the one [`Reason`] that is counted for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// Why; its counter rises by one.
    pub reason: Reason,
}

/// What to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Not ours: the kernel's stack goes on with it, untouched.
    Pass,
    /// Nothing more happens to it.
    Drop,
    /// It leaves by this interface, as it now is.
    Send {
        /// Interface index; may be the one the frame came in on.
        interface: u32,
    },
    /// The engine decides: a copy went up a ring.
    Punt,
}
