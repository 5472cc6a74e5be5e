//! The stage: a client, an attacker, real servers, and the real daemon between them, each in a
//! namespace of its own that nothing outlives.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_control::api::{Client, Stop};
use seawall_control::report::StatsReport;
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::{Attacker, Flood, FloodSpec, Passes};
use seawall_lab::http::{HttpServer, ServerSpec};
use seawall_lab::{Topology, TopologySpec};

use crate::interrupt;

/// The service with the SYN proxy.
pub(super) const PROXIED: SocketAddr = service();
/// The same servers without it.
pub(super) const UNPROXIED: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 253)), 80);
/// Seed of the pattern that servers send.
pub(super) const PATTERN: u64 = 7;
/// Sessions at a time: so few that a flood without the proxy fills its share.
const MAX_SESSIONS: u32 = 65_536;

/// Everything that the demo needs. Fields are dropped in this order: the daemon first.
pub(super) struct Stage {
    daemon: Daemon,
    attacker: Attacker,
    _passes: Passes,
    _servers: Vec<HttpServer>,
    pub(super) topology: Topology,
    api: Client,
}

impl Stage {
    /// Builds it, with `servers` real servers of weights 1, 2, 3 and so on.
    pub(super) fn build(servers: usize) -> Result<Self> {
        let spec = TopologySpec { real_servers: servers, ..TopologySpec::default() };
        let topology = Topology::build(&spec).context("building the network")?;
        let passes = Passes::attach(&topology)?;
        let attacker = Attacker::new(&topology)?;
        let mut running = Vec::new();
        for (number, host) in topology.servers.iter().enumerate() {
            let name = format!("server-{}", number + 1);
            let spec = ServerSpec { seed: PATTERN, ..ServerSpec::new(&name) };
            let address = SocketAddr::new(host.address(), SERVER_PORT);
            running.push(HttpServer::start(&host.namespace, address, spec)?);
        }
        let directory = tempfile::tempdir().context("a directory for the configuration")?;
        interrupt::remove(directory.path().to_owned())?;
        let spec = DaemonSpec {
            unproxied: Some(UNPROXIED),
            weights: (1..=servers as u16).collect(),
            max_sessions: MAX_SESSIONS,
            ..DaemonSpec::new(std::env::current_exe()?)
        };
        let config = spec.config(&topology, &directory.path().join("api.sock"));
        let namespace = &topology.balancer.namespace;
        let daemon = Daemon::start_with(namespace, &spec.executable, &config, directory)
            .context("starting the daemon")?;
        let api = Client::new(daemon.socket());
        let (_passes, _servers) = (passes, running);
        Ok(Self { daemon, attacker, _passes, _servers, topology, api })
    }

    /// The daemon's counters and services.
    pub(super) fn stats(&self) -> Result<StatsReport> {
        Ok(self.api.stats()?)
    }

    /// Starts a flood.
    pub(super) fn flood(&self, spec: FloodSpec) -> Result<Flood> {
        let host = self.topology.attacker.as_ref().context("the attacker")?;
        Ok(self.attacker.start(host, spec)?)
    }

    /// SYN/ACKs that the attacker has got so far.
    pub(super) fn answers(&self) -> Result<u64> {
        Ok(self.attacker.received()?.syn_acks)
    }

    /// CPU time so far.
    pub(super) fn cpu(&mut self) -> Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid()))?;
        // proc(5): the name, in parentheses, may hold anything; utime and stime are the 12th and
        // 13th field after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks =
            |at: usize| fields.split_whitespace().nth(at).and_then(|f| f.parse::<u64>().ok());
        let daemon = ticks(11).zip(ticks(12)).map_or(0, |(user, system)| user + system);
        let all = fs::read_to_string("/proc/stat")?;
        // proc(5): `cpu`, user, nice, system, idle, iowait, irq, softirq.
        let softirq = all.split_whitespace().nth(7).and_then(|f| f.parse().ok()).unwrap_or(0);
        Ok(Cpu { daemon, softirq })
    }

    /// Ends the daemon as an operator would; says whether it went in order.
    pub(super) fn stop(mut self) -> Result<bool> {
        self.api.stop(Stop::End)?;
        let status = self.daemon.wait_for(Duration::from_secs(10))?;
        Ok(status.is_some_and(|status| status.success()))
    }
}

/// CPU time in clock ticks, of which Linux counts 100 a second for every program.
#[derive(Clone, Copy)]
pub(super) struct Cpu {
    daemon: u64,
    softirq: u64,
}

impl Cpu {
    /// Share of one core since `earlier`, of the daemon and of softirqs, in percent.
    pub(super) fn since(self, earlier: Self, elapsed: Duration) -> (f64, f64) {
        let percent = |ticks: u64| ticks as f64 / elapsed.as_secs_f64();
        (percent(self.daemon - earlier.daemon), percent(self.softirq - earlier.softirq))
    }
}
