//! Clients and servers that are XDP programs: whole connections at next to no cost for their ends.
//!
//! They remember nothing. The clients' program sits on the client's interface, the server's on the
//! switch's port towards the balancer, and each answers a segment with the segment that comes next
//! ([`crate::connections_layout`]): a SYN by SYN/ACK, that by an ACK and, as a segment of its own, a
//! request; then answer, FIN, FIN, ACK. What begins connections and asks is run by the kernel in
//! short turns, and so many connections are under way at a time. A segment that is lost is not sent
//! again, and its connection takes a place until no other is left.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::XdpMode;

use crate::connections_layout::{map, number, program, stage};
use crate::flood::{Error, OBJECT, xdp};
use crate::generator::Generator;
pub use crate::generator::Work;
use crate::topology::{Host, Interface, Topology};

/// Connections under way at a time: fewer than a veth has room for frames.
const UNDER_WAY: u64 = 128;
/// When no connection has come to its end for so long, those under way are given up.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often it is looked at how many connections are kept.
const LOOK: Duration = Duration::from_millis(10);
/// Frames of a turn of the clients.
const TURN: u32 = 64;
/// What a turn that had nothing to send is followed by.
const IDLE: Duration = Duration::from_micros(50);
/// Frames of a turn of [`Connections::repeat`].
const REPEAT_TURN: u32 = 10_000;
/// How long nothing may come of [`Connections::keep`] before it gives up.
const STALLED: Duration = Duration::from_secs(5);

/// What clients do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// They close the connection.
    Close,
    /// They keep it.
    Keep,
}

/// What one side has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Connections begun; of a server, 0.
    pub begun: u64,
    /// Those over, or kept, as they should.
    pub finished: u64,
    /// Resets that came in.
    pub reset: u64,
    /// Segments that came in without timestamps, which no end here sends or answers.
    pub strange: u64,
    /// Connections that there was no room for.
    pub lost: u64,
    /// Segments that came in.
    pub received: u64,
    /// Frames that the generators have sent.
    pub sent: u64,
}

impl Tally {
    /// Connections that are over, one way or the other.
    pub const fn over(&self) -> u64 {
        self.finished + self.reset + self.lost
    }

    /// What was done since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            begun: self.begun - earlier.begun,
            finished: self.finished - earlier.finished,
            reset: self.reset - earlier.reset,
            strange: self.strange - earlier.strange,
            lost: self.lost - earlier.lost,
            received: self.received - earlier.received,
            sent: self.sent - earlier.sent,
        }
    }
}

/// Programs of one side, and [`crate::connections_layout::Plan`] word by word as it lies in memory.
struct Side {
    generator: Generator,
    plan: Array<MapData, [u32; 8]>,
    words: [u32; 8],
}

type Counts = PerCpuArray<MapData, [u64; 6]>;

/// Both sides, attached until this is dropped.
pub struct Connections<'t> {
    topology: &'t Topology,
    clients: Shared,
    servers: Shared,
}

/// A side, and its counts, which can be read while it works.
#[derive(Clone)]
struct Shared {
    side: Arc<Mutex<Side>>,
    counts: Arc<Counts>,
    numbers: Arc<Array<MapData, u64>>,
}

impl<'t> Connections<'t> {
    /// Has the client's host be all clients, which ask `target`, and the switch be its first real
    /// server. At most `kept` connections can be kept. On the client's interface and the switch's
    /// port towards the balancer there must be no other XDP program.
    ///
    /// # Errors
    /// When the kernel refuses, or the target is not of IPv4.
    pub fn attach(topology: &'t Topology, target: SocketAddr, kept: u32) -> Result<Self, Error> {
        let (client, switch) = (&topology.client, &topology.switch);
        let server = topology.servers.first().and_then(|server| server.interface("eth0"));
        let clients = At {
            host: client,
            interface: client.interface("eth0"),
            opposite: topology.balancer.interface("eth0"),
            // A bridge's port speaks for the hosts behind it.
            speaker: client.interface("eth0"),
            answers: program::CLIENT,
        };
        let servers = At {
            host: switch,
            interface: switch.interface("port0"),
            opposite: topology.balancer.interface("eth1"),
            speaker: server,
            answers: program::SERVER,
        };
        let (clients, servers) = (clients.attach(kept)?, servers.attach(kept)?);
        let IpAddr::V4(address) = target.ip() else { return Err(Error::Missing("IPv4 address")) };
        let mut side = clients.lock();
        side.words[2..4].copy_from_slice(&[address.to_bits(), target.port().into()]);
        side.generator.load(program::CONNECT)?;
        drop(side);
        Ok(Self { topology, clients, servers })
    }

    /// What the clients have done.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tally(&self) -> Result<Tally, Error> {
        self.clients.tally()
    }

    /// What the server has done.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn server_tally(&self) -> Result<Tally, Error> {
        self.servers.tally()
    }

    /// Begins connections, as many as the balancer can take, each of which is closed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(&self) -> Result<Work<()>, Error> {
        self.begin(Then::Close, u32::MAX)
    }

    /// Opens so many connections and keeps them, then has both sides drop what comes in; gives how
    /// many are kept: fewer when none has been made for 5 s. Once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep(&self, count: u32) -> Result<u32, Error> {
        let work = self.begin(Then::Keep, count)?;
        let (mut best, mut since) = (0, Instant::now());
        while best < u64::from(count) && since.elapsed() < STALLED && !work.is_finished() {
            sleep(LOOK);
            let finished = self.tally()?.finished;
            if finished > best {
                (best, since) = (finished, Instant::now());
            }
        }
        work.stop()?;
        let mut least = count;
        for shared in [&self.clients, &self.servers] {
            let mut side = shared.lock();
            let kept = shared.numbers.get(&number::KEPT, 0)?.min(count.into()) as u32;
            side.words[7] = kept;
            side.set_stage(stage::SINK)?;
            least = least.min(kept);
        }
        Ok(least)
    }

    fn begin(&self, then: Then, limit: u32) -> Result<Work<()>, Error> {
        let stage = match then {
            Then::Close => stage::CLOSE,
            Then::Keep => stage::KEEP,
        };
        for shared in [&self.clients, &self.servers] {
            shared.lock().set_stage(stage)?;
        }
        let shared = self.clients.clone();
        Work::start(&self.topology.client.namespace, move |end| shared.connect(limit, end))
    }

    /// Sends small segments of the kept connections at random, from both sides, as many as the
    /// machine can.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn repeat(&self) -> Result<[Work<()>; 2], Error> {
        let start = |shared: &Shared, host: &Host| {
            shared.lock().generator.load(program::REPEAT)?;
            let shared = shared.clone();
            Work::start(&host.namespace, move |end| {
                while !end.load(Ordering::Relaxed) {
                    shared.lock().generator.turn(program::REPEAT, REPEAT_TURN)?;
                }
                Ok(())
            })
        };
        Ok([
            start(&self.clients, &self.topology.client)?,
            start(&self.servers, &self.topology.switch)?,
        ])
    }
}

/// Where a side is.
struct At<'t> {
    host: &'t Host,
    interface: Option<&'t Interface>,
    /// The balancer's.
    opposite: Option<&'t Interface>,
    /// Whose MAC address its frames come from.
    speaker: Option<&'t Interface>,
    /// The program for what comes in.
    answers: &'static str,
}

impl At<'_> {
    fn attach(&self, kept: u32) -> Result<Shared, Error> {
        let missing = Error::Missing("interface towards the balancer");
        let (Some(interface), Some(opposite), Some(speaker)) =
            (self.interface, self.opposite, self.speaker)
        else {
            return Err(missing);
        };
        let mut ebpf = EbpfLoader::new().map_max_entries(map::ENDS, kept.max(1)).load(OBJECT)?;
        let mut take = |name| ebpf.take_map(name).ok_or(Error::Missing(name));
        let plan = Array::try_from(take(map::PLAN)?)?;
        let counts = Arc::new(PerCpuArray::try_from(take(map::DONE)?)?);
        let numbers = Arc::new(Array::try_from(take(map::NUMBERS)?)?);
        let program = xdp(&mut ebpf, self.answers)?;
        program.load()?;
        self.host.namespace.run(|| program.attach(&interface.name, XdpMode::Driver))?;
        let [a, b, c, d, e, f] = opposite.mac;
        let [g, h, i, j, k, l] = speaker.mac;
        let link = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
        let words = [stage::SINK, 0, 0, 0, link[0], link[1], link[2], 0];
        let generator = Generator::new(ebpf, interface.index);
        let mut side = Side { generator, plan, words };
        side.set_stage(stage::SINK)?;
        Ok(Shared { side: Arc::new(Mutex::new(side)), counts, numbers })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Side> {
        // Programs and maps: whatever a panicking thread left in them is still true.
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> Result<Tally, Error> {
        let begun = self.numbers.get(&number::BEGUN, 0)?;
        let mut tally = Tally { begun, ..Tally::default() };
        for [finished, reset, strange, lost, received, sent] in self.counts.get(&0, 0)?.iter() {
            tally.finished += finished;
            tally.reset += reset;
            tally.strange += strange;
            tally.lost += lost;
            tally.received += received;
            tally.sent += sent;
        }
        Ok(tally)
    }

    /// Begins connections and asks until `end` says so; none any more when `limit` have come to
    /// their end.
    fn connect(&self, limit: u32, end: &AtomicBool) -> Result<(), Error> {
        let mut tally = self.tally()?;
        // What is not over now was lost before, or is somebody else's.
        let (mut given_up, mut since) = (tally.begun.saturating_sub(tally.over()), Instant::now());
        while !end.load(Ordering::Relaxed) {
            let more = u64::from(limit).saturating_sub(tally.finished).min(UNDER_WAY);
            self.lock().turn((tally.over() + given_up + more) as u32)?;
            let before = std::mem::replace(&mut tally, self.tally()?);
            if tally.over() != before.over() {
                since = Instant::now();
            } else if since.elapsed() > PATIENCE {
                given_up = tally.begun.saturating_sub(tally.over());
            }
            if tally.sent == before.sent {
                sleep(IDLE);
            }
        }
        Ok(())
    }
}

impl Side {
    fn set_stage(&mut self, stage: u32) -> Result<(), Error> {
        self.words[0] = stage;
        Ok(self.plan.set(0, self.words, 0)?)
    }

    /// A turn of the clients, of which so many may have been begun.
    fn turn(&mut self, limit: u32) -> Result<(), Error> {
        if self.words[1] != limit {
            self.words[1] = limit;
            self.plan.set(0, self.words, 0)?;
        }
        self.generator.turn(program::CONNECT, TURN)
    }
}
