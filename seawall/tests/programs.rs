//! Programs that nobody here wrote, by every way to a real server and over both versions of IP (SPEC C1,
//! C2): curl downloads and uploads, byte by byte, and iperf3 sends and receives, over TCP and UDP. Needs
//! root, curl and iperf3.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_lab::daemon::Daemon;
use seawall_lab::direct::answer_directly;
use seawall_lab::flood::Passes;
use seawall_lab::http::{HttpServer, ServerSpec};
use seawall_lab::pattern::Checker;
use seawall_lab::topology::{LOCAL_ADDRESSES, LOCAL_ADDRESSES6, VIP, VIP6};
use seawall_lab::{Arms, Namespace, ProcessGuard, Topology, TopologySpec, require};
use sha2::{Digest, Sha256};

const SEED: u64 = 31;
/// Bytes of each transfer, and of iperf3's datagrams.
const LENGTH: u64 = 1 << 20;
const DATAGRAM: &str = "1200";
/// Seconds that a program may take on a loaded machine.
const LIMIT: &str = "20";
/// iperf3 waits half a minute for an answer to its first datagram, and sends it once.
const ATTEMPTS: usize = 3;
/// The first port of iperf3 and of HTTP; one more for each of [`WAYS`].
const IPERF: u16 = 5_201;
const WEB: u16 = 8_001;

/// How the real server is reached; by the first two it has the balancer for a router, by the others it
/// answers the client itself.
const WAYS: [&str; 6] = [
    "forwarding = \"nat\"",
    "forwarding = \"fullnat\"",
    "forwarding = \"dr\"",
    "forwarding = \"tunnel\"",
    "forwarding = \"tunnel\"\ntunnel_type = \"gre\"\ntunnel_checksum = \"csum\"",
    "forwarding = \"tunnel\"\ntunnel_type = \"gue\"\ntunnel_port = 6080",
];
const ROUTED: usize = 2;

/// A service's address and that of its real server, without their ports.
struct Pair {
    way: usize,
    vip: IpAddr,
    real: IpAddr,
}

impl Pair {
    /// Where the real server listens: a packet that is not rewritten is for the VIP.
    fn listens(&self) -> IpAddr {
        if self.way < ROUTED { self.real } else { self.vip }
    }

    fn port(&self, first: u16) -> u16 {
        first + self.way as u16
    }
}

fn pairs(topology: &Topology) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for way in 0..WAYS.len() {
        for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
            let host = &topology.servers[usize::from(way >= ROUTED)];
            let real = if vip.is_ipv4() { host.address() } else { host.address6() };
            pairs.push(Pair { way, vip, real });
        }
    }
    pairs
}

fn config(topology: &Topology, pairs: &[Pair], socket: &Path) -> String {
    let mut text = format!(
        "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {socket:?}\n[[local_addresses]]\n\
         name = \"local\"\naddresses = [\"{}\", \"{}\"]\n",
        topology.balancer_interfaces(),
        LOCAL_ADDRESSES[0],
        LOCAL_ADDRESSES6[0],
    );
    for pair in pairs {
        let proxy = if pair.way < ROUTED { "synproxy = \"on\"" } else { "" };
        for (protocol, first, keys) in
            [("tcp", IPERF, proxy), ("udp", IPERF, ""), ("tcp", WEB, proxy)]
        {
            let port = pair.port(first);
            text += &format!(
                "[[service]]\naddress = \"{}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
                 local_addresses = \"local\"\n{keys}\n[[service.real_server]]\naddress = \"{}\"\n{}\n",
                SocketAddr::new(pair.vip, port),
                SocketAddr::new(pair.real, port),
                WAYS[pair.way],
            );
        }
    }
    text
}

/// Runs a program in a namespace, no longer than [`LIMIT`].
fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(LIMIT).arg(program).args(arguments);
    namespace.run(|| command.output()).unwrap()
}

/// Whether a program is there.
fn is_there(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Starts iperf3 where the real server listens.
fn serve(topology: &Topology, pair: &Pair) -> io::Result<ProcessGuard> {
    let host = &topology.servers[usize::from(pair.way >= ROUTED)].namespace;
    let (port, at) = (pair.port(IPERF).to_string(), pair.listens().to_string());
    let mut command = Command::new("iperf3");
    command.args(["--server", "--port", &port, "--bind", &at]).stdout(Stdio::null());
    let mut process = host.spawn_process(command)?;
    let end = Instant::now() + Duration::from_secs(20);
    let address = SocketAddr::new(pair.listens(), pair.port(IPERF)).to_string();
    let listens = || {
        let listed = run(host, "ss", &["-Hltn"]);
        String::from_utf8_lossy(&listed.stdout).split_whitespace().any(|word| word == address)
    };
    while !listens() {
        assert!(process.wait_for(Duration::from_millis(20))?.is_none(), "iperf3 at {at}");
        assert!(Instant::now() < end, "iperf3 does not listen at {address}");
    }
    Ok(process)
}

/// Fetches what a server has, and gives it back.
fn curl(client: &Namespace, pair: &Pair, file: &PathBuf) {
    let at = SocketAddr::new(pair.vip, pair.port(WEB));
    let name = file.to_str().unwrap();
    let url = format!("http://{at}/bytes/{LENGTH}");
    let got = run(client, "curl", &["-gsS", "--fail", "-o", name, &url]);
    assert!(got.status.success(), "{at}: {got:?}");
    let bytes = std::fs::read(file).unwrap();
    let mut checker = Checker::new(SEED);
    checker.update(&bytes);
    assert_eq!((bytes.len() as u64, checker.first_difference()), (LENGTH, None), "{at}");
    let (url, data) = (format!("http://{at}/upload"), format!("@{name}"));
    let put =
        run(client, "curl", &["-gsS", "--fail", "-H", "Expect:", "--data-binary", &data, &url]);
    assert!(put.status.success(), "{at}: {put:?}");
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let said = String::from_utf8(put.stdout).unwrap();
    assert_eq!(said.trim(), format!("{digest} {LENGTH}"), "{at}");
}

/// Bytes that arrived.
fn iperf3(client: &Namespace, pair: &Pair, more: &[&str]) -> u64 {
    let (vip, port) = (pair.vip.to_string(), pair.port(IPERF).to_string());
    let length = LENGTH.to_string();
    let mut arguments = vec!["--client", &vip, "--port", &port, "--json", "--bytes", &length];
    arguments.extend(more);
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let output = run(client, "iperf3", &arguments);
        said = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let arrived = &report["end"]["sum_received"]["bytes"];
        let datagrams = &report["end"]["sum"];
        if let (true, Some(bytes)) = (output.status.success(), arrived.as_u64()) {
            return bytes;
        }
        if let (true, Some(all), Some(lost)) = (
            output.status.success(),
            datagrams["packets"].as_u64(),
            datagrams["lost_packets"].as_u64(),
        ) {
            return (all - lost) * DATAGRAM.parse::<u64>().unwrap();
        }
        thread::sleep(Duration::from_millis(500));
    }
    panic!("{vip}:{port} {more:?}: {said}");
}

#[test]
fn curl_and_iperf3_get_through_by_every_way() {
    let arms = Arms::One;
    let spec = TopologySpec { arms, real_servers: 2, attacker: false, ..TopologySpec::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    for program in ["curl", "iperf3"] {
        if !is_there(program) {
            return require::missing(format_args!("needs {program}"));
        }
    }
    let _passes = Passes::attach(&topology).unwrap();
    let unwrapper = answer_directly(&topology.servers[1]).unwrap();
    let pairs = pairs(&topology);
    let serving: io::Result<Vec<_>> = pairs.iter().map(|pair| serve(&topology, pair)).collect();
    let _serving = serving.unwrap();
    let _webs: Vec<_> = pairs
        .iter()
        .map(|pair| {
            let host = &topology.servers[usize::from(pair.way >= ROUTED)].namespace;
            let at = SocketAddr::new(pair.listens(), pair.port(WEB));
            HttpServer::start(host, at, ServerSpec { seed: SEED, ..ServerSpec::new("rs") }).unwrap()
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let text = config(&topology, &pairs, &directory.path().join("api.sock"));
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    let namespace = &topology.balancer.namespace;
    let daemon = Daemon::start_with(namespace, executable, &text, directory).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (client, file) = (&topology.client.namespace, files.path().join("got"));
    for pair in &pairs {
        let wrapped = unwrapper.unwrapped();
        curl(client, pair, &file);
        let datagrams = ["--udp", "--bitrate", "20M", "--length", DATAGRAM];
        for more in [&[][..], &["--reverse"], &datagrams] {
            // It ends when all is sent, and looks at what has arrived by then.
            let arrived = iperf3(client, pair, more);
            assert!(arrived > 0, "{} {}: {more:?}", pair.vip, WAYS[pair.way]);
        }
        let tunnel = WAYS[pair.way].contains("tunnel");
        // Tunnels come last, for what is late of one case may arrive in the next.
        let more = unwrapper.unwrapped() - wrapped;
        assert_eq!(more > 0, tunnel, "{} {}: {more} wrapped", pair.vip, WAYS[pair.way]);
    }
    assert_eq!(unwrapper.corrupt(), 0, "checksums of UDP and GRE");
    let services = Client::new(daemon.socket()).stats().unwrap().services;
    for service in services {
        assert!(service.totals.in_packets > 0, "{}/{}", service.address, service.protocol);
    }
}
