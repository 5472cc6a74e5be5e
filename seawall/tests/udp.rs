//! UDP services through the daemon (SPEC C2): real sockets and stacks, both versions of IP, NAT and
//! FULLNAT, sessions and one-packet scheduling, and ICMP errors that reach the socket they are about.
//! Needs root; `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use seawall_control::api::Client;
use seawall_control::config::Protocol;
use seawall_control::report::{Page, ServiceReport, SessionReport};
use seawall_lab::daemon::{Daemon, SERVER_PORT};
use seawall_lab::echo::{Asker, EchoServer};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, HttpServer, ServerSpec, Timeouts};
use seawall_lab::topology::{LOCAL_ADDRESSES, LOCAL_ADDRESSES6, VIP, VIP6};
use seawall_lab::{Namespace, Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
/// Far more than a loaded machine takes to answer.
const LIMIT: Duration = Duration::from_secs(5);
const FORWARDING: [&str; 2] = ["nat", "fullnat"];
/// Sessions, one-packet scheduling, both with clients that stay with their real server, and a port of the
/// real servers where nobody listens; one more for each way of forwarding.
const SESSIONS: u16 = 53;
const ONE_PACKET: u16 = 63;
const STAYS: [u16; 2] = [83, 93];
const NOBODY: u16 = 73;
const CLOSED_PORT: u16 = 9;

struct Stage {
    daemon: Daemon,
    _echoes: Vec<EchoServer>,
    _webs: Vec<HttpServer>,
    _passes: Passes,
    topology: Topology,
}

impl Stage {
    fn new() -> Option<Self> {
        let spec = TopologySpec { real_servers: 2, attacker: false, ..TopologySpec::default() };
        let topology = require::root(Topology::build(&spec))?;
        let passes = Passes::attach(&topology).unwrap();
        let (mut echoes, mut webs) = (Vec::new(), Vec::new());
        for (number, host) in topology.servers.iter().enumerate() {
            for address in [host.address(), host.address6()] {
                let (at, name) = (SocketAddr::new(address, SERVER_PORT), format!("rs{number}"));
                echoes.push(EchoServer::start(&host.namespace, at, &name).unwrap());
                webs.push(HttpServer::start(&host.namespace, at, ServerSpec::new(&name)).unwrap());
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let config = config(&topology, &directory.path().join("api.sock"));
        let balancer = &topology.balancer.namespace;
        let daemon = Daemon::start_with(balancer, Path::new(SEAWALL), &config, directory).unwrap();
        Some(Self { daemon, _echoes: echoes, _webs: webs, _passes: passes, topology })
    }

    fn client(&self) -> &Namespace {
        &self.topology.client.namespace
    }

    fn asker(&self, at: SocketAddr) -> Asker {
        Asker::open(self.client(), at).unwrap()
    }

    fn api(&self) -> Client {
        Client::new(self.daemon.socket())
    }

    fn counted(&self, name: &str) -> u64 {
        self.api().stats().unwrap().counters[name]
    }

    /// Those of UDP.
    fn sessions(&self, vip: SocketAddr) -> Vec<SessionReport> {
        let page = self.api().sessions(Page::default()).unwrap();
        let own = (vip, Protocol::Udp);
        page.sessions.into_iter().filter(|it| (it.vip, it.protocol) == own).collect()
    }
}

fn vips() -> [IpAddr; 2] {
    [VIP.into(), VIP6.into()]
}

fn at(vip: IpAddr, first: u16, forwarding: usize) -> SocketAddr {
    SocketAddr::new(vip, first + forwarding as u16)
}

fn config(topology: &Topology, socket: &Path) -> String {
    let mut text = format!(
        "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {socket:?}\n\
         [[local_addresses]]\nname = \"local\"\naddresses = [\"{}\", \"{}\"]\n",
        topology.balancer_interfaces(),
        LOCAL_ADDRESSES[0],
        LOCAL_ADDRESSES6[0],
    );
    for vip in vips() {
        for (number, forwarding) in FORWARDING.into_iter().enumerate() {
            for (port, keys, to) in [
                (SESSIONS, "protocol = \"udp\"", SERVER_PORT),
                (SESSIONS, "protocol = \"tcp\"\nsynproxy = \"on\"", SERVER_PORT),
                (ONE_PACKET, "protocol = \"udp\"\nops = true", SERVER_PORT),
                (STAYS[0], "protocol = \"udp\"\npersistent = 300", SERVER_PORT),
                (STAYS[1], "protocol = \"udp\"\npersistent = 300\nops = true", SERVER_PORT),
                (NOBODY, "protocol = \"udp\"\nudp_timeout = 60", CLOSED_PORT),
            ] {
                let _ = write!(
                    text,
                    "\n[[service]]\naddress = \"{}\"\n{keys}\nscheduler = \"rr\"\n\
                     local_addresses = \"local\"\n",
                    at(vip, port, number),
                );
                for host in &topology.servers {
                    let real = if vip.is_ipv4() { host.address() } else { host.address6() };
                    let _ = write!(
                        text,
                        "[[service.real_server]]\naddress = \"{}\"\nforwarding = \"{forwarding}\"\n",
                        SocketAddr::new(real, to),
                    );
                }
            }
        }
    }
    text
}

#[test]
fn datagrams_go_and_come_by_nat_and_fullnat_over_both_versions() {
    let Some(stage) = Stage::new() else { return };
    for vip in vips() {
        for (number, forwarding) in FORWARDING.into_iter().enumerate() {
            flows(&stage, at(vip, SESSIONS, number), forwarding);
            single_datagrams(&stage, at(vip, ONE_PACKET, number));
            STAYS.into_iter().for_each(|port| stays(&stage, at(vip, port, number)));
            refusals(&stage, at(vip, NOBODY, number));
        }
    }
    assert_eq!(stage.counted("defence_udp_drop"), 0);
    let mut asker = stage.asker(SocketAddr::new(VIP.into(), 9));
    let error = asker.ask(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert_eq!(stage.counted("defence_udp_drop"), 1);
    reports(&stage);
    reloaded(&stage);
}

/// TCP on the same address and port is a service of its own. A port's datagrams all go to one server,
/// those of the next port to the other.
fn flows(stage: &Stage, service: SocketAddr, forwarding: &str) {
    // One to each server, which waits for the neighbour's MAC; a datagram does not.
    for _ in 0..2 {
        let page = stage.client().run(|| http::get(service, "/", &Timeouts::default()));
        page.unwrap_or_else(|error| panic!("TCP on {service}: {error}"));
    }
    let mut names = Vec::new();
    let mut askers = [(); 2].map(|()| stage.asker(service));
    for asker in &mut askers {
        let name = asker.ask(LIMIT).unwrap_or_else(|e| panic!("{service} {forwarding}: {e}"));
        for _ in 0..5 {
            assert_eq!(asker.ask(LIMIT).unwrap(), name, "{service}");
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["rs0", "rs1"], "{service}");
    let sessions = stage.sessions(service);
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        assert_eq!(session.state, "UDP");
        assert_eq!((session.in_packets, session.out_packets), (6, 6));
        assert_eq!(session.local == session.client, forwarding == "nat");
        assert!((290_000..=300_000).contains(&session.expires_ms), "{session:?}");
    }
}

/// One port's datagrams go to each server in turn.
fn single_datagrams(stage: &Stage, service: SocketAddr) {
    let mut asker = stage.asker(service);
    let names: Vec<_> = (0..6).map(|_| asker.ask(LIMIT).unwrap()).collect();
    assert_ne!(names[0], names[1], "{service}");
    assert!(names.windows(3).all(|three| three[0] == three[2]), "{service}: {names:?}");
}

/// Whatever port it asks from, and however often, a client has the same real server.
fn stays(stage: &Stage, service: SocketAddr) {
    let mut askers = [(); 4].map(|()| stage.asker(service));
    let name = askers[0].ask(LIMIT).unwrap();
    for asker in askers.iter_mut().chain([&mut stage.asker(service)]) {
        for _ in 0..2 {
            assert_eq!(asker.ask(LIMIT).unwrap(), name, "{service}");
        }
    }
    let services = stage.api().stats().unwrap().services;
    let own = |it: &&ServiceReport| (it.address, it.protocol) == (service, Protocol::Udp);
    let report = services.iter().find(own).unwrap();
    assert_eq!(report.persistent, Some(300), "{service}");
    assert_eq!(report.totals.persistent_connections, 1, "{service}");
}

/// The real server's "port unreachable" is the client's ECONNREFUSED.
fn refusals(stage: &Stage, service: SocketAddr) {
    let before = stage.counted("icmp_out");
    let error = stage.asker(service).ask(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{service}: {error}");
    assert_eq!(stage.counted("icmp_out"), before + 1);
    let [session] = &stage.sessions(service)[..] else { panic!("one session") };
    assert!(session.expires_ms <= 60_000, "the service's own timeout: {session:?}");
}

fn reports(stage: &Stage) {
    let stats = stage.api().stats().unwrap();
    let of = |port: u16, protocol| {
        let address = SocketAddr::new(VIP.into(), port);
        let mut services = stats.services.iter();
        services.find(|it| (it.address, it.protocol) == (address, protocol)).unwrap()
    };
    let udp = of(SESSIONS, Protocol::Udp);
    let totals = &udp.totals;
    assert_eq!((totals.active_connections, totals.inactive_connections), (0, 2));
    assert_eq!((totals.connections, totals.in_packets, totals.out_packets), (2, 12, 12));
    let ops = of(ONE_PACKET, Protocol::Udp);
    assert!(ops.ops && !udp.ops);
    assert_eq!((ops.totals.connections, ops.totals.inactive_connections), (6, 0));
    assert_eq!((ops.totals.in_packets, ops.totals.out_packets), (6, 6));
    assert_eq!(of(SESSIONS, Protocol::Tcp).totals.connections, 2);
    let output = Command::new(SEAWALL).args(["stats", "--api"]).arg(stage.daemon.socket()).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("10.0.0.254:53 udp"), "{text}");
    assert!(text.contains("rr ops"), "{text}");
}

/// Flows outlive the change of everything around them.
fn reloaded(stage: &Stage) {
    let service = at(VIP.into(), SESSIONS, 1);
    let mut asker = stage.asker(service);
    let name = asker.ask(LIMIT).unwrap();
    let file = stage.daemon.config();
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("ops = true", "").replace("udp_timeout = 60", "udp_timeout = 70");
    // The last service, of UDP.
    let (text, _) = text.rsplit_once("\n[[service]]").unwrap();
    std::fs::write(&file, text).unwrap();
    let reload =
        Command::new(SEAWALL).args(["reload", "--api"]).arg(stage.daemon.socket()).output();
    let said = String::from_utf8(reload.unwrap().stdout).unwrap();
    for change in [
        "service 10.0.0.254:63/udp: ops off",
        "service 10.0.0.254:73/udp: udp_timeout 70",
        "service [fd00:10::254]:74/udp: removed",
    ] {
        assert!(said.contains(change), "{said}");
    }
    assert_eq!(asker.ask(LIMIT).unwrap(), name);
    let mut asker = stage.asker(at(VIP.into(), ONE_PACKET, 0));
    let name = asker.ask(LIMIT).unwrap();
    assert_eq!(asker.ask(LIMIT).unwrap(), name, "a session now");
    let gone = stage.asker(at(VIP6.into(), NOBODY, 1)).ask(Duration::from_millis(300));
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(stage.counted("defence_udp_drop"), 2);
}
