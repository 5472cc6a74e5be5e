//! Sessions of every kind outlive the daemon (SPEC E): what tells real servers who their client is,
//! real servers that answer the client themselves, datagrams, persistence templates, and handshakes
//! that are under way. The daemon is killed and another one takes over. Needs root.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_control::report::{Page, SessionReport};
use seawall_lab::daemon::Daemon;
use seawall_lab::direct::answer_directly;
use seawall_lab::echo::{Asker, EchoServer};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, HttpServer, ServerSpec, Timeouts};
use seawall_lab::topology::{LOCAL_ADDRESSES, LOCAL_ADDRESSES6, VIP, VIP6};
use seawall_lab::unwrap::Unwrapper;
use seawall_lab::{Arms, Namespace, Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
/// Far more than a loaded machine takes to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const TIMEOUTS: Timeouts = Timeouts { connect: PATIENCE, total: PATIENCE };
/// Where the real servers behind NAT and FULLNAT listen: what sends back what comes, over TCP and UDP,
/// and HTTP.
const ECHO: u16 = 8_080;
const WEB: u16 = 8_081;
/// The service that the HTTP servers are behind, and those of UDP whose clients stay.
const STAYS: u16 = 87;
const STAYS_UDP: [u16; 2] = [94, 95];

/// A service of either VIP.
struct Kind {
    port: u16,
    protocol: &'static str,
    /// More keys, a line each.
    keys: &'static str,
    /// How its real servers are reached.
    way: Way,
}

/// How real servers are reached, as their keys say it.
#[derive(Clone, Copy)]
enum Way {
    Nat,
    FullNat,
    Dr,
    Ipip,
    Gre,
    Gue,
}

impl Way {
    const fn keys(self) -> &'static str {
        match self {
            Self::Nat => "forwarding = \"nat\"",
            Self::FullNat => "forwarding = \"fullnat\"",
            Self::Dr => "forwarding = \"dr\"",
            Self::Ipip => "forwarding = \"tunnel\"",
            Self::Gre => "forwarding = \"tunnel\"\ntunnel_type = \"gre\"",
            Self::Gue => "forwarding = \"tunnel\"\ntunnel_type = \"gue\"\ntunnel_port = 6080",
        }
    }

    /// Whether real servers answer clients themselves.
    const fn is_direct(self) -> bool {
        !matches!(self, Self::Nat | Self::FullNat)
    }
}

const fn kind(port: u16, protocol: &'static str, keys: &'static str, way: Way) -> Kind {
    Kind { port, protocol, keys, way }
}

const KINDS: [Kind; 14] = [
    kind(80, "tcp", "synproxy = \"on\"\ntoa = true", Way::FullNat),
    kind(81, "tcp", "synproxy = \"on\"\nproxy_protocol = \"v1\"", Way::Nat),
    kind(82, "tcp", "synproxy = \"on\"\nproxy_protocol = \"v2\"", Way::FullNat),
    kind(83, "tcp", "", Way::Nat),
    kind(84, "tcp", "", Way::Dr),
    kind(85, "tcp", "", Way::Ipip),
    kind(86, "tcp", "", Way::Gue),
    kind(STAYS, "tcp", "synproxy = \"on\"\npersistent = 300", Way::FullNat),
    kind(90, "udp", "", Way::Nat),
    kind(91, "udp", "", Way::FullNat),
    kind(92, "udp", "", Way::Dr),
    kind(93, "udp", "", Way::Gre),
    kind(STAYS_UDP[0], "udp", "persistent = 300", Way::Nat),
    kind(STAYS_UDP[1], "udp", "ops = true\npersistent = 300", Way::FullNat),
];

impl Kind {
    fn at(&self, vip: IpAddr) -> SocketAddr {
        SocketAddr::new(vip, self.port)
    }
}

struct Stage {
    _servers: (Vec<EchoServer>, Vec<HttpServer>, Unwrapper),
    _passes: Passes,
    topology: Topology,
}

impl Stage {
    /// Real server 0 answers clients itself. `None` with a message where this process may not make
    /// networks.
    fn new() -> Option<Self> {
        let arms = Arms::One;
        let spec = TopologySpec { arms, real_servers: 3, attacker: false, ..Default::default() };
        let topology = require::root(Topology::build(&spec))?;
        let passes = Passes::attach(&topology).unwrap();
        let (mut echoes, mut webs) = (Vec::new(), Vec::new());
        let [direct, others @ ..] = &topology.servers[..] else { unreachable!("three") };
        let unwrapper = answer_directly(direct).unwrap();
        for kind in KINDS.iter().filter(|kind| kind.way.is_direct()) {
            for vip in vips() {
                match kind.protocol {
                    "tcp" => echo(&direct.namespace, kind.at(vip)),
                    _ => echoes
                        .push(EchoServer::start(&direct.namespace, kind.at(vip), "rs0").unwrap()),
                }
            }
        }
        for (number, host) in (1..).zip(others) {
            let (name, inside) = (format!("rs{number}"), &host.namespace);
            for address in [host.address(), host.address6()] {
                let (at, web) = (SocketAddr::new(address, ECHO), SocketAddr::new(address, WEB));
                echo(inside, at);
                echoes.push(EchoServer::start(inside, at, &name).unwrap());
                webs.push(HttpServer::start(inside, web, ServerSpec::new(&name)).unwrap());
            }
        }
        Some(Self { _servers: (echoes, webs, unwrapper), _passes: passes, topology })
    }

    fn start(&self) -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let mut text = format!(
            "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {:?}\n[[local_addresses]]\n\
             name = \"local\"\naddresses = [\"{}\", \"{}\"]\n",
            self.topology.balancer_interfaces(),
            directory.path().join("api.sock"),
            LOCAL_ADDRESSES[0],
            LOCAL_ADDRESSES6[0],
        );
        for vip in vips() {
            for kind in &KINDS {
                let Kind { protocol, keys, way, .. } = kind;
                text += &format!(
                    "[[service]]\naddress = \"{}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
                     local_addresses = \"local\"\n{keys}\n",
                    kind.at(vip),
                );
                let direct = kind.way.is_direct();
                let port = match kind.port {
                    port if direct => port,
                    STAYS => WEB,
                    _ => ECHO,
                };
                let hosts = &self.topology.servers[if direct { 0..1 } else { 1..3 }];
                for host in hosts {
                    let real = if vip.is_ipv4() { host.address() } else { host.address6() };
                    text += &format!(
                        "[[service.real_server]]\naddress = \"{}\"\n{}\n",
                        SocketAddr::new(real, port),
                        way.keys(),
                    );
                }
            }
        }
        let namespace = &self.topology.balancer.namespace;
        Daemon::start_with(namespace, Path::new(SEAWALL), &text, directory).unwrap()
    }

    /// Kills the daemon; `meanwhile` happens without one; another one takes over.
    fn replace(&self, daemon: Daemon, meanwhile: impl FnOnce()) -> Daemon {
        let config = std::fs::read_to_string(daemon.config()).unwrap();
        let directory = daemon.kill();
        meanwhile();
        let namespace = &self.topology.balancer.namespace;
        Daemon::start_with(namespace, Path::new(SEAWALL), &config, directory).unwrap()
    }

    fn client(&self) -> &Namespace {
        &self.topology.client.namespace
    }

    /// Pulls or plugs the cable of every real server at the switch.
    fn cables(&self, state: &str) {
        // The balancer's and the client's come first.
        for port in 2..5 {
            let name = format!("port{port}");
            let set = ["link", "set", &name, state];
            let run = || Command::new("ip").args(set).status().unwrap().success();
            assert!(self.topology.switch.namespace.run(run), "{name} {state}");
        }
    }
}

fn vips() -> [IpAddr; 2] {
    [VIP.into(), VIP6.into()]
}

fn sessions(daemon: &Daemon) -> Vec<SessionReport> {
    Client::new(daemon.socket()).sessions(Page::default()).unwrap().sessions
}

/// Sessions but those that are over, or last for seconds only, on however loaded a machine.
fn lasting(daemon: &Daemon) -> usize {
    let passes = |session: &&SessionReport| [STAYS, STAYS_UDP[1]].contains(&session.vip.port());
    sessions(daemon).iter().filter(|session| !passes(session)).count()
}

fn counted(daemon: &Daemon, name: &str) -> u64 {
    Client::new(daemon.socket()).stats().unwrap().counters[name]
}

/// Clients and datagrams that stay, of all services.
fn templates(daemon: &Daemon) -> u64 {
    let services = Client::new(daemon.socket()).stats().unwrap().services;
    services.iter().map(|service| service.totals.persistent_connections).sum()
}

/// Sends back what comes on every connection, until this process ends.
fn echo(namespace: &Namespace, at: SocketAddr) {
    let listener = namespace.run(|| TcpListener::bind(at)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the client's to find out.
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
}

/// A connection to what sends back what comes.
struct Talk {
    at: SocketAddr,
    stream: TcpStream,
}

impl Talk {
    fn open(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { at, stream })
    }

    fn say(&mut self, word: &str) {
        self.stream.write_all(word.as_bytes()).unwrap_or_else(|e| panic!("{}: {e}", self.at));
    }

    /// Reads until `word` has come back; gives what came before it: the PROXY header, if there is one.
    fn hear(&mut self, word: &str) -> Vec<u8> {
        let mut heard = Vec::new();
        while !heard.ends_with(word.as_bytes()) {
            let mut byte = [0];
            self.stream
                .read_exact(&mut byte)
                .unwrap_or_else(|e| panic!("{} {word:?} after {heard:02x?}: {e}", self.at));
            heard.extend(byte);
        }
        heard.truncate(heard.len() - word.len());
        heard
    }

    fn exchange(&mut self, word: &str) {
        self.say(word);
        assert!(self.hear(word).is_empty(), "{}", self.at);
    }
}

/// A port that somebody answers; the first datagram to a real server whose MAC is not known is lost.
fn asker(stage: &Stage, at: SocketAddr) -> (Asker, String) {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut asker = Asker::open(stage.client(), at).unwrap();
        match asker.ask(Duration::from_secs(1)) {
            Ok(name) => return (asker, name),
            Err(error) => assert!(Instant::now() < end, "{at}: {error}"),
        }
    }
}

fn page(stage: &Stage, at: SocketAddr) -> String {
    let page = stage.client().run(|| http::get(at, "/", &TIMEOUTS));
    page.unwrap_or_else(|e| panic!("{at}: {e}")).server.unwrap()
}

#[test]
fn sessions_of_every_kind_and_templates_outlive_the_daemon() {
    let Some(stage) = Stage::new() else { return };
    let daemon = stage.start();
    let (mut talks, mut askers, mut stays) = (Vec::new(), Vec::new(), Vec::new());
    for vip in vips() {
        for kind in &KINDS {
            let at = kind.at(vip);
            if kind.port == STAYS {
                stays.push((at, page(&stage, at)));
            } else if kind.protocol == "tcp" {
                let mut talk = stage.client().run(|| Talk::open(at)).unwrap();
                talk.say("first");
                let header = talk.hear("first");
                assert_eq!(header.is_empty(), !kind.keys.contains("proxy_protocol"), "{at}");
                talks.push(talk);
            } else {
                askers.push((at, asker(&stage, at)));
            }
        }
    }
    // Datagrams count as a conversation from the second of a client's on.
    for (at, (asker, name)) in &mut askers {
        assert_eq!(asker.ask(PATIENCE).unwrap(), *name, "{at}");
    }
    let (before, kept) = (lasting(&daemon), templates(&daemon));
    assert_eq!(kept, 2 + 2 * STAYS_UDP.len() as u64);
    let opened = counted(&daemon, "sessions_opened");

    let (mut single, mut flows): (Vec<_>, Vec<_>) =
        askers.into_iter().partition(|(at, _)| at.port() == STAYS_UDP[1]);
    let daemon = stage.replace(daemon, || {
        talks.iter_mut().for_each(|talk| talk.exchange("without a daemon"));
        for (at, (asker, name)) in &mut flows {
            assert_eq!(asker.ask(PATIENCE).unwrap(), *name, "{at} without a daemon");
        }
    });
    let said = daemon.greeting();
    assert!(said.contains("adopted ") && said.contains("(0 of them in a handshake)"), "{said}");
    assert_eq!((lasting(&daemon), templates(&daemon)), (before, kept));
    let punted = counted(&daemon, "punt_new_udp");
    talks.iter_mut().for_each(|talk| talk.exchange("with the next one"));
    for (at, (asker, name)) in &mut flows {
        assert_eq!(asker.ask(PATIENCE).unwrap(), *name, "{at} after the return");
    }
    assert_eq!(counted(&daemon, "punt_new_udp"), punted, "no flow had to begin anew");
    assert_eq!(counted(&daemon, "sessions_opened"), opened, "nor any session");
    for (at, (asker, name)) in &mut single {
        assert_eq!(asker.ask(PATIENCE).unwrap(), *name, "{at} after the return");
    }

    for (at, name) in &stays {
        for _ in 0..4 {
            assert_eq!(page(&stage, *at), *name, "{at}: the template");
        }
    }
    for (at, (_, name)) in flows.iter().chain(&single) {
        if STAYS_UDP.contains(&at.port()) {
            for _ in 0..4 {
                assert_eq!(asker(&stage, *at).1, *name, "{at}: the template");
            }
        }
    }
    assert_eq!(templates(&daemon), kept);
    drop(talks);
    daemon.end().unwrap();
}

/// The client of a proxied service has its connection, and has said something that nobody has kept; one
/// without the proxy waits for an answer to its SYN. Both say it again.
#[test]
fn handshakes_under_way_end_well_with_the_next_daemon() {
    let Some(stage) = Stage::new() else { return };
    let daemon = stage.start();
    let tcp = || KINDS.iter().filter(|kind| kind.protocol == "tcp" && kind.port != STAYS);
    // So that real servers' MACs are known.
    for kind in tcp() {
        for vip in vips() {
            for _ in 0..2 {
                let mut talk = stage.client().run(|| Talk::open(kind.at(vip))).unwrap();
                talk.say("first");
                talk.hear("first");
            }
        }
    }
    stage.cables("down");
    let mut waiting = Vec::new();
    for kind in tcp() {
        for vip in vips() {
            let at = kind.at(vip);
            let header = kind.keys.contains("proxy_protocol");
            let wait = move || {
                let mut talk = Talk::open(at).unwrap_or_else(|e| panic!("{at}: {e}"));
                talk.say("hello");
                assert_eq!(talk.hear("hello").is_empty(), !header, "{at}");
                talk.exchange("again");
            };
            waiting.push(stage.client().spawn(wait).unwrap());
        }
    }
    let is_half =
        |session: &SessionReport| session.state == "SYN_SENT" || session.state == "SYN_RECV";
    let halves =
        |state: &str| sessions(&daemon).iter().filter(|session| session.state == state).count();
    let proxied = 2 * tcp().filter(|kind| kind.keys.contains("synproxy")).count();
    let end = Instant::now() + PATIENCE;
    while halves("SYN_SENT") < proxied || halves("SYN_RECV") < waiting.len() - proxied {
        assert!(Instant::now() < end, "{:#?}", sessions(&daemon));
        thread::sleep(Duration::from_millis(20));
    }
    let daemon = stage.replace(daemon, || stage.cables("up"));
    let said = daemon.greeting();
    assert!(said.contains(&format!("({proxied} of them in a handshake)")), "{said}");
    for waiting in waiting {
        waiting.join().unwrap();
    }
    let left: Vec<_> = sessions(&daemon).into_iter().filter(is_half).collect();
    assert!(left.is_empty(), "{left:#?}");
    daemon.end().unwrap();
}
