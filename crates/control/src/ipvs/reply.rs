//! The table as messages: `ip_vs_genl_fill_service()` and `ip_vs_genl_fill_dest()`
//! (`net/netfilter/ipvs/ip_vs_ctl.c`), attribute by attribute in their order.

use std::net::IpAddr;

use super::netlink::Writer;
use super::uapi::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, attr, dest, fwd, info, stats, svc, svc_flag, tun,
};
use crate::config::{
    Config, Forwarding, Netmask, Protocol, RealServerConfig, SchedulerFlag, ServiceConfig,
    TimeoutsConfig, TunnelChecksum, TunnelConfig, TunnelType,
};
use crate::report::{Rates, RealServerReport, ServiceReport, Totals};

/// The flags of a service, as `IP_VS_SVC_F_*`: the SYN proxy is the third flag of a scheduler, which
/// no scheduler has a use for.
pub(super) fn flags(service: &ServiceConfig) -> u32 {
    let mut flags = 0;
    for (on, flag) in [
        (service.persistent.is_some(), svc_flag::PERSISTENT),
        (service.ops, svc_flag::ONEPACKET),
        (service.synproxy, svc_flag::SCHED3),
    ] {
        flags |= if on { flag } else { 0 };
    }
    for flag in &service.scheduler_flags {
        flags |= match flag {
            SchedulerFlag::ShFallback | SchedulerFlag::MhFallback => svc_flag::SCHED1,
            SchedulerFlag::ShPort | SchedulerFlag::MhPort => svc_flag::SCHED2,
        };
    }
    flags
}

pub(super) const fn protocol(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    }
}

/// How stock tools call a forwarding method: FULLNAT is a masquerading that they do not know.
pub(super) const fn forwarding(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Nat | Forwarding::FullNat => fwd::MASQ,
        Forwarding::Dr => fwd::DROUTE,
        Forwarding::Tunnel => fwd::TUNNEL,
    }
}

pub(super) const fn family(ip: IpAddr) -> u16 {
    match ip {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// `union nf_inet_addr`.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// `struct` of no name: flags, and which of them are meant.
fn flag_words(flags: u32) -> [u8; 8] {
    let mut bytes = [0xff; 8];
    bytes[..4].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// A service.
pub(super) fn service(writer: &mut Writer, service: &ServiceConfig, report: &ServiceReport) {
    let ip = service.address.ip();
    let (timeout, netmask) = match service.persistent {
        None => (0, if ip.is_ipv4() { u32::MAX } else { 128 }),
        Some(persistent) => {
            let netmask = match persistent.netmask {
                Netmask::V4(mask) => u32::from_ne_bytes(mask.octets()),
                Netmask::V6(prefix) => prefix.into(),
            };
            (persistent.timeout, netmask)
        }
    };
    writer.nested(attr::SERVICE, |writer| {
        writer.u16(svc::AF, family(ip));
        writer.u16(svc::PROTOCOL, protocol(service.protocol));
        writer.attribute(svc::ADDR, &address(ip));
        writer.be16(svc::PORT, service.address.port());
        writer.text(svc::SCHED_NAME, service.scheduler.word());
        writer.attribute(svc::FLAGS, &flag_words(flags(service) | svc_flag::HASHED));
        writer.u32(svc::TIMEOUT, timeout);
        writer.u32(svc::NETMASK, netmask);
        statistics(writer, (svc::STATS, svc::STATS64), &report.totals, &report.rates);
    });
}

/// A real server; `report` is how it does.
pub(super) fn destination(
    writer: &mut Writer,
    server: &RealServerConfig,
    report: &RealServerReport,
) {
    // Numbers of 32 bits: at most 16,777,216 sessions, and as many templates.
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let ip = server.address.ip();
    let (kind, port, flags) = tunnel(server.tunnel);
    writer.nested(attr::DEST, |writer| {
        writer.attribute(dest::ADDR, &address(ip));
        writer.be16(dest::PORT, server.address.port());
        writer.u32(dest::FWD_METHOD, forwarding(server.forwarding));
        writer.u32(dest::WEIGHT, server.weight.into());
        writer.u8(dest::TUN_TYPE, kind);
        writer.be16(dest::TUN_PORT, port);
        writer.u16(dest::TUN_FLAGS, flags);
        writer.u32(dest::U_THRESH, server.upper_threshold);
        writer.u32(dest::L_THRESH, server.lower_threshold);
        writer.u32(dest::ACTIVE_CONNS, number(report.totals.active_connections));
        writer.u32(dest::INACT_CONNS, number(report.totals.inactive_connections));
        writer.u32(dest::PERSIST_CONNS, number(report.totals.persistent_connections));
        writer.u16(dest::ADDR_FAMILY, family(ip));
        statistics(writer, (dest::STATS, dest::STATS64), &report.totals, &report.rates);
    });
}

/// Type, port and flags of a tunnel, as `IP_VS_CONN_F_TUNNEL_TYPE_*` and
/// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
fn tunnel(tunnel: Option<TunnelConfig>) -> (u8, u16, u16) {
    let Some(TunnelConfig { kind, port, checksum }) = tunnel else { return (0, 0, 0) };
    let kind = match kind {
        TunnelType::Ipip => tun::IPIP,
        TunnelType::Gue => tun::GUE,
        TunnelType::Gre => tun::GRE,
    };
    let flags = match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => tun::CSUM,
        TunnelChecksum::Remote => tun::REMCSUM,
    };
    (kind, port, flags)
}

/// Both widths: numbers that do not fit into 32 bits lose their upper ones, as in the kernel.
fn statistics(writer: &mut Writer, (narrow, wide): (u16, u16), totals: &Totals, rates: &Rates) {
    let bytes = [(stats::INBYTES, totals.in_bytes), (stats::OUTBYTES, totals.out_bytes)];
    let counts = [
        (stats::CONNS, totals.connections),
        (stats::INPKTS, totals.in_packets),
        (stats::OUTPKTS, totals.out_packets),
    ];
    let rates = [
        (stats::CPS, rates.cps),
        (stats::INPPS, rates.in_pps),
        (stats::OUTPPS, rates.out_pps),
        (stats::INBPS, rates.in_bps),
        (stats::OUTBPS, rates.out_bps),
    ];
    writer.nested(narrow, |writer| {
        counts.iter().for_each(|(kind, value)| writer.u32(*kind, *value as u32));
        bytes.iter().for_each(|(kind, value)| writer.u64(*kind, *value));
        rates.iter().for_each(|(kind, value)| writer.u32(*kind, *value as u32));
    });
    writer.nested(wide, |writer| {
        for (kind, value) in counts.iter().chain(&bytes).chain(&rates) {
            writer.u64(*kind, *value);
        }
    });
}

/// Timeouts, as `IPVS_CMD_SET_CONFIG` has them.
pub(super) fn timeouts(writer: &mut Writer, timeouts: &TimeoutsConfig) {
    for (kind, timeout) in [
        (attr::TIMEOUT_TCP, timeouts.established),
        (attr::TIMEOUT_TCP_FIN, timeouts.fin_wait),
        (attr::TIMEOUT_UDP, timeouts.udp),
    ] {
        writer.u32(kind, u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
    }
}

/// Version and size of the table.
pub(super) fn info(writer: &mut Writer, config: &Config) {
    writer.u32(info::VERSION, info::VERSION_CODE);
    writer.u32(info::CONN_TAB_SIZE, config.max_sessions);
}
