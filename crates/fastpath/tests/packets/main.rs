//! Whole packets through [`seawall_fastpath::process`], over tables in ordinary memory.

#[path = "../support/mod.rs"]
mod support;

mod accept;
mod frames;
mod index;
mod policy;
mod reuse;
mod states;
mod syn;
mod translation;
