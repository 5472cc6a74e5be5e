//! A configuration changed under traffic (SPEC A15, D1). Needs root; `SEAWALL_REQUIRE_ROOT=1` makes
//! a skip a failure.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_control::report::{RealServerReport, ServiceReport};
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::http::{Connection, HttpServer, ServerSpec, Timeouts};
use seawall_lab::load::{Limit, Load, LoadSpec};
use seawall_lab::{Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
/// Connections that must outlive every change.
const KEPT: usize = 8;
/// How often the proxy is switched, off and on in turn.
const SWITCHES: usize = 12;
/// Far more than a loaded machine needs for anything that is waited for here.
const PATIENCE: Duration = Duration::from_secs(20);

struct Stage {
    daemon: Daemon,
    spec: DaemonSpec,
    _servers: Vec<HttpServer>,
    _passes: Passes,
    topology: Topology,
}

impl Stage {
    /// `None` with a message where this process may not make networks.
    fn new() -> Option<Self> {
        let topology = require::root(Topology::build(&TopologySpec::default()))?;
        let passes = Passes::attach(&topology).unwrap();
        let servers = topology.servers.iter().enumerate().map(|(number, host)| {
            let address = SocketAddr::new(host.address(), SERVER_PORT);
            let spec = ServerSpec::new(&format!("rs{number}"));
            HttpServer::start(&host.namespace, address, spec).unwrap()
        });
        let servers = servers.collect();
        let spec = DaemonSpec::new(SEAWALL);
        let daemon = Daemon::start(&topology, &spec).unwrap();
        Some(Self { daemon, spec, _servers: servers, _passes: passes, topology })
    }

    /// Writes the configuration file as `self.spec` has it.
    fn write(&self) {
        let config = self.spec.config(&self.topology, self.daemon.socket());
        std::fs::write(self.daemon.config(), config).unwrap();
    }

    fn reload(&self) -> Output {
        let mut command = Command::new(SEAWALL);
        command.args(["reload", "--api"]).arg(self.daemon.socket()).output().unwrap()
    }

    /// `seawall reload` after the file has been written; what it says.
    fn change(&self) -> String {
        self.write();
        let output = self.reload();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn service(&self) -> ServiceReport {
        Client::new(self.daemon.socket()).stats().unwrap().services.swap_remove(0)
    }

    fn counter(&self, name: &str) -> u64 {
        Client::new(self.daemon.socket()).stats().unwrap().counters[name]
    }

    fn weights(&self) -> Vec<u16> {
        self.service().real_servers.iter().map(|RealServerReport { weight, .. }| *weight).collect()
    }

    /// Connections that have been used once.
    fn keep(&self) -> Vec<Connection> {
        let open = || {
            let mut connection = Connection::open(service(), &Timeouts::default()).unwrap();
            assert_eq!(connection.get("/").unwrap().status, 200);
            connection
        };
        self.topology.client.namespace.run(|| (0..KEPT).map(|_| open()).collect())
    }
}

fn ask_again(kept: &mut [Connection]) -> Vec<Option<String>> {
    let ask = |connection: &mut Connection| {
        let response = connection.get("/").unwrap();
        assert_eq!(response.status, 200);
        response.server
    };
    kept.iter_mut().map(ask).collect()
}

/// PEERS (f): the flag toggled under traffic. Neither sessions nor handshakes in flight notice.
#[test]
fn the_proxy_is_switched_and_no_request_fails() {
    let Some(mut stage) = Stage::new() else { return };
    let mut kept = stage.keep();
    let load = LoadSpec { threads: 4, ..LoadSpec::new(service(), Limit::Time(PATIENCE)) };
    let load = Load::start(&stage.topology.client.namespace, load).unwrap();
    for switch in 0..SWITCHES {
        stage.spec.synproxy = switch % 2 == 1;
        let word = if stage.spec.synproxy { "on" } else { "off" };
        assert_eq!(stage.change(), format!("service {}: synproxy {word}", service()));
        assert_eq!(stage.service().synproxy, stage.spec.synproxy);
        kept.extend(stage.keep());
        ask_again(&mut kept);
        std::thread::sleep(Duration::from_millis(100));
    }
    load.stop();
    let report = load.finish();
    assert!(report.succeeded() > 0);
    assert_eq!(report.failed(), 0, "{:?}", report.example);
    for counter in ["synproxy_cookie_sent", "punt_new"] {
        assert!(stage.counter(counter) >= (SWITCHES / 2 * KEPT) as u64, "{counter}");
    }
}

/// IPVS: weight 0 quiesces a real server; its sessions go on.
#[test]
fn weights_change_and_sessions_stay() {
    let Some(mut stage) = Stage::new() else { return };
    let mut kept = stage.keep();
    let before = ask_again(&mut kept);
    assert!(before.iter().any(|server| server.as_deref() == Some("rs0")), "{before:?}");
    stage.spec.weights = vec![0, 3, 0];
    let address = SocketAddr::new(stage.topology.servers[0].address(), SERVER_PORT);
    let said = stage.change();
    let expected = format!("service {}: real server {address} has weight 0", service());
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(stage.weights(), [0, 3, 0]);
    assert_eq!(ask_again(&mut kept), before, "each where it was");
    let new = ask_again(&mut stage.keep());
    assert!(new.iter().all(|server| server.as_deref() == Some("rs1")), "{new:?}");
    assert_eq!(stage.change(), "nothing has changed");
}

/// SIGHUP does what the command does, and says so where the daemon logs.
#[test]
fn a_hangup_reloads() {
    let Some(mut stage) = Stage::new() else { return };
    let hang_up = |stage: &mut Stage| {
        let kill = format!("kill -HUP {}", stage.daemon.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    };
    stage.spec.weights = vec![7, 7, 7];
    stage.write();
    hang_up(&mut stage);
    let end = Instant::now() + PATIENCE;
    while stage.weights() != [7, 7, 7] {
        assert!(Instant::now() < end, "{:?}, {:?}", stage.weights(), stage.daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(stage.daemon.config(), "nonsense").unwrap();
    hang_up(&mut stage);
    let refused = || stage.daemon.log().unwrap().contains("not reloaded, nothing changed: ");
    while !refused() {
        assert!(Instant::now() < end, "no refusal: {:?}", stage.daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(stage.weights(), [7, 7, 7]);
}

/// SPEC D1: an error names file and line, and then nothing has changed, not even what could have.
#[test]
fn what_is_wrong_or_needs_a_new_start_changes_nothing() {
    let Some(mut stage) = Stage::new() else { return };
    let mut kept = stage.keep();
    stage.spec.weights = vec![2, 2, 2];
    let good = stage.spec.config(&stage.topology, stage.daemon.socket());
    for (text, message) in [
        (good.replace("weight = 2", "weight = -2"), "seawall.toml:"),
        (good.replace("max_sessions = 131072", "max_sessions = 4096"), "max_sessions has changed"),
        (good.replace(":80\"", ":81\""), "is gone"),
    ] {
        assert_ne!(text, good);
        std::fs::write(stage.daemon.config(), text).unwrap();
        let output = stage.reload();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(message), "{said}");
        assert_eq!(stage.weights(), [1, 1, 1]);
    }
    ask_again(&mut kept);
    ask_again(&mut stage.keep());
}
