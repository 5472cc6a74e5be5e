//! The packet path in the kernel does what it does natively, frame by frame: the same answer,
//! bytes, counter, record and session, whatever the frame and the tables.
//!
//! Frames are random but seeded: a failure names its seed, and `SEAWALL_SEED=N` runs that one
//! again. Times are the kernel's own, so a frame whose answer depends on how fast the machine is
//! may not come out the same.

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

use std::time::{Duration, Instant};

use seawall_datapath::{netns, random};
use seawall_fastpath::Reason;
use seawall_fastpath::layout::RecordKind;

use crate::frames::{Frames, Side};
use crate::pair::Pair;
use crate::scene::Interfaces;
use crate::support::packet::Segment;
use crate::support::random::Random;

/// Frames a run: twenty times as many as the rarest reason takes to be given.
const FRAMES: usize = 20_000;
/// Frames between two changes of settings and sessions.
const BETWEEN_SHAKES: usize = 40;

/// What random frames cannot bring about: full rings, a driver without headroom.
const OUT_OF_REACH: [Reason; 3] =
    [Reason::RingFullProven, Reason::RingFullUnproven, Reason::ResizeFailed];

#[test]
fn the_kernel_does_what_the_native_packet_path_does() {
    testing::in_namespace(compare);
}

fn compare() {
    let seed = seed();
    let interfaces = Interfaces::new();
    let mut random = Random(seed);
    let (world, sessions) = scene::build(&mut random, interfaces);
    let slots = sessions.iter().map(|(_, slot)| *slot).collect();
    let mut pair = Pair::new(world, slots);
    let verification = pair.xdp.verification();
    assert!(verification < Duration::from_secs(2), "verified in {verification:?}");
    let mut frames = Frames::new(random, sessions.iter().map(|(session, _)| *session).collect());
    let start = Instant::now();
    for at in 0..FRAMES {
        if at % BETWEEN_SHAKES == 0 {
            scene::shake(&mut frames.random, &pair.world, &sessions);
            pair.copy_memory();
        }
        let case = frames.next();
        let ingress = match case.side {
            Side::Outside => interfaces.outside,
            Side::Inside => interfaces.inside,
        };
        let ran = pair.run(ingress, &case.frame).unwrap_or_else(|difference| {
            let (what, frame) = (&case.what, &case.frame);
            panic!("SEAWALL_SEED={seed}, frame {at}, {what} ({frame:02x?}): {difference}");
        });
        if let (Reason::Cookie, Some(syn)) = (ran.reason(), case.syn) {
            frames.answered(syn, Segment::read(&ran.bytes));
        }
    }
    pair.check_the_rest().unwrap_or_else(|difference| panic!("SEAWALL_SEED={seed}: {difference}"));
    println!("SEAWALL_SEED={seed}: {FRAMES} frames in {:?}", start.elapsed());
    for (reason, count) in Reason::ALL.iter().zip(pair.handled()) {
        println!("{count:6} {}", reason.name());
    }
    for (reason, count) in Reason::ALL.iter().zip(pair.handled()) {
        let reachable = !OUT_OF_REACH.contains(reason);
        assert_eq!(*count > 0, reachable, "SEAWALL_SEED={seed}: {count} times {reason:?}");
    }
    for kind in (1..).map_while(RecordKind::from_bits) {
        assert!(pair.kinds.contains(&kind), "SEAWALL_SEED={seed}: no record {kind:?}");
    }
}

/// The one asked for, or a new one.
fn seed() -> u64 {
    match std::env::var("SEAWALL_SEED") {
        Ok(seed) => seed.parse().expect("SEAWALL_SEED is a number"),
        Err(_) => u64::from_ne_bytes(random::bytes().unwrap()),
    }
}
