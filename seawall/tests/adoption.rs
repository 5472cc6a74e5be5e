//! The daemon dies or hands over, and another one takes over (SPEC E). Needs root;
//! `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_control::report::{Page, StatsReport};
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::http::{HttpServer, ServerSpec, Timeouts};
use seawall_lab::load::{Limit, Load, LoadSpec};
use seawall_lab::pattern::Checker;
use seawall_lab::topology::{LOCAL_ADDRESSES, VIP};
use seawall_lab::{Topology, TopologySpec, require};

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
const SEED: u64 = 11;
const DOWNLOADS: usize = 100;
/// More than any of them has by the end.
const LENGTH: u64 = 1 << 40;
/// What each takes at a time, and how long it waits then: little enough for a debug build.
const CHUNK: usize = 8 << 10;
const PACE: Duration = Duration::from_millis(100);
/// How long the daemon is dead: twice the heartbeat's limit.
const GAP: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    spec: DaemonSpec,
    _servers: Vec<HttpServer>,
    _passes: Passes,
    topology: Topology,
}

/// A transfer that goes on until it is told to end.
struct Downloads {
    end: Arc<AtomicBool>,
    bytes: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Stage {
    /// `None` with a message where this process may not make networks.
    fn new() -> Option<Self> {
        let spec = TopologySpec { real_servers: 4, ..TopologySpec::default() };
        let topology = require::root(Topology::build(&spec))?;
        let passes = Passes::attach(&topology).unwrap();
        let servers = topology.servers.iter().enumerate().map(|(number, host)| {
            // What lies in buffers is no use to anybody whose connection breaks.
            host.namespace.sysctl("net.ipv4.tcp_wmem", "4096 16384 65536").unwrap();
            let address = SocketAddr::new(host.address(), SERVER_PORT);
            let spec = ServerSpec { seed: SEED, ..ServerSpec::new(&format!("rs{number}")) };
            HttpServer::start(&host.namespace, address, spec).unwrap()
        });
        let servers = servers.collect();
        let client = &topology.client.namespace;
        client.sysctl("net.ipv4.tcp_rmem", "4096 16384 65536").unwrap();
        // The last one has no sessions: it is the one that is removed.
        let spec = DaemonSpec { weights: vec![1, 1, 1, 0], ..DaemonSpec::new(SEAWALL) };
        Some(Self { spec, _servers: servers, _passes: passes, topology })
    }

    fn start(&self) -> Daemon {
        Daemon::start(&self.topology, &self.spec).unwrap()
    }

    /// Another daemon with the configuration of the one that `daemon` was, which is dead now.
    fn again(&self, daemon: Daemon) -> Daemon {
        self.try_again(daemon, |config| config.to_owned()).unwrap()
    }

    /// The same with another configuration.
    fn try_again(
        &self,
        daemon: Daemon,
        change: impl Fn(&str) -> String,
    ) -> std::io::Result<Daemon> {
        let config = std::fs::read_to_string(daemon.config()).unwrap();
        let directory = daemon.kill();
        let namespace = &self.topology.balancer.namespace;
        Daemon::start_with(namespace, Path::new(SEAWALL), &change(&config), directory)
    }

    /// Runs `seawall` where the daemon lives; what it said, and whether it succeeded.
    fn seawall(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(SEAWALL);
        command.args(arguments);
        self.output(command)
    }

    fn output(&self, mut command: Command) -> (bool, String) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = self.topology.balancer.namespace.spawn_process(command).unwrap();
        let status = process.wait_for(PATIENCE).unwrap().expect("it ends");
        let mut said = String::new();
        let child = process.child();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.success(), said)
    }

    fn stop(&self, mut daemon: Daemon, keep: bool) -> Daemon {
        let socket = daemon.socket().to_str().unwrap().to_owned();
        let mut arguments = vec!["stop", "--api", &socket];
        if keep {
            arguments.push("--keep");
        }
        let (stopped, said) = self.seawall(&arguments);
        assert!(stopped, "{said}");
        let status = daemon.wait_for(PATIENCE).unwrap();
        assert!(status.is_some_and(|status| status.success()), "{status:?} {:?}", daemon.log());
        daemon
    }

    /// What is pinned.
    fn pins(&self) -> String {
        let mut command = Command::new("ls");
        command.arg("/sys/fs/bpf");
        let (listed, said) = self.output(command);
        assert!(listed, "{said}");
        said.lines().filter(|line| !line.ends_with(".debug")).collect()
    }

    /// The addresses of ours that the balancer has.
    fn addresses(&self) -> usize {
        let addresses = self.topology.balancer.namespace.netlink(|n| n.addresses()).unwrap();
        let ours = |address: IpAddr| {
            address == IpAddr::V4(VIP) || LOCAL_ADDRESSES.iter().any(|local| address == *local)
        };
        addresses.iter().filter(|entry| ours(entry.address)).count()
    }

    fn attached(&self) -> bool {
        let mut command = Command::new("ip");
        command.args(["-details", "link", "show"]);
        let (listed, said) = self.output(command);
        assert!(listed && said.contains("eth0"), "{said}");
        said.contains("prog/xdp")
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        assert_eq!((self.addresses(), self.attached(), self.pins()), (0, false, String::new()));
    }

    #[track_caller]
    fn assert_all_is_there(&self) {
        assert_eq!(self.addresses(), 1 + LOCAL_ADDRESSES.len());
        assert!(self.attached());
        assert_eq!(self.pins(), "seawall");
    }

    fn download(&self) -> Downloads {
        let end = Arc::new(AtomicBool::new(false));
        let bytes: Vec<Arc<AtomicU64>> = (0..DOWNLOADS).map(|_| Arc::default()).collect();
        let threads = bytes.iter().map(|bytes| {
            let (end, bytes) = (Arc::clone(&end), Arc::clone(bytes));
            let transfer = move || transfer(&end, &bytes).map_err(|error| error.to_string());
            self.topology.client.namespace.spawn(transfer).unwrap()
        });
        let threads = threads.collect();
        Downloads { end, bytes, threads }
    }
}

fn transfer(end: &AtomicBool, bytes: &AtomicU64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(service())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /bytes/{LENGTH} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let mut checker = Checker::new(SEED);
    let mut chunk = vec![0; CHUNK];
    while !end.load(Ordering::Relaxed) {
        stream.read_exact(&mut chunk)?;
        checker.update(&chunk);
        bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        std::thread::sleep(PACE);
    }
    match checker.first_difference() {
        None => Ok(()),
        Some(offset) => Err(std::io::Error::other(format!("the byte at {offset} is wrong"))),
    }
}

impl Downloads {
    /// Waits until each has got as much again as may be on its way in buffers.
    #[track_caller]
    fn go_on(&self, when: &str) {
        let before: Vec<_> = self.bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect();
        let end = Instant::now() + PATIENCE;
        let goes_on = |(bytes, before): (&Arc<AtomicU64>, &u64)| {
            bytes.load(Ordering::Relaxed) > before + (160 << 10)
        };
        while !self.bytes.iter().zip(&before).all(goes_on) {
            let dead = self.threads.iter().filter(|thread| thread.is_finished()).count();
            assert!(dead == 0 && Instant::now() < end, "{when}: {dead} downloads have ended");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn finish(self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
    }
}

fn stats(daemon: &Daemon) -> StatsReport {
    Client::new(daemon.socket()).stats().unwrap()
}

fn sessions(daemon: &Daemon) -> usize {
    Client::new(daemon.socket()).sessions(Page::default()).unwrap().sessions.len()
}

/// No counter and no total is lower than it was.
#[track_caller]
fn assert_grown(from: &StatsReport, to: &StatsReport) {
    for (name, value) in &from.counters {
        assert!(to.counters[name] >= *value, "{name}: {value}, then {}", to.counters[name]);
    }
    for (from, to) in from.services.iter().zip(&to.services) {
        let numbers = |report: &seawall_control::report::ServiceReport| {
            let totals = &report.totals;
            [
                totals.connections,
                totals.in_packets,
                totals.in_bytes,
                totals.out_packets,
                totals.out_bytes,
            ]
        };
        assert!(
            numbers(from).iter().zip(numbers(to)).all(|(from, to)| *from <= to),
            "{from:?}, {to:?}"
        );
    }
}

/// Issue 5: 100 downloads, and whatever an operator or an accident does to the daemon.
#[test]
fn downloads_survive_what_happens_to_the_daemon() {
    let Some(stage) = Stage::new() else { return };
    let mut daemon = stage.start();
    assert!(!daemon.greeting().contains("adopted"));
    let downloads = stage.download();
    downloads.go_on("at the start");
    let mut last = stats(&daemon);
    assert_eq!(sessions(&daemon), DOWNLOADS);

    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let removed = format!("{}:{SERVER_PORT}", stage.topology.servers[3].address());
    let at = config.find(&format!("\n[[service.real_server]]\naddress = \"{removed}\"")).unwrap();
    for (config, when) in [
        (config.replace("weight = 1", "weight = 3"), "after a reload"),
        (config[..at].to_owned(), "after the removal of another server"),
    ] {
        std::fs::write(daemon.config(), config).unwrap();
        Client::new(daemon.socket()).reload().unwrap();
        downloads.go_on(when);
    }

    // kill -9; XDP alone.
    let dead = Instant::now();
    let directory = daemon.kill();
    stage.assert_all_is_there();
    while dead.elapsed() < GAP {
        downloads.go_on("without a daemon");
    }
    let namespace = &stage.topology.balancer.namespace;
    let config = std::fs::read_to_string(directory.path().join("seawall.toml")).unwrap();
    daemon = Daemon::start_with(namespace, Path::new(SEAWALL), &config, directory).unwrap();
    let said = daemon.greeting().to_owned();
    assert!(
        said.contains("adopted 100 sessions (0 of them in a handshake) of 1 services"),
        "{said}"
    );
    downloads.go_on("after the return");
    let now = stats(&daemon);
    assert_grown(&last, &now);
    assert_eq!(sessions(&daemon), DOWNLOADS);
    last = now;

    // An upgrade.
    daemon = stage.stop(daemon, true);
    stage.assert_all_is_there();
    downloads.go_on("handed over");
    daemon = stage.again(daemon);
    assert!(daemon.greeting().contains("adopted 100 sessions"), "{}", daemon.greeting());
    downloads.go_on("taken over");
    assert_grown(&last, &stats(&daemon));

    // A real server's card is replaced, and the client's.
    let [server, client] = [&stage.topology.servers[0], &stage.topology.client];
    for (number, host) in (7..).zip([server, client]) {
        let index = host.interface("eth0").unwrap().index.to_string();
        let mac = format!("02:aa:00:00:00:{number:02x}");
        let change = || {
            let name = ["link", "set", "dev", "eth0", "address", mac.as_str()];
            Command::new("ip").args(name).status().unwrap().success()
        };
        assert!(host.namespace.run(change), "{index}");
        downloads.go_on("after a MAC change");
    }
    downloads.finish();
    stage.stop(daemon, false);
    stage.assert_nothing_is_left();
}

/// Requests that are under way when the daemon is killed, and those that begin before XDP knows it,
/// are answered by the next one: nothing is lost but time.
#[test]
fn handshakes_outlive_the_daemon() {
    let Some(stage) = Stage::new() else { return };
    let mut daemon = stage.start();
    let timeouts = Timeouts { connect: PATIENCE, total: PATIENCE };
    let spec = LoadSpec { timeouts, ..LoadSpec::new(service(), Limit::Time(PATIENCE)) };
    let load = Load::start(&stage.topology.client.namespace, spec).unwrap();
    let mut before = 0;
    for round in 0..4 {
        while load.snapshot().succeeded() < before + 100 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let dead = Instant::now();
        let last = stats(&daemon);
        // It dies in the middle of whatever it does.
        let kill = format!("kill -9 {}", daemon.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        // Within the heartbeat's limit and, once, beyond.
        std::thread::sleep(Duration::from_millis(if round == 3 { 6_000 } else { 1_000 }));
        daemon = stage.again(daemon);
        assert!(daemon.greeting().contains("adopted"), "{}", daemon.greeting());
        assert_grown(&last, &stats(&daemon));
        assert!(dead.elapsed() < PATIENCE);
        before = load.snapshot().succeeded();
    }
    while load.snapshot().succeeded() < before + 100 {
        std::thread::sleep(Duration::from_millis(10));
    }
    load.stop();
    let report = load.finish();
    assert_eq!(report.failed(), 0, "{:?}", report.example);
    stage.stop(daemon, false);
    stage.assert_nothing_is_left();
}

/// What a dead daemon has left goes with `seawall stop`, and with a signal to the next one; what a
/// start has begun and not finished goes by itself.
#[test]
fn stop_leaves_nothing_whoever_has_begun_it() {
    let Some(stage) = Stage::new() else { return };
    let daemon = stage.start();
    let socket = daemon.socket().to_str().unwrap().to_owned();
    let arguments = ["stop", "--api", &socket];
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let directory = daemon.kill();
    stage.assert_all_is_there();
    let (cleared, said) = stage.seawall(&arguments);
    assert!(
        cleared && said.contains("cleared what a daemon had left in /sys/fs/bpf/seawall"),
        "{said}"
    );
    stage.assert_nothing_is_left();
    let (cleared, said) = stage.seawall(&arguments);
    assert!(!cleared && said.contains("no daemon listens on"), "{said}");

    // One that does not get far leaves nothing: the interfaces have a program.
    let namespace = &stage.topology.balancer.namespace;
    let start = |config: &str, directory| {
        Daemon::start_with(namespace, Path::new(SEAWALL), config, directory)
    };
    let daemon = start(&config, directory).unwrap();
    let other = tempfile::TempDir::with_prefix("seawall-").unwrap();
    let socket = other.path().join("api.sock");
    let second = config.replace(daemon.socket().to_str().unwrap(), socket.to_str().unwrap());
    let second = format!("state = \"/sys/fs/bpf/other\"\n{second}");
    let said = start(&second, other).unwrap_err().to_string();
    assert!(said.contains("another XDP program is attached"), "{said}");
    stage.assert_all_is_there();

    // The second daemon knows what the first has added.
    let mut daemon = stage.again(daemon);
    let kill = format!("kill -TERM {}", daemon.pid());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(daemon.wait_for(PATIENCE).unwrap().is_some_and(|status| status.success()));
    stage.assert_nothing_is_left();
}

/// What does not fit is refused, with the remedy, and goes on as it was.
#[test]
fn another_configuration_is_adopted_or_refused() {
    let Some(stage) = Stage::new() else { return };
    let daemon = stage.start();
    let downloads = stage.download();
    downloads.go_on("at the start");

    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let namespace = &stage.topology.balancer.namespace;
    let other = tempfile::TempDir::with_prefix("seawall-").unwrap();
    let second = config.replace(
        daemon.socket().to_str().unwrap(),
        other.path().join("api.sock").to_str().unwrap(),
    );
    let error = Daemon::start_with(namespace, Path::new(SEAWALL), &second, other).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("another daemon lives on /sys/fs/bpf/seawall"), "{said}");
    let state = ["stop", "--api", "/nowhere", "--state", "/sys/fs/bpf/seawall"];
    let (cleared, said) = stage.seawall(&state);
    assert!(!cleared && said.contains("another daemon lives on"), "{said}");

    let mut directory = daemon.kill();
    for (from, to, message) in [
        ("max_sessions = 131072", "max_sessions = 4096", "max_sessions was 131072, and is 4096"),
        ("[api]", "[synproxy]\nwscale = 3\n[api]", "[synproxy] wscale was 7"),
    ] {
        let config = config.replace(from, to);
        let fresh = tempfile::TempDir::with_prefix("seawall-").unwrap();
        let error =
            Daemon::start_with(namespace, Path::new(SEAWALL), &config, directory).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(message) && said.contains("seawall stop --state"), "{said}");
        stage.assert_all_is_there();
        directory = fresh;
    }
    // A service and an interface fewer, and what hangs on them.
    let config = config.replace("192.168.7.100-192.168.7.103", "192.168.7.100-192.168.7.104");
    let socket = directory.path().join("api.sock");
    let config = config.lines().map(|line| match line.starts_with("socket = ") {
        true => format!("socket = {socket:?}\n"),
        false => format!("{line}\n"),
    });
    let config: String = config.collect();
    let daemon = Daemon::start_with(namespace, Path::new(SEAWALL), &config, directory).unwrap();
    assert!(daemon.greeting().contains("adopted 100 sessions"), "{}", daemon.greeting());
    downloads.go_on("with another configuration");
    downloads.finish();
    stage.stop(daemon, false);
    assert_eq!((stage.attached(), stage.pins()), (false, String::new()));
}
