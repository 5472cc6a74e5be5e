//! Whole packets through [`seawall_fastpath::process`], as in `packets`, over IPv6.

#[path = "../packets/accept.rs"]
mod accept;
#[path = "../packets/frames.rs"]
mod frames;
#[path = "../packets/index.rs"]
mod index;
#[path = "../packets/reuse.rs"]
mod reuse;
#[path = "../packets/states.rs"]
mod states;
#[path = "../support/mod.rs"]
mod support;
#[path = "../packets/syn.rs"]
mod syn;
#[path = "../packets/translation.rs"]
mod translation;

/// The version of IP that these tests speak.
const FAMILY: seawall_fastpath::family::Version = seawall_fastpath::family::Version::V6;
