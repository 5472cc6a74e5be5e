//! What the daemon knows, as the API reports it.

use std::collections::HashMap;

use seawall_control::config;
use seawall_control::counters::{CounterRow, moved};
use seawall_control::report::{
    DropsReport, Page, Rates, RealServerReport, ServiceReport, SessionReport, SessionsReport,
    StatsReport, Totals,
};
use seawall_datapath::{Injector, SharedMemory, Xdp};
use seawall_engine::{self as engine, Counter, Engine, Forwarding};
use seawall_fastpath::layout::ServiceKey;
use seawall_fastpath::{Outcome, Reason, Transport};

use super::setup::transport;

/// Reasons that answer a SYN to a proxied service; their sum is LVS's `synproxy_syn_cnt`.
const SYN_REASONS: [Reason; 5] = [
    Reason::Cookie,
    Reason::NoDestination,
    Reason::SynMalformed,
    Reason::SynHeartbeat,
    Reason::SynResizeFailed,
];

const INJECT_DROPPED: &str = "inject_dropped";

/// Every counter, XDP's first.
fn rows(xdp: &Xdp, engine: &Engine<SharedMemory>, injector: &Injector) -> Vec<CounterRow> {
    // A map that cannot be read counts as zero rather than failing every report.
    let values = xdp.counters().unwrap_or_else(|_| vec![0; Reason::ALL.len()]);
    let of = |reason: Reason| values.get(reason as usize).copied().unwrap_or(0);
    let row = |name, value, meaning, remedy| CounterRow { name, value, meaning, remedy };
    let mut rows: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| row(reason.name(), of(*reason), reason.meaning(), reason.remedy()))
        .collect();
    rows.push(row(
        "synproxy_syn_cnt",
        SYN_REASONS.iter().map(|reason| of(*reason)).sum(),
        "New SYNs to proxied services: those answered with a cookie, and those that could not be.",
        "",
    ));
    rows.extend(Counter::ALL.iter().map(|counter| {
        row(counter.name(), engine.counter(*counter), counter.meaning(), counter.remedy())
    }));
    let injected = injector.counters();
    rows.push(row("inject_sent", injected.sent, "Frames that the daemon itself sent.", ""));
    rows.push(row(
        INJECT_DROPPED,
        injected.dropped + injected.failed + injected.refused,
        "Frames that the daemon could not send.",
        "See whether the interfaces are up and their queues drain.",
    ));
    rows
}

pub(super) fn stats(
    config: &config::Config,
    xdp: &Xdp,
    engine: &Engine<SharedMemory>,
    injector: &Injector,
) -> StatsReport {
    StatsReport::new(&rows(xdp, engine, injector), services(config, engine))
}

/// Every service, in the order of the configuration.
pub(super) fn services(
    config: &config::Config,
    engine: &Engine<SharedMemory>,
) -> Vec<ServiceReport> {
    let known = engine.services();
    let known: HashMap<_, _> = known.iter().map(|report| (report.spec.key(), report)).collect();
    let key = |config: &config::ServiceConfig| {
        ServiceKey::of(transport(config.protocol), config.address.into())
    };
    let services = config.services.iter();
    services.filter_map(|config| Some(service(config, known.get(&key(config))?))).collect()
}

pub(super) fn drops(xdp: &Xdp, engine: &Engine<SharedMemory>, injector: &Injector) -> DropsReport {
    let is_drop = |name: &str| {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
        let counter = Counter::ALL.iter().find(|counter| counter.name() == name);
        reason.is_some_and(|reason| reason.outcome() == Outcome::Dropped)
            || counter.is_some_and(|counter| counter.is_drop())
            || name == INJECT_DROPPED
    };
    let rows: Vec<_> =
        rows(xdp, engine, injector).into_iter().filter(|row| is_drop(row.name)).collect();
    DropsReport { drops: moved(&rows) }
}

pub(super) fn sessions(engine: &Engine<SharedMemory>, now: u64, page: Page) -> SessionsReport {
    let from = u32::try_from(page.offset).unwrap_or(u32::MAX);
    let found = engine.sessions(now, from, page.limit as usize);
    let full = found.len() == page.limit as usize;
    let next = found.last().filter(|_| full).map(|(index, _)| u64::from(*index) + 1);
    let sessions = found.iter().map(|(_, report)| session(report)).collect();
    SessionsReport { total: engine.session_count() as u64, next, sessions }
}

fn service(config: &config::ServiceConfig, report: &engine::ServiceReport) -> ServiceReport {
    let active = report.servers.iter().map(|server| u64::from(server.active)).sum();
    let inactive = report.servers.iter().map(|server| u64::from(server.inactive)).sum();
    let persistent = report.servers.iter().map(|server| u64::from(server.persistent)).sum();
    let now = Now { active, inactive, persistent };
    ServiceReport {
        address: report.spec.address.into(),
        protocol: config.protocol,
        scheduler: config.scheduler,
        scheduler_flags: config.scheduler_flags.clone(),
        synproxy: report.spec.synproxy,
        ops: report.spec.one_packet,
        persistent: config.persistent.map(|persistent| persistent.timeout),
        totals: totals(&report.totals, now),
        rates: rates(&report.rates),
        real_servers: report.servers.iter().map(server).collect(),
    }
}

/// Sessions and templates that there are.
struct Now {
    active: u64,
    inactive: u64,
    persistent: u64,
}

fn server(report: &engine::ServerReport) -> RealServerReport {
    let now = Now {
        active: report.active.into(),
        inactive: report.inactive.into(),
        persistent: report.persistent.into(),
    };
    RealServerReport {
        address: report.spec.address.into(),
        forwarding: forwarding(report.spec.forwarding),
        weight: u16::try_from(report.spec.weight).unwrap_or(u16::MAX),
        down: report.health == engine::Health::Down,
        upper_threshold: report.spec.upper_threshold,
        lower_threshold: report.spec.lower_threshold,
        overloaded: report.overloaded,
        totals: totals(&report.totals, now),
        rates: rates(&report.rates),
    }
}

const fn forwarding(forwarding: Forwarding) -> config::Forwarding {
    match forwarding {
        Forwarding::Nat => config::Forwarding::Nat,
        Forwarding::FullNat => config::Forwarding::FullNat,
        Forwarding::Dr => config::Forwarding::Dr,
        Forwarding::Tunnel { .. } => config::Forwarding::Tunnel,
    }
}

const fn rates(rates: &engine::Rates) -> Rates {
    Rates {
        cps: rates.connections,
        in_pps: rates.in_packets,
        out_pps: rates.out_packets,
        in_bps: rates.in_bytes,
        out_bps: rates.out_bytes,
    }
}

const fn totals(totals: &engine::Totals, now: Now) -> Totals {
    Totals {
        active_connections: now.active,
        inactive_connections: now.inactive,
        persistent_connections: now.persistent,
        connections: totals.connections,
        in_packets: totals.in_packets,
        in_bytes: totals.in_bytes,
        out_packets: totals.out_packets,
        out_bytes: totals.out_bytes,
    }
}

fn session(report: &engine::SessionReport) -> SessionReport {
    let (protocol, state) = match report.transport {
        Transport::Tcp => (config::Protocol::Tcp, report.state.name()),
        // `ip_vs_proto_udp.c`, `udp_state_name_table`.
        Transport::Udp => (config::Protocol::Udp, "UDP"),
    };
    SessionReport {
        client: report.ends.client.into(),
        vip: report.ends.vip.into(),
        local: report.ends.local.into(),
        real_server: report.ends.real.into(),
        protocol,
        forwarding: forwarding(report.forwarding),
        state: state.to_owned(),
        idle_ms: report.idle,
        expires_ms: report.expires,
        in_packets: report.totals.in_packets,
        in_bytes: report.totals.in_bytes,
        out_packets: report.totals.out_packets,
        out_bytes: report.totals.out_bytes,
    }
}
