//! The packet path in the kernel does what it does natively: as `native_and_kernel`, over IPv6.

#[path = "../native_and_kernel/compare.rs"]
mod compare;
#[path = "../native_and_kernel/damage.rs"]
mod damage;
#[path = "../native_and_kernel/frames.rs"]
mod frames;
#[path = "../native_and_kernel/options.rs"]
mod options;
#[path = "../native_and_kernel/pair.rs"]
mod pair;
#[path = "../native_and_kernel/scene.rs"]
mod scene;
#[path = "../../../fastpath/tests/support/mod.rs"]
#[expect(dead_code, reason = "the tests of the packet path need more of it")]
mod support;
#[path = "../../src/testing.rs"]
mod testing;

use seawall_datapath::netns;

/// The version of IP that the frames speak.
const FAMILY: seawall_fastpath::family::Version = seawall_fastpath::family::Version::V6;

#[test]
fn the_kernel_does_what_the_native_packet_path_does() {
    testing::in_namespace(compare::compare);
}
