//! Established sessions: small segments both ways, forwarded for a second of the balancer's
//! processor time.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_lab::daemon::SERVER_PORT;
use seawall_lab::frame::{Link, Packet, Path, Segment, Template, flags};
use seawall_lab::tap::{Tap, received};
use seawall_lab::{Arms, TopologySpec};

use super::Settings;
use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::system::{Limit, System};
use super::window::{self, Window};

/// Sessions in use.
const SESSIONS: usize = 1_000;
/// How long a handshake may take to be seen.
const SEEN: Duration = Duration::from_secs(2);
/// Data in each segment, in bytes; without any it would be an acknowledgment and nothing else.
const DATA: usize = 16;
/// NOP, NOP, timestamps (RFC 7323, appendix A), whose values nobody here looks at.
const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1];

/// What one side of a session knows: where it is, whom it talks to, and what comes next.
#[derive(Debug, Clone, Copy)]
struct End {
    path: Path,
    seq: u32,
    ack: u32,
}

/// One run.
pub(crate) fn measure(settings: &Settings, system: System) -> Result<Sample> {
    let spec =
        TopologySpec { arms: Arms::Two, real_servers: 1, attacker: false, ..Default::default() };
    let rig =
        Rig::build(&spec, Placement::Apart, |topology| system.start(topology, &settings.daemon))?;
    let sessions = match system {
        System::Limit(_) | System::Routing => invented(&rig),
        _ => {
            let passes = rig.open()?;
            let sessions = Sessions::open(&rig, system.target(&rig.topology))?;
            drop(passes);
            sessions
        }
    };
    let topology = &rig.topology;
    let client = rig.generator(&topology.client, "eth0", "eth0")?;
    let server = rig.generator(&topology.switch, "port0", "eth1")?;
    let templates = |link: Link, ends: &[End]| ends.iter().map(|end| end.template(link)).collect();
    let inward: Vec<Template> = templates(client.link(), &sessions.clients);
    let outward: Vec<Template> = templates(server.link(), &sessions.servers);
    let count = || Counts::take(system, &rig, [&client, &server]);
    let Window { all, counts, spent, sent, sending } = window::measure(
        settings,
        &rig,
        count,
        || {
            Ok([
                client.send(&topology.client, &inward, 0)?,
                server.send(&topology.switch, &outward, 0)?,
            ])
        },
        |floods| floods.into_iter().try_fold(0, |sent, flood| Ok(sent + flood.stop()?)),
    )?;
    let forwarded = counts.forwarded as f64;
    ensure!(forwarded > 0.0, "nothing was forwarded of {} frames that arrived", all.arrived);
    Ok(Sample::new(forwarded / spent.balancer)
        .note("ns_each", spent.balancer / forwarded * 1e9)
        .note("per_s_of_wall", forwarded / spent.wall)
        .note("generator_per_s", sent as f64 / sending)
        .note("lost_to_full_queue_share", 1.0 - all.arrived as f64 / sent as f64)
        .note("not_forwarded_share", 1.0 - all.forwarded as f64 / all.arrived as f64)
        .note("lost_behind_balancer_share", 1.0 - all.delivered as f64 / all.forwarded as f64)
        .note("receive_core_busy", spent.processor / spent.wall))
}

/// Sessions that no system needs to know.
fn invented(rig: &Rig) -> Sessions {
    let client = rig.topology.client.address();
    let server = SocketAddr::new(rig.topology.servers[0].address(), SERVER_PORT);
    let ports = (0..SESSIONS).map(|number| 20_000 + number as u16);
    let (clients, servers) = ports
        .map(|port| {
            let path = Path { source: SocketAddr::new(client, port), destination: server };
            let back = Path { source: server, destination: path.source };
            (End { path, seq: 1, ack: 1 }, End { path: back, seq: 1, ack: 1 })
        })
        .unzip();
    Sessions { clients, servers, _sockets: Vec::new(), _server: None }
}

/// Sessions that are open, as both sides see them.
struct Sessions {
    clients: Vec<End>,
    servers: Vec<End>,
    _sockets: Vec<TcpStream>,
    _server: Option<JoinHandle<Vec<TcpStream>>>,
}

impl Sessions {
    /// Has Linux open them, one after the other, and reads their numbers off the wire.
    fn open(rig: &Rig, target: SocketAddr) -> Result<Self> {
        let (client, server) = (&rig.topology.client, &rig.topology.servers[0]);
        let at = SocketAddr::new(server.address(), SERVER_PORT);
        let listener = server.namespace.run(|| TcpListener::bind(at)).context("listening")?;
        let accepted = std::thread::spawn(move || {
            listener.incoming().take(SESSIONS).filter_map(io::Result::ok).collect()
        });
        let taps = [Tap::open(&client.namespace)?, Tap::open(&server.namespace)?];
        let (mut clients, mut servers, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..SESSIONS {
            let socket = client
                .namespace
                .run(|| TcpStream::connect_timeout(&target, SEEN))
                .with_context(|| format!("session {number}"))?;
            let ours = socket.local_addr()?;
            let seen = taps[0].find(SEEN, |frame| {
                SynAck::read(frame).filter(|syn_ack| syn_ack.ports == [target.port(), ours.port()])
            })?;
            let seen = seen.with_context(|| format!("session {number}: no SYN/ACK arrived"))?;
            let path = Path { source: ours, destination: target };
            clients.push(End { path, seq: seen.ack, ack: seen.seq.wrapping_add(1) });
            let sent = taps[1].find(SEEN, SynAck::read)?;
            let sent = sent.with_context(|| format!("session {number}: no SYN/ACK was sent"))?;
            let to = SocketAddr::new(sent.destination.into(), sent.ports[1]);
            let path = Path { source: at, destination: to };
            servers.push(End { path, seq: sent.seq.wrapping_add(1), ack: sent.ack });
            sockets.push(socket);
        }
        Ok(Self { clients, servers, _sockets: sockets, _server: Some(accepted) })
    }
}

impl End {
    fn template(&self, link: Link) -> Template {
        let &Self { path, seq, ack } = self;
        let (options, payload) = (OPTIONS.to_vec(), vec![b'.'; DATA]);
        let segment = Segment { flags: flags::ACK | flags::PSH, seq, ack, options, payload };
        Packet::tcp(link, path, &segment).template()
    }
}

/// What a SYN/ACK over IPv4 says.
struct SynAck {
    destination: [u8; 4],
    /// Source and destination.
    ports: [u16; 2],
    seq: u32,
    ack: u32,
}

impl SynAck {
    fn read(frame: &[u8]) -> Option<Self> {
        let tcp = frame.get(34..54)?;
        let is_one =
            frame[12..14] == [8, 0] && frame[23] == 6 && tcp[13] == flags::SYN | flags::ACK;
        let word = |at: usize| tcp[at..at + 4].try_into().map(u32::from_be_bytes).ok();
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let destination = frame[30..34].try_into().ok()?;
        is_one.then_some(())?;
        Some(Self { destination, ports: [port(0), port(2)], seq: word(4)?, ack: word(8)? })
    }
}

/// Frames, both ways together.
#[derive(Debug, Clone, Copy)]
struct Counts {
    /// That came in to the balancer.
    arrived: u64,
    /// That it sent on.
    forwarded: u64,
    /// That arrived at the other side.
    delivered: u64,
}

impl Counts {
    fn take(system: System, rig: &Rig, ends: [&seawall_lab::flood::Attacker; 2]) -> Result<Self> {
        let balancer = &rig.topology.balancer.namespace;
        let arrived = received(balancer)?.iter().map(|(_, count)| count).sum();
        let forwarded = match system {
            System::Seawall => rig.running.counters(["forward_in", "forward_out"])?,
            System::Limit(Limit::Redirect) => arrived,
            _ => {
                seawall_lab::tap::sent(balancer, "eth0")?
                    + seawall_lab::tap::sent(balancer, "eth1")?
            }
        };
        let mut delivered = 0;
        for end in ends {
            delivered += end.received()?.received;
        }
        Ok(Self { arrived, forwarded, delivered })
    }
}

impl window::Counts for Counts {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            arrived: self.arrived - earlier.arrived,
            forwarded: self.forwarded - earlier.forwarded,
            delivered: self.delivered - earlier.delivered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, Packet, Path, Segment, SynAck, flags};

    #[test]
    fn a_syn_ack_is_read_and_nothing_else() {
        let path = Path {
            source: "10.0.0.254:80".parse().unwrap(),
            destination: "10.0.0.2:4000".parse().unwrap(),
        };
        let link = Link { destination: [2; 6], source: [4; 6] };
        let frame = |flags| {
            let segment = Segment { flags, seq: 7, ack: 9, ..Segment::default() };
            Packet::tcp(link, path, &segment).template().bytes
        };
        let read = SynAck::read(&frame(flags::SYN | flags::ACK)).unwrap();
        assert_eq!((read.ports, read.seq, read.ack), ([80, 4000], 7, 9));
        assert_eq!(read.destination, [10, 0, 0, 2]);
        assert!(SynAck::read(&frame(flags::SYN)).is_none());
        assert!(SynAck::read(&[0; 20]).is_none());
    }
}
