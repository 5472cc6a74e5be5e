//! The engine and the native packet path between TCP stacks that are not ours (smoltcp), over
//! links that lose, repeat, delay and reorder, on one virtual clock (DESIGN, "Tests", layer 3).
//!
//! `SEAWALL_SEEDS=N` runs N seeds instead of [`SEEDS`], from `SEAWALL_FIRST_SEED=X` on (0);
//! `SEAWALL_SEED=X` runs seed X alone, and says what it stands for.

mod host;
mod network;
mod run;
mod scenario;
#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::Run;
use scenario::Scenario;

/// Seeds that `cargo test` runs.
const SEEDS: u64 = 10_000;
/// Threads that share them.
const THREADS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs one scenario; gives how many of its connections the network was too bad for.
fn run(scenario: &Scenario, test: &str) -> u64 {
    let result = std::panic::catch_unwind(|| {
        let mut run = Run::new(scenario);
        run.all();
        run.failed
    });
    result.unwrap_or_else(|panic| {
        let seed = scenario.seed;
        eprintln!("\nSEAWALL_SEED={seed} cargo test -p seawall-engine --test simulation {test}\n");
        std::panic::resume_unwind(panic)
    })
}

/// SPEC A4 to A12: whatever the network does, every byte arrives in order at both ends, both
/// close, and nothing is left.
#[test]
fn every_byte_arrives_and_nothing_is_left() {
    each(SEEDS, "every_byte", Scenario::new);
}

/// SPEC E: and so it does when the engine dies again and again, in the middle of whatever it does, and
/// another takes over at once or seconds later.
#[test]
fn every_byte_arrives_whoever_dies() {
    each(SEEDS / 4, "whoever_dies", Scenario::of_mortals);
}

/// Runs what so many seeds stand for.
fn each(seeds: u64, test: &'static str, scenario: fn(u64) -> Scenario) {
    if let Some(seed) = number("SEAWALL_SEED") {
        let scenario = scenario(seed);
        println!("{scenario:#?}");
        run(&scenario, test);
        return;
    }
    let seeds = number("SEAWALL_SEEDS").unwrap_or(seeds);
    let first = number("SEAWALL_FIRST_SEED").unwrap_or(0);
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    failed.fetch_add(run(&scenario(seed), test), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{seeds} seeds in {:.1?}, {failed} connections tried again", begun.elapsed());
    assert!(failed * 100 <= seeds, "{failed} connections failed in {seeds} seeds");
}

/// What once went wrong, and the seeds that showed it.
const ONCE_FAILED: [(&str, [u64; 2]); 5] = [
    ("without the proxy nobody asked for an unknown neighbour", [4, 16]),
    ("without the proxy the SYN of a closing session, come late, replaced it", [937, 1171]),
    ("without the proxy a session in SYN_SENT never expired", [310, 518]),
    ("segments that overtook the ACK of a reused port got a reset from the old server", [89, 131]),
    ("the old session took such segments for its own", [1801, 2406]),
];

/// The same, since real servers are told who their client is.
const ONCE_FAILED_INTRODUCED: (&str, [u64; 4]) =
    ("a reset to a late segment of the last connection ended TOA", [2719, 3440, 4500, 5924]);

#[test]
fn what_once_failed_does_so_no_more() {
    let (what, seeds) = ONCE_FAILED_INTRODUCED;
    println!("{what}: {seeds:?}");
    for seed in seeds {
        run(&Scenario::new(seed), "every_byte");
    }
    for (what, seeds) in ONCE_FAILED {
        println!("{what}: {seeds:?}");
        for seed in seeds {
            run(&Scenario::plain(seed), "every_byte");
        }
    }
}
