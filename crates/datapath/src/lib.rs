//! Seawall: datapath.

pub mod netlink;
pub mod netns;
