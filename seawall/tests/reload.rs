//! A configuration changed under traffic (SPEC A15, D1). Needs root; `SEAWALL_REQUIRE_ROOT=1` makes
//! a skip a failure.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_control::report::{RealServerReport, ServiceReport};
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, Connection, HttpServer, ServerSpec, Timeouts};
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

    /// The configuration as `self.spec` has it.
    fn config(&self) -> String {
        self.spec.config(&self.topology, self.daemon.socket())
    }

    fn write(&self) {
        self.write_text(&self.config());
    }

    fn write_text(&self, config: &str) {
        std::fs::write(self.daemon.config(), config).unwrap();
    }

    fn reload(&self) -> Output {
        let mut command = Command::new(SEAWALL);
        command.args(["reload", "--api"]).arg(self.daemon.socket()).output().unwrap()
    }

    /// `seawall diff` with a file of that text.
    fn diff(&self, config: &str) -> Output {
        let file = self.daemon.config().with_extension("new");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(SEAWALL);
        command.arg("diff").arg(file).arg("--api").arg(self.daemon.socket());
        command.output().unwrap()
    }

    /// `seawall check` with a file of that text, in the balancer's namespace.
    fn check(&self, config: &str, arguments: &[&str]) -> Output {
        let file = self.daemon.config().with_extension("new");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(SEAWALL);
        command.arg("check").arg(file).args(arguments);
        self.topology.balancer.namespace.run(|| command.output()).unwrap()
    }

    /// `seawall reload` after the file has been written; what it says, which is what `seawall diff`
    /// has said before.
    fn change(&self) -> String {
        self.change_to(&self.config())
    }

    fn change_to(&self, config: &str) -> String {
        let before = self.service();
        let diff = self.diff(config);
        assert!(diff.status.success(), "{diff:?}");
        let after = self.service();
        let kept = |service: &ServiceReport| {
            let weights: Vec<_> =
                service.real_servers.iter().map(|server| (server.address, server.weight)).collect();
            (service.synproxy, weights)
        };
        assert_eq!(kept(&before), kept(&after), "a diff changes nothing");
        self.write_text(config);
        let output = self.reload();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
        let diff = String::from_utf8(diff.stdout).unwrap();
        match said.as_str() {
            "nothing has changed" => assert_eq!(diff, "nothing would change\n"),
            said => assert_eq!(diff.trim_end().replace('\n', "; "), said),
        }
        said
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

/// The lines of a real server.
fn server(address: &str) -> String {
    let head = "\n[[service.real_server]]";
    format!("{head}\naddress = \"{address}\"\nforwarding = \"fullnat\"\nweight = 1\n")
}

/// Those who remove a real server disturb nobody else's sessions, and not its own for good.
#[test]
fn real_servers_come_and_go() {
    let Some(stage) = Stage::new() else { return };
    let address = SocketAddr::new(stage.topology.servers[2].address(), SERVER_PORT).to_string();
    let with = stage.config();
    let without = with.replace(&server(&address), "");
    assert_ne!(with, without);
    let mut kept = stage.keep();
    let names = ask_again(&mut kept);
    let load = LoadSpec { threads: 4, ..LoadSpec::new(service(), Limit::Time(PATIENCE)) };
    let load = Load::start(&stage.topology.client.namespace, load).unwrap();
    for _ in 0..3 {
        // Quiesced, so that no request is under way there when it goes.
        let quiesced = with.replace(&server(&address), &server(&address).replace("= 1", "= 0"));
        stage.change_to(&quiesced);
        std::thread::sleep(Duration::from_millis(300));
        let said = stage.change_to(&without);
        assert_eq!(said, format!("service {}: real server {address} removed", service()));
        assert_eq!(stage.service().real_servers.len(), 2);
        let others = kept.iter_mut().zip(&names).filter(|(_, name)| name.as_deref() != Some("rs2"));
        for (connection, name) in others {
            assert_eq!(connection.get("/").unwrap().server, *name);
        }
        let new = ask_again(&mut stage.keep());
        assert!(new.iter().all(|name| name.as_deref() != Some("rs2")), "{new:?}");
        let said = stage.change_to(&with);
        assert_eq!(said, format!("service {}: real server {address} new", service()));
        assert_eq!(ask_again(&mut kept), names, "all are back where they were");
        // The load takes turns too: each connection has its chance of one in three.
        let is_back = (0..20).any(|_| {
            ask_again(&mut stage.keep()).iter().any(|name| name.as_deref() == Some("rs2"))
        });
        assert!(is_back, "160 new connections, none to the one that is back");
    }
    load.stop();
    let report = load.finish();
    assert!(report.succeeded() > 0);
    assert_eq!(report.failed(), 0, "{:?}", report.example);
}

/// A service on a VIP of its own: the host has the address as long as the service is there.
#[test]
fn services_come_and_go_with_their_vips() {
    let Some(stage) = Stage::new() else { return };
    let vip: IpAddr = [10, 0, 0, 253].into();
    let other = SocketAddr::new(vip, 80);
    let has_vip = || {
        let addresses = stage.topology.balancer.namespace.netlink(|n| n.addresses()).unwrap();
        addresses.iter().any(|entry| entry.address == vip)
    };
    let one = stage.config();
    let second = one.split_once("\n[[service]]").unwrap().1;
    let two =
        format!("{one}\n[[service]]{}", second.replace(&service().to_string(), &other.to_string()));
    let mut kept = stage.keep();
    for _ in 0..2 {
        assert_eq!(stage.change_to(&two), format!("service {other}: new"));
        assert!(has_vip());
        let asked =
            stage.topology.client.namespace.run(|| http::get(other, "/", &Timeouts::default()));
        assert_eq!(asked.unwrap().status, 200);
        ask_again(&mut kept);
        assert_eq!(stage.change_to(&one), format!("service {other}: removed"));
        assert!(!has_vip());
        ask_again(&mut kept);
        ask_again(&mut stage.keep());
    }
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
    stage.write_text("nonsense");
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
    let good = stage.config();
    for (text, message) in [
        (good.replace("weight = 2", "weight = -2"), "seawall.toml:"),
        (good.replace("max_sessions = 131072", "max_sessions = 4096"), "max_sessions has changed"),
        (good.replace("192.168.7.103", "192.168.7.104"), "[[local_addresses]] has changed"),
        // Added to a service, it would have no route.
        (good.clone() + &server("203.0.113.1:80"), "203.0.113.1"),
    ] {
        assert_ne!(text, good);
        let diff = stage.diff(&text);
        assert!(!diff.status.success());
        stage.write_text(&text);
        let output = stage.reload();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(message), "{said}");
        let both = [diff.stdout, diff.stderr].map(|said| String::from_utf8(said).unwrap());
        // Under the name that the file has there.
        let named = message.replace("seawall.toml", "seawall.new");
        assert!(both.iter().any(|said| said.contains(&named)), "{both:?}");
        if message.ends_with("has changed") {
            // Beside it, what a reload could do.
            assert!(both[0].starts_with("needs a restart: "), "{both:?}");
            assert!(both[0].contains("has weight 2"), "{both:?}");
        }
        assert_eq!(stage.weights(), [1, 1, 1]);
    }
    ask_again(&mut kept);
    ask_again(&mut stage.keep());
}

/// What `run` would refuse, before it touches anything; which the daemon that runs has touched already.
#[test]
fn a_check_says_what_a_start_would() {
    let Some(stage) = Stage::new() else { return };
    let good = stage.config();
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    for arguments in [&[][..], &["--file-only"]] {
        let output = stage.check(&good, arguments);
        assert!(output.status.success(), "{output:?}");
        let said = said(output.stdout);
        assert!(said.contains("the file is correct (1 services, 3 real servers)"), "{said}");
    }
    let wrong = good.replace("weight = 1", "weight = -1");
    for arguments in [&[][..], &["--file-only"]] {
        let output = stage.check(&wrong, arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = said(output.stderr);
        assert!(said.contains("seawall.new:") && said.contains("weight is -1; expected"), "{said}");
    }
    for (text, message) in [
        (good.replace("\"eth0\"", "\"eth9\""), ":1: there is no interface `eth9`; "),
        (good.clone() + &server("203.0.113.1:80"), "real server 203.0.113.1:80: "),
    ] {
        assert_ne!(text, good);
        let output = stage.check(&text, &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = said(output.stderr);
        assert!(said.contains("but not on this machine") && said.contains(message), "{said}");
        assert!(stage.check(&text, &["--file-only"]).status.success());
    }
}
