//! Whole packets through [`seawall_fastpath::process`], over tables in ordinary memory.

#[path = "../support/mod.rs"]
mod support;

/// The version of IP that these tests speak; `packets_ipv6` runs them again.
const FAMILY: seawall_fastpath::family::Version = seawall_fastpath::family::Version::V4;

mod accept;
mod any_port;
mod datagrams;
mod desync;
mod epoch;
mod frames;
mod icmp;
mod index;
mod introduction;
mod one_way;
mod policy;
mod reuse;
mod states;
mod syn;
mod too_big;
mod translation;
mod vlan;
