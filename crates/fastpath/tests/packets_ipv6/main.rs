//! Whole packets through [`seawall_fastpath::process`], as in `packets`, over IPv6.

#[path = "../packets/accept.rs"]
mod accept;
#[path = "../packets/any_port.rs"]
mod any_port;
#[path = "../packets/datagrams.rs"]
mod datagrams;
#[path = "../packets/desync.rs"]
mod desync;
#[path = "../packets/epoch.rs"]
mod epoch;
#[path = "../packets/frames.rs"]
mod frames;
#[path = "../packets/icmp.rs"]
mod icmp;
#[path = "../packets/index.rs"]
mod index;
#[path = "../packets/introduction.rs"]
mod introduction;
#[path = "../packets/one_way.rs"]
mod one_way;
mod policy;
#[path = "../packets/reuse.rs"]
mod reuse;
#[path = "../packets/states.rs"]
mod states;
#[path = "../support/mod.rs"]
mod support;
#[path = "../packets/syn.rs"]
mod syn;
#[path = "../packets/too_big.rs"]
mod too_big;
#[path = "../packets/translation.rs"]
mod translation;
#[path = "../packets/vlan.rs"]
mod vlan;

/// The version of IP that these tests speak.
const FAMILY: seawall_fastpath::family::Version = seawall_fastpath::family::Version::V6;
