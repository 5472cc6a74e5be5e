//! The real daemon between Linux TCP stacks whose options agree or do not, over good and bad
//! networks: every byte arrives, on the first connection to a real server (which is offered what
//! it will refuse) as well as on the second, and every session is freed. Needs root.

mod oldest_kernel;
mod scene;
mod stack;
mod vlan;

use seawall_lab::link::Direction;

use crate::scene::{Limits, Scene};
use crate::stack::Pair;

const MEBIBYTE: u64 = 1 << 20;

#[test]
fn every_combination_of_options() {
    let Some(scene) = Scene::build() else { return };
    scene.check(&Pair::every(), MEBIBYTE, "");
}

#[test]
fn over_a_bad_network() {
    let Some(mut scene) = Scene::build() else { return };
    scene.degrade();
    scene.check(&Pair::uneven(), MEBIBYTE, "");
    for link in &scene.links {
        for direction in [Direction::Inward, Direction::Outward] {
            let tally = link.tally(direction).unwrap();
            println!("{direction:?}: {tally:?}");
            assert!(tally.dropped > 0 && tally.duplicated > 0 && tally.held > 0, "{tally:?}");
        }
    }
}

#[test]
fn large_transfers_over_a_bad_network() {
    let Some(mut scene) = Scene::build() else { return };
    scene.degrade();
    scene.check(&[Pair::ALL, Pair::NONE], 4 * MEBIBYTE, "");
}

#[test]
fn small_segments() {
    let Some(mut scene) = Scene::build() else { return };
    let even = Limits { client_mtu: 1500, server_mtu: 1500, advertised: None, init_mss: 1452 };
    for limits in [
        Limits { client_mtu: 1280, ..even },
        // A network behind us that takes less than the one in front: `init_mss` tells clients.
        Limits { server_mtu: 1280, init_mss: 1220, ..even },
        Limits { client_mtu: 1280, server_mtu: 1280, init_mss: 1220, ..even },
        Limits { advertised: Some(536), ..even },
        // Linux does not go below 256.
        Limits { advertised: Some(300), ..even },
    ] {
        scene.check_limits(limits);
    }
}
