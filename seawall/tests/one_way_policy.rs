//! Persistence, thresholds and quiescing where real servers answer clients themselves (SPEC C1, C4): the
//! daemon between Linux stacks, by DR and in tunnels, over IPv4 and IPv6, TCP and UDP. Needs root.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_control::config::Protocol;
use seawall_control::report::ServiceReport;
use seawall_lab::daemon::Daemon;
use seawall_lab::direct::answer_directly;
use seawall_lab::echo::{Asker, EchoServer};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, Connection, HttpServer, ServerSpec, Timeouts};
use seawall_lab::topology::{VIP, VIP6};
use seawall_lab::unwrap::Unwrapper;
use seawall_lab::{Arms, Topology, TopologySpec, require};

const SERVERS: usize = 3;
const REQUESTS: usize = 6;
/// Far more than a loaded machine takes to answer.
const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUTS: Timeouts = Timeouts { connect: PATIENCE, total: PATIENCE };
/// How real servers are reached, as the configuration says it; the services of each have the port of
/// its place behind [`TCP`], and [`UDP`].
const WAYS: [&str; 4] = [
    "forwarding = \"dr\"",
    "forwarding = \"tunnel\"",
    "forwarding = \"tunnel\"\ntunnel_type = \"gre\"",
    "forwarding = \"tunnel\"\ntunnel_type = \"gue\"\ntunnel_port = 6080",
];
const TCP: u16 = 80;
const UDP: u16 = 90;

struct Stage {
    daemon: Daemon,
    _servers: Vec<(HttpServer, EchoServer)>,
    _unwrappers: Vec<Unwrapper>,
    _passes: Passes,
    topology: Topology,
}

impl Stage {
    /// `keys` are those of every service, `per_server` those of every real server. `None` with a
    /// message where this process may not make networks.
    fn new(keys: &str, per_server: &str) -> Option<Self> {
        let spec = TopologySpec {
            arms: Arms::One,
            real_servers: SERVERS,
            attacker: false,
            ..TopologySpec::default()
        };
        let topology = require::root(Topology::build(&spec))?;
        let passes = Passes::attach(&topology).unwrap();
        let mut unwrappers = Vec::new();
        let mut servers = Vec::new();
        for (number, host) in topology.servers.iter().enumerate() {
            unwrappers.push(answer_directly(host).unwrap());
            let name = format!("rs{number}");
            for vip in vips() {
                for way in 0..WAYS.len() as u16 {
                    let web = SocketAddr::new(vip, TCP + way);
                    let web = HttpServer::start(&host.namespace, web, ServerSpec::new(&name));
                    let echo = SocketAddr::new(vip, UDP + way);
                    let echo = EchoServer::start(&host.namespace, echo, &name);
                    servers.push((web.unwrap(), echo.unwrap()));
                }
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let mut text = format!(
            "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {:?}\n",
            topology.balancer_interfaces(),
            directory.path().join("api.sock"),
        );
        for vip in vips() {
            for (way, forwarding) in WAYS.iter().enumerate() {
                for (protocol, first) in [("tcp", TCP), ("udp", UDP)] {
                    let port = first + way as u16;
                    text += &format!(
                        "[[service]]\naddress = \"{}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
                         {keys}\n",
                        SocketAddr::new(vip, port),
                    );
                    for host in &topology.servers {
                        let real = if vip.is_ipv4() { host.address() } else { host.address6() };
                        text += &format!(
                            "[[service.real_server]]\naddress = \"{}\"\n{forwarding}\nweight = 1\n\
                             {per_server}\n",
                            SocketAddr::new(real, port),
                        );
                    }
                }
            }
        }
        let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
        let balancer = &topology.balancer.namespace;
        let daemon = Daemon::start_with(balancer, executable, &text, directory).unwrap();
        Some(Self { daemon, _servers: servers, _unwrappers: unwrappers, _passes: passes, topology })
    }

    /// Who answers so many requests, each on a connection or from a port of its own.
    fn ask(&self, at: SocketAddr, protocol: Protocol, requests: usize) -> Vec<String> {
        let client = &self.topology.client.namespace;
        let ask = || match protocol {
            Protocol::Tcp => {
                let page = client.run(|| http::get(at, "/", &TIMEOUTS));
                page.unwrap_or_else(|e| panic!("{at}: {e}")).server.unwrap()
            }
            Protocol::Udp => {
                let end = Instant::now() + PATIENCE;
                loop {
                    // The first to a real server whose MAC is not known is lost.
                    let mut asker = Asker::open(client, at).unwrap();
                    match asker.ask(Duration::from_secs(1)) {
                        Ok(name) => break name,
                        Err(error) => assert!(Instant::now() < end, "{at}: {error}"),
                    }
                }
            }
        };
        (0..requests).map(|_| ask()).collect()
    }

    fn service(&self, at: SocketAddr, protocol: Protocol) -> ServiceReport {
        let services = Client::new(self.daemon.socket()).stats().unwrap().services;
        let mut services = services.into_iter();
        services.find(|it| (it.address, it.protocol) == (at, protocol)).unwrap()
    }

    fn reload(&self, change: impl FnOnce(String) -> String) {
        let config = std::fs::read_to_string(self.daemon.config()).unwrap();
        std::fs::write(self.daemon.config(), change(config)).unwrap();
        Client::new(self.daemon.socket()).reload().unwrap();
    }
}

fn vips() -> [IpAddr; 2] {
    [VIP.into(), VIP6.into()]
}

/// Every service there is.
fn services() -> Vec<(SocketAddr, Protocol)> {
    let ports = |(first, protocol)| (0..WAYS.len() as u16).map(move |way| (first + way, protocol));
    let all: Vec<_> =
        [(TCP, Protocol::Tcp), (UDP, Protocol::Udp)].map(ports).into_iter().flatten().collect();
    let of = |vip| all.iter().map(move |(port, protocol)| (SocketAddr::new(vip, *port), *protocol));
    vips().into_iter().flat_map(of).collect()
}

/// The configuration with that weight for the real servers `which` says by their number.
fn weights(config: &str, which: impl Fn(usize) -> Option<u16>) -> String {
    let mut number = SERVERS - 1;
    let lines = config.lines().map(|line| {
        if line.starts_with("[[service.real_server]]") {
            number = (number + 1) % SERVERS;
        }
        match which(number).filter(|_| line.starts_with("weight = ")) {
            Some(weight) => format!("weight = {weight}\n"),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

#[test]
fn clients_stay_and_quiesced_servers_keep_them() {
    let Some(stage) = Stage::new("persistent = 300", "") else { return };
    let mut stays = Vec::new();
    for (at, protocol) in services() {
        let first = stage.ask(at, protocol, 1).swap_remove(0);
        assert_eq!(stage.ask(at, protocol, REQUESTS), vec![first.clone(); REQUESTS], "{at}");
        let totals = stage.service(at, protocol).totals;
        assert_eq!(totals.persistent_connections, 1, "{at}");
        assert!(totals.connections > REQUESTS as u64, "{at}: {totals:?}");
        stays.push((at, protocol, first));
    }
    let keep = |name: &String| name.strip_prefix("rs").unwrap().parse::<usize>().unwrap();
    let quiesced: BTreeSet<_> = stays.iter().map(|(_, _, name)| keep(name)).collect();
    let all = quiesced.len() == SERVERS;
    // One with weight must be left, or nobody would be asked in once templates no longer count.
    let spared = if all { Some(SERVERS - 1) } else { None };
    stage.reload(|config| {
        weights(&config, |number| {
            (quiesced.contains(&number) && Some(number) != spared).then_some(0)
        })
    });
    for (at, protocol, name) in &stays {
        assert_eq!(stage.ask(*at, *protocol, 2), vec![name.clone(); 2], "{at}: quiesced");
    }
    stage.reload(|config| format!("{config}\n[policy]\nexpire_quiescent_template = true\n"));
    for (at, protocol, name) in &stays {
        let moved = stage.ask(*at, *protocol, 3);
        let expected = if Some(keep(name)) == spared { name } else { &moved[0] };
        assert_eq!(moved, vec![expected.clone(); 3], "{at}");
        if Some(keep(name)) != spared {
            assert_ne!(moved[0], *name, "{at}: not to a quiesced one");
        }
    }
}

/// Sessions that nothing is seen of but what the client says count until they expire.
#[test]
fn a_full_server_takes_no_more_until_sessions_are_over() {
    let Some(stage) = Stage::new("", "upper_threshold = 1") else { return };
    stage.reload(|config| format!("{config}\n[timeouts]\nfin_wait = 1\nudp = 1\n"));
    let ways = [0, WAYS.len() as u16 - 1];
    let client = &stage.topology.client.namespace;
    let counter = |name: &str| Client::new(stage.daemon.socket()).stats().unwrap().counters[name];
    for at in vips().into_iter().flat_map(|vip| ways.map(|way| SocketAddr::new(vip, TCP + way))) {
        let mut open: Vec<_> = (0..SERVERS)
            .map(|_| {
                client.run(|| {
                    let mut connection = Connection::open(at, &TIMEOUTS).unwrap();
                    let answer = connection.get("/").unwrap_or_else(|e| panic!("{at}: {e}"));
                    (connection, answer.server.unwrap())
                })
            })
            .collect();
        let names: BTreeSet<_> = open.iter().map(|(_, name)| name.clone()).collect();
        assert_eq!(names.len(), SERVERS, "{at}: {names:?}");
        let before = counter("overloaded");
        let hasty = Timeouts { connect: Duration::from_millis(300), total: PATIENCE };
        let refused = client.run(|| http::get(at, "/", &hasty));
        assert!(refused.is_err(), "{at}: {refused:?}");
        assert!(counter("overloaded") > before, "{at}");
        for (connection, name) in &mut open {
            let answer = connection.get("/").unwrap().server;
            assert_eq!(answer.as_ref(), Some(&*name), "{at}: it goes on");
        }
        let (freed, name) = open.swap_remove(1);
        drop(freed);
        let end = Instant::now() + PATIENCE;
        let answer = loop {
            match client.run(|| http::get(at, "/", &hasty)) {
                Ok(answer) => break answer.server.unwrap(),
                Err(error) => assert!(Instant::now() < end, "{at}: {error}"),
            }
        };
        assert_eq!(answer, name, "{at}: the one that has room");
    }
    for vip in vips() {
        for way in ways {
            let at = SocketAddr::new(vip, UDP + way);
            let mut askers = [(); SERVERS].map(|()| Asker::open(client, at).unwrap());
            let names: BTreeSet<_> =
                askers.iter_mut().map(|asker| asker.ask(PATIENCE).unwrap()).collect();
            assert_eq!(names.len(), SERVERS, "{at}: {names:?}");
            let end = Instant::now() + PATIENCE;
            let mut late = Asker::open(client, at).unwrap();
            while late.ask(Duration::from_millis(100)).is_err() {
                assert!(Instant::now() < end, "{at}: there is no room for ever");
            }
        }
    }
}
