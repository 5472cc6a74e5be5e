//! From the configuration file to what the engine and the kernel are told.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use seawall_control::config::{self, ConfigError, SchedulerFlag, TunnelChecksum, TunnelType};
use seawall_control::limits::{Sizes, WorstCaseMemory};
use seawall_datapath::Limits;
use seawall_datapath::netlink::{self, Netlink, Route, RouteKind};
use seawall_engine::scheduler::{Flags, Kind};
use seawall_engine::{
    Config, Engine, Forwarding, Gateway, Introduction, LocalPool, Netmask, Persistence,
    ProxyProtocol, RealServerSpec, ServiceSpec, StoreLimits, Timeouts,
};
use seawall_fastpath::layout::{
    Bucket, Filter, LEDGER_RECORDS, LedgerRecord, NO_SCALE, Slot, Template, Tunnel, Wrapping,
    bucket_count, switch,
};
use seawall_fastpath::native::NativeMemory;
use seawall_fastpath::{Addr, TcpState, Transport};

use super::interfaces::Interfaces;

/// Bytes of each ring.
const RING_BYTES: u32 = 16 << 20;

/// How a real server is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Way {
    /// The neighbour that its packets go to.
    pub(super) gateway: Gateway,
    /// The address that the kernel would send from: a tunnel's source.
    pub(super) source: Option<Addr>,
}

/// How real servers are reached, service by service; `None` is one that is not, and need not be yet,
/// for it comes from the IPVS socket.
pub(super) type Ways = Vec<Vec<Option<Way>>>;

/// How each real server is reached.
///
/// # Errors
/// Those that are not, with their lines.
pub(super) fn gateways(
    config: &config::Config,
    interfaces: &Interfaces,
    netlink: &mut Netlink,
) -> Result<Ways> {
    let mut errors = Vec::new();
    let mut all = Vec::new();
    for service in &config.services {
        let mut gateways = Vec::new();
        for server in &service.real_servers {
            let route = netlink.route_to(server.address.ip()).context("asking for a route")?;
            match way_to(&route, server, interfaces) {
                Ok(way) => gateways.push(Some(way)),
                Err(_) if server.line == 0 => gateways.push(None),
                Err((message, remedy)) => {
                    let message = format!("real server {}: {message}", server.address);
                    errors.push(config.error_at(server.line, message, remedy));
                }
            }
            if let Some(error) = used_source(config, service, &route) {
                errors.push(error);
            }
        }
        all.push(gateways);
    }
    fail_on(errors)?;
    Ok(all)
}

/// How each real server is reached, as far as it is.
pub(super) fn reachable(
    config: &config::Config,
    interfaces: &Interfaces,
    netlink: &mut Netlink,
) -> Result<Ways, netlink::Error> {
    let mut look_up = |server: &config::RealServerConfig| {
        Ok(way_to(&netlink.route_to(server.address.ip())?, server, interfaces).ok())
    };
    let services = config.services.iter();
    services.map(|service| service.real_servers.iter().map(&mut look_up).collect()).collect()
}

/// Whether a route leads to this machine itself.
pub(super) fn is_own(route: &Route) -> bool {
    route.kind == RouteKind::Local
}

/// How a route leads to `destination`.
pub(super) fn way(
    route: &Route,
    destination: IpAddr,
    interfaces: &Interfaces,
) -> Result<Way, (String, &'static str)> {
    let gateway = gateway(route, destination, interfaces)?;
    Ok(Way { gateway, source: route.preferred_source.map(Addr::from) })
}

/// How the route to a real server leads there.
fn way_to(
    route: &Route,
    server: &config::RealServerConfig,
    interfaces: &Interfaces,
) -> Result<Way, (String, &'static str)> {
    let way = way(route, server.address.ip(), interfaces)?;
    if way.source.is_none() && server.tunnel.is_some() {
        let message = "this machine has no address to send it wrapped packets from";
        return Err((message.into(), "give the interface towards it one of its family"));
    }
    Ok(way)
}

/// The neighbour that a route leads to.
fn gateway(
    route: &Route,
    destination: IpAddr,
    interfaces: &Interfaces,
) -> Result<Gateway, (String, &'static str)> {
    if is_own(route) {
        let remedy = "a real server must be another machine: what XDP forwards never comes back to this \
                      one's sockets";
        return Err(("its address is this machine's own".into(), remedy));
    }
    if route.kind != RouteKind::Unicast {
        return Err(("there is no route to it".into(), "add a route with `ip route add`"));
    }
    if interfaces.get(route.link_index).is_none() {
        let message = format!(
            "its route leaves by interface {}, neither one of ours nor a VLAN on one",
            route.link_index
        );
        return Err((message, "add that interface to `interfaces`, or change the route"));
    }
    let address = Addr::from(route.gateway.unwrap_or(destination));
    Ok(Gateway { interface: route.link_index, address })
}

/// A local address that the kernel itself sends from would take packets from its own sockets.
fn used_source(
    config: &config::Config,
    service: &config::ServiceConfig,
    route: &Route,
) -> Option<ConfigError> {
    let source = route.preferred_source?;
    let entry = in_pool(config, service, source)?;
    Some(config.error_at(
        entry.line,
        format!("local address {source} is the one this machine itself sends from"),
        "leave it out of the pool",
    ))
}

/// The range that has the address, in the pool of a service.
pub(super) fn in_pool<'c>(
    config: &'c config::Config,
    service: &config::ServiceConfig,
    address: IpAddr,
) -> Option<&'c config::Located<config::AddressRange>> {
    let pool = config.pool(&service.local_addresses.as_ref()?.value)?;
    pool.addresses.iter().find(|range| range.value.contains(address))
}

/// Fails if there are errors, with all of them.
pub(super) fn fail_on(errors: Vec<ConfigError>) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    bail!("{}", lines.join("\n"))
}

/// Sizes of the tables.
pub(super) fn limits(config: &config::Config) -> Limits {
    Limits {
        sessions: config.max_sessions,
        templates: config.max_persistence_templates,
        proven_ring_bytes: RING_BYTES,
        unproven_ring_bytes: RING_BYTES,
    }
}

/// What the limits cost at worst.
pub(super) fn worst_case(config: &config::Config) -> WorstCaseMemory {
    let limits = limits(config);
    let buckets = bucket_count(limits.sessions) + 1;
    WorstCaseMemory::new(&Sizes {
        slots: u64::from(limits.sessions) + 1,
        slot_bytes: size_of::<Slot>() as u64,
        buckets: u64::from(buckets),
        bucket_bytes: size_of::<Bucket>() as u64,
        filter_bytes: u64::from(Filter::words(buckets)) * size_of::<Filter>() as u64,
        engine_session_bytes: Engine::<NativeMemory>::bytes_per_session() as u64,
        templates: u64::from(limits.templates),
        template_bytes: (size_of::<Template>() + Engine::<NativeMemory>::bytes_per_template())
            as u64,
        early_data_bytes: u64::from(config.synproxy.ack_store_total_bytes),
        ring_bytes: u64::from(limits.proven_ring_bytes) + u64::from(limits.unproven_ring_bytes),
    })
    .with("ledger", u64::from(LEDGER_RECORDS) * size_of::<LedgerRecord>() as u64)
}

/// The engine's settings.
pub(super) fn engine_config(config: &config::Config, timestamp_offset: u64) -> Config {
    let proxy = &config.synproxy;
    let mut timeouts = Timeouts::default();
    for (state, timeout) in [
        (TcpState::Established, config.timeouts.established),
        (TcpState::SynSent, config.timeouts.syn_sent),
        (TcpState::SynRecv, config.timeouts.syn_recv),
        (TcpState::FinWait, config.timeouts.fin_wait),
        (TcpState::TimeWait, config.timeouts.time_wait),
        (TcpState::Close, config.timeouts.close),
        (TcpState::CloseWait, config.timeouts.close_wait),
        (TcpState::LastAck, config.timeouts.last_ack),
    ] {
        timeouts.set(state, timeout.as_millis() as u64);
    }
    timeouts.udp = config.timeouts.udp.as_millis() as u64;
    let switches = [
        (proxy.sack, switch::SACK),
        (proxy.timestamp, switch::TIMESTAMP),
        (config.policy.defence_udp_drop, switch::UDP_DROP),
        (config.policy.defence_ip_frag_drop, switch::FRAGMENT_DROP),
        (proxy.conn_reuse && proxy.conn_reuse_close, switch::reuse(TcpState::Close)),
        (proxy.conn_reuse && proxy.conn_reuse_time_wait, switch::reuse(TcpState::TimeWait)),
        (proxy.conn_reuse && proxy.conn_reuse_fin_wait, switch::reuse(TcpState::FinWait)),
        (proxy.conn_reuse && proxy.conn_reuse_close_wait, switch::reuse(TcpState::CloseWait)),
        (proxy.conn_reuse && proxy.conn_reuse_last_ack, switch::reuse(TcpState::LastAck)),
    ];
    Config {
        store: StoreLimits {
            segments: usize::from(proxy.ack_store),
            bytes: proxy.ack_store_bytes as usize,
            total_bytes: proxy.ack_store_total_bytes as usize,
        },
        timeouts,
        syn_retry: u32::from(proxy.syn_retry),
        ack_storm_threshold: proxy.ack_storm_thresh,
        expire_quiescent_template: config.policy.expire_quiescent_template,
        expire_nodest_conn: config.policy.expire_nodest_conn,
        conn_expire_tcp_rst: config.policy.conn_expire_tcp_rst,
        switches: switches.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit),
        init_mss: proxy.init_mss,
        window_scale: window_scale(config),
        ttl: proxy.synack_ttl,
        timestamp_offset,
    }
}

/// The window shift that SYN/ACKs offer.
pub(super) const fn window_scale(config: &config::Config) -> u8 {
    if config.synproxy.wscale == 0 { NO_SCALE } else { config.synproxy.wscale }
}

/// The pools, in the file's order.
pub(super) fn pools(config: &config::Config) -> Vec<LocalPool> {
    let pool = |pool: &config::LocalAddressPool| LocalPool {
        addresses: pool
            .addresses
            .iter()
            .flat_map(|range| range.value.iter())
            .map(Addr::from)
            .collect(),
        port_min: pool.port_min,
        port_max: pool.port_max,
    };
    config.local_addresses.iter().map(pool).collect()
}

/// A tunnel, its source still to be set.
fn tunnel(config: Option<config::TunnelConfig>) -> Forwarding {
    let tunnel = config.map_or(Tunnel::default(), |config| Tunnel {
        wrapping: match config.kind {
            TunnelType::Ipip => Wrapping::Ipip,
            TunnelType::Gue => Wrapping::Gue,
            TunnelType::Gre => Wrapping::Gre,
        },
        checksum: config.checksum == TunnelChecksum::Full,
        port: config.port,
    });
    Forwarding::Tunnel { tunnel, source: Addr::default() }
}

/// The services, in the file's order, their next hops and tunnels' sources still to be set.
pub(super) fn services(config: &config::Config) -> Result<Vec<ServiceSpec>> {
    config.services.iter().map(|service| self::service(config, service)).collect()
}

/// What carries the sessions of a service of `protocol`.
pub(super) const fn transport(protocol: config::Protocol) -> Transport {
    match protocol {
        config::Protocol::Tcp => Transport::Tcp,
        config::Protocol::Udp => Transport::Udp,
    }
}

/// One service, its next hops still to be set.
pub(super) fn service(
    config: &config::Config,
    service: &config::ServiceConfig,
) -> Result<ServiceSpec> {
    let word = service.scheduler.word();
    let scheduler = Kind::named(word)
        .with_context(|| format!("{}: scheduler {word} is not served", service.address))?;
    let mut scheduler_flags = Flags::default();
    for flag in &service.scheduler_flags {
        match flag {
            SchedulerFlag::ShFallback | SchedulerFlag::MhFallback => {
                scheduler_flags.fallback = true
            }
            SchedulerFlag::ShPort | SchedulerFlag::MhPort => scheduler_flags.port = true,
        }
    }
    let server = |server: &config::RealServerConfig| {
        let forwarding = match server.forwarding {
            config::Forwarding::Nat => Forwarding::Nat,
            config::Forwarding::FullNat => Forwarding::FullNat,
            config::Forwarding::Dr => Forwarding::Dr,
            config::Forwarding::Tunnel => tunnel(server.tunnel),
        };
        RealServerSpec {
            address: server.address.into(),
            forwarding,
            weight: u32::from(server.weight),
            upper_threshold: server.upper_threshold,
            lower_threshold: server.lower_threshold,
            next_hop: 0,
        }
    };
    let timeout = service.established_timeout.as_ref().or(service.udp_timeout.as_ref());
    let persistence = service.persistent.map(|persistent| Persistence {
        timeout: persistent.timeout * 1_000,
        netmask: match persistent.netmask {
            config::Netmask::V4(mask) => Netmask::v4(mask.to_bits()),
            config::Netmask::V6(prefix) => Netmask::v6(prefix.into()),
        },
    });
    let pool = service
        .local_addresses
        .as_ref()
        .and_then(|name| config.local_addresses.iter().position(|pool| pool.name == name.value));
    Ok(ServiceSpec {
        transport: transport(service.protocol),
        address: service.address.into(),
        persistence,
        scheduler,
        scheduler_flags,
        synproxy: service.synproxy,
        defer: service.defer,
        one_packet: service.ops,
        timeout: timeout.map(|timeout| timeout.value.as_millis() as u64),
        introduction: introduction(service),
        pool,
        real_servers: service.real_servers.iter().map(server).collect(),
    })
}

/// How the real servers of a service learn who their client is.
fn introduction(service: &config::ServiceConfig) -> Introduction {
    match service.proxy_protocol {
        Some(config::ProxyProtocol::V1) => Introduction::Proxy(ProxyProtocol::V1),
        Some(config::ProxyProtocol::V2) => Introduction::Proxy(ProxyProtocol::V2),
        None if service.toa => Introduction::Toa,
        None => Introduction::None,
    }
}
