//! Everything that Seawall asks of the kernel, and the only crate of user space with `unsafe`.
//!
//! A file a kernel concept: [`Xdp`] loads and attaches the program of the packet path and writes
//! its tables, [`MappedArray`] is the memory shared with it, [`Ring`] what it hands up,
//! [`Injector`] what is handed down past it, [`Waiter`] and [`Signals`] say when there is work,
//! [`clock`] and [`random`] are where time and chance come from, [`netlink`] and [`netns`] are
//! interfaces, routes and namespaces. [`requirements`] says beforehand what is missing.
//!
//! Nothing here decides anything: that is the business of the layers above.

mod bpf_call;
pub mod clock;
mod error;
mod inject;
mod mapped;
pub mod netlink;
pub mod netns;
mod owned;
mod pins;
pub mod program_test;
pub mod random;
pub mod requirements;
mod ring;
mod shared;
mod signals;
mod state;
mod tables;
#[cfg(test)]
mod testing;
mod wait;
mod xdp;

pub use error::Error;
pub use inject::{BATCH_FRAMES, InjectCounters, Injector, MAX_FRAME};
pub use mapped::{Cells, MappedArray};
pub use owned::Owned;
pub use ring::Ring;
pub use shared::SharedMemory;
pub use signals::{Signal, Signals};
pub use state::State;
pub use wait::{Ready, Sources, Waiter, Waker};
pub use xdp::{Limits, Mode, Rings, Xdp};
