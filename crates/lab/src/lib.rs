//! Networks in a box: namespaces, veths, HTTP peers and load, for Seawall's demo, end-to-end tests
//! and benches.
//!
//! Nothing here has a name outside this process: namespaces are kept by descriptors and threads,
//! veths live in namespaces, processes die with the thread that started them. So nothing is left
//! behind, not even after SIGKILL, and any number of labs run side by side. Everything but the
//! [`pattern`], the [`histogram`] and the HTTP pieces needs root.

pub mod attack;
pub mod bound;
pub mod connections;
pub mod connections_layout;
pub mod cpu;
pub mod daemon;
pub mod direct;
pub mod echo;
pub mod flood;
pub mod flood_layout;
pub mod frame;
mod generator;
pub mod histogram;
pub mod http;
pub mod link;
pub mod link_layout;
pub mod load;
pub mod namespace;
pub mod pattern;
pub mod require;
pub mod tap;
pub mod topology;
pub mod uml;
pub mod unwrap;

pub use namespace::{Namespace, ProcessGuard};
pub use topology::{Arms, Cable, Host, Interface, Topology, TopologySpec};
