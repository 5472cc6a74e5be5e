//! The same on the oldest kernel that Seawall supports, Linux 6.1 in user-mode Linux: as balancer,
//! and as client and real server, whose stack does not check TSecr as strictly as newer ones. It
//! has VLANs too, which a machine for tests may lack.
//!
//! The tests marked as ignored are those that run in there; [`linux_6_1`] starts them.

use std::time::Duration;

use seawall_lab::uml::Uml;
use seawall_lab::{Namespace, require};

use crate::MEBIBYTE;
use crate::scene::Scene;
use crate::stack::Pair;

/// For everything in there; it interprets BPF, on one CPU.
const LIMIT: Duration = Duration::from_secs(240);
/// Little, because it is slow.
const LENGTH: u64 = MEBIBYTE / 8;

#[test]
fn linux_6_1() {
    let uml = match Uml::find() {
        Ok(uml) => uml,
        Err(missing) => return require::missing(missing),
    };
    // Who may not make one here is not root in there either.
    if require::root(Namespace::new("probe")).is_none() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let arguments = ["oldest_kernel::", "--ignored", "--nocapture", "--test-threads=1"];
    let outcome = uml.run(&program, &arguments, LIMIT).unwrap();
    println!("{}", outcome.output);
    assert_eq!(outcome.status, Some(0), "after {:?}:\n{}", outcome.elapsed, outcome.output);
    assert!(outcome.output.contains("3 passed"), "{}", outcome.output);
    println!("in user-mode Linux: {:.0?}", outcome.elapsed);
}

#[test]
#[ignore = "runs in user-mode Linux, started by `linux_6_1`"]
fn options_that_agree_or_do_not() {
    let scene = Scene::build().unwrap();
    scene.check(&Pair::uneven(), LENGTH, "");
}

#[test]
#[ignore = "runs in user-mode Linux, started by `linux_6_1`"]
fn in_a_vlan() {
    let scene = Scene::build().unwrap();
    scene.tag(&[("802.1Q", 100)], &[("802.1Q", 200)]);
    scene.check(&[Pair::ALL, Pair::NONE], LENGTH, "");
}

/// QinQ towards clients (IEEE 802.1ad), none towards the real servers.
#[test]
#[ignore = "runs in user-mode Linux, started by `linux_6_1`"]
fn in_a_vlan_of_a_vlan() {
    let scene = Scene::build().unwrap();
    scene.tag(&[("802.1ad", 7), ("802.1Q", 8)], &[]);
    scene.check(&[Pair::ALL, Pair::NONE], LENGTH, "");
}
