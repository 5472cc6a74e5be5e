//! The network of one run, with everybody's processor time told apart.
//!
//! The balancer's interfaces do their receive work on kernel threads of their own (threaded NAPI),
//! pinned to [`BALANCER_CPU`] with the daemon's or proxy's process. Everything else runs on
//! [`OTHERS_CPU`]: generators, endpoints, and this process.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_datapath::netlink::RouteSpec;
use seawall_lab::connections::Connections;
use seawall_lab::connections_layout::FIRST_CLIENT;
use seawall_lab::cpu::{self, Ticks};
use seawall_lab::flood::{Attacker, Hole, Passes};
use seawall_lab::{Host, Namespace, Topology, TopologySpec};

use super::system::Running;

/// The processor that does the balancer's work.
pub(crate) const BALANCER_CPU: usize = 1;
/// The processor of everybody else.
pub(crate) const OTHERS_CPU: usize = 0;

/// Ticks of [`Ticks`] in a second.
const TICKS: f64 = 100.0;

/// On which processors a run takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The balancer on one of its own, its work in threads of its own.
    Apart,
    /// Everything on one, in the generator's softirqs: the frames stay in its caches.
    Together,
}

/// Processor time taken so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    at: Instant,
    /// By the balancer's receive threads.
    receivers: Duration,
    /// By the balancer's process.
    process: Duration,
    balancer_cpu: Ticks,
}

/// Processor time of a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// The window.
    pub(crate) wall: f64,
    /// The balancer's seconds: receive threads, and the process.
    pub(crate) balancer: f64,
    /// Those of them in the process.
    pub(crate) process: f64,
    /// Seconds that the balancer's processor was busy, with whatever.
    pub(crate) processor: f64,
}

/// A network in which a system under test runs.
pub(crate) struct Rig {
    /// Dropped first: it uses the network.
    pub(crate) running: Running,
    pub(crate) topology: Topology,
    placement: Placement,
    receivers: BTreeSet<u32>,
}

impl Rig {
    /// Builds the network, starts the system in it, and pins its work.
    pub(crate) fn build(
        spec: &TopologySpec,
        placement: Placement,
        start: impl FnOnce(&Topology) -> Result<Running>,
    ) -> Result<Self> {
        let topology = Topology::build(spec).context("building the network")?;
        let mut receivers = BTreeSet::new();
        if placement == Placement::Apart {
            for interface in topology.balancer_interfaces() {
                prepare(&topology.balancer.namespace, interface)?;
            }
            prepare(&topology.client.namespace, "eth0")?;
            prepare(&topology.switch.namespace, "port0")?;
            if let Some(attacker) = &topology.attacker {
                prepare(&attacker.namespace, "eth0")?;
            }
        }
        let before = cpu::napi_threads()?;
        let running = start(&topology)?;
        if placement == Placement::Apart {
            receivers = &cpu::napi_threads()? - &before;
            ensure!(!receivers.is_empty(), "the balancer's interfaces have no threads");
            for pid in receivers.iter().chain(&running.pids) {
                cpu::pin(*pid, BALANCER_CPU)?;
                cpu::prefer(*pid)?;
            }
        }
        let rig = Self { running, topology, placement, receivers };
        rig.place_others()?;
        Ok(rig)
    }

    /// Lets everything but the balancer reach it with real stacks: for peers that do.
    pub(crate) fn open(&self) -> Result<Passes> {
        let passes = Passes::attach(&self.topology)?;
        self.place_others()?;
        Ok(passes)
    }

    /// The attacker's generator.
    pub(crate) fn attacker(&self) -> Result<Attacker> {
        let attacker = Attacker::new(&self.topology)?;
        self.place_others()?;
        Ok(attacker)
    }

    /// A generator at an interface of `host`, opposite one of the balancer's.
    pub(crate) fn generator(
        &self,
        host: &Host,
        interface: &str,
        opposite: &str,
    ) -> Result<Attacker> {
        let ours = host.interface(interface).context("no such interface")?;
        let theirs = self.topology.balancer.interface(opposite).context("no such interface")?;
        let generator = Attacker::at(&host.namespace, ours, theirs.mac)?;
        self.place_others()?;
        Ok(generator)
    }

    /// Clients and a server that are XDP programs; at most `kept` connections can be kept.
    pub(crate) fn connections(&self, target: SocketAddr, kept: u32) -> Result<Connections<'_>> {
        let clients = RouteSpec {
            destination: Ipv4Addr::from_bits(FIRST_CLIENT).into(),
            prefix_len: 10,
            gateway: Some(self.topology.client.address()),
            link_index: None,
        };
        self.topology.balancer.namespace.netlink(|netlink| netlink.add_route(&clients))?;
        let connections = Connections::attach(&self.topology, target, kept)?;
        self.place_others()?;
        Ok(connections)
    }

    /// Pins the receive threads that are not the balancer's.
    fn place_others(&self) -> Result<()> {
        if self.placement == Placement::Apart {
            for pid in &cpu::napi_threads()? - &self.receivers {
                cpu::pin(pid, OTHERS_CPU)?;
                // So that what comes back finds room in their queues.
                cpu::prefer(pid)?;
            }
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let sum = |pids: &mut dyn Iterator<Item = &u32>| pids.map(|pid| cpu::time(*pid)).sum();
        let receivers: std::io::Result<Duration> = sum(&mut self.receivers.iter());
        let process: std::io::Result<Duration> = sum(&mut self.running.pids.iter());
        Ok(Usage {
            at: Instant::now(),
            receivers: receivers?,
            process: process?,
            balancer_cpu: Ticks::of(BALANCER_CPU)?,
        })
    }
}

/// Has an interface do its receive work on a thread from its next XDP program on. The kernel takes
/// that order only while there is one.
fn prepare(namespace: &Namespace, interface: &str) -> Result<()> {
    let _program = Hole::attach(namespace, interface)?;
    cpu::set_threaded(namespace, interface).with_context(|| format!("threads for {interface}"))
}

impl Usage {
    /// What was spent since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let seconds = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64();
        let process = seconds(self.process, earlier.process);
        Spent {
            wall: (self.at - earlier.at).as_secs_f64(),
            balancer: seconds(self.receivers, earlier.receivers) + process,
            process,
            processor: self.balancer_cpu.since(earlier.balancer_cpu).busy as f64 / TICKS,
        }
    }
}
