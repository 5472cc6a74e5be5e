//! Seawall's control side: the configuration file, how counters are shown, and the API socket.
//!
//! Nothing here touches a packet, a map or an interface: the daemon gives this crate its
//! [`api::Backend`], and takes from it a checked [`config::Config`].

pub mod api;
pub mod config;
pub mod counters;
pub mod limits;
pub mod report;
