//! Floods from XDP: the attacker of the demo and the end-to-end tests.
//!
//! The generator is a program that the kernel runs for a batch of frames of its own
//! (`BPF_PROG_TEST_RUN` with live frames), each of which it overwrites and sends out of the
//! attacker's veth. Nothing else here sends as many packets for as little CPU time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use crate::flood_layout::{FIELDS, FRAME_MAX, Field, TEMPLATES, map, program};
use crate::frame::{Link, Packet, Part, Path, Place, Segment, Template, Values, flags};
use crate::generator::{Generator, Work};
use crate::topology::{Arms, Host, Topology};
use crate::{Interface, Namespace};

pub(crate) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/lab.bpf.o"));

/// A round of a flood with a limited rate.
const ROUND: Duration = Duration::from_millis(1);
/// Packets of a round of a flood without a limit.
const UNLIMITED_ROUND: u32 = 100_000;
/// First of the source addresses, and how many there are: 100.64.0.0/10 and what follows, in
/// which nobody here lives.
pub const SOURCES: Values =
    Values { first: 0x6440_0000, count: 1 << 23, order: crate::frame::Order::Random };

/// The options of a Linux client's SYN: MSS 1460, SACK permitted, timestamps, window scale 7.
pub const LINUX_OPTIONS: [u8; 20] =
    [2, 4, 5, 0xb4, 4, 2, 8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 1, 3, 3, 7];

/// What a flood consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// SYNs with the options of a Linux client.
    Syn,
    /// ACKs with random numbers.
    Ack,
    /// RSTs.
    Rst,
    /// FINs.
    Fin,
    /// UDP.
    Udp,
    /// Fragments of TCP packets.
    Fragment,
}

impl Kind {
    /// Frames from anywhere.
    pub fn template(self, link: Link, target: SocketAddr) -> Template {
        let path =
            Path { source: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), destination: target };
        let segment = |flags, options: &[u8]| {
            let segment = Segment { flags, options: options.to_vec(), ..Segment::default() };
            Packet::tcp(link, path, &segment).vary(Place::Seq, Values::ANY)
        };
        let with_ack = |flags| segment(flags | flags::ACK, &[]).vary(Place::Ack, Values::ANY);
        let packet = match self {
            Self::Syn => segment(flags::SYN, &LINUX_OPTIONS),
            Self::Ack => with_ack(0),
            Self::Rst => segment(flags::RST, &[]),
            Self::Fin => with_ack(flags::FIN),
            Self::Udp => Packet::udp(link, path, &[0; 32]),
            Self::Fragment => with_ack(0).part(Part::Middle),
        };
        packet.vary(Place::Source, SOURCES).vary(Place::SourcePort, Values::PORTS).template()
    }
}

/// What a flood is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FloodSpec {
    /// What it consists of.
    pub kind: Kind,
    /// Whom it is for.
    pub target: (Ipv4Addr, u16),
    /// Packets a second; 0 means as many as the machine can.
    pub rate: u32,
}

/// Why a flood or a program of the lab could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the object or a map.
    #[error("the lab's XDP programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program.
    #[error("the lab's XDP program: {0}")]
    Program(#[from] aya::programs::ProgramError),
    /// A map operation failed.
    #[error("the lab's XDP maps: {0}")]
    Map(#[from] aya::maps::MapError),
    /// A map of interfaces or CPUs refused one.
    #[error("the lab's XDP maps: {0}")]
    Redirect(#[from] aya::maps::xdp::XdpMapError),
    /// A network namespace could not be made.
    #[error(transparent)]
    Namespace(#[from] crate::namespace::Error),
    /// The operating system refused a thread or a descriptor.
    #[error("the operating system: {0}")]
    System(#[from] std::io::Error),
    /// The object or the topology lacks something.
    #[error("there is no {0}")]
    Missing(&'static str),
}

/// Programs that let everything pass, on the veth ends that need one to receive what XDP sends
/// to them. Dropping it takes them away.
#[derive(Debug)]
pub struct Passes {
    _programs: Vec<Ebpf>,
}

impl Passes {
    /// Attaches them where `topology` needs them, but for the attacker's own interface, which
    /// [`Attacker`] sees to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(topology: &Topology) -> Result<Self, Error> {
        let mut programs = Vec::new();
        let attacker = topology.attacker.as_ref();
        for place in topology.peers_needing_xdp() {
            if attacker.is_some_and(|host| std::ptr::eq(&host.namespace, place.namespace)) {
                continue;
            }
            let interface = place.interface;
            programs.push(place.namespace.run(|| attach(interface, program::PASS))?);
        }
        if topology.spec.arms == Arms::One
            && let Some(name) = attacker.and_then(|host| port_of(topology, host))
        {
            programs.push(topology.switch.namespace.run(|| attach(name, program::PASS))?);
        }
        Ok(Self { _programs: programs })
    }

    /// Attaches them to the balancer's own interfaces: the same path as with a daemon, but for
    /// what the daemon does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_to_balancer(topology: &Topology) -> Result<Self, Error> {
        let Host { namespace, interfaces } = &topology.balancer;
        let one = |interface: &Interface| namespace.run(|| attach(&interface.name, program::PASS));
        Ok(Self { _programs: interfaces.iter().map(one).collect::<Result<_, _>>()? })
    }
}

/// An interface that swallows everything but the search for its MAC address; dropping it opens the
/// interface again.
#[derive(Debug)]
pub struct Hole {
    _program: Ebpf,
}

impl Hole {
    /// Has it swallow what comes in from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self, Error> {
        Ok(Self { _program: namespace.run(|| attach(interface, program::SINK))? })
    }
}

/// The switch's port that a host is plugged into.
fn port_of<'a>(topology: &'a Topology, host: &Host) -> Option<&'a str> {
    let name = host.interfaces.first()?.name.as_str();
    let link = host.namespace.netlink(|netlink| netlink.link(name)).ok()??;
    let ports = &topology.switch.interfaces;
    let port = ports.iter().find(|port| Some(port.index) == link.peer_index)?;
    Some(&port.name)
}

pub(crate) fn attach(interface: &str, name: &'static str) -> Result<Ebpf, Error> {
    let mut ebpf = Ebpf::load(OBJECT)?;
    let program = xdp(&mut ebpf, name)?;
    program.load()?;
    program.attach(interface, XdpMode::Driver)?;
    Ok(ebpf)
}

pub(crate) fn xdp<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, Error> {
    ebpf.program_mut(name).and_then(|found| found.try_into().ok()).ok_or(Error::Missing(name))
}

/// What has come back to the attacker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Frames.
    pub received: u64,
    /// SYN/ACKs among them.
    pub syn_acks: u64,
}

/// The attacker: floods from its interface, and counts and drops what comes back.
#[derive(Debug)]
pub struct Attacker {
    sink: Ebpf,
    interface: u32,
    link: Link,
}

impl Attacker {
    /// Prepares the attacker of `topology`.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn new(topology: &Topology) -> Result<Self, Error> {
        let host = topology.attacker.as_ref().ok_or(Error::Missing("attacker"))?;
        let ours = only_interface(host)?;
        let router = topology
            .balancer
            .interfaces
            .iter()
            .find(|interface| {
                let theirs = &interface.addresses;
                theirs.iter().any(|theirs| shares_network(Some(theirs), ours.addresses.first()))
            })
            .ok_or(Error::Missing("interface of the balancer towards the attacker"))?;
        Self::at(&host.namespace, ours, router.mac)
    }

    /// Prepares one at any interface, opposite an interface with that MAC address: what comes in
    /// there, and is not the search for its own address, no longer reaches the host.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn at(namespace: &Namespace, ours: &Interface, opposite: [u8; 6]) -> Result<Self, Error> {
        let sink = namespace.run(|| attach(&ours.name, program::SINK))?;
        let link = Link { destination: opposite, source: ours.mac };
        Ok(Self { sink, interface: ours.index, link })
    }

    /// From its interface to the balancer's.
    pub const fn link(&self) -> Link {
        self.link
    }

    /// Starts a flood.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(&self, host: &Host, spec: FloodSpec) -> Result<Flood, Error> {
        let target = SocketAddr::new(IpAddr::V4(spec.target.0), spec.target.1);
        self.send(host, &[spec.kind.template(self.link, target)], spec.rate)
    }

    /// Starts a flood of templates in turn, `rate` frames a second over all of them; 0 means as
    /// many as the machine can. A template takes about 300 bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    ///
    /// # Panics
    /// When there are more fields in a template than [`FIELDS`].
    pub fn send(&self, host: &Host, templates: &[Template], rate: u32) -> Result<Flood, Error> {
        let room = (templates.len() as u32).max(TEMPLATES);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map::TEMPLATES, room)
            .map_max_entries(map::SENT, room)
            .load(OBJECT)?;
        let map = ebpf.map_mut(map::TEMPLATES).ok_or(Error::Missing(map::TEMPLATES))?;
        let mut map: Array<_, Words> = Array::try_from(map)?;
        for (at, template) in (0..).zip(templates) {
            map.set(at, words(template), 0)?;
        }
        let mut generator = Generator::new(ebpf, self.interface);
        generator.load(program::FLOOD)?;
        let count = templates.len() as u32;
        let work = Work::start(&host.namespace, move |end| {
            generate(&mut generator, rate, end)?;
            (0..count).map(|at| sent(generator.ebpf(), at)).collect()
        })?;
        Ok(Flood { work })
    }

    /// What has come back so far.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn received(&self) -> Result<Tally, Error> {
        let map = self.sink.map(map::SINK).ok_or(Error::Missing(map::SINK))?;
        let map: PerCpuArray<&MapData, [u64; 3]> = PerCpuArray::try_from(map)?;
        let mut tally = Tally::default();
        for [packets, _, syn_acks] in map.get(&0, 0)?.iter() {
            tally.received += packets;
            tally.syn_acks += syn_acks;
        }
        Ok(tally)
    }
}

/// [`crate::flood_layout::Template`], word by word as it lies in memory.
type Words = [u32; 1 + FIELDS * 7 + FRAME_MAX / 4];
const _: () = assert!(size_of::<Words>() == size_of::<crate::flood_layout::Template>());

fn words(template: &Template) -> Words {
    assert!(template.fields.len() <= FIELDS && template.bytes.len() <= FRAME_MAX, "{template:?}");
    let mut bytes = template.bytes.clone();
    bytes.resize(FRAME_MAX, 0);
    let mut fields = template.fields.clone();
    fields.resize(FIELDS, Field::default());
    let fields = fields.iter().flat_map(|field| {
        let Field { first, count, order, offset, width, sums: [one, other] } = *field;
        [first, count, order, offset, width, one, other]
    });
    let frame = bytes.chunks_exact(4).map(|word| match word {
        &[a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    });
    let mut all = [template.bytes.len() as u32].into_iter().chain(fields).chain(frame);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

fn only_interface(host: &Host) -> Result<&Interface, Error> {
    host.interfaces.first().ok_or(Error::Missing("interface of the attacker"))
}

type Network = (std::net::IpAddr, u8);

fn shares_network(a: Option<&Network>, b: Option<&Network>) -> bool {
    let network = |of: Option<&Network>| match of {
        Some((std::net::IpAddr::V4(address), length)) => {
            Some(address.to_bits().checked_shr(32 - u32::from(*length)).unwrap_or(0))
        }
        _ => None,
    };
    network(a).is_some() && network(a) == network(b)
}

/// A flood that is under way; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    work: Work<Vec<u64>>,
}

impl Flood {
    /// Ends it; gives the number of packets sent.
    ///
    /// # Errors
    /// What ended it before, if anything did.
    pub fn stop(self) -> Result<u64, Error> {
        Ok(self.stop_each()?.iter().sum())
    }

    /// Ends it; gives the number of packets sent of each template.
    ///
    /// # Errors
    /// What ended it before, if anything did.
    pub fn stop_each(self) -> Result<Vec<u64>, Error> {
        self.work.stop()
    }
}

fn generate(generator: &mut Generator, rate: u32, end: &AtomicBool) -> Result<(), Error> {
    let packets = f64::from(rate) * ROUND.as_secs_f64();
    let repeat = if rate == 0 { UNLIMITED_ROUND } else { (packets as u32).max(1) };
    let mut next = Instant::now();
    while !end.load(Ordering::Relaxed) {
        generator.turn(program::FLOOD, repeat)?;
        if rate != 0 {
            next += Duration::from_secs_f64(f64::from(repeat) / f64::from(rate));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    Ok(())
}

/// How often the template of that number was sent.
fn sent(ebpf: &Ebpf, template: u32) -> Result<u64, Error> {
    let map = ebpf.map(map::SENT).ok_or(Error::Missing(map::SENT))?;
    let map: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(map)?;
    Ok(map.get(&template, 0)?.iter().sum())
}
