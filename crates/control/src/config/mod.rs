//! `seawall.toml`: its types, and reading it.
//!
//! A file is read in three passes, and each reports everything it finds with the line it is on:
//! syntax and types (`parse`), what belongs together (`validate`), and what the format allows but
//! this version does not do (`unsupported`). Nothing that would have no effect is accepted
//! silently: it is an error, or a notice ([`Config::not_yet_served`]).

mod address_range;
mod errors;
mod index;
mod parse;
mod persistence;
mod reload;
mod secret_file;
mod section;
mod unsupported;
mod validate;
mod words;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address_range::{AddressRange, AddressRangeError};
pub use errors::{ConfigError, ConfigErrors};
pub use index::Index;
pub(crate) use parse::WEEK;
pub(crate) use persistence::MAX_TIMEOUT as MAX_PERSISTENCE;
pub use persistence::{Netmask, PersistenceConfig};
pub use reload::{Difference, Place, Reload};
pub use secret_file::{SECRET_MAX, SECRET_MIN, SharedSecret};
pub use words::{
    Forwarding, Protocol, ProxyProtocol, Scheduler, SchedulerFlag, TunnelChecksum, TunnelType,
};

/// Where the API socket is unless the file or `--api` says otherwise.
pub const DEFAULT_API_SOCKET: &str = "/run/seawall/api.sock";
/// Where [`Config::state`] is unless it is set.
pub const DEFAULT_STATE: &str = "/sys/fs/bpf/seawall";

/// At most this many services in a file.
pub const MAX_SERVICES: usize = 16_384;

/// At most this many real servers in a file, over all services.
pub const MAX_REAL_SERVERS: usize = 262_144;

/// At most this many local addresses in a file, over all pools.
pub const MAX_LOCAL_ADDRESSES: usize = 65_536;

/// At most this many interfaces.
pub const MAX_INTERFACES: usize = 32;

/// A file longer than this many bytes is refused; the largest useful one is about half of it.
pub(crate) const MAX_FILE: u64 = 64 << 20;

/// A value and the line of the file that gave it, for errors found later (an interface that does
/// not exist, a real server without a route).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Line in the file, counted from 1.
    pub line: usize,
}

/// A whole, checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file's name as given, for messages.
    pub file: String,
    /// Names of the interfaces to attach XDP to: 1 to [`MAX_INTERFACES`], no duplicates.
    pub interfaces: Vec<Located<String>>,
    /// Sessions at once, 1,024 to 16,777,216.
    pub max_sessions: u32,
    /// Persistence templates at once, 1 to 16,777,216.
    pub max_persistence_templates: u32,
    /// Whether we add VIPs and local addresses that the host lacks, and remove them at the end;
    /// `false` leaves addresses to keepalived.
    pub manage_addresses: bool,
    /// Directory of pins on a BPF file system, absolute, for one daemon at a time: what outlives it
    /// and the next one takes over.
    pub state: PathBuf,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[ipvs]`.
    pub ipvs: IpvsConfig,
    /// `[synproxy]`.
    pub synproxy: SynproxyConfig,
    /// `[timeouts]`.
    pub timeouts: TimeoutsConfig,
    /// `[policy]`.
    pub policy: PolicyConfig,
    /// `[[local_addresses]]`: pools that overlap neither each other nor a VIP nor a real server;
    /// at most [`MAX_LOCAL_ADDRESSES`] addresses together.
    pub local_addresses: Vec<LocalAddressPool>,
    /// `[[service]]`, at most [`MAX_SERVICES`], each address and protocol once.
    pub services: Vec<ServiceConfig>,
}

/// `[api]`: how the daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Unix socket of the HTTP API, absolute.
    pub socket: PathBuf,
    /// Where Prometheus metrics are asked for; see [`Config::not_yet_served`].
    pub metrics: Option<SocketAddr>,
}

/// `[ipvs]`: the kernel's IPVS protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsConfig {
    /// Unix socket of the IPVS generic-netlink protocol, absolute; see [`crate::ipvs`].
    pub socket: Option<Located<PathBuf>>,
    /// Name of the pool of services that are added there: with one, masquerading is FULLNAT.
    pub local_addresses: Option<Located<String>>,
}

/// `[synproxy]`: names and defaults follow LVS's `net.ipv4.vs.synproxy_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynproxyConfig {
    /// Cap of the MSS we advertise, bytes, 536 to 65,495.
    pub init_mss: u16,
    /// Whether SACK is offered.
    pub sack: bool,
    /// Window scale we offer, 0 to 14 (RFC 7323); 0 offers no window scaling, as in LVS.
    pub wscale: u8,
    /// Whether timestamps are offered.
    pub timestamp: bool,
    /// TTL of our SYN/ACK, 1 to 255.
    pub synack_ttl: u8,
    /// Retransmissions of the SYN to a real server, 0 to 6.
    pub syn_retry: u8,
    /// Segments of a client kept while the real server's handshake is pending, 1 to 64 a session.
    pub ack_store: u16,
    /// Bytes kept likewise, 1,460 to 1,048,576 a session.
    pub ack_store_bytes: u32,
    /// Bytes kept likewise over all sessions, from `ack_store_bytes` to 4 GiB - 1.
    pub ack_store_total_bytes: u32,
    /// Master switch of session reuse.
    pub conn_reuse: bool,
    /// Reuse of a session in CLOSE.
    pub conn_reuse_close: bool,
    /// Reuse of a session in TIME_WAIT.
    pub conn_reuse_time_wait: bool,
    /// Reuse of a session in FIN_WAIT.
    pub conn_reuse_fin_wait: bool,
    /// Reuse of a session in CLOSE_WAIT.
    pub conn_reuse_close_wait: bool,
    /// Reuse of a session in LAST_ACK.
    pub conn_reuse_last_ack: bool,
    /// Repetitions of one acknowledgment without data after which an ACK storm is cut, 0 to
    /// 65,535; 0 cuts none (LVS `synproxy_ack_storm_thresh`).
    pub ack_storm_thresh: u16,
    /// The file that cookie keys are derived from, absolute, so that boxes that have the same one
    /// accept each other's cookies; without it keys are random. See [`Config::read_secret`].
    pub secret_file: Option<Located<PathBuf>>,
}

/// `[timeouts]`: how long an idle session lives in each state, 1 s to 7 days.
///
/// Names and defaults are mainline IPVS's (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, `_udp.c`) but for
/// `time_wait`, 10 s instead of 120 to save memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// ESTABLISHED, 900 s.
    pub established: Duration,
    /// SYN_SENT, 120 s.
    pub syn_sent: Duration,
    /// SYN_RECV, 60 s.
    pub syn_recv: Duration,
    /// FIN_WAIT, 120 s.
    pub fin_wait: Duration,
    /// TIME_WAIT, 10 s.
    pub time_wait: Duration,
    /// CLOSE, 10 s.
    pub close: Duration,
    /// CLOSE_WAIT, 60 s.
    pub close_wait: Duration,
    /// LAST_ACK, 30 s.
    pub last_ack: Duration,
    /// Sessions of UDP, 300 s.
    pub udp: Duration,
}

/// `[policy]`: what is dropped before it reaches the host, and whose sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// UDP to a VIP that has no UDP service on that port.
    pub defence_udp_drop: bool,
    /// IP fragments to a VIP.
    pub defence_ip_frag_drop: bool,
    /// Whether both ends of an established session that has been idle for too long are reset.
    pub conn_expire_tcp_rst: bool,
    /// Whether sessions end with the removal of their real server, both ends being told (LVS
    /// `expire_nodest_conn`); otherwise their clients' segments are dropped until it is back.
    pub expire_nodest_conn: bool,
    /// Whether persistence ends at a real server of weight 0 (LVS `expire_quiescent_template`);
    /// otherwise its clients stay with it.
    pub expire_quiescent_template: bool,
}

/// `[[local_addresses]]`: source addresses of FULLNAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddressPool {
    /// What services call it; unique.
    pub name: String,
    /// Its addresses, at least one.
    pub addresses: Vec<Located<AddressRange>>,
    /// Lowest port used on them, 1,025 to 65,535.
    pub port_min: u16,
    /// Highest port used on them, `port_min` to 65,535.
    pub port_max: u16,
    /// Line in the file, counted from 1.
    pub line: usize,
}

/// `[[service]]`: a VIP, port and protocol, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// VIP and port; port 0, with persistence, takes all that have no service of their own.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Whether clients stay with their real server.
    pub persistent: Option<PersistenceConfig>,
    /// How a real server is chosen.
    pub scheduler: Scheduler,
    /// Flags of that scheduler, each once, in the order of [`SchedulerFlag::WORDS`].
    pub scheduler_flags: Vec<SchedulerFlag>,
    /// Whether the SYN proxy answers for it.
    pub synproxy: bool,
    /// Whether only an ACK with payload completes the proxy's handshake; no effect without it.
    pub defer: bool,
    /// How long its established sessions may be idle, 1 s to 7 days, instead of `[timeouts]
    /// established`; only over TCP.
    pub established_timeout: Option<Located<Duration>>,
    /// How long its sessions may be idle, likewise, instead of `[timeouts] udp`; only over UDP.
    pub udp_timeout: Option<Located<Duration>>,
    /// Whether each datagram is scheduled by itself (`ipvsadm --ops`); only over UDP.
    pub ops: bool,
    /// Whether real servers under FULLNAT learn their client's address by a TCP option of its first
    /// segments; TCP only, not with `proxy_protocol`.
    pub toa: bool,
    /// The version of the PROXY header that real servers get in front of what a client says; only
    /// with the SYN proxy.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Name of the pool that FULLNAT takes its source addresses from; names one that exists.
    pub local_addresses: Option<Located<String>>,
    /// Its real servers, in the order of their addition; none is allowed, and then it answers nothing.
    pub real_servers: Vec<RealServerConfig>,
    /// Line in the file, counted from 1; 0 if it comes from none.
    pub line: usize,
}

/// `tunnel_*` of a `[[service.real_server]]`; names and defaults are ipvsadm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// What packets are wrapped in, IPIP unless said otherwise.
    pub kind: TunnelType,
    /// The UDP port of GUE, which must be given; 0 for the others.
    pub port: u16,
    /// Whether UDP's or GRE's checksum is there, not unless said.
    pub checksum: TunnelChecksum,
}

/// `[[service.real_server]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServerConfig {
    /// Address and port.
    pub address: SocketAddr,
    /// How packets get there and back.
    pub forwarding: Forwarding,
    /// How packets are wrapped; for [`Forwarding::Tunnel`], and only for that.
    pub tunnel: Option<TunnelConfig>,
    /// Share of new connections, 0 to 65,535; 0 takes no new ones.
    pub weight: u16,
    /// Sessions with which it takes no more; 0 is no limit.
    pub upper_threshold: u32,
    /// Sessions below which it takes some again, at most `upper_threshold`; 0 stands for three
    /// quarters of that.
    pub lower_threshold: u32,
    /// Line in the file, counted from 1; 0 if it comes from none.
    pub line: usize,
}

impl Config {
    /// Reads and checks the file at `path`, at most 64 MiB.
    ///
    /// # Errors
    /// Everything found wrong with it; or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            let remedy = "expected a readable file (--config FILE names it)";
            return Err(whole(&name, format!("cannot be read: {error}"), remedy).into());
        }
        Self::read(&name, bytes)
    }

    /// Reads and checks what the file holds, at most 64 MiB; `name` is how messages call it.
    ///
    /// # Errors
    /// Everything found wrong with it.
    pub fn read(name: &str, bytes: Vec<u8>) -> Result<Self, ConfigErrors> {
        if bytes.len() as u64 > MAX_FILE {
            let remedy = "expected a configuration file of at most 64 MiB";
            return Err(whole(name, "is too long".to_owned(), remedy).into());
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(name, &text),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                let message = "is not UTF-8 text".to_owned();
                let error = whole(name, message, "expected a TOML file in UTF-8");
                Err(ConfigError { line: Some(line), ..error }.into())
            }
        }
    }

    /// Reads and checks the file's text; `name` is how messages call it.
    ///
    /// # Errors
    /// Everything found wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut problems = errors::Problems::new(name, text);
        let config = parse::parse(name, text, &mut problems);
        if let Some(config) = &config {
            validate::validate(config, &mut problems);
            unsupported::refuse(config, &mut problems);
        }
        problems.into_result(config)
    }

    /// This configuration, if what it has belongs together.
    fn check_all(self) -> Result<Self, ConfigErrors> {
        let file = self.file.clone();
        let mut problems = errors::Problems::new(&file, "");
        validate::validate(&self, &mut problems);
        problems.into_result(Some(self))
    }

    /// Checks a service that is to take the place of `old`, or to be new, among those of this
    /// configuration, which `index` knows.
    ///
    /// # Errors
    /// Everything found wrong with it, as if a file had it.
    pub fn check(
        &self,
        index: &Index,
        old: Option<&ServiceConfig>,
        service: &ServiceConfig,
    ) -> Result<(), ConfigErrors> {
        let mut problems = errors::Problems::new(&self.file, "");
        validate::one(self, index, old, service, &mut problems);
        unsupported::refuse_service(service, &mut problems);
        problems.into_result(Some(()))
    }

    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Option<&LocalAddressPool> {
        self.local_addresses.iter().find(|pool| pool.name == name)
    }

    /// An error about `line` of this file, for checks that need the machine (interfaces, routes).
    pub fn error_at(
        &self,
        line: usize,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            line: Some(line),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// What the file asks for that this version does not serve, a sentence each, to be shown at
    /// start: listening sockets of SPEC's interface that nothing would answer on.
    pub fn not_yet_served(&self) -> Vec<String> {
        let metrics = self.api.metrics.map(|address| {
            format!(
                "[api] metrics: this version serves no Prometheus metrics; \
                 nothing listens on {address}"
            )
        });
        metrics.into_iter().collect()
    }
}

/// A problem of the file as a whole.
fn whole(name: &str, message: String, remedy: &str) -> ConfigError {
    ConfigError { file: name.to_owned(), line: None, message, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod tests;
