//! Seawall under libFuzzer: `cargo xtask fuzz`.

mod bodies;
#[path = "../../crates/engine/tests/support/mod.rs"]
mod support;

/// The `wire` target.
pub fn wire(data: &[u8]) {
    bodies::wire(data);
}

/// The `fastpath` target.
pub fn fastpath(data: &[u8]) {
    bodies::fastpath(data);
}

/// The `engine` target.
pub fn engine(data: &[u8]) {
    bodies::engine(data);
}
