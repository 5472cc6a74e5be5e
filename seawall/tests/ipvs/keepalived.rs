//! Stock keepalived checks real servers and manages services.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seawall_lab::ProcessGuard;
use seawall_lab::daemon::service;

use crate::stage::{Stage, answer, have, preload};

/// Far more than a loaded machine needs for a few checks, which are a second apart.
const PATIENCE: Duration = Duration::from_secs(60);

/// `keepalived.conf` with those real servers.
fn config(servers: &[SocketAddr]) -> String {
    let vip = service();
    let mut text = format!(
        "global_defs {{\n  router_id seawall\n}}\nvirtual_server {} {} {{\n  delay_loop 1\n  lb_algo \
         rr\n  flag-3\n  lb_kind NAT\n  protocol TCP\n",
        vip.ip(),
        vip.port()
    );
    for server in servers {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "  real_server {} {} {{\n    weight 1\n    HTTP_GET {{\n      url {{\n        path /\n        \
             status_code 200\n      }}\n      connect_timeout 1\n      retry 1\n      \
             delay_before_retry 1\n    }}\n  }}\n",
            server.ip(),
            server.port()
        );
    }
    text.push_str("}\n");
    text
}

/// keepalived in the balancer's namespace, its checkers only: addresses are the daemon's.
fn start(stage: &Stage, directory: &Path) -> ProcessGuard {
    let file = |name: &str| directory.join(name);
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--log-detail", "--check"]);
    command.arg("--use-file").arg(file("keepalived.conf"));
    command.arg("--pid").arg(file("pid")).arg("--checkers_pid").arg(file("checkers"));
    let log = std::fs::File::create(file("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    preload(&mut command, &stage.socket());
    stage.topology.balancer.namespace.spawn_process(command).unwrap()
}

/// Waits until `-Ln` lists exactly those real servers.
#[track_caller]
fn wait_for(stage: &Stage, servers: &[SocketAddr], log: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listing = stage.ipvsadm("-Ln");
        let listed = |server: &SocketAddr| listing.contains(&format!("-> {server} "));
        let count = listing.lines().filter(|line| line.contains(" Masq ")).count();
        if servers.iter().all(listed) && count == servers.len() {
            return;
        }
        let log = || std::fs::read_to_string(log).unwrap();
        assert!(Instant::now() < deadline, "{listing}\n{}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn keepalived_takes_dead_servers_out_and_reloads() {
    if !have("keepalived") {
        return;
    }
    let Some(mut stage) = Stage::new() else { return };
    let directory = tempfile::TempDir::with_prefix("seawall-").unwrap();
    let (file, log) = (directory.path().join("keepalived.conf"), directory.path().join("log"));
    let [one, two] = [stage.servers[0], stage.servers[1]];
    std::fs::write(&file, config(&[one, two])).unwrap();
    let mut keepalived = start(&stage, directory.path());
    wait_for(&stage, &[one, two], &log);
    assert!(stage.ipvsadm("-Ln").contains("rr (flag-3)"));
    let mut kept =
        std::iter::repeat_with(|| stage.open()).find(|(_, name)| name == "rs0").unwrap().0;

    stage.run(1, false);
    wait_for(&stage, &[one], &log);
    for _ in 0..4 {
        assert_eq!(stage.open().1, "rs0");
    }
    stage.run(1, true);
    wait_for(&stage, &[one, two], &log);

    // A reload takes one away, whatever its health, and the other's connections go on.
    std::fs::write(&file, config(&[one])).unwrap();
    let pid = keepalived.child().id().to_string();
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-HUP");
    wait_for(&stage, &[one], &log);
    assert_eq!(stage.open().1, "rs0");
    assert_eq!(answer(&mut kept), "rs0");

    // It takes its services along when it ends.
    signal("-TERM");
    let status = keepalived.wait_for(PATIENCE).unwrap().expect("an end");
    assert!(status.success(), "{status}");
    let listing = stage.ipvsadm("-Ln");
    assert!(!listing.contains(&service().to_string()), "{listing}");
}
