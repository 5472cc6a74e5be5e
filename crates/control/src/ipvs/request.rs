//! What a message asks for: the checks of `ip_vs_genl_parse_service()` and `ip_vs_genl_parse_dest()`
//! (`net/netfilter/ipvs/ip_vs_ctl.c`), in their order and with their errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use super::netlink::{Attributes, Message};
use super::uapi::{AF_INET, AF_INET6, attr, cmd, dest, nlm, svc};

/// `IP_VS_SCHEDNAME_MAXLEN` and `IP_VS_PENAME_MAXLEN`, less the NUL.
const NAME_MAX: usize = 15;

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// That of an address.
    Address {
        /// VIP and port.
        address: SocketAddr,
        /// `IPPROTO_TCP`, `IPPROTO_UDP` or another one.
        protocol: u16,
    },
    /// That of packets with a firewall mark.
    Mark {
        /// Over IPv4, else IPv6.
        ipv4: bool,
        /// The mark.
        mark: u32,
    },
}

/// What a service is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Name of its scheduler.
    pub scheduler: String,
    /// `IP_VS_SVC_F_*`.
    pub flags: u32,
    /// Which of them are meant; the others stay.
    pub mask: u32,
    /// Persistence, seconds.
    pub timeout: u32,
    /// Persistence: an IPv4 netmask in network order, or an IPv6 prefix length.
    pub netmask: u32,
    /// Name of its persistence engine; empty for none.
    pub engine: String,
}

/// Which real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationName {
    /// Its family, `AF_INET` or `AF_INET6`; 0 is the service's.
    pub family: u16,
    /// Its address, the first four bytes if it is IPv4.
    pub address: [u8; 16],
    /// Its port.
    pub port: u16,
}

impl DestinationName {
    /// Address and port, for a service of that address; `None` if its family is neither.
    pub fn address(&self, service: SocketAddr) -> Option<SocketAddr> {
        let ipv4 = match self.family {
            0 => service.is_ipv4(),
            AF_INET => true,
            AF_INET6 => false,
            _ => return None,
        };
        Some(SocketAddr::new(ip(ipv4, self.address), self.port))
    }
}

/// What a real server is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationSettings {
    /// Which one.
    pub name: DestinationName,
    /// `IP_VS_CONN_F_*`, of which the forwarding method counts.
    pub forwarding: u32,
    /// Weight; the kernel takes what is not negative.
    pub weight: i32,
    /// Upper threshold.
    pub upper: u32,
    /// Lower threshold.
    pub lower: u32,
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`.
    pub tunnel: u8,
    /// Port of GUE.
    pub tunnel_port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    pub tunnel_flags: u16,
}

/// Timeouts in seconds; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Established sessions over TCP.
    pub tcp: Option<u32>,
    /// Sessions of TCP after a FIN.
    pub tcp_fin: Option<u32>,
    /// Sessions over UDP.
    pub udp: Option<u32>,
}

/// Something that is to be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new service.
    AddService(Target, ServiceSettings),
    /// Another one in its place.
    SetService(Target, ServiceSettings),
    /// A service less.
    RemoveService(Target),
    /// A new real server; it counts only if there is the service.
    AddDestination(Target, Result<DestinationSettings, Errno>),
    /// Another one in its place, likewise.
    SetDestination(Target, Result<DestinationSettings, Errno>),
    /// A real server less, likewise.
    RemoveDestination(Target, Result<DestinationName, Errno>),
    /// No service at all.
    Flush,
    /// Counters from 0: those of one service, or all.
    Zero(Option<Target>),
    /// Other timeouts.
    SetTimeouts(Timeouts),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Change(Change),
    Services,
    Service(Target),
    /// Those of a service; a target that cannot be read has none.
    Destinations(Option<Target>),
    /// Synchronization daemons, of which there are none.
    Daemons,
    /// The end of one of them.
    RemoveDaemon,
    Timeouts,
    Info,
}

/// Reads a message of the family `IPVS`.
///
/// # Errors
/// What the kernel says: `EOPNOTSUPP` for commands that there are not, `EINVAL` and `ERANGE` for
/// what cannot be read, and `EAFNOSUPPORT` for other families.
pub(super) fn read(message: &Message<'_>) -> Result<Request, Errno> {
    let (command, attributes) = message.command().ok_or(Errno::INVAL)?;
    let attributes = Attributes::new(attributes);
    let dump = message.header.flags & nlm::DUMP == nlm::DUMP;
    let service = || Service::new(&attributes);
    let target = || service().and_then(|service| service.target());
    let change = match (command, dump) {
        (cmd::GET_SERVICE, true) => return Ok(Request::Services),
        (cmd::GET_DEST, true) => return Ok(Request::Destinations(target().ok())),
        (cmd::GET_DAEMON, true) => return Ok(Request::Daemons),
        (cmd::GET_SERVICE, false) => return target().map(Request::Service),
        (cmd::GET_CONFIG, false) => return Ok(Request::Timeouts),
        (cmd::GET_INFO, false) => return Ok(Request::Info),
        (cmd::NEW_DAEMON | cmd::DEL_DAEMON, false) if attributes.get(attr::DAEMON).is_none() => {
            return Err(Errno::INVAL);
        }
        (cmd::DEL_DAEMON, false) => return Ok(Request::RemoveDaemon),
        (cmd::NEW_SERVICE, false) => service()?.change(Change::AddService)?,
        (cmd::SET_SERVICE, false) => service()?.change(Change::SetService)?,
        (cmd::DEL_SERVICE, false) => Change::RemoveService(target()?),
        (cmd::NEW_DEST, false) => Change::AddDestination(target()?, destination(&attributes)),
        (cmd::SET_DEST, false) => Change::SetDestination(target()?, destination(&attributes)),
        (cmd::DEL_DEST, false) => Change::RemoveDestination(target()?, named(&attributes)),
        (cmd::FLUSH, false) => Change::Flush,
        (cmd::ZERO, false) if attributes.get(attr::SERVICE).is_none() => Change::Zero(None),
        (cmd::ZERO, false) => Change::Zero(Some(target()?)),
        (cmd::SET_CONFIG, false) => Change::SetTimeouts(Timeouts {
            tcp: attributes.u32(attr::TIMEOUT_TCP)?,
            tcp_fin: attributes.u32(attr::TIMEOUT_TCP_FIN)?,
            udp: attributes.u32(attr::TIMEOUT_UDP)?,
        }),
        // Sessions are not synchronized by IPVS's protocol.
        (cmd::NEW_DAEMON, false) => return Err(Errno::NOPROTOOPT),
        _ => return Err(Errno::OPNOTSUPP),
    };
    Ok(Request::Change(change))
}

/// The attributes of a service. What is wrong in them is `EINVAL`, whatever it is.
struct Service<'a>(Attributes<'a>);

impl<'a> Service<'a> {
    fn new(attributes: &Attributes<'a>) -> Result<Self, Errno> {
        attributes.nested(attr::SERVICE).map(Self).ok_or(Errno::INVAL)
    }

    fn target(&self) -> Result<Target, Errno> {
        let Self(all) = self;
        let invalid = |_| Errno::INVAL;
        let family = all.u16(svc::AF).map_err(invalid)?;
        let mark = all.u32(svc::FWMARK).map_err(invalid)?;
        let protocol = all.u16(svc::PROTOCOL).map_err(invalid)?;
        let port = all.be16(svc::PORT).map_err(invalid)?;
        let address = all.get(svc::ADDR).map(union);
        let (Some(family), true) =
            (family, mark.is_some() || protocol.and(port).and(address).is_some())
        else {
            return Err(Errno::INVAL);
        };
        let ipv4 = is_ipv4(family)?;
        match (mark, protocol, address, port) {
            (Some(mark), ..) if mark != 0 => Ok(Target::Mark { ipv4, mark }),
            (_, Some(protocol), Some(address), Some(port)) => {
                let address = SocketAddr::new(ip(ipv4, address), port);
                Ok(Target::Address { address, protocol })
            }
            // A mark of 0 is that of no service.
            _ => Ok(Target::Mark { ipv4, mark: 0 }),
        }
    }

    fn change(
        &self,
        change: impl FnOnce(Target, ServiceSettings) -> Change,
    ) -> Result<Change, Errno> {
        let target = self.target()?;
        Ok(change(target, self.settings().map_err(|_| Errno::INVAL)?))
    }

    fn settings(&self) -> Result<ServiceSettings, Errno> {
        let Self(all) = self;
        let flags = all.get(svc::FLAGS).ok_or(Errno::INVAL)?;
        let word = |at: usize| {
            // As nla_memcpy() does: what is not there is 0.
            let mut bytes = [0; 4];
            for (byte, from) in bytes.iter_mut().zip(flags.iter().skip(at)) {
                *byte = *from;
            }
            u32::from_ne_bytes(bytes)
        };
        Ok(ServiceSettings {
            scheduler: all.text(svc::SCHED_NAME, NAME_MAX)?.ok_or(Errno::INVAL)?.to_owned(),
            flags: word(0),
            mask: word(4),
            timeout: all.u32(svc::TIMEOUT)?.ok_or(Errno::INVAL)?,
            netmask: all.u32(svc::NETMASK)?.ok_or(Errno::INVAL)?,
            engine: all.text(svc::PE_NAME, NAME_MAX)?.unwrap_or_default().to_owned(),
        })
    }
}

fn named(attributes: &Attributes<'_>) -> Result<DestinationName, Errno> {
    let all = attributes.nested(attr::DEST).ok_or(Errno::INVAL)?;
    name(&all)
}

fn name(all: &Attributes<'_>) -> Result<DestinationName, Errno> {
    let invalid = |_| Errno::INVAL;
    let address = all.get(dest::ADDR).map(union).ok_or(Errno::INVAL)?;
    let port = all.be16(dest::PORT).map_err(invalid)?.ok_or(Errno::INVAL)?;
    let family = all.u16(dest::ADDR_FAMILY).map_err(invalid)?.unwrap_or(0);
    if family != 0 {
        is_ipv4(family)?;
    }
    Ok(DestinationName { family, address, port })
}

fn destination(attributes: &Attributes<'_>) -> Result<DestinationSettings, Errno> {
    let all = attributes.nested(attr::DEST).ok_or(Errno::INVAL)?;
    let name = name(&all)?;
    let number = |kind| all.u32(kind).map_err(|_| Errno::INVAL)?.ok_or(Errno::INVAL);
    let invalid = |_| Errno::INVAL;
    Ok(DestinationSettings {
        name,
        forwarding: number(dest::FWD_METHOD)?,
        weight: number(dest::WEIGHT)? as i32,
        upper: number(dest::U_THRESH)?,
        lower: number(dest::L_THRESH)?,
        tunnel: all.u8(dest::TUN_TYPE).map_err(invalid)?.unwrap_or(0),
        tunnel_port: all.be16(dest::TUN_PORT).map_err(invalid)?.unwrap_or(0),
        tunnel_flags: all.u16(dest::TUN_FLAGS).map_err(invalid)?.unwrap_or(0),
    })
}

fn is_ipv4(family: u16) -> Result<bool, Errno> {
    match family {
        AF_INET => Ok(true),
        AF_INET6 => Ok(false),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// `union nf_inet_addr`; what is not there is 0.
fn union(value: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (byte, from) in bytes.iter_mut().zip(value) {
        *byte = *from;
    }
    bytes
}

fn ip(ipv4: bool, bytes: [u8; 16]) -> IpAddr {
    if ipv4 {
        let [a, b, c, d, ..] = bytes;
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(bytes).into()
    }
}
