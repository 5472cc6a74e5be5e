//! Frame after frame through both, and what is counted at the end.

use std::time::Instant;

use seawall_datapath::random;
use seawall_fastpath::Reason;
use seawall_fastpath::family::Version;
use seawall_fastpath::layout::RecordKind;

use crate::FAMILY;
use crate::frames::{Frames, Side};
use crate::pair::Pair;
use crate::scene::{self, Interfaces};
use crate::support::packet::Segment;
use crate::support::random::Random;

/// Frames a run: twenty times as many as the rarest reason takes to be given.
const FRAMES: usize = 40_000;
/// Frames between two changes of settings and sessions.
const BETWEEN_SHAKES: usize = 40;

/// What random frames cannot bring about: full rings, a driver without headroom, and what only the
/// other version of IP has.
const OUT_OF_REACH: [Reason; 4] = [
    Reason::RingFullProven,
    Reason::RingFullUnproven,
    Reason::ResizeFailed,
    Reason::SynResizeFailed,
];
const OF_THE_OTHER_VERSION: &[Reason] = match FAMILY {
    Version::V4 => &[Reason::ExtensionHeader, Reason::UdpChecksumMissing],
    Version::V6 => &[Reason::IpChecksum, Reason::IpOptions],
};

/// Runs both on [`FRAMES`] frames of this test's version.
pub(crate) fn compare() {
    let seed = seed();
    let interfaces = Interfaces::new();
    let mut random = Random(seed);
    let (world, sessions) = scene::build(&mut random, interfaces);
    let slots = sessions.iter().map(|(_, slot)| *slot).collect();
    let mut pair = Pair::new(world, slots);
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
        let reachable = !OUT_OF_REACH.contains(reason) && !OF_THE_OTHER_VERSION.contains(reason);
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
