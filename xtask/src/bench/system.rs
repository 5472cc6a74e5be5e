//! The systems that are measured, each with a configuration that a careful user would choose.

use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use seawall_datapath::netlink::{AddressSpec, RouteSpec};
use seawall_lab::bound::{Bound, BoundPrograms};
use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, SERVICE_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::tap::{counted, received, sent};
use seawall_lab::topology::VIP;
use seawall_lab::{Namespace, ProcessGuard, Topology};
use tempfile::NamedTempFile;

/// The balancer's interface towards the attacker.
pub(crate) const ATTACKED: &str = "eth2";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// The daemon, with the SYN proxy, FULLNAT.
    Seawall,
    /// An XDP program that does nothing else.
    Limit(Limit),
    /// nftables with SYNPROXY before routing.
    NftSynproxy,
    /// nftables that drops what connection tracking finds invalid.
    NftConntrack,
    /// nftables with DNAT to the real server.
    NftDnat,
    /// The kernel's routing, and nothing else.
    Routing,
    /// HAProxy in TCP mode.
    Haproxy,
    /// A listening socket of the balancer's own, with `tcp_syncookies=2`.
    Listener,
}

/// What the limit does with each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Drop,
    Reflect,
    /// Out of the other interface.
    Redirect,
    /// Drops the attacker's; the kernel forwards the rest.
    DropAttack,
}

impl System {
    /// As the table, the JSON and the charts call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Seawall => super::outcome::SEAWALL,
            Self::Limit(_) => super::outcome::LIMIT,
            Self::NftSynproxy => "nft-synproxy",
            Self::NftConntrack => "nft-conntrack",
            Self::NftDnat => "nft-dnat",
            Self::Routing => "routing",
            Self::Haproxy => "haproxy",
            Self::Listener => "listener",
        }
    }

    /// The program that it needs and a machine may lack.
    pub(crate) const fn needs(self) -> Option<&'static str> {
        match self {
            Self::NftSynproxy | Self::NftConntrack | Self::NftDnat => Some("nft"),
            Self::Haproxy => Some("haproxy"),
            Self::Seawall | Self::Limit(_) | Self::Routing | Self::Listener => None,
        }
    }

    /// Where its clients ask.
    pub(crate) fn target(self, topology: &Topology) -> SocketAddr {
        match self {
            Self::Seawall | Self::NftDnat | Self::Haproxy => service(),
            Self::Limit(Limit::Drop | Limit::Reflect) => service(),
            Self::Limit(Limit::Redirect | Limit::DropAttack)
            | Self::NftSynproxy
            | Self::NftConntrack
            | Self::Routing => SocketAddr::new(topology.servers[0].address(), SERVER_PORT),
            Self::Listener => {
                let interface = topology.balancer.interface(ATTACKED);
                let address = interface.and_then(|interface| interface.addresses.first());
                let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(ip, _)| *ip);
                SocketAddr::new(address, SERVICE_PORT)
            }
        }
    }

    /// Starts it on the balancer.
    pub(crate) fn start(self, topology: &Topology, executable: &Path) -> Result<Running> {
        let balancer = &topology.balancer.namespace;
        let mut running = Running::default();
        match self {
            Self::Seawall => {
                running = Daemon::start(topology, &DaemonSpec::new(executable))?.into();
            }
            Self::Limit(limit) => {
                let attach = |interface, bound| BoundPrograms::attach(balancer, interface, bound);
                running.bounds = match limit {
                    Limit::Drop => vec![attach(ATTACKED, Bound::Drop)?],
                    Limit::Reflect => vec![attach(ATTACKED, Bound::Reflect)?],
                    Limit::Redirect => {
                        vec![BoundPrograms::redirect(&topology.balancer, ["eth0", "eth1"])?]
                    }
                    Limit::DropAttack => vec![
                        attach("eth0", Bound::Pass)?,
                        attach("eth1", Bound::Pass)?,
                        attach(ATTACKED, Bound::Drop)?,
                    ],
                };
            }
            Self::NftSynproxy | Self::NftConntrack | Self::NftDnat | Self::Routing => {
                running.passes = Some(Passes::attach_to_balancer(topology)?);
                answer_by_attacker(topology)?;
                match self {
                    Self::NftSynproxy => nft(balancer, SYNPROXY)?,
                    Self::NftConntrack => nft(balancer, CONNTRACK)?,
                    Self::NftDnat => {
                        add_vip(topology)?;
                        nft(balancer, DNAT)?;
                    }
                    _ => return Ok(running),
                }
                balancer.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")?;
            }
            Self::Haproxy => {
                running.passes = Some(Passes::attach_to_balancer(topology)?);
                add_vip(topology)?;
                // Its own connections to the server take a port each.
                balancer.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
                balancer.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
                let (file, mut process) = haproxy(balancer, topology.servers[0].address())?;
                running.pids.push(process.child().id());
                running.processes.push(process);
                running.file = Some(file);
            }
            Self::Listener => {
                running.passes = Some(Passes::attach_to_balancer(topology)?);
                answer_by_attacker(topology)?;
                balancer.sysctl("net.ipv4.tcp_syncookies", "2")?;
                let address = self.target(topology);
                running.listener = Some(balancer.run(|| TcpListener::bind(address))?);
            }
        }
        Ok(running)
    }
}

/// The SYN proxy as the manual page of nft(8) has it; what it need not see is dropped before
/// connection tracking would collect it.
const SYNPROXY: &str = "
table ip bench {
    chain early {
        type filter hook prerouting priority -500; policy accept;
        ip daddr 192.168.7.0/24 ip frag-off & 0x3fff != 0 drop
        ip daddr 192.168.7.0/24 meta l4proto udp drop
    }
    chain raw {
        type filter hook prerouting priority raw; policy accept;
        tcp dport 8080 tcp flags syn / fin,syn,rst,ack notrack
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        tcp dport 8080 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
        ct state invalid drop
    }
}";

const CONNTRACK: &str = "
table ip bench {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
    }
}";

const DNAT: &str = "
table ip bench {
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr 10.0.0.254 tcp dport 80 dnat to 192.168.7.10:8080
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
    }
}";

/// Starts HAProxy with one thread, as the balancer has one processor, and waits until it listens.
fn haproxy(namespace: &Namespace, server: IpAddr) -> Result<(NamedTempFile, ProcessGuard)> {
    let mut file = NamedTempFile::with_prefix("seawall-haproxy-")?;
    write!(
        file,
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen bench\n  bind {}\n  server one {}\n",
        service(),
        SocketAddr::new(server, SERVER_PORT),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file.path());
    let log = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?);
    let mut process = namespace.spawn_process(command).context("haproxy")?;
    for _ in 0..100 {
        if namespace.run(|| TcpStream::connect(service())).is_ok() {
            return Ok((file, process));
        }
        if process.wait_for(Duration::from_millis(50))?.is_some() {
            let mut said = String::new();
            (&log).rewind()?;
            (&log).read_to_string(&mut said)?;
            bail!("haproxy ended: {}", said.trim_end());
        }
    }
    bail!("haproxy does not listen")
}

/// Gives the balancer the service's address.
fn add_vip(topology: &Topology) -> Result<()> {
    let link_index = topology.balancer.interface("eth0").context("no eth0")?.index;
    let address = AddressSpec { link_index, address: VIP.into(), prefix_len: 32, deprecated: true };
    topology.balancer.namespace.netlink(|netlink| netlink.add_address(&address))?;
    Ok(())
}

/// Sends what is for a flood's made-up senders back to the attacker.
fn answer_by_attacker(topology: &Topology) -> Result<()> {
    let Some(attacker) = &topology.attacker else { return Ok(()) };
    let route = RouteSpec {
        destination: Ipv4Addr::UNSPECIFIED.into(),
        prefix_len: 0,
        gateway: Some(attacker.address()),
        link_index: None,
    };
    Ok(topology.balancer.namespace.netlink(|netlink| netlink.add_route(&route))?)
}

/// Loads a rule set.
fn nft(namespace: &Namespace, rules: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = namespace.run(|| command.spawn()).context("nft")?;
    child.stdin.take().context("nft has no input")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A system at work; it ends when this is dropped.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) daemon: Option<Daemon>,
    bounds: Vec<BoundPrograms>,
    passes: Option<Passes>,
    listener: Option<TcpListener>,
    processes: Vec<ProcessGuard>,
    /// A configuration.
    file: Option<NamedTempFile>,
    /// Processes whose time is the balancer's.
    pub(crate) pids: Vec<u32>,
}

impl From<Daemon> for Running {
    fn from(mut daemon: Daemon) -> Self {
        Self { pids: vec![daemon.pid()], daemon: Some(daemon), ..Self::default() }
    }
}

impl Running {
    /// The sum of two of the daemon's counters.
    pub(crate) fn counters(&self, names: [&str; 2]) -> Result<u64> {
        let daemon = self.daemon.as_ref().context("no daemon")?;
        let stats = seawall_control::api::Client::new(daemon.socket()).stats()?;
        Ok(names.iter().filter_map(|name| stats.counters.get(*name)).sum())
    }
}

/// What a system has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Frames that came in from the attacker.
    pub(crate) arrived: u64,
    /// SYNs answered.
    pub(crate) answered: u64,
    /// Frames let through to the real servers.
    pub(crate) let_through: u64,
    /// Frames that the system says it has refused; what it does not say is `None`.
    pub(crate) refused: Option<u64>,
}

impl Counts {
    pub(crate) fn take(system: System, running: &Running, topology: &Topology) -> Result<Self> {
        let balancer = &topology.balancer.namespace;
        let all = received(balancer)?;
        let arrived = all.iter().find(|(name, _)| name == ATTACKED).context("no such interface")?.1;
        let mut counts = Self { arrived, ..Self::default() };
        match system {
            System::Seawall => {
                let daemon = running.daemon.as_ref().context("no daemon")?;
                let stats = seawall_control::api::Client::new(daemon.socket()).stats()?;
                let count = |name: &str| stats.counters.get(name).copied().unwrap_or(0);
                counts.answered = count("synproxy_cookie_sent");
                counts.let_through = count("forward_in");
                let drops = seawall_control::api::Client::new(daemon.socket()).drops()?;
                counts.refused = Some(drops.drops.iter().map(|row| row.value).sum());
            }
            System::Limit(Limit::Reflect) => counts.answered = arrived,
            System::Limit(Limit::Drop | Limit::DropAttack) => counts.refused = Some(arrived),
            System::NftSynproxy => {
                counts.answered = synproxy_syns(balancer)?;
                counts.let_through = sent(balancer, "eth1")?;
            }
            System::Limit(Limit::Redirect)
            | System::NftConntrack
            | System::NftDnat
            | System::Routing
            | System::Haproxy => counts.let_through = sent(balancer, "eth1")?,
            System::Listener => {
                counts.answered = counted(balancer, "netstat", "TcpExt:", "SyncookiesSent")?;
            }
        }
        Ok(counts)
    }
}

impl super::window::Counts for Counts {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            arrived: self.arrived - earlier.arrived,
            answered: self.answered - earlier.answered,
            let_through: self.let_through - earlier.let_through,
            refused: self.refused.zip(earlier.refused).map(|(now, then)| now - then),
        }
    }
}

/// SYNs that SYNPROXY has answered: a row of hexadecimal numbers a processor, the second of each
/// (`entries`, then `syn_received`).
fn synproxy_syns(namespace: &Namespace) -> Result<u64> {
    let path = "/proc/thread-self/net/stat/synproxy";
    let text = namespace.run(|| std::fs::read_to_string(path)).context(path)?;
    parse_synproxy(&text).context("an unknown form of the statistics of SYNPROXY")
}

fn parse_synproxy(text: &str) -> Option<u64> {
    let at = text.lines().next()?.split_whitespace().position(|name| name == "syn_received")?;
    let rows = text.lines().skip(1);
    rows.map(|row| u64::from_str_radix(row.split_whitespace().nth(at)?, 16).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::parse_synproxy;

    #[test]
    fn the_statistics_of_synproxy_are_hexadecimal() {
        let text = "entries\t\tsyn_received\tcookie_invalid\n00000000\t0000000a\t00000001\n\
                    00000000\t00000010\t00000002\n";
        assert_eq!(parse_synproxy(text), Some(26));
        assert_eq!(parse_synproxy("entries\n0\n"), None);
    }
}
