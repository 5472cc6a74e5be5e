//! Between the engine and the kernel: the XDP program and its maps, the rings that come up, the
//! packet sockets that frames go down, routes and neighbours, clocks and waiting.
//!
//! The only crate of user space with `unsafe`: a file a kernel concept, and every block says why
//! it holds.

pub mod clock;
mod inject;
mod mapped;
pub mod netlink;
pub mod netns;
mod ring;
mod xdp;

pub use mapped::MappedMemory;
pub use ring::Ring;
pub use inject::Injector;
pub use xdp::{Error, Limits, Loaded, Mode, TestRun, Xdp};
