//! Bytes to meaning and back, for every header that Seawall reads or writes.
//!
//! `no_std`, no unsafe, no allocation. **No function here panics on any input**: a read past the
//! end of a buffer gives zero and a write there does nothing, because the caller proves the
//! length once (see [`Bytes`]) and the same source is compiled for the XDP program, where a
//! panic cannot exist.
//!
//! Values are in host order in every type; network order exists only inside this crate.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod bytes;
pub mod checksum;
pub mod ethernet;
pub mod gre;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
mod seq;
pub mod tcp;
pub mod udp;

pub use bytes::Bytes;
pub use seq::SeqNumber;
