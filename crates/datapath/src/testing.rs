//! What the tests of this crate share.

use crate::netns;

/// Whether the test may go on: it needs root. Says so and answers no without, and panics where
/// `SEAWALL_REQUIRE_ROOT=1` forbids skipping.
pub(crate) fn needs_root() -> bool {
    let root = rustix::thread::capabilities(None)
        .is_ok_and(|held| held.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    if !root {
        let required = std::env::var_os("SEAWALL_REQUIRE_ROOT").is_some_and(|v| v == "1");
        assert!(!required, "SEAWALL_REQUIRE_ROOT=1, but this test does not run as root");
        println!("skipped: needs root: BPF and network namespaces");
    }
    root
}

/// Runs a test in a network namespace of its own, on a thread that takes it along when it ends.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if needs_root() {
        let thread = std::thread::spawn(move || {
            netns::unshare().unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
