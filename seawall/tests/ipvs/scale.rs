//! Many services of ten real servers each: loaded, listed, changed, reloaded and removed. A thousand
//! with the other tests; `SEAWALL_SERVICES=10000` and `--nocapture` show what a large site would see.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::stage::{Stage, ipvsadm, preload};

/// Services unless `SEAWALL_SERVICES` says otherwise.
const SERVICES: usize = 1_000;
const SERVERS: usize = 10;
/// Services of one VIP.
const PORTS: usize = 100;
/// For ten thousand each step takes some seconds, and loading most: ipvsadm opens a socket and asks
/// for the family's number before each command. This is for machines that are busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// The rules, as ipvsadm saves them.
fn rules(services: usize) -> String {
    let mut text = String::new();
    for number in 0..services {
        let (vip, port) = (number / PORTS, 1_000 + number % PORTS);
        // Writing to a string does not fail.
        let _ = writeln!(text, "-A -t 10.1.0.{vip}:{port} -s wrr");
        for server in 0..SERVERS {
            let address = format!("192.168.7.{}:{}", 120 + server, 1_000 + number);
            let _ = writeln!(text, "-a -t 10.1.0.{vip}:{port} -r {address} -m -w {}", server + 1);
        }
    }
    text
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn many_services_of_ten_servers_take_seconds() {
    let Some(mut stage) = Stage::new() else { return };
    let services = std::env::var("SEAWALL_SERVICES").ok().and_then(|number| number.parse().ok());
    let services: usize = services.unwrap_or(SERVICES);
    let last = format!("10.1.0.{}:{}", (services - 1) / PORTS, 1_000 + (services - 1) % PORTS);
    let pid = stage.daemon.pid();
    let before = resident(pid);
    let socket = stage.socket();
    let run = |arguments: &str, input: &str| {
        let begun = Instant::now();
        let said = stage
            .topology
            .balancer
            .namespace
            .run(|| ipvsadm(arguments, input, |command| preload(command, &socket)));
        let took = begun.elapsed();
        assert!(took < LIMIT, "{arguments}: {took:?}");
        (said, took)
    };
    let (said, loaded) = run("-R", &rules(services));
    assert_eq!(said, "");
    let (listing, listed) = run("-Ln", "");
    assert_eq!(listing.lines().count(), 3 + services * (1 + SERVERS));
    let (_, one) = run(&format!("-Ln -t {last}"), "");
    let server = format!("192.168.7.129:{}", 1_000 + services - 1);
    let (said, changed) = run(&format!("-e -t {last} -r {server} -m -w 0"), "");
    assert_eq!(said, "");
    let memory = resident(pid) - before;
    let begun = Instant::now();
    assert_eq!(stage.reload(), "nothing has changed");
    let reloaded = begun.elapsed();
    assert!(reloaded < LIMIT, "{reloaded:?}");
    let (said, flushed) = run("-C", "");
    assert_eq!(said, "");
    println!(
        "{services} services of {SERVERS} real servers: loaded in {loaded:.1?}, listed in {listed:.1?}, one of \
         them in {one:.1?}, one changed in {changed:.1?}, reloaded in {reloaded:.1?}, removed in \
         {flushed:.1?}; {} MiB",
        memory >> 10
    );
}
