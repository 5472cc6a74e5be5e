//! The packet path in the kernel does what it does natively, frame by frame: the same answer,
//! bytes, counter, record and session, whatever the frame and the tables.
//!
//! Frames are random but seeded: a failure names its seed, and `SEAWALL_SEED=N` runs that one
//! again. Times are the kernel's own, so a frame whose answer depends on how fast the machine is
//! may not come out the same.

mod compare;
mod damage;
mod frames;
mod options;
mod pair;
mod scene;
#[path = "../../../fastpath/tests/support/mod.rs"]
#[expect(dead_code, reason = "the tests of the packet path need more of it")]
mod support;
#[path = "../../src/testing.rs"]
mod testing;

use seawall_datapath::netns;

/// The version of IP that the frames speak; `native_and_kernel_ipv6` is the other.
const FAMILY: seawall_fastpath::family::Version = seawall_fastpath::family::Version::V4;

#[test]
fn the_kernel_does_what_the_native_packet_path_does() {
    testing::in_namespace(compare::compare);
}
