//! What an attack is made on: clients, an attacker, real servers and the real daemon.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path as File, PathBuf};

use seawall_control::api::Client;
use seawall_datapath::netlink::AddressSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

use super::Error;
use crate::daemon::{Daemon, SERVER_PORT};
use crate::echo::EchoServer;
use crate::flood::{Attacker, Hole, Passes};
use crate::http::{HttpServer, ServerSpec};
use crate::topology::{LOCAL_ADDRESSES, VIP, beside};
use crate::{Host, Namespace, Topology, TopologySpec};

/// The services, all on the VIPs of both families.
pub(super) mod port {
    /// Proxied, before the two servers that answer. Everybody else's.
    pub(crate) const WEB: u16 = 80;
    /// Proxied, all weights 0.
    pub(crate) const CLOSED: u16 = 81;
    /// Proxied, before a server that never answers.
    pub(crate) const HOLE: u16 = 82;
    /// Proxied, with [`super::FEW_PORTS`] local ports, before a server that only accepts.
    pub(crate) const FEW: u16 = 83;
    /// Proxied, before servers that accept and never read.
    pub(crate) const SLEEPY: u16 = 84;
    /// Proxied, and the handshake waits for data.
    pub(crate) const DEFER: u16 = 85;
    /// Without the proxy.
    pub(crate) const PLAIN: u16 = 86;
    /// UDP, before the two servers that answer; the last port, so that floods can leave it out.
    pub(crate) const DATAGRAMS: u16 = 65_535;
}

/// Local ports of [`port::FEW`].
pub(super) const FEW_PORTS: u64 = 64;
/// Sessions at a time; the fewest that the daemon can be told.
pub(super) const SESSIONS: u32 = 1024;
/// Sessions at a time where they are not what is attacked.
const MANY_SESSIONS: u32 = 1 << 17;
/// The client has as many addresses beside its own, from 10.0.0.10 and fd00:10::10 on.
const CLIENTS: u8 = 16;
/// Where the servers listen that never read.
const SLEEPY_PORT: u16 = 9090;
/// Handshakes that they complete without accepting (`net.core.somaxconn` must allow it).
const BACKLOG: i32 = 4096;
const LOCAL_FEW: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 110);

/// An IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// An IPv4 address, or the one beside it.
    pub(super) const fn of(self, address: Ipv4Addr) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(address),
            Self::V6 => IpAddr::V6(beside(address)),
        }
    }

    /// A service.
    pub(super) const fn vip(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(VIP), port)
    }
}

/// How many sessions the daemon has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// More than any attack opens.
    Ample,
    /// [`SESSIONS`].
    Scarce,
}

/// Everything that attacks need. Fields are dropped in this order: the daemon first.
pub struct Stage {
    running: Option<Running>,
    pub(super) attacker: Attacker,
    executable: PathBuf,
    directory: TempDir,
    _passes: Passes,
    _hole: Hole,
    _servers: Vec<HttpServer>,
    _sleepy: Vec<Socket>,
    _echoes: Vec<EchoServer>,
    pub(super) topology: Topology,
}

/// The daemon.
struct Running {
    daemon: Daemon,
    room: Room,
}

impl Stage {
    /// Builds the network around `topology`; daemons are processes of `executable`.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn new(topology: Topology, executable: &File) -> Result<Self, Error> {
        let passes = Passes::attach(&topology)?;
        let attacker = Attacker::new(&topology)?;
        add_clients(&topology.client)?;
        let [first, second, hole] = topology.servers.as_slice() else {
            return Err(Error::Unexpected("the attacks need three servers".to_owned()));
        };
        let (mut servers, mut sleepy, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
        for (host, name) in [(first, "server-1"), (second, "server-2")] {
            for address in [host.address(), host.address6()] {
                let web = SocketAddr::new(address, SERVER_PORT);
                servers.push(HttpServer::start(&host.namespace, web, ServerSpec::new(name))?);
                echoes.push(EchoServer::start(&host.namespace, web, name)?);
                sleepy.push(listen(&host.namespace, SocketAddr::new(address, SLEEPY_PORT))?);
            }
        }
        let hole = Hole::attach(&hole.namespace, "eth0")?;
        let directory = TempDir::with_prefix("seawall-attack-")?;
        let (executable, _passes, _hole) = (executable.to_owned(), passes, hole);
        let (running, _servers, _sleepy, _echoes) = (None, servers, sleepy, echoes);
        Ok(Self {
            running,
            attacker,
            executable,
            directory,
            _passes,
            _hole,
            _servers,
            _sleepy,
            _echoes,
            topology,
        })
    }

    /// What to build for it.
    pub fn spec() -> TopologySpec {
        TopologySpec { real_servers: 3, ..TopologySpec::default() }
    }

    /// Sees to it that a daemon with that much room runs. `Scarce` starts a new one each time, for
    /// what filled the last one up stays for a while.
    pub(super) fn prepare(&mut self, room: Room) -> Result<(), Error> {
        if room == Room::Ample && self.running.as_ref().is_some_and(|now| now.room == room) {
            return Ok(());
        }
        // One of other room does not take over what another has left.
        if let Some(running) = self.running.take() {
            running.daemon.end()?;
        }
        let directory = TempDir::with_prefix_in("daemon-", self.directory.path())?;
        let config = self.config(room, &directory.path().join("api.sock"));
        let namespace = &self.topology.balancer.namespace;
        let daemon = Daemon::start_with(namespace, &self.executable, &config, directory)?;
        self.running = Some(Running { daemon, room });
        Ok(())
    }

    /// What would stay if the process were killed.
    pub fn directory(&self) -> &File {
        self.directory.path()
    }

    /// The daemon's API.
    pub(super) fn api(&self) -> Result<Client, Error> {
        let running = self.running.as_ref().ok_or_else(not_running)?;
        Ok(Client::new(running.daemon.socket()))
    }

    /// The daemon's process id.
    pub(super) fn pid(&mut self) -> Result<u32, Error> {
        Ok(self.running.as_mut().ok_or_else(not_running)?.daemon.pid())
    }

    /// The client's other addresses.
    pub(super) fn clients(family: Family) -> impl Iterator<Item = IpAddr> {
        (0..CLIENTS).map(move |number| family.of(client(number)))
    }

    /// The servers that answer.
    pub(super) fn servers(&self, family: Family) -> Vec<SocketAddr> {
        let hosts = self.topology.servers.iter().take(2);
        hosts.map(|host| SocketAddr::new(address(host, family), SERVER_PORT)).collect()
    }

    fn config(&self, room: Room, socket: &File) -> String {
        let [first, .., last] = LOCAL_ADDRESSES;
        let sessions = match room {
            Room::Ample => MANY_SESSIONS,
            Room::Scarce => SESSIONS,
        };
        let mut text = format!(
            "interfaces = {:?}\nmax_sessions = {sessions}\n\n[api]\nsocket = {socket:?}\n\n\
             [[local_addresses]]\nname = \"default\"\naddresses = [\"{first}-{last}\", \"{}-{}\"]\n\n\
             [[local_addresses]]\nname = \"few\"\naddresses = [\"{LOCAL_FEW}\", \"{}\"]\n\
             port_min = 6000\nport_max = {}\n",
            self.topology.balancer_interfaces(),
            beside(first),
            beside(last),
            beside(LOCAL_FEW),
            6000 + FEW_PORTS - 1,
        );
        for family in Family::ALL {
            for (port, weight, to, keys) in [
                (port::WEB, 1, SERVER_PORT, "synproxy = \"on\""),
                (port::CLOSED, 0, SERVER_PORT, "synproxy = \"on\""),
                (port::HOLE, 1, SERVER_PORT, "synproxy = \"on\""),
                (port::FEW, 1, SLEEPY_PORT, "synproxy = \"on\""),
                (port::SLEEPY, 1, SLEEPY_PORT, "synproxy = \"on\""),
                (port::DEFER, 1, SERVER_PORT, "synproxy = \"on\"\ndefer = true"),
                (port::PLAIN, 1, SERVER_PORT, "synproxy = \"off\""),
                (port::DATAGRAMS, 1, SERVER_PORT, "synproxy = \"off\""),
            ] {
                let servers = match port {
                    port::HOLE => 2..3,
                    port::FEW => 0..1,
                    _ => 0..2,
                };
                let protocol = if port == port::DATAGRAMS { "udp" } else { "tcp" };
                let pool = if port == port::FEW { "few" } else { "default" };
                // Writing to a `String` cannot fail.
                let _ = write!(
                    text,
                    "\n[[service]]\naddress = \"{}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
                     {keys}\nlocal_addresses = \"{pool}\"\n",
                    family.vip(port),
                );
                for host in &self.topology.servers[servers] {
                    let _ = write!(
                        text,
                        "\n[[service.real_server]]\naddress = \"{}\"\nforwarding = \"fullnat\"\n\
                         weight = {weight}\n",
                        SocketAddr::new(address(host, family), to),
                    );
                }
            }
        }
        text
    }
}

fn not_running() -> Error {
    Error::Unexpected("no daemon runs".to_owned())
}

fn address(host: &Host, family: Family) -> IpAddr {
    match family {
        Family::V4 => host.address(),
        Family::V6 => host.address6(),
    }
}

/// The client's other address of that number.
const fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + number)
}

fn add_clients(host: &Host) -> Result<(), Error> {
    let link_index = host.interfaces.first().map_or(0, |interface| interface.index);
    host.namespace.netlink(|netlink| {
        for family in Family::ALL {
            for address in Stage::clients(family) {
                let prefix_len = if address.is_ipv4() { 24 } else { 64 };
                let deprecated = false;
                netlink.add_address(&AddressSpec {
                    link_index,
                    address,
                    prefix_len,
                    deprecated,
                })?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// A socket whose kernel completes handshakes, and that nobody accepts from.
fn listen(namespace: &Namespace, address: SocketAddr) -> io::Result<Socket> {
    namespace.run(|| {
        let listener =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            listener.set_only_v6(true)?;
        }
        listener.set_reuse_address(true)?;
        listener.bind(&address.into())?;
        listener.listen(BACKLOG)?;
        Ok(listener)
    })
}
