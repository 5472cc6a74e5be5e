//! Clients that stay with their real server, and real servers that are taken out, through the real
//! daemon between Linux TCP stacks (SPEC C4). Needs root; `SEAWALL_REQUIRE_ROOT=1` makes a skip a
//! failure.

use std::net::SocketAddr;
use std::process::{Command, Output};

use seawall_control::api::Client;
use seawall_control::report::{RealServerReport, ServiceReport};
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, Connection, HttpServer, ServerSpec, Timeouts};
use seawall_lab::{Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
const REQUESTS: usize = 12;

struct Stage {
    daemon: Daemon,
    _servers: Vec<HttpServer>,
    _passes: Passes,
    topology: Topology,
}

impl Stage {
    /// A daemon with the usual configuration, changed; its real servers listen on `ports`. `None`
    /// with a message where this process may not make networks.
    fn new(ports: &[u16], change: impl Fn(String) -> String) -> Option<Self> {
        let topology = require::root(Topology::build(&TopologySpec::default()))?;
        let passes = Passes::attach(&topology).unwrap();
        let hosts = topology.servers.iter().enumerate();
        let servers = hosts.flat_map(|host| ports.iter().map(move |port| (host, *port)));
        let start = |((number, host), port): ((usize, &seawall_lab::Host), u16)| {
            let spec = ServerSpec::new(&format!("rs{number}"));
            let address = SocketAddr::new(host.address(), port);
            HttpServer::start(&host.namespace, address, spec).unwrap()
        };
        let servers = servers.map(start).collect();
        let directory = tempfile::TempDir::with_prefix("seawall-").unwrap();
        let socket = directory.path().join("api.sock");
        let config = change(DaemonSpec::new(SEAWALL).config(&topology, &socket));
        let namespace = &topology.balancer.namespace;
        let daemon = Daemon::start_with(namespace, SEAWALL.as_ref(), &config, directory).unwrap();
        Some(Self { daemon, _servers: servers, _passes: passes, topology })
    }

    /// Who answers so many requests, each on a connection of its own.
    fn ask(&self, to: SocketAddr, requests: usize) -> Vec<String> {
        let ask = || http::get(to, "/", &Timeouts::default()).unwrap().server.unwrap();
        self.topology.client.namespace.run(|| (0..requests).map(|_| ask()).collect())
    }

    fn report(&self) -> ServiceReport {
        Client::new(self.daemon.socket()).stats().unwrap().services.swap_remove(0)
    }

    /// A real server by its name.
    fn server(&self, name: &str) -> RealServerReport {
        self.report().real_servers.swap_remove(number(name))
    }

    /// Rewrites the file and has it read.
    fn reload(&self, change: impl FnOnce(String) -> String) -> String {
        let config = std::fs::read_to_string(self.daemon.config()).unwrap();
        std::fs::write(self.daemon.config(), change(config)).unwrap();
        let output = self.seawall(&["reload"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn seawall(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(SEAWALL);
        command.args(arguments).arg("--api").arg(self.daemon.socket()).output().unwrap()
    }

    /// `seawall server WORD` about the one of that name; what it says, or why not.
    fn mark(&self, word: &str, name: &str) -> String {
        let address = self.server(name).address.to_string();
        let output = self.seawall(&["server", word, &service().to_string(), &address]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn number(name: &str) -> usize {
    name.strip_prefix("rs").unwrap().parse().unwrap()
}

fn persistent(config: String) -> String {
    config.replace("synproxy = \"on\"", "synproxy = \"on\"\npersistent = 300")
}

/// The lines of a real server, its weight left out.
fn lines(server: &RealServerReport) -> String {
    let address = server.address;
    format!("address = \"{address}\"\nforwarding = \"fullnat\"\nweight = ")
}

#[test]
fn a_client_stays_after_its_real_server_is_quiesced() {
    let Some(stage) = Stage::new(&[SERVER_PORT], persistent) else { return };
    let first = stage.ask(service(), 1).swap_remove(0);
    assert_eq!(stage.ask(service(), REQUESTS), vec![first.clone(); REQUESTS]);
    let report = stage.server(&first);
    assert_eq!(report.totals.persistent_connections, 1);
    assert_eq!(report.totals.connections, 1 + REQUESTS as u64);

    let with = lines(&report);
    let said = stage.reload(|config| config.replace(&format!("{with}1"), &format!("{with}0")));
    assert!(said.contains("has weight 0"), "{said}");
    assert_eq!(stage.ask(service(), REQUESTS), vec![first.clone(); REQUESTS], "quiesced");

    stage.reload(|config| format!("{config}\n[policy]\nexpire_quiescent_template = true\n"));
    let moved = stage.ask(service(), REQUESTS);
    assert_ne!(moved[0], first);
    assert_eq!(moved, vec![moved[0].clone(); REQUESTS]);

    stage.reload(|config| config.replace("persistent = 300\n", ""));
    let mut spread = stage.ask(service(), REQUESTS);
    spread.sort();
    spread.dedup();
    assert_eq!(spread.len(), 2, "{spread:?}");
}

#[test]
fn a_real_server_is_taken_out_and_put_back() {
    let Some(stage) = Stage::new(&[SERVER_PORT], persistent) else { return };
    let first = stage.ask(service(), 1).swap_remove(0);
    let open = || {
        let mut connection = Connection::open(service(), &Timeouts::default()).unwrap();
        assert_eq!(connection.get("/").unwrap().server.as_ref(), Some(&first));
        connection
    };
    let mut kept = stage.topology.client.namespace.run(open);
    let said = stage.mark("down", &first);
    assert!(said.ends_with("is down\n"), "{said}");
    assert!(stage.mark("down", &first).ends_with("is down already\n"));
    let moved = stage.ask(service(), REQUESTS);
    assert!(moved.iter().all(|name| *name != first), "{moved:?}");
    assert_eq!(kept.get("/").unwrap().server.as_ref(), Some(&first), "it goes on");
    let report = stage.server(&first);
    assert!(report.down && report.weight == 1, "{report:?}");
    assert!(String::from_utf8_lossy(&stage.seawall(&["stats"]).stdout).contains("fullnat down"));

    // A reload that has something else to say leaves the mark.
    stage.reload(|config| config.replace("persistent = 300\n", ""));
    assert!(stage.server(&first).down);
    let spread = stage.ask(service(), REQUESTS);
    assert!(spread.iter().all(|name| *name != first), "{spread:?}");
    assert!(stage.mark("up", &first).ends_with("is up\n"));
    assert!(stage.ask(service(), REQUESTS).contains(&first));

    let wrong = |arguments: &[&str], expected: &str| {
        let output = stage.seawall(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    };
    let at = service().to_string();
    wrong(&["server", "down", &at, "192.168.7.99:80"], "there is no real server 192.168.7.99:80");
    wrong(
        &["server", "down", "10.9.9.9:80", "192.168.7.99:80"],
        "expected one of: 10.0.0.254:80/tcp",
    );
    wrong(&["server", "down", "10.9.9.9", "192.168.7.99:80"], "invalid");
}

/// Behind the proxy too, and a port of its own goes elsewhere.
#[test]
fn all_ports_of_a_vip_go_to_one_real_server() {
    const PORTS: [u16; 3] = [SERVER_PORT, 9_001, 9_002];
    let any_port = |config: String| {
        let (head, own) = config.split_once("\n[[service]]").unwrap();
        let any = persistent(own.replace(&service().to_string(), "10.0.0.254:0"));
        let any = any.replace(&format!(":{SERVER_PORT}\""), ":0\"");
        format!("{head}\n[[service]]{any}\n[[service]]{own}")
    };
    let Some(stage) = Stage::new(&PORTS, any_port) else { return };
    let at = |port| SocketAddr::new(service().ip(), port);
    let first = stage.ask(at(9_001), 1).swap_remove(0);
    for port in PORTS {
        assert_eq!(stage.ask(at(port), 4), vec![first.clone(); 4], "{port}");
    }
    let mut own = stage.ask(service(), REQUESTS);
    own.sort();
    own.dedup();
    assert_eq!(own.len(), 3, "{own:?}");
    let report = stage.report();
    assert_eq!((report.address, report.persistent), (at(0), Some(300)));
    assert_eq!(report.totals.persistent_connections, 1);
    assert_eq!(report.totals.connections, 13);
}
