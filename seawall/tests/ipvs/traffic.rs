//! Services made by stock ipvsadm carry traffic, and live beside those of the file.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use seawall_lab::daemon::service;

use crate::stage::{Stage, answer, ipvsadm, preload};

/// `InPkts` and so on of the line of `listing` that has `name` in it.
fn numbers(listing: &str, name: &str) -> Vec<u64> {
    let line = listing.lines().find(|line| line.contains(name)).expect(listing);
    let words = line.split_whitespace().filter_map(|word| word.parse().ok());
    words.collect()
}

#[test]
fn services_made_by_ipvsadm_carry_traffic() {
    let Some(stage) = Stage::new() else { return };
    let (vip, one, two) = (service(), stage.servers[0], stage.servers[1]);
    assert!(!stage.addresses().contains(&vip.ip().to_string()));
    stage.change(&format!("-A -t {vip} -s rr -b flag-3"));
    stage.change(&format!("-a -t {vip} -r {one} -m"));
    stage.change(&format!("-a -t {vip} -r {two} -m -w 3"));
    assert!(stage.addresses().contains(&vip.ip().to_string()));

    // Through the proxy and by FULLNAT, both real servers in turn.
    let mut kept: Vec<_> = (0..4).map(|_| stage.open()).collect();
    let names: BTreeSet<_> = kept.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(names, BTreeSet::from(["rs0".to_owned(), "rs1".to_owned()]));
    let listing = stage.ipvsadm("-Lnc");
    let line = |real| {
        listing.lines().any(|line| {
            line.starts_with("TCP ")
                && line.contains("ESTABLISHED")
                && line.contains(&vip.to_string())
                && line.trim_end().ends_with(&format!("{real}"))
        })
    };
    assert!(line(one) && line(two), "{listing}");
    // Connections, packets and bytes both ways.
    let counted = numbers(&stage.ipvsadm("-Ln --stats --exact"), &format!("{vip} "));
    assert_eq!(counted[0], 4);
    assert!(counted[1..5].iter().all(|number| *number >= 4), "{counted:?}");

    stage.change("-Z");
    let counted = numbers(&stage.ipvsadm("-Ln --stats --exact"), &format!("{vip} "));
    assert_eq!(counted, [0, 0, 0, 0, 0]);
    kept.iter_mut().for_each(|(connection, name)| assert_eq!(answer(connection), *name));
    let counted = numbers(&stage.ipvsadm("-Ln --stats --exact"), &format!("{vip} "));
    assert_eq!(counted[0], 0);
    assert!(counted[1] >= 4, "{counted:?}");

    // Weight 0 takes no more, and what there is goes on.
    stage.change(&format!("-e -t {vip} -r {one} -m -w 0"));
    for _ in 0..3 {
        assert_eq!(stage.open().1, "rs1");
    }
    kept.iter_mut().for_each(|(connection, name)| assert_eq!(answer(connection), *name));

    // A reload of the same file leaves what the socket has made.
    assert_eq!(stage.reload(), "nothing has changed");
    assert!(stage.ipvsadm("-Ln").contains("rr (flag-3)"));
    stage.change(&format!("-d -t {vip} -r {two}"));
    stage.change(&format!("-e -t {vip} -r {one} -m -w 1"));
    assert_eq!(stage.open().1, "rs0");

    // A file that has the service takes it over, and its sessions go on.
    let file = std::fs::read_to_string(stage.daemon.config()).unwrap();
    let own = format!(
        "{file}\n[[service]]\naddress = \"{vip}\"\nprotocol = \"tcp\"\nscheduler = \"wlc\"\nsynproxy = \
         \"on\"\nlocal_addresses = \"pool\"\n\n[[service.real_server]]\naddress = \"{one}\"\nforwarding = \
         \"fullnat\"\nweight = 1\n"
    );
    std::fs::write(stage.daemon.config(), own).unwrap();
    assert_eq!(stage.reload(), format!("service {vip}: scheduler wlc"));
    let (mut connection, _) = stage.open();
    stage.change("-A -t 10.0.0.77:80 -s rr");
    std::fs::write(stage.daemon.config(), file).unwrap();
    assert_eq!(stage.reload(), format!("service {vip}: removed"));
    assert!(stage.ipvsadm("-Ln").contains("10.0.0.77:80"));
    assert!(!stage.addresses().contains(&format!("{}/", vip.ip())));

    // Back again, its session is too.
    stage.change(&format!("-A -t {vip} -s rr -b flag-3"));
    stage.change(&format!("-a -t {vip} -r {one} -m"));
    assert_eq!(answer(&mut connection), "rs0");
    stage.change("-C");
    assert!(!stage.addresses().contains("10.0.0.77/"));
}

/// Without its daemon a tool says so, and does not turn to the kernel's own IPVS, which it would try
/// next.
#[test]
fn without_the_daemon_stock_tools_fail() {
    let Some(mut stage) = Stage::new() else { return };
    assert!(stage.ipvsadm("-Ln").starts_with("IP Virtual Server version 1.2.1"));
    let socket = stage.socket();
    let pid = stage.daemon.pid().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(stage.daemon.wait_for(Duration::from_secs(20)).unwrap().is_some());
    for socket in [socket, "/nonesuch/ipvs.sock".into(), "".into(), "x".repeat(200).into()] {
        let run = || ipvsadm("-Ln", "", |command| preload(command, &socket));
        let said = stage.topology.balancer.namespace.run(run);
        assert!(said.contains("Can't initialize ipvs: Protocol not available"), "{said}");
        assert!(said.ends_with("= 2\n"), "{said}");
    }
}
