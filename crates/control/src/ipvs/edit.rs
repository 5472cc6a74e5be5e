//! From a change that is asked for to the configuration that it makes: what IPVS refuses is refused
//! with its errors and in its order (`ip_vs_add_service()` to `ip_vs_del_dest()`,
//! `net/netfilter/ipvs/ip_vs_ctl.c`), then what Seawall cannot do, with the reason.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;

use super::uapi::{IPPROTO_TCP, IPPROTO_UDP, fwd, svc_flag, tun};
use super::{
    Change, DestinationName, DestinationSettings, Refusal, ServiceSettings, Target, reply,
};
use crate::config::{
    Config, Forwarding, Index, MAX_PERSISTENCE, Netmask, PersistenceConfig, Protocol,
    RealServerConfig, Scheduler, SchedulerFlag, ServiceConfig, TimeoutsConfig, TunnelChecksum,
    TunnelConfig, TunnelType, WEEK,
};

fn find(index: &Index, target: Target) -> Option<usize> {
    let Target::Address { address, protocol } = target else { return None };
    index.find(address, known(protocol)?)
}

/// What a change makes of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A service is to be so.
    Put {
        /// Its place among the services; `None` if it is new.
        at: Option<usize>,
        /// What it is to be.
        service: Box<ServiceConfig>,
    },
    /// No service is to be at that place.
    Remove(usize),
    /// None is to be at all.
    RemoveAll,
    /// The counters of the service at that place, or of all, begin at 0.
    Zero(Option<usize>),
    /// Other timeouts.
    Timeouts(TimeoutsConfig),
}

/// What `change` makes of `config`, whose services `index` finds. What only the whole configuration
/// can tell (addresses that others have) is left to whoever applies it.
///
/// # Errors
/// What IPVS says to it, or why Seawall cannot do it.
pub fn edit(config: &Config, index: &Index, change: &Change) -> Result<Edit, Refusal> {
    let existing = |target: &Target| -> Result<usize, Refusal> {
        find(index, *target).ok_or_else(|| Errno::SRCH.into())
    };
    Ok(match change {
        Change::AddService(target, _) if find(index, *target).is_some() => {
            return Err(Errno::EXIST.into());
        }
        Change::AddService(target, settings) => {
            let service = new_service(config, *target)?;
            let service = with_settings(service, settings)?;
            Edit::Put { at: None, service: Box::new(service) }
        }
        Change::SetService(target, settings) => {
            let at = existing(target)?;
            let service = with_settings(config.services[at].clone(), settings)?;
            Edit::Put { at: Some(at), service: Box::new(service) }
        }
        Change::RemoveService(target) => Edit::Remove(existing(target)?),
        Change::AddDestination(target, settings) => {
            let at = existing(target)?;
            let mut service = config.services[at].clone();
            let server = destination(&service, &(*settings)?)?;
            if service.real_servers.iter().any(|it| it.address == server.address) {
                return Err(Errno::EXIST.into());
            }
            service.real_servers.push(server);
            Edit::Put { at: Some(at), service: Box::new(service) }
        }
        Change::SetDestination(target, settings) => {
            let at = existing(target)?;
            let mut service = config.services[at].clone();
            let server = destination(&service, &(*settings)?)?;
            let place = service.real_servers.iter_mut().find(|it| it.address == server.address);
            let place = place.ok_or(Errno::NOENT)?;
            // Of the two that masquerading stands for, it keeps the one that it has.
            let same = reply::forwarding(place.forwarding) == reply::forwarding(server.forwarding);
            let forwarding = if same { place.forwarding } else { server.forwarding };
            *place = RealServerConfig { forwarding, line: place.line, ..server };
            Edit::Put { at: Some(at), service: Box::new(service) }
        }
        Change::RemoveDestination(target, name) => {
            let at = existing(target)?;
            let mut service = config.services[at].clone();
            let address = address(&service, &(*name)?)?;
            let place = service.real_servers.iter().position(|it| it.address == address);
            service.real_servers.remove(place.ok_or(Errno::NOENT)?);
            Edit::Put { at: Some(at), service: Box::new(service) }
        }
        Change::Flush => Edit::RemoveAll,
        Change::Zero(None) => Edit::Zero(None),
        Change::Zero(Some(target)) => Edit::Zero(Some(existing(target)?)),
        Change::SetTimeouts(timeouts) => {
            let mut all = config.timeouts.clone();
            for (place, seconds) in [
                (&mut all.established, timeouts.tcp),
                (&mut all.fin_wait, timeouts.tcp_fin),
                (&mut all.udp, timeouts.udp),
            ] {
                // As in ip_vs_set_timeout(): 0 leaves one as it is.
                match seconds.unwrap_or(0) {
                    0 => {}
                    seconds @ 1..=WEEK => *place = Duration::from_secs(seconds.into()),
                    seconds => {
                        let reason = format!("timeout {seconds}; expected 1 to {WEEK} s");
                        return Err(Refusal { errno: Errno::INVAL, reason });
                    }
                }
            }
            Edit::Timeouts(all)
        }
    })
}

fn known(protocol: u16) -> Option<Protocol> {
    match protocol {
        IPPROTO_TCP => Some(Protocol::Tcp),
        IPPROTO_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

fn refuse<T>(errno: Errno, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { errno, reason: reason.into() })
}

/// A service of no settings yet.
fn new_service(config: &Config, target: Target) -> Result<ServiceConfig, Refusal> {
    let (address, protocol) = match target {
        Target::Address { address, protocol } => (address, protocol),
        Target::Mark { mark, .. } => {
            let reason = format!(
                "a service of firewall mark {mark}: packets are taken before netfilter marks them; \
                 expected an address, a port and a protocol"
            );
            return refuse(Errno::NOPROTOOPT, reason);
        }
    };
    let Some(protocol) = known(protocol) else {
        let reason = format!("a service of protocol {protocol}: expected TCP (6) or UDP (17)");
        return refuse(Errno::NOPROTOOPT, reason);
    };
    Ok(ServiceConfig {
        address,
        protocol,
        persistent: None,
        scheduler: Scheduler::Wlc,
        scheduler_flags: Vec::new(),
        synproxy: false,
        defer: false,
        established_timeout: None,
        udp_timeout: None,
        ops: false,
        toa: false,
        proxy_protocol: None,
        local_addresses: config.ipvs.local_addresses.clone(),
        real_servers: Vec::new(),
        line: 0,
    })
}

fn with_settings(
    mut service: ServiceConfig,
    settings: &ServiceSettings,
) -> Result<ServiceConfig, Refusal> {
    let ServiceSettings { scheduler, flags, mask, timeout, netmask, engine } = settings;
    let named = Scheduler::WORDS.iter().find(|(word, _)| word == scheduler);
    let Some((_, scheduler)) = named else {
        let reason = format!("scheduler {scheduler:?}: expected one of IPVS's from rr to mh");
        return refuse(Errno::NOENT, reason);
    };
    if !engine.is_empty() {
        let reason = format!("persistence engine {engine:?}: there is none");
        return refuse(Errno::NOENT, reason);
    }
    let flags = reply::flags(&service) & !mask | flags & mask;
    let is = |flag: u32| flags & flag != 0;
    let ipv4 = service.address.is_ipv4();
    // `ip_vs_add_service()` looks at the prefix length of every service over IPv6.
    if !ipv4 && !(1..=128).contains(netmask) {
        return refuse(Errno::INVAL, format!("prefix length {netmask}: expected 1 to 128"));
    }
    service.scheduler = *scheduler;
    service.scheduler_flags = match scheduler {
        Scheduler::Sh => vec![SchedulerFlag::ShFallback, SchedulerFlag::ShPort],
        Scheduler::Mh => vec![SchedulerFlag::MhFallback, SchedulerFlag::MhPort],
        _ => Vec::new(),
    };
    let mut bits = [svc_flag::SCHED1, svc_flag::SCHED2].into_iter();
    service.scheduler_flags.retain(|_| bits.next().is_some_and(is));
    service.synproxy = is(svc_flag::SCHED3);
    service.ops = is(svc_flag::ONEPACKET);
    service.persistent = if is(svc_flag::PERSISTENT) {
        if !(1..=MAX_PERSISTENCE).contains(timeout) {
            let reason = format!("persistence of {timeout} s: expected 1 to {MAX_PERSISTENCE}");
            return refuse(Errno::INVAL, reason);
        }
        let netmask = if ipv4 {
            Netmask::V4(Ipv4Addr::from(netmask.to_ne_bytes()))
        } else {
            Netmask::V6(*netmask as u8)
        };
        Some(PersistenceConfig { timeout: *timeout, netmask })
    } else {
        None
    };
    Ok(service)
}

/// Address and port of a real server of `service`.
fn address(service: &ServiceConfig, name: &DestinationName) -> Result<SocketAddr, Refusal> {
    let address = name.address(service.address);
    address.ok_or_else(|| Errno::AFNOSUPPORT.into())
}

fn destination(
    service: &ServiceConfig,
    settings: &DestinationSettings,
) -> Result<RealServerConfig, Refusal> {
    let address = address(service, &settings.name)?;
    let method = settings.forwarding & fwd::MASK;
    if address.is_ipv4() != service.address.is_ipv4() && method != fwd::TUNNEL {
        return refuse(Errno::INVAL, "only tunnels cross from one family to the other");
    }
    let Ok(weight) = u16::try_from(settings.weight) else {
        let reason = format!("weight {}: expected 0 to 65535", settings.weight);
        return refuse(Errno::RANGE, reason);
    };
    if settings.lower > settings.upper {
        let reason = "the lower threshold is above the upper one";
        return refuse(Errno::RANGE, reason);
    }
    let forwarding = match method {
        fwd::MASQ if service.local_addresses.is_some() => Forwarding::FullNat,
        fwd::MASQ => Forwarding::Nat,
        fwd::DROUTE => Forwarding::Dr,
        fwd::TUNNEL => Forwarding::Tunnel,
        _ => return refuse(Errno::INVAL, format!("forwarding method {method}: there is none")),
    };
    let tunnel = match forwarding {
        Forwarding::Tunnel => Some(tunnel(settings)?),
        Forwarding::Nat | Forwarding::FullNat | Forwarding::Dr => None,
    };
    Ok(RealServerConfig {
        address,
        forwarding,
        tunnel,
        weight,
        upper_threshold: settings.upper,
        lower_threshold: settings.lower,
        line: 0,
    })
}

fn tunnel(settings: &DestinationSettings) -> Result<TunnelConfig, Refusal> {
    let &DestinationSettings { tunnel: kind, tunnel_port, tunnel_flags, .. } = settings;
    let kind = match kind {
        tun::IPIP => TunnelType::Ipip,
        tun::GUE if tunnel_port == 0 => return refuse(Errno::INVAL, "GUE needs a port"),
        tun::GUE => TunnelType::Gue,
        tun::GRE => TunnelType::Gre,
        _ => return refuse(Errno::INVAL, format!("tunnel type {kind}: there is none")),
    };
    let checksum = match tunnel_flags {
        0 => TunnelChecksum::None,
        tun::CSUM => TunnelChecksum::Full,
        tun::REMCSUM => TunnelChecksum::Remote,
        _ => return refuse(Errno::INVAL, format!("tunnel flags {tunnel_flags}: there are none")),
    };
    // Only GUE has a port, whatever else comes with one.
    let port = if kind == TunnelType::Gue { tunnel_port } else { 0 };
    Ok(TunnelConfig { kind, port, checksum })
}
