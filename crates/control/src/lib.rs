//! Seawall's control side: the configuration file, how counters are shown, the API socket, and
//! that of the IPVS protocol.
//!
//! Nothing here touches a packet, a map or an interface: the daemon gives this crate its
//! [`api::Backend`] and [`ipvs::Backend`], and takes from it a checked [`config::Config`].

pub mod api;
pub mod config;
pub mod counters;
pub mod ipvs;
pub mod limits;
pub mod report;
mod socket;
