//! seawall.
fn main() {}
