//! A link that loses, doubles and reorders frames.
//!
//! It is a machine in the middle of a cable ([`Cable::Link`](crate::topology::Cable)) whose XDP
//! program forwards between its two veths: doubles are a broadcast to the same interface twice,
//! and frames to be overtaken wait in a CPU map, whose program sends them round until their time
//! has come. That keeps the CPU behind the sender's busy for as long.

use std::time::Duration;

use aya::maps::{Array, CpuMap, DevMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{ProgramFd, Xdp, XdpMode};
use aya::util::{nr_cpus, online_cpus};
use aya::{Ebpf, EbpfLoader};

use crate::Host;
use crate::flood::{Error, OBJECT, xdp};
use crate::link_layout::{WHOLE, map, program};

/// Frames that may wait at a time; beyond, they are lost.
const HELD_MAX: u32 = 2048;
/// The interfaces of a machine that links: away from the balancer, and towards it.
pub(crate) const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// The way frames go over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards the balancer.
    Inward,
    /// Away from it.
    Outward,
}

/// What one direction does to frames; parts of a thousand, together at most a thousand, since a
/// frame has one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Frames that are lost.
    pub drop: u16,
    /// Frames that arrive twice.
    pub duplicate: u16,
    /// Frames that are held for [`Rates::hold`] and overtaken by what comes meanwhile.
    pub reorder: u16,
    /// How long those are held.
    pub hold: Duration,
}

impl Rates {
    /// A cable like any other.
    pub const NONE: Self = Self { drop: 0, duplicate: 0, reorder: 0, hold: Duration::ZERO };

    /// [`crate::link_layout::Link`], word by word as it lies in memory.
    fn words(self, cpus: u32) -> [u64; 5] {
        let Self { drop, duplicate, reorder, hold } = self;
        let [drop, duplicate, reorder] = [drop, duplicate, reorder].map(u64::from);
        assert!(drop + duplicate + reorder <= WHOLE, "{self:?}: more than all frames");
        // 584 years of nanoseconds.
        [drop, duplicate, reorder, u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX), cpus.into()]
    }
}

/// What a direction has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All frames that came in.
    pub frames: u64,
    /// Those lost.
    pub dropped: u64,
    /// Those doubled.
    pub duplicated: u64,
    /// Those held.
    pub held: u64,
    /// Held ones that have gone on.
    pub released: u64,
    /// Bytes of the longest frame, from its Ethernet header on.
    pub longest: u64,
}

/// A link at work; dropping it cuts the cable. It starts with [`Rates::NONE`] both ways.
///
/// The interfaces at both ends receive from it only while they have an XDP program themselves.
#[derive(Debug)]
pub struct LossyLink {
    inward: Half,
    outward: Half,
}

impl LossyLink {
    /// Starts forwarding on `host`, one of [`Topology::links`](crate::Topology::links). The same
    /// frames in the same order on the same CPU have the same fate with the same seed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the host is no link.
    pub fn start(host: &Host, seed: u64) -> Result<Self, Error> {
        let index = |name| host.interface(name).map(|interface| interface.index);
        let [Some(away), Some(towards)] = INTERFACES.map(index) else {
            return Err(Error::Missing("pair of interfaces to link"));
        };
        let [away_name, towards_name] = INTERFACES;
        // A device map takes interfaces of the namespace of the thread that writes it.
        host.namespace.run(|| {
            let inward = Half::start(away_name, towards, seed)?;
            let outward = Half::start(towards_name, away, !seed)?;
            Ok(Self { inward, outward })
        })
    }

    /// Sets what happens to frames from now on, both ways.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    ///
    /// # Panics
    ///
    /// When the rates are more than all frames.
    pub fn set(&mut self, rates: Rates) -> Result<(), Error> {
        self.set_one(Direction::Inward, rates)?;
        self.set_one(Direction::Outward, rates)
    }

    /// Sets what happens to frames of one direction from now on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    ///
    /// # Panics
    ///
    /// When the rates are more than all frames.
    pub fn set_one(&mut self, direction: Direction, rates: Rates) -> Result<(), Error> {
        let half = match direction {
            Direction::Inward => &mut self.inward,
            Direction::Outward => &mut self.outward,
        };
        half.set(rates)
    }

    /// What a direction has done so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tally(&self, direction: Direction) -> Result<Tally, Error> {
        match direction {
            Direction::Inward => self.inward.tally(),
            Direction::Outward => self.outward.tally(),
        }
    }
}

/// One direction.
#[derive(Debug)]
struct Half {
    ebpf: Ebpf,
    /// CPUs 0 and on that frames may be held on.
    cpus: u32,
}

impl Half {
    /// Forwards from the interface `from` to the one numbered `to`.
    fn start(from: &str, to: u32, seed: u64) -> Result<Self, Error> {
        let online = online_cpus().map_err(|(_, source)| Error::System(source))?;
        let cpus = (0..).zip(&online).take_while(|(cpu, online)| cpu == *online).count() as u32;
        let mut ebpf = EbpfLoader::new().map_max_entries(map::HOLD, cpus).load(OBJECT)?;
        let release = load(&mut ebpf, program::RELEASE)?.fd()?.try_clone()?;
        let hold = ebpf.map_mut(map::HOLD).ok_or(Error::Missing(map::HOLD))?;
        let mut hold = CpuMap::try_from(hold)?;
        for cpu in 0..cpus {
            hold.set(cpu, HELD_MAX, Some(&release), 0)?;
        }
        let out = ebpf.map_mut(map::OUT).ok_or(Error::Missing(map::OUT))?;
        let mut out = DevMap::try_from(out)?;
        for entry in 0..out.len() {
            out.set(entry, to, None::<&ProgramFd>, 0)?;
        }
        let passed = ebpf.map_mut(map::PASSED).ok_or(Error::Missing(map::PASSED))?;
        let possible = nr_cpus().map_err(|(_, source)| Error::System(source))? as u64;
        let seeds = (0..possible).map(|cpu| [seed.wrapping_add(cpu << 32), 0, 0, 0, 0, 0, 0]);
        let mut passed: PerCpuArray<_, [u64; 7]> = PerCpuArray::try_from(passed)?;
        passed.set(0, PerCpuValues::try_from(seeds.collect::<Vec<_>>())?, 0)?;
        load(&mut ebpf, program::LINK)?.attach(from, XdpMode::Driver)?;
        Ok(Self { ebpf, cpus })
    }

    fn set(&mut self, rates: Rates) -> Result<(), Error> {
        let link = self.ebpf.map_mut(map::LINK).ok_or(Error::Missing(map::LINK))?;
        let mut link: Array<_, [u64; 5]> = Array::try_from(link)?;
        Ok(link.set(0, rates.words(self.cpus), 0)?)
    }

    fn tally(&self) -> Result<Tally, Error> {
        let map = self.ebpf.map(map::PASSED).ok_or(Error::Missing(map::PASSED))?;
        let map: PerCpuArray<&MapData, [u64; 7]> = PerCpuArray::try_from(map)?;
        let mut tally = Tally::default();
        for [_, frames, dropped, duplicated, held, released, longest] in map.get(&0, 0)?.iter() {
            tally.frames += frames;
            tally.dropped += dropped;
            tally.duplicated += duplicated;
            tally.held += held;
            tally.released += released;
            tally.longest = tally.longest.max(*longest);
        }
        Ok(tally)
    }
}

fn load<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, Error> {
    let program = xdp(ebpf, name)?;
    program.load()?;
    Ok(program)
}
