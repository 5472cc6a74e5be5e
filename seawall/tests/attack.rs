//! Every attack of the lab's suite, shortly: what it must not do is said in
//! [`seawall_lab::attack`]. Needs root; `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

use std::path::Path;
use std::time::Duration;

use seawall_lab::attack::{Attack, Family, Force, Stage, all};
use seawall_lab::{Topology, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
/// What a debug build answers on a busy machine without a legitimate request waiting for long; all
/// bounds are in packets, so that a slower machine only tests fewer of them.
const FORCE: Force = Force { duration: Duration::from_secs(1), rate: 20_000 };

/// Makes the attacks one after the other, each on what the one before has left.
fn check(attacks: impl Iterator<Item = Attack>) {
    let Some(topology) = require::root(Topology::build(&Stage::spec())) else { return };
    let mut stage = Stage::new(topology, Path::new(SEAWALL)).unwrap();
    let mut faults = Vec::new();
    for attack in attacks {
        let report = attack.run(&mut stage, FORCE).unwrap();
        println!("{}: {report:?}", attack.title());
        faults.extend(report.faults.iter().map(|fault| format!("{}: {fault}", attack.title())));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn attacks_over_ipv4_do_no_harm() {
    check(all(Family::V4).into_iter().filter(|attack| !attack.waits));
}

#[test]
fn attacks_over_ipv6_do_no_harm() {
    check(all(Family::V6).into_iter().filter(|attack| !attack.waits));
}

/// Two epochs of cookies, for most of which it waits. Named to start first: with two cores the others
/// take turns beside it.
#[test]
fn attacks_after_a_wait_do_no_harm() {
    check(all(Family::V4).into_iter().filter(|attack| attack.waits));
}
