//! The handshake with real servers against peers that follow a script (SPEC A4 to A12), and
//! UDP, which has none.

mod change;
mod datagrams;
mod early;
mod limits;
mod options;
mod servers;
mod shared;
#[path = "../support/mod.rs"]
mod support;
mod toggle;
