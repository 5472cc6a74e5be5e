//! What the API reports: the JSON of `/v1/...` and of the CLI's `--json`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Forwarding, Protocol, Scheduler, SchedulerFlag};

/// `GET /v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsReport {
    /// Every counter by name, those at 0 included.
    pub counters: BTreeMap<String, u64>,
    /// Every service, in the order of the configuration.
    pub services: Vec<ServiceReport>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// VIP and port.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Its flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_flags: Vec<SchedulerFlag>,
    /// Whether the SYN proxy answers for it.
    pub synproxy: bool,
    /// Whether each datagram is scheduled by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ops: bool,
    /// For how many seconds after its last new connection a client stays with its real server; absent
    /// when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<u32>,
    /// Sums over its life, those of removed real servers included.
    #[serde(flatten)]
    pub totals: Totals,
    /// What of them comes in a second.
    #[serde(default)]
    pub rates: Rates,
    /// Its real servers.
    pub real_servers: Vec<RealServerReport>,
}

/// One real server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerReport {
    /// Address and port.
    pub address: SocketAddr,
    /// Forwarding method.
    pub forwarding: Forwarding,
    /// Weight, 0 to 65,535.
    pub weight: u16,
    /// Whether it was marked down: it gets no new sessions, whatever its weight.
    #[serde(default)]
    pub down: bool,
    /// Sessions with which it takes no more; 0 is no limit.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Sessions below which it takes some again; 0 stands for three quarters of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
    /// Whether it takes no new sessions for now, by its thresholds.
    #[serde(default)]
    pub overloaded: bool,
    /// Sums over its life.
    #[serde(flatten)]
    pub totals: Totals,
    /// What of them comes in a second.
    #[serde(default)]
    pub rates: Rates,
}

/// Connections and traffic; but for the first three, sums that never go back (as IPVS's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Sessions of TCP in SYN_SENT, SYN_RECV or ESTABLISHED now.
    pub active_connections: u64,
    /// Sessions of TCP in any other state now, and all of UDP (as IPVS counts them).
    pub inactive_connections: u64,
    /// Persistence templates now: clients, or networks of them, that stay with a real server.
    #[serde(default)]
    pub persistent_connections: u64,
    /// Sessions ever created.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes of them, from the IP header on.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes of them, from the IP header on.
    pub out_bytes: u64,
}

/// What comes in a second: IPVS's moving average over the last 8 s, renewed every 2 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Connections (ipvsadm: `CPS`).
    pub cps: u64,
    /// Packets from clients (`InPPS`).
    pub in_pps: u64,
    /// Packets to clients (`OutPPS`).
    pub out_pps: u64,
    /// Bytes from clients (`InBPS`).
    pub in_bps: u64,
    /// Bytes to clients (`OutBPS`).
    pub out_bps: u64,
}

/// `GET /v1/sessions`: one page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsReport {
    /// Sessions that exist, on all pages.
    pub total: u64,
    /// `offset` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The page's sessions. Sessions come and go between pages: one may be missed or seen twice.
    pub sessions: Vec<SessionReport>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The client.
    pub client: SocketAddr,
    /// The VIP it asked.
    pub vip: SocketAddr,
    /// Our source towards the real server: a local address under FULLNAT, else the client's own.
    pub local: SocketAddr,
    /// The real server.
    pub real_server: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Forwarding method.
    pub forwarding: Forwarding,
    /// State, by IPVS's name (`ESTABLISHED`, `FIN_WAIT`, ...; `UDP`).
    pub state: String,
    /// Since the last packet, milliseconds.
    pub idle_ms: u64,
    /// Until it expires if nothing comes, milliseconds.
    pub expires_ms: u64,
    /// Packets from the client.
    pub in_packets: u64,
    /// Bytes of them, from the IP header on.
    pub in_bytes: u64,
    /// Packets to the client.
    pub out_packets: u64,
    /// Bytes of them, from the IP header on.
    pub out_bytes: u64,
}

/// Which sessions to list, by position in the session array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// At most this many, 1 to [`Page::MAX_LIMIT`].
    pub limit: u32,
    /// Where to begin: 0, then [`SessionsReport::next`].
    pub offset: u64,
}

impl Page {
    /// The most sessions a page may hold; a report of that size is some 4 MB of JSON.
    pub const MAX_LIMIT: u32 = 10_000;
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: 1000, offset: 0 }
    }
}

/// `GET /v1/drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsReport {
    /// The counters that moved.
    pub drops: Vec<DropRow>,
}

/// One counter that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Its name.
    pub name: String,
    /// Its value, at least 1.
    pub value: u64,
    /// What it means.
    pub meaning: String,
    /// What to do about it.
    pub remedy: String,
}

/// `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionReport {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
}

/// Which real server of which service, for `POST /v1/servers/down` and `/v1/servers/up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerName {
    /// VIP and port of the service.
    pub service: SocketAddr,
    /// Its protocol.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// Address and port of the real server.
    pub server: SocketAddr,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

/// Whether a real server is to get new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// By its weight.
    Up,
    /// None, whatever its weight.
    Down,
}

/// `POST /v1/servers/down` and `/v1/servers/up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Whether it was not so before.
    pub changed: bool,
}

/// `POST /v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// What has changed, a line each; empty when nothing has.
    pub changes: Vec<String>,
}

impl ReloadReport {
    /// The changes on one line.
    pub fn to_line(&self) -> String {
        if self.changes.is_empty() {
            return "nothing has changed".to_owned();
        }
        self.changes.join("; ")
    }
}

/// `POST /v1/diff`: what a reload with another configuration would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffReport {
    /// What it would change, in the words of [`ReloadReport::changes`]; empty when nothing.
    pub changes: Vec<String>,
    /// What only a new start can change, a line each; the reload would be refused unless this is
    /// empty.
    pub restart: Vec<String>,
}

impl DiffReport {
    /// The text of `seawall diff`, a line each.
    pub fn to_text(&self) -> String {
        let restart = self.restart.iter().map(|line| format!("needs a restart: {line}"));
        let all: Vec<_> = restart.chain(self.changes.iter().cloned()).collect();
        if all.is_empty() { "nothing would change".to_owned() } else { all.join("\n") }
    }
}

/// `POST /v1/stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// Always true: the daemon has begun to stop.
    pub stopping: bool,
}

/// The body of every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// What is wrong, and what would be right.
    pub error: String,
}
