//! A daemon between one client and one real server, a link on each side of it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_lab::daemon::{Daemon, SERVER_PORT};
use seawall_lab::flood::Passes;
use seawall_lab::http::{self, HttpServer, Payload, ServerSpec, Timeouts};
use seawall_lab::link::{Direction, LossyLink, Rates};
use seawall_lab::{Cable, Host, Topology, TopologySpec, require};

use crate::stack::{Family, Pair, WAYS, Way};
use crate::vlan::{self, Vlan};

const SEED: u64 = 7;
/// The first service's port. Each pair has a service of its own for each way, because the daemon
/// stops offering what a service's real server has refused.
const FIRST_PORT: u16 = 10_000;
/// Client ports of one pair of stacks. Sessions of two services may not share the client's port:
/// under NAT the real server could not tell them apart.
const CLIENT_PORTS: usize = 128;
const FIRST_CLIENT_PORT: usize = 20_000;
const RTO_MIN: &str = "net.ipv4.tcp_rto_min_us";
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(20), total: Duration::from_secs(60) };
/// A bad network: 1 % lost, and as much doubled and overtaken, on each of two cables both ways.
const BAD: Rates = Rates { drop: 10, duplicate: 10, reorder: 10, hold: Duration::from_micros(200) };
/// Tests run one after the other, for the sake of their time limits.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) struct Scene {
    topology: Topology,
    pub(crate) links: Vec<LossyLink>,
    _passes: Passes,
    _servers: Vec<HttpServer>,
    _alone: MutexGuard<'static, ()>,
}

/// What segments are limited by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) client_mtu: u32,
    pub(crate) server_mtu: u32,
    /// The MSS that the client announces, if not what its MTU leaves.
    pub(crate) advertised: Option<u32>,
    /// The one that we announce at most.
    pub(crate) init_mss: u32,
}

impl Scene {
    pub(crate) fn build() -> Option<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let cables = [Cable::Link; 2];
        let spec = TopologySpec { cables, real_servers: 1, attacker: false, ..Default::default() };
        let topology = require::root(Topology::build(&spec))?;
        let server = &topology.servers[0];
        for host in [&topology.client, server] {
            // What is lost at the end of a flight is sent again after 200 ms otherwise, and without
            // timestamps each further loss doubles that. A listener keeps what it finds when it is
            // made; Linux before 6.11 has nothing to find.
            if host.namespace.read_sysctl(RTO_MIN).is_ok() {
                host.namespace.sysctl(RTO_MIN, "10000").unwrap();
            }
        }
        let start = |family: Family| {
            let address = SocketAddr::new(family.of(server), SERVER_PORT);
            let spec = ServerSpec { seed: SEED, threads: 16, ..ServerSpec::new("rs") };
            HttpServer::start(&server.namespace, address, spec).unwrap()
        };
        let _servers = Family::ALL.map(start).into();
        let _passes = Passes::attach(&topology).unwrap();
        let mut scene = Self { topology, links: Vec::new(), _passes, _servers, _alone: alone };
        scene.connect();
        Some(scene)
    }

    /// Starts the links, with nothing counted.
    fn connect(&mut self) {
        self.links.clear();
        let hosts = self.topology.links.iter().flatten();
        self.links.extend(hosts.map(|host| LossyLink::start(host, SEED).unwrap()));
    }

    /// Moves the clients' network and the real servers' into VLANs, the outer one first.
    pub(crate) fn tag(&self, clients: &[Vlan], servers: &[Vlan]) {
        let Topology { client, balancer, servers: hosts, switch, links, .. } = &self.topology;
        for host in links.iter().flatten().chain([switch]) {
            for interface in &host.interfaces {
                vlan::leave_tags_in_frames(host, &interface.name);
            }
        }
        vlan::tag((client, 0), (balancer, 0), clients);
        vlan::tag((&hosts[0], 0), (balancer, 1), servers);
    }

    /// Makes the network a bad one.
    pub(crate) fn degrade(&mut self) {
        self.links.iter_mut().for_each(|link| link.set(BAD).unwrap());
    }

    /// Has everyone obey `limits`.
    fn limit(&self, limits: Limits) {
        let Limits { client_mtu, server_mtu, advertised, .. } = limits;
        let client = &self.topology.client;
        let mtus = [(client, client_mtu), (&self.topology.servers[0], server_mtu)];
        for (Host { namespace, interfaces }, mtu) in mtus {
            namespace.netlink(|netlink| netlink.set_mtu(interfaces[0].index, mtu)).unwrap();
        }
        for family in Family::ALL {
            let mut ip = Command::new("ip");
            ip.args(["route", "replace", &family.vip().to_string(), "dev", "eth0"]);
            ip.args(advertised.map(|mss| ["advmss".to_owned(), mss.to_string()]).iter().flatten());
            let output = client.namespace.run(move || ip.output()).unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }

    /// A daemon with a service for each pair and way.
    fn daemon(&self, pairs: usize, synproxy: &str) -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let interfaces = self.topology.balancer_interfaces();
        let mut text = format!(
            "interfaces = {interfaces:?}\nmax_sessions = 16384\n[api]\nsocket = {socket:?}\n\
             [timeouts]\nfin_wait = 20\ntime_wait = 1\nclose = 1\nclose_wait = 20\nlast_ack = 20\n\
             [synproxy]\n{synproxy}\n",
        );
        for family in Family::ALL {
            if WAYS.iter().any(|way| way.family == family) {
                let [first, last] = family.local_addresses();
                let addresses = format!("addresses = [\"{first}-{last}\"]");
                writeln!(text, "[[local_addresses]]\nname = \"{family:?}\"\n{addresses}").unwrap();
            }
        }
        for pair in 0..pairs {
            for (number, way) in WAYS.iter().enumerate() {
                let Way { family, forwarding } = way;
                let real = SocketAddr::new(family.of(&self.topology.servers[0]), SERVER_PORT);
                let service = service(pair, number);
                writeln!(
                    text,
                    "[[service]]\naddress = \"{service}\"\nprotocol = \"tcp\"\n\
                     scheduler = \"rr\"\nsynproxy = \"on\"\nlocal_addresses = \"{family:?}\"\n\
                     [[service.real_server]]\naddress = \"{real}\"\nweight = 1\n\
                     forwarding = \"{forwarding}\"",
                )
                .unwrap();
            }
        }
        let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
        Daemon::start_with(&self.topology.balancer.namespace, executable, &text, directory).unwrap()
    }

    /// Each pair transfers `length` bytes up and down, in all ways at once. At the end all has
    /// been counted and nothing is left.
    pub(crate) fn check(&self, pairs: &[Pair], length: u64, synproxy: &str) {
        let daemon = self.daemon(pairs.len(), synproxy);
        let start = Instant::now();
        let mut failures = Vec::new();
        for (number, pair) in pairs.iter().enumerate() {
            pair.client.apply(&self.topology.client);
            pair.server.apply(&self.topology.servers[0]);
            let first = FIRST_CLIENT_PORT + number % 256 * CLIENT_PORTS;
            let ports = format!("{first} {}", first + CLIENT_PORTS - 1);
            self.topology.client.namespace.sysctl("net.ipv4.ip_local_port_range", &ports).unwrap();
            std::thread::scope(|scope| {
                let transfers: Vec<_> = (0..WAYS.len())
                    .map(|way| scope.spawn(move || self.transfer(number, way, length)))
                    .collect();
                for (thread, way) in transfers.into_iter().zip(WAYS) {
                    if let Err(error) = thread.join().unwrap() {
                        failures.push(format!("{pair:?} {way:?}: {error}"));
                    }
                }
            });
        }
        println!("{} pairs in {:.1?}", pairs.len(), start.elapsed());
        assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
        check_accounts(&Client::new(daemon.socket()), length);
        // The next one counts from the beginning.
        daemon.end().unwrap();
    }

    /// Two transfers through a new service: half of them start with the upload.
    fn transfer(&self, pair: usize, way: usize, length: u64) -> Result<(), http::Error> {
        let at = service(pair, way);
        let payload = Payload { length, seed: SEED };
        self.topology.client.namespace.run(|| {
            if (pair + way).is_multiple_of(2) {
                http::upload(at, payload, &TIMEOUTS)?;
                http::download(at, payload, &TIMEOUTS)?;
            } else {
                http::download(at, payload, &TIMEOUTS)?;
                http::upload(at, payload, &TIMEOUTS)?;
            }
            Ok(())
        })
    }

    /// Transfers within limits; nobody sends more at a time than the other end takes.
    pub(crate) fn check_limits(&mut self, limits: Limits) {
        self.limit(limits);
        self.connect();
        let synproxy = format!("init_mss = {}", limits.init_mss);
        self.check(&[Pair::ALL, Pair::NONE], 1 << 17, &synproxy);
        let Limits { client_mtu, server_mtu, advertised, init_mss } = limits;
        let headers = WAYS.map(|way| way.family.headers()).into_iter().max().unwrap_or_default();
        let announced = advertised.map_or(client_mtu, |mss| mss + headers);
        let bounds = [client_mtu.min(announced), server_mtu.min(init_mss + headers)];
        for (link, bound) in self.links.iter().zip(bounds) {
            const ETHERNET: u64 = 14;
            let longest = link.tally(Direction::Outward).unwrap().longest - ETHERNET;
            println!("{limits:?}: packets up to {longest} of {bound} bytes");
            assert!(longest <= u64::from(bound), "{limits:?}: {longest} bytes");
        }
    }
}

fn service(pair: usize, way: usize) -> SocketAddr {
    SocketAddr::new(WAYS[way].family.vip(), FIRST_PORT + (pair * WAYS.len() + way) as u16)
}

/// Every service has had its two connections and their bytes, and their sessions are free again.
fn check_accounts(client: &Client, length: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.sessions(Default::default()).unwrap().total > 0 {
        assert!(Instant::now() < deadline, "{:?}", client.sessions(Default::default()));
        std::thread::sleep(Duration::from_millis(100));
    }
    let stats = client.stats().unwrap();
    let transfers = 2 * stats.services.len() as u64;
    assert_eq!(stats.counters["sessions_opened"], transfers, "{:?}", client.drops());
    assert_eq!(stats.counters["synproxy_ok_ack"], transfers, "{:?}", client.drops());
    for service in &stats.services {
        let totals = &service.totals;
        assert_eq!(totals.connections, 2, "{service:?}");
        assert_eq!((totals.active_connections, totals.inactive_connections), (0, 0));
        assert!(totals.in_bytes >= length && totals.out_bytes >= length, "{service:?}");
    }
    let drops = client.drops().unwrap().drops;
    println!("drops: {:?}", drops.iter().map(|row| (&row.name, row.value)).collect::<Vec<_>>());
}
