//! Two real daemons behind one imaginary router: one answers a client's SYN, the other gets its
//! ACK. Each has a network of its own, with the same addresses, and the client's segments are
//! written by hand, so that which box gets which is no matter of chance. Needs root;
//! `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_datapath::Injector;
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::topology::VIP;
use seawall_lab::{Topology, TopologySpec};
use socket2::{Domain, Protocol, Socket, Type};

#[path = "../../crates/fastpath/tests/support/packet.rs"]
#[allow(dead_code, reason = "the tests of the packet path need more of it")]
mod packet;

use packet::{ACK, Ip, Opt, PSH, SYN, Segment};

/// In the client's network, but nobody's: no kernel answers for it.
const CLIENT: u32 = 0x0a00_004d;
const CLIENT_ISN: u32 = 0xffff_fffe;
const REQUEST: &[u8] = b"which box are you?";
const REPLY: &[u8] = b"the other one";
const PATIENCE: Duration = Duration::from_secs(5);

/// A network with a daemon in it, and a client whose every frame is ours.
struct Site {
    topology: Topology,
    daemon: Daemon,
    _passes: Passes,
    /// Gets every frame that comes to the client.
    tap: Socket,
    send: Injector,
}

impl Site {
    /// `None` as [`network`].
    fn new(secret: Option<&[u8]>) -> Option<Self> {
        let topology = network()?;
        let passes = Passes::attach(&topology).unwrap();
        let daemon = start(&topology, secret);
        let (tap, send) = topology.client.namespace.run(|| {
            let every = Protocol::from(i32::from(0x0003_u16.to_be()));
            let tap = Socket::new(Domain::PACKET, Type::RAW, Some(every)).unwrap();
            tap.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            (tap, Injector::open(&[topology.client.interfaces[0].index]).unwrap())
        });
        Some(Self { topology, daemon, _passes: passes, tap, send })
    }

    fn segment(&self, port: u16, flags: u16) -> Segment {
        Segment {
            tags: Vec::new(),
            source_mac: self.topology.client.interfaces[0].mac,
            destination_mac: self.topology.balancer.interfaces[0].mac,
            tos: 0,
            ident: 1,
            ttl: 64,
            source: (Ip::v4(CLIENT), port),
            destination: (Ip::v4(VIP.to_bits()), service().port()),
            seq: CLIENT_ISN,
            ack: 0,
            flags,
            window: 0x1000,
            urgent: 0,
            options: Vec::new(),
            raw_options: None,
            payload: Vec::new(),
        }
    }

    fn send(&mut self, segment: &Segment) {
        self.send.send(self.topology.client.interfaces[0].index, &segment.bytes());
        self.send.flush();
    }

    /// The next segment to `port` of the client that `wanted` wants; `None` if none comes.
    fn receive(&self, port: u16, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let start = Instant::now();
        let mut frame = [0; 2048];
        while start.elapsed() < PATIENCE {
            let Ok(length) = (&self.tap).read(&mut frame) else { continue };
            let Some(frame) = frame.get(..length) else { continue };
            let tcp = length >= 54 && frame[12..15] == [0x08, 0x00, 0x45] && frame[23] == 6;
            if tcp && frame[30..34] == CLIENT.to_be_bytes() {
                let segment = Segment::read(frame);
                if segment.destination.1 == port && wanted(&segment) {
                    return Some(segment);
                }
            }
        }
        None
    }

    /// Begins a handshake, and gives what the client would say next.
    fn answered(&mut self, port: u16, options: Vec<Opt>) -> Segment {
        self.send(&Segment { options, ..self.segment(port, SYN) });
        let cookie = self.receive(port, |segment| segment.flags == SYN | ACK).expect("a SYN/ACK");
        assert_eq!(cookie.ack, CLIENT_ISN.wrapping_add(1));
        let options = match clock(&cookie) {
            Some((ours, _)) => vec![Opt::Nop, Opt::Nop, Opt::Timestamps(1_005, ours)],
            None => Vec::new(),
        };
        let (seq, ack) = (cookie.ack, cookie.seq.wrapping_add(1));
        let payload = REQUEST.to_vec();
        Segment { seq, ack, options, payload, ..self.segment(port, ACK | PSH) }
    }

    fn count(&self, name: &str) -> u64 {
        let client = Client::new(self.daemon.socket().to_owned());
        client.stats().unwrap().counters[name]
    }
}

/// `None`, with a message, where this process may not make a network.
fn network() -> Option<Topology> {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    match Topology::build(&spec) {
        Ok(topology) => Some(topology),
        Err(error) if error.is_permission() => {
            let required = std::env::var_os("SEAWALL_REQUIRE_ROOT").is_some_and(|v| v == "1");
            assert!(!required, "SEAWALL_REQUIRE_ROOT=1, but: {error}");
            println!("skipped: needs root: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A file that only its owner may read, if `mode` says so.
fn write_secret(path: &Path, secret: &[u8], mode: u32) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options.open(path).unwrap().write_all(secret).unwrap();
}

/// What `attempt` gives as soon as it gives something; `None` when that takes too long.
fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(value) = attempt() {
            return Some(value);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A daemon with a file of its own that holds `secret`, if any.
fn start(topology: &Topology, secret: Option<&[u8]>) -> Daemon {
    let directory = tempfile::TempDir::with_prefix("seawall-").unwrap();
    let spec = DaemonSpec::new(env!("CARGO_BIN_EXE_seawall"));
    let mut config = spec.config(topology, &directory.path().join("api.sock"));
    if let Some(secret) = secret {
        let path = directory.path().join("secret");
        write_secret(&path, secret, 0o600);
        config.push_str(&format!("\n[synproxy]\nsecret_file = {path:?}\n"));
    }
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    Daemon::start_with(&topology.balancer.namespace, executable, &config, directory).unwrap()
}

fn clock(segment: &Segment) -> Option<(u32, u32)> {
    segment.options.iter().find_map(|option| match option {
        Opt::Timestamps(value, echo) => Some((*value, *echo)),
        _ => None,
    })
}

fn layouts() -> [Vec<Opt>; 2] {
    let all = vec![Opt::Mss(1460), Opt::SackPermitted, Opt::Timestamps(1_000, 0), Opt::Scale(7)];
    [all, vec![Opt::Mss(1460)]]
}

#[test]
fn one_box_answers_and_another_opens_the_session() {
    let secret = [0x5a; 48];
    let Some(mut one) = Site::new(Some(&secret)) else { return };
    let mut two = Site::new(Some(&secret)).unwrap();
    let host = &two.topology.servers[0];
    let address = SocketAddr::new(host.address(), SERVER_PORT);
    let listener = host.namespace.run(|| TcpListener::bind(address)).unwrap();
    listener.set_nonblocking(true).unwrap();
    for (number, options) in layouts().into_iter().enumerate() {
        let port = 40_000 + number as u16;
        let first = one.answered(port, options);
        two.send(&first);
        let (mut stream, _) = until(|| listener.accept().ok()).expect("a connection");
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = vec![0; REQUEST.len()];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(said, REQUEST);
        stream.write_all(REPLY).unwrap();
        let reply = two.receive(port, |segment| !segment.payload.is_empty()).expect("a reply");
        assert_eq!((reply.payload.as_slice(), reply.seq), (REPLY, first.ack));
        assert_eq!(reply.ack, first.seq.wrapping_add(REQUEST.len() as u32));
        // The clock that the other box showed the client goes on, and the client's comes back.
        let clocks = clock(&reply).zip(clock(&first));
        assert_eq!(clocks.is_some(), number == 0);
        if let Some(((value, echo), (sent, told))) = clocks {
            assert_eq!(echo, sent);
            assert!(value.wrapping_sub(told) < 60_000, "{value} after {told}");
        }
    }
    assert_eq!((one.count("synproxy_ok_ack"), two.count("synproxy_ok_ack")), (0, 2));
    assert_eq!((one.count("synproxy_bad_ack"), two.count("synproxy_bad_ack")), (0, 0));
    assert_eq!((one.count("synproxy_syn_cnt"), two.count("synproxy_syn_cnt")), (2, 0));
}

/// Over the ends of epochs, both ways, and each box's own too.
#[test]
#[ignore = "takes two and a half minutes"]
fn epochs_end_without_a_refusal() {
    let secret = [0x33; 32];
    let Some(one) = Site::new(Some(&secret)) else { return };
    let mut sites = [one, Site::new(Some(&secret)).unwrap()];
    let start = Instant::now();
    let mut opened = [0, 0];
    let mut port = 20_000;
    while start.elapsed() < Duration::from_secs(150) {
        for (from, to) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            port += 1;
            let options = layouts()[usize::from(port % 3 == 0)].clone();
            let first = sites[from].answered(port, options);
            sites[to].send(&first);
            opened[to] += 1;
            until(|| (sites[to].count("synproxy_ok_ack") >= opened[to]).then_some(()));
            let refused = sites[to].count("synproxy_bad_ack");
            assert_eq!(refused, 0, "{from} to {to} after {:?}", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    println!("{opened:?} sessions");
    assert_eq!([0, 1].map(|at| sites[at].count("synproxy_ok_ack")), opened);
}

#[test]
fn a_box_with_another_secret_refuses_and_counts() {
    let Some(mut one) = Site::new(Some(&[0x5a; 48])) else { return };
    let mut two = Site::new(Some(&[0x5b; 48])).unwrap();
    let mut none = Site::new(None).unwrap();
    for (number, options) in layouts().into_iter().enumerate() {
        let first = one.answered(40_000 + number as u16, options);
        for other in [&mut two, &mut none] {
            other.send(&first);
        }
        let next = number as u64 + 1;
        for other in [&two, &none] {
            until(|| (other.count("synproxy_bad_ack") >= next).then_some(()));
            assert_eq!(other.count("synproxy_bad_ack"), next);
            assert_eq!((other.count("synproxy_ok_ack"), other.count("rs_syn_sent")), (0, 0));
        }
        // It is the secret, not the segment.
        one.send(&first);
        until(|| (one.count("synproxy_ok_ack") >= next).then_some(()));
        assert_eq!(one.count("synproxy_ok_ack"), next);
    }
}

#[test]
fn a_secret_that_others_can_read_is_refused_before_anything_is_attached() {
    let Some(topology) = network() else { return };
    let directory = tempfile::TempDir::with_prefix("seawall-").unwrap();
    let path = directory.path().join("secret");
    write_secret(&path, &[1; 64], 0o644);
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    let config = DaemonSpec::new(executable).config(&topology, &directory.path().join("api.sock"));
    let lines = config.lines().count();
    let config = format!("{config}[synproxy]\nsecret_file = {path:?}\n");
    let namespace = &topology.balancer.namespace;
    let error = Daemon::start_with(namespace, executable, &config, directory).unwrap_err();
    let expected = format!("seawall.toml:{}: [synproxy] secret_file ", lines + 2);
    let error = error.to_string();
    assert!(error.contains(&expected) && error.contains("chmod 600"), "{error}");
}
