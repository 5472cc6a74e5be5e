//! The lossy link, on the running kernel: each rate is what it is said to be, and what arrives is
//! what was sent.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use seawall_lab::flood::Passes;
use seawall_lab::http::{self, HttpServer, Payload, ServerSpec, Timeouts};
use seawall_lab::link::{Direction, LossyLink, Rates, Tally};
use seawall_lab::{Arms, Cable, Host, Topology, TopologySpec, pattern, require};

const SEED: u64 = 7;
const DATAGRAMS: u32 = 20_000;
/// Few enough for every queue on the way, also when each arrives twice.
const BURST: u32 = 50;
const LENGTH: usize = 900;
const HOLD: Duration = Duration::from_micros(200);
const PORT: u16 = 9;
/// How long a burst may be on its way: of milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

struct Network {
    topology: Topology,
    _passes: [Passes; 2],
}

fn network(cables: [Cable; 2]) -> Option<Network> {
    let spec = TopologySpec { cables, real_servers: 1, attacker: false, ..Default::default() };
    let topology = require::root(Topology::build(&spec))?;
    let passes = Passes::attach(&topology).unwrap();
    let _passes = [passes, Passes::attach_to_balancer(&topology).unwrap()];
    Some(Network { topology, _passes })
}

fn start(topology: &Topology, number: usize) -> LossyLink {
    LossyLink::start(topology.links[number].as_ref().unwrap(), SEED).unwrap()
}

/// How numbered datagrams arrived.
#[derive(Debug, Default)]
struct Arrivals {
    received: u32,
    twice: u32,
    /// Those that came after a later one.
    overtaken: u32,
}

/// Sends numbered datagrams in bursts through `link`, which has let `before` pass, and reads them as
/// they arrive. A burst follows when the one before has arrived, so that no queue on the way is ever
/// too short, however slow the machine.
fn exchange(
    topology: &Topology,
    link: &LossyLink,
    before: Tally,
    address: fn(&Host) -> IpAddr,
) -> Arrivals {
    let server = &topology.servers[0];
    let to = SocketAddr::new(address(server), PORT);
    let receiver = server.namespace.run(|| UdpSocket::bind(to)).unwrap();
    let from = SocketAddr::new(address(&topology.client), PORT);
    let sender = topology.client.namespace.run(|| UdpSocket::bind(from)).unwrap();
    sender.connect(to).unwrap();
    receiver.set_nonblocking(true).unwrap();

    let mut arrivals = Arrivals::default();
    let mut seen = vec![false; DATAGRAMS as usize];
    let mut last = None;
    let mut bytes = [0; LENGTH + 1];
    for first in (0..DATAGRAMS).step_by(BURST as usize) {
        let sent = first + BURST;
        for number in first..sent {
            sender.send(&datagram(number)).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Read first: what has passed by then is what is waited for.
            let tally = since(link.tally(Direction::Inward).unwrap(), before);
            while let Some(length) = receive(&receiver, &mut bytes) {
                let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
                assert_eq!(bytes[..length], datagram(number), "{number}");
                let seen = &mut seen[number as usize];
                arrivals.twice += u32::from(*seen);
                arrivals.received += u32::from(!*seen);
                arrivals.overtaken += u32::from(last > Some(number) && !*seen);
                *seen = true;
                last = last.max(Some(number));
            }
            if all_arrived(&arrivals, tally, sent) {
                break;
            }
            assert!(Instant::now() < deadline, "{sent} sent: {tally:?}, {arrivals:?}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    arrivals
}

/// Whether `sent` datagrams have passed the link, and all that it has sent on has arrived, but for
/// what is none of ours: neighbour discovery, each frame of which it may have doubled.
fn all_arrived(arrivals: &Arrivals, tally: Tally, sent: u32) -> bool {
    let Some(others) = tally.frames.checked_sub(sent.into()) else { return false };
    let on = tally.frames - tally.dropped + tally.duplicated;
    let arrived = u64::from(arrivals.received + arrivals.twice);
    tally.held == tally.released && arrived + 2 * others >= on
}

/// The next datagram, if one has arrived.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> Option<usize> {
    match socket.recv(bytes) {
        Ok(length) => Some(length),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            None
        }
    }
}

fn datagram(number: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    pattern::fill(number.into(), 0, &mut bytes);
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Whether `count` of `of` is `rate` in a thousand, give or take five standard deviations.
fn is_about(count: u64, of: u64, rate: u16) -> bool {
    let rate = f64::from(rate) / 1000.0;
    let (count, of) = (count as f64, of as f64);
    (count - of * rate).abs() <= 5.0 * (of * rate * (1.0 - rate)).sqrt() + 5.0
}

fn since(now: Tally, before: Tally) -> Tally {
    Tally {
        frames: now.frames - before.frames,
        dropped: now.dropped - before.dropped,
        duplicated: now.duplicated - before.duplicated,
        held: now.held - before.held,
        released: now.released - before.released,
        longest: now.longest,
    }
}

#[test]
fn rates_are_what_they_are_said_to_be() {
    let Some(network) = network([Cable::Link, Cable::Plain]) else { return };
    let topology = &network.topology;
    let mut link = start(topology, 0);
    let all = Rates { drop: 50, duplicate: 30, reorder: 20, hold: HOLD };
    let cases = [
        Rates::NONE,
        Rates { drop: 100, ..Rates::NONE },
        Rates { duplicate: 100, ..Rates::NONE },
        Rates { reorder: 20, hold: HOLD, ..Rates::NONE },
        all,
    ];
    for address in [Host::address, Host::address6] {
        for rates in cases {
            link.set_one(Direction::Inward, rates).unwrap();
            let before = link.tally(Direction::Inward).unwrap();
            let arrivals = exchange(topology, &link, before, address);
            let tally = since(link.tally(Direction::Inward).unwrap(), before);
            println!("{rates:?}\n    {tally:?}\n    {arrivals:?}");
            // Neighbour discovery adds a few.
            let sent = u64::from(DATAGRAMS);
            // Ethernet, IPv4 or IPv6, UDP.
            assert!([14 + 20 + 8, 14 + 40 + 8].contains(&(tally.longest - LENGTH as u64)));
            assert!((sent..sent + 20).contains(&tally.frames));
            assert!(is_about(tally.dropped, tally.frames, rates.drop));
            assert!(is_about(tally.duplicated, tally.frames, rates.duplicate));
            assert!(is_about(tally.held, tally.frames, rates.reorder));
            assert_eq!(tally.held, tally.released);
            let others = tally.frames - sent;
            let lost = sent - u64::from(arrivals.received);
            assert!((tally.dropped.saturating_sub(others)..=tally.dropped).contains(&lost));
            let twice = u64::from(arrivals.twice);
            assert!((tally.duplicated.saturating_sub(others)..=tally.duplicated).contains(&twice));
            // The last ones of a burst have nobody behind them to overtake them.
            let overtaken = u64::from(arrivals.overtaken);
            assert!((tally.held / 4..=tally.held).contains(&overtaken));
        }
    }
    // The way back was left alone.
    let back = link.tally(Direction::Outward).unwrap();
    assert_eq!((back.dropped, back.duplicated, back.held), (0, 0, 0), "{back:?}");
}

#[test]
fn transfers_survive_links_on_both_sides() {
    let Some(network) = network([Cable::Link, Cable::Link]) else { return };
    let topology = &network.topology;
    let mut links = [start(topology, 0), start(topology, 1)];
    let timeouts = Timeouts { total: Duration::from_secs(60), ..Timeouts::default() };
    let server = &topology.servers[0];
    for address in [Host::address, Host::address6] {
        let spec = ServerSpec { seed: SEED, ..ServerSpec::new("rs") };
        let at = SocketAddr::new(address(server), 8080);
        let _server = HttpServer::start(&server.namespace, at, spec).unwrap();
        for rates in [Rates::NONE, Rates { drop: 10, duplicate: 10, reorder: 10, hold: HOLD }] {
            links.iter_mut().for_each(|link| link.set(rates).unwrap());
            let payload = Payload { length: 3_000_000, seed: SEED };
            topology.client.namespace.run(|| {
                http::download(at, payload, &timeouts).unwrap();
                http::upload(at, payload, &timeouts).unwrap();
            });
        }
    }
    for link in &links {
        for direction in [Direction::Inward, Direction::Outward] {
            let tally = link.tally(direction).unwrap();
            assert!(tally.dropped > 0 && tally.duplicated > 0 && tally.held > 0, "{tally:?}");
        }
    }
    drop(links);
    let at = SocketAddr::new(server.address(), 8080);
    let short = Timeouts { connect: Duration::from_millis(300), ..timeouts };
    let error = topology.client.namespace.run(|| http::get(at, "/", &short)).unwrap_err();
    assert_eq!(error.kind, http::ErrorKind::ConnectTimeout, "{error}");
}

#[test]
fn one_armed_too() {
    let spec = TopologySpec {
        arms: Arms::One,
        cables: [Cable::Link, Cable::Plain],
        ..TopologySpec::default()
    };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let _balancer = Passes::attach_to_balancer(&topology).unwrap();
    let _link = start(&topology, 0);
    let server = &topology.servers[1];
    let at = SocketAddr::new(server.address6(), 8080);
    let _server = HttpServer::start(&server.namespace, at, ServerSpec::new("rs")).unwrap();
    let answer = topology.client.namespace.run(|| http::get(at, "/", &Timeouts::default()));
    assert_eq!(answer.unwrap().server.as_deref(), Some("rs"));
}
