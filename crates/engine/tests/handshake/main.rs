//! The handshake with real servers against peers that follow a script (SPEC A4 to A12), and
//! UDP, which has none.

mod adopt;
mod change;
mod datagrams;
mod datagrams_persist;
mod early;
mod health;
mod limits;
mod one_way;
mod options;
mod persistence;
mod servers;
mod shared;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
mod thresholds;
mod toggle;
mod too_big;
