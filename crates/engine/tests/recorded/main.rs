//! Persistence and thresholds against what the kernel's IPVS did, Linux 6.1, after the same events:
//! the recordings in `tests/persistence`, which `crates/lab/tests/schedulers.rs` makes and compares
//! with the kernel. Here the whole engine replays them, segment by segment.

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use seawall_engine::scheduler::{Flags, Kind};
use seawall_engine::{Forwarding, Introduction, Netmask, Persistence, RealServerSpec, ServiceSpec};
use seawall_fastpath::{TcpState, Transport};

use support::balancer::Setup;
use support::family::Family;
use support::packet::{ACK, FIN, Ip, SYN, Segment};
use support::stage::{Stage, syn_ack};

/// Recordings by name.
macro_rules! recordings {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../persistence/", $name, ".txt"))),)*]
    };
}

const RECORDINGS: &[(&str, &str)] = recordings! {
    "persistent" "netmask" "netmask-ipv6" "port-0" "quiescent" "control" "thresholds" "removed"
};
/// Real servers that the stage knows the way to; recordings use the first of them.
const SERVERS: u32 = 8;
/// What `timeout` sets the timeout after the client's FIN to (FIN_WAIT where the kernel, as by DR, sees
/// only the client; CLOSE_WAIT here), and `expire` waits, in milliseconds.
const FIN_TIMEOUT: u64 = 2_000;
const EXPIRED: u64 = 3_500;

#[test]
fn the_engine_does_what_the_kernel_does() {
    for (name, recording) in RECORDINGS {
        let mut replay = Replay::new(if name.ends_with("ipv6") { Family::V6 } else { Family::V4 });
        for (number, line) in recording.lines().enumerate() {
            let (event, outcome) = line.split_once(" -> ").unwrap_or((line, ""));
            let words: Vec<_> = event.split(' ').collect();
            let got = replay.event(&words).unwrap_or_default();
            assert_eq!(got, outcome, "{name}.txt:{}: {line}", number + 1);
        }
        assert!(replay.arrivals >= 5, "{name}: {}", replay.arrivals);
    }
}

#[test]
fn every_recording_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/persistence");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), RECORDINGS.len());
}

struct Replay {
    stage: Stage,
    setup: Setup,
    /// The way to each real server.
    next_hops: Vec<u32>,
    /// The number of the service that events are about.
    service: u32,
    /// Service, number and what is asked for of each real server; recordings name each only once.
    servers: HashMap<SocketAddr, (u32, u32, RealServerSpec)>,
    /// The SYN of each connection as its real server had it, and as its client sent it.
    connections: HashMap<[SocketAddr; 2], [Segment; 2]>,
    arrivals: u32,
}

impl Replay {
    fn new(family: Family) -> Self {
        let setup = Setup {
            servers: SERVERS,
            synproxy: false,
            forwarding: Forwarding::Nat,
            any_port: true,
            sessions: 256,
            ..Setup::of(family)
        };
        let mut stage = Stage::new(&setup);
        let report = stage.balancer.engine.services().swap_remove(0);
        let next_hops = report.servers.iter().map(|server| server.spec.next_hop).collect();
        stage.balancer.engine.remove_service(0);
        stage.balancer.forget_any_port();
        Self {
            stage,
            setup,
            next_hops,
            service: 0,
            servers: HashMap::new(),
            connections: HashMap::new(),
            arrivals: 0,
        }
    }

    fn event(&mut self, words: &[&str]) -> Option<String> {
        match *words {
            ["#", ..] => {}
            ["service", address, kind] => self.add_service(address, kind, None),
            ["persistent-service", address, kind, seconds, ref mask @ ..] => {
                let netmask = match (self.stage.family, mask) {
                    (Family::V4, []) => Netmask::v4(u32::MAX),
                    (Family::V4, [mask, ..]) => {
                        Netmask::v4(mask.parse::<std::net::Ipv4Addr>().unwrap().to_bits())
                    }
                    (Family::V6, mask) => {
                        Netmask::v6(mask.first().map_or(128, |mask| mask.parse().unwrap()))
                    }
                };
                let timeout = 1_000 * seconds.parse::<u32>().unwrap();
                self.add_service(address, kind, Some(Persistence { timeout, netmask }));
            }
            ["server", address, weight] => self.add_server(address, weight, ["0", "0"]),
            ["server", address, weight, upper, lower] => {
                self.add_server(address, weight, [upper, lower]);
            }
            ["thresholds", address, weight, upper, lower] => {
                let [weight, upper_threshold, lower_threshold] =
                    [weight, upper, lower].map(|number| number.parse().unwrap());
                self.change(address, |spec| {
                    *spec = RealServerSpec { weight, upper_threshold, lower_threshold, ..*spec };
                });
            }
            ["weight", address, weight] => {
                self.change(address, |spec| spec.weight = weight.parse().unwrap());
            }
            ["remove", address] => {
                let address: SocketAddr = address.parse().unwrap();
                let (service, number, _) = self.servers[&address];
                self.stage.balancer.engine.remove_server(service, number);
                self.stage.balancer.engine.settle(self.stage.balancer.now());
            }
            ["quiescent", on] => {
                self.setup.config.expire_quiescent_template = on == "1";
                self.stage.balancer.engine.set_config(self.setup.config);
            }
            ["timeout"] => {
                self.setup.config.timeouts.set(TcpState::CloseWait, FIN_TIMEOUT);
                self.stage.balancer.engine.set_config(self.setup.config);
            }
            ["expire"] => self.stage.pass(EXPIRED),
            ["wait", milliseconds] => self.stage.pass(milliseconds.parse().unwrap()),
            ["syn", client, vip] => return Some(self.arrival([client, vip])),
            ["ack", client, vip] => self.segment([client, vip], ACK),
            ["fin", client, vip] => self.segment([client, vip], FIN | ACK),
            _ => panic!("no event: {words:?}"),
        }
        self.stage.round();
        None
    }

    fn add_service(&mut self, address: &str, kind: &str, persistence: Option<Persistence>) {
        let address: SocketAddr = address.parse().unwrap();
        self.service = self.stage.balancer.engine.add_service(ServiceSpec {
            transport: Transport::Tcp,
            address: address.into(),
            persistence,
            scheduler: Kind::named(kind).unwrap(),
            scheduler_flags: Flags::default(),
            synproxy: false,
            defer: false,
            introduction: Introduction::None,
            one_packet: false,
            timeout: None,
            pool: None,
            real_servers: Vec::new(),
        });
    }

    fn add_server(&mut self, address: &str, weight: &str, thresholds: [&str; 2]) {
        let address: SocketAddr = address.parse().unwrap();
        let number = self.stage.family.server_number(ip(address.ip()));
        let [upper_threshold, lower_threshold] = thresholds.map(|it| it.parse().unwrap());
        let spec = RealServerSpec {
            address: address.into(),
            forwarding: Forwarding::Nat,
            weight: weight.parse().unwrap(),
            upper_threshold,
            lower_threshold,
            next_hop: self.next_hops[number as usize],
        };
        let number = self.stage.balancer.engine.add_server(self.service, spec).unwrap();
        self.servers.insert(address, (self.service, number, spec));
        self.stage.balancer.engine.settle(self.stage.balancer.now());
    }

    /// Sets what is asked for of a real server.
    fn change(&mut self, address: &str, change: impl FnOnce(&mut RealServerSpec)) {
        let address: SocketAddr = address.parse().unwrap();
        let (service, number, spec) = self.servers.get_mut(&address).unwrap();
        change(spec);
        self.stage.balancer.engine.set_server(*service, *number, *spec);
    }

    fn arrival(&mut self, ends: [&str; 2]) -> String {
        self.arrivals += 1;
        let ends = ends.map(|end| end.parse::<SocketAddr>().unwrap());
        let [client, vip] = ends;
        self.stage.from = ip(client.ip());
        let mut syn = self.stage.client_says(client.port(), SYN, 7, 0);
        syn.destination = (ip(vip.ip()), vip.port());
        self.stage.client(&syn);
        self.stage.round();
        let asked = std::mem::take(&mut self.stage.to_servers);
        let [asked] = &asked[..] else { return "none".to_owned() };
        // So that the client's acknowledgment establishes it.
        self.stage.server(&syn_ack(asked, Vec::new()));
        self.stage.round();
        self.stage.to_client.clear();
        self.connections.insert(ends, [asked.clone(), syn]);
        let chosen = IpAddr::from(seawall_fastpath::Addr::from(asked.destination.0));
        let services = self.stage.balancer.engine.services();
        let mut servers = services.iter().flat_map(|service| &service.servers);
        let report =
            servers.find(|it| IpAddr::from(it.spec.address.address) == chosen).expect("there");
        format!("{chosen} {} {} {}", report.active, report.inactive, report.persistent)
    }

    fn segment(&mut self, ends: [&str; 2], flags: u16) {
        let ends = ends.map(|end| end.parse::<SocketAddr>().unwrap());
        // Of one that got no real server nothing more is forwarded.
        let Some([asked, syn]) = self.connections.get(&ends) else { return };
        let ack = syn_ack(asked, Vec::new()).seq.wrapping_add(1);
        let segment = Segment { flags, seq: syn.seq.wrapping_add(1), ack, ..syn.clone() };
        self.stage.client(&segment);
        self.stage.round();
        self.stage.to_servers.clear();
    }
}

fn ip(address: IpAddr) -> Ip {
    match address {
        IpAddr::V4(v4) => Ip::v4(v4.to_bits()),
        IpAddr::V6(v6) => Ip(v6.to_bits()),
    }
}
