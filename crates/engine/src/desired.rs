//! What the engine is told to do.

use seawall_fastpath::layout::{ServiceKey, Tunnel};
use seawall_fastpath::siphash::Key;
use seawall_fastpath::{Addr, Endpoint, STATES, TcpState, Transport};

use crate::epoch::Epoch;
use crate::proxy_header::ProxyProtocol;
use crate::scheduler;

/// How packets reach a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forwarding {
    /// The destination is rewritten; replies must come back through us.
    Nat,
    /// Source and destination are rewritten; the real server sees a local address.
    FullNat,
    /// Nothing is rewritten; the real server has the VIP too, and answers the client itself.
    Dr,
    /// Packets are wrapped; otherwise as DR.
    Tunnel {
        /// How they are wrapped.
        tunnel: Tunnel,
        /// The address of ours that they are sent from, of the real server's family.
        source: Addr,
    },
}

impl Forwarding {
    /// Whether the real server answers the client itself, past us. Then it has the service's port, and
    /// there is no proxy.
    #[must_use]
    pub const fn is_one_way(self) -> bool {
        match self {
            Self::Nat | Self::FullNat => false,
            Self::Dr | Self::Tunnel { .. } => true,
        }
    }
}

/// A real server of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RealServerSpec {
    /// Its address and port.
    pub address: Endpoint,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Its share of new connections; 0 takes none.
    pub weight: u32,
    /// With so many sessions it takes no more (ipvsadm `-x`); 0 is no limit.
    pub upper_threshold: u32,
    /// With fewer than this it takes some again (ipvsadm `-y`); 0 stands for three quarters of
    /// [`Self::upper_threshold`].
    pub lower_threshold: u32,
    /// Index of the next hop towards it.
    pub next_hop: u32,
}

impl RealServerSpec {
    /// It as the connections of `vip` reach it: where its port is 0, on theirs (Linux,
    /// `ip_vs_core.c`, `ip_vs_sched_persist`).
    #[must_use]
    pub const fn for_vip(mut self, vip: Endpoint) -> Self {
        if self.address.port == 0 {
            self.address.port = vip.port;
        }
        self
    }
}

/// Which bits of a client's address persistence goes by (ipvsadm `-M`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Netmask([u64; 2]);

impl Netmask {
    /// An IPv4 netmask.
    #[must_use]
    pub const fn v4(mask: u32) -> Self {
        Self([u64::MAX, (u32::MAX as u64) << 32 | mask as u64])
    }

    /// The first `prefix` bits of an IPv6 address; more than 128 are all of them.
    #[must_use]
    pub const fn v6(prefix: u32) -> Self {
        let free = 128u32.saturating_sub(prefix);
        let mask = match u128::MAX.checked_shl(free) {
            Some(mask) => mask,
            None => 0,
        };
        Self([(mask >> 64) as u64, mask as u64])
    }

    /// `address` without the bits that do not count.
    #[must_use]
    pub const fn apply(self, address: Addr) -> Addr {
        Addr([address.0[0] & self.0[0], address.0[1] & self.0[1]])
    }
}

/// How clients stay with their real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persistence {
    /// For how long after a client's last new connection, in milliseconds (ipvsadm `-p`).
    pub timeout: u32,
    /// Which clients are one.
    pub netmask: Netmask,
}

/// A pool of local addresses (LVS: `local_address_group`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalPool {
    /// The addresses.
    pub addresses: Vec<Addr>,
    /// Lowest port that sessions use.
    pub port_min: u16,
    /// Highest port that sessions use.
    pub port_max: u16,
}

/// How real servers learn who their client is (SPEC C7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Introduction {
    /// Not at all: under FULLNAT they see a local address.
    #[default]
    None,
    /// By a TCP option of its first segments, under FULLNAT (LVS: `fullnat_toa_entry`). Options
    /// that clients forge never arrive.
    Toa,
    /// By a header in front of what it says. Without the proxy there is none: the client's own
    /// handshake leaves no room for it in the stream.
    Proxy(ProxyProtocol),
}

/// A virtual service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSpec {
    /// What carries its sessions.
    pub transport: Transport,
    /// VIP and port. Port 0 takes every port that has no service of its own; its real servers have
    /// port 0 too. IPVS has it only with persistence.
    pub address: Endpoint,
    /// Whether clients stay with their real server.
    pub persistence: Option<Persistence>,
    /// Which scheduler chooses the real server.
    pub scheduler: scheduler::Kind,
    /// How it does so.
    pub scheduler_flags: scheduler::Flags,
    /// SYNs are answered with cookies.
    pub synproxy: bool,
    /// An ACK without payload does not complete the handshake.
    pub defer: bool,
    /// UDP: each datagram is scheduled by itself (IPVS: `IP_VS_SVC_F_ONEPACKET`).
    pub one_packet: bool,
    /// How long its sessions may be idle, in milliseconds, where it is not as [`Timeouts`] has it:
    /// over TCP when they are established, over UDP always (LVS: `est_timeout`).
    pub timeout: Option<u64>,
    /// How real servers learn who their client is.
    pub introduction: Introduction,
    /// Index into [`Desired::pools`], for FULLNAT.
    pub pool: Option<usize>,
    /// The real servers, in the order of their addition.
    pub real_servers: Vec<RealServerSpec>,
}

impl ServiceSpec {
    /// How the packet path names it.
    #[must_use]
    pub const fn key(&self) -> ServiceKey {
        ServiceKey::of(self.transport, self.address)
    }
}

/// All services; the number of a service is its place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// Pools of local addresses.
    pub pools: Vec<LocalPool>,
    /// Services.
    pub services: Vec<ServiceSpec>,
}

/// Bounds of the early-data store (SPEC A8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreLimits {
    /// Segments a session, the accepted ACK included (LVS: `synproxy_ack_skb_store_thresh`).
    pub segments: usize,
    /// Bytes a session.
    pub bytes: usize,
    /// Bytes over all sessions.
    pub total_bytes: usize,
}

/// Timeouts by state, and that of UDP, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    states: [u64; STATES],
    /// How long a session of UDP may be idle.
    pub udp: u64,
}

impl Default for Timeouts {
    /// Mainline IPVS's (`tcp_timeouts`, `udp_timeouts`), but TIME_WAIT 10 s, to save memory (SPEC C5).
    fn default() -> Self {
        let mut timeouts = Self { states: [2_000; STATES], udp: 300_000 };
        for (state, seconds) in [
            (TcpState::Established, 900),
            (TcpState::SynSent, 120),
            (TcpState::SynRecv, 60),
            (TcpState::FinWait, 120),
            (TcpState::TimeWait, 10),
            (TcpState::Close, 10),
            (TcpState::CloseWait, 60),
            (TcpState::LastAck, 30),
        ] {
            timeouts.set(state, seconds * 1_000);
        }
        timeouts
    }
}

impl Timeouts {
    /// How long a session of TCP may be idle in `state`.
    #[must_use]
    pub fn get(&self, state: TcpState) -> u64 {
        self.states.get(state as usize).copied().unwrap_or(0)
    }

    /// Sets how long a session of TCP may be idle in `state`, in milliseconds.
    pub fn set(&mut self, state: TcpState, milliseconds: u64) {
        if let Some(timeout) = self.states.get_mut(state as usize) {
            *timeout = milliseconds;
        }
    }
}

/// Keys from the operating system's random source, or what boxes that share a secret have in
/// common.
#[derive(Clone, Copy)]
pub struct Secrets {
    /// Of the session index; each box its own.
    pub index: Key,
    /// Of the timestamp clocks towards clients; shared where cookie keys are, or no box would know
    /// another's timestamps again.
    pub timestamp: Key,
    /// Of the ISNs towards real servers (RFC 6528); each box its own.
    pub isn: Key,
    /// The first cookie epoch.
    pub cookie: Epoch,
}

/// Settings; [`crate::Engine::set_config`] changes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bounds of the early-data store.
    pub store: StoreLimits,
    /// Timeouts by state.
    pub timeouts: Timeouts,
    /// How often a SYN to a real server is sent again (LVS: `synproxy_syn_retry`).
    pub syn_retry: u32,
    /// Repetitions that make an ACK storm (LVS: `synproxy_ack_storm_thresh`); 0 cuts none.
    pub ack_storm_threshold: u16,
    /// Sessions end with the removal of their real server (LVS: `expire_nodest_conn`).
    pub expire_nodest_conn: bool,
    /// The templates of a real server of weight 0 hold no longer (LVS: `expire_quiescent_template`).
    pub expire_quiescent_template: bool,
    /// Both ends of an established session that expires are reset (LVS: `conn_expire_tcp_rst`).
    pub conn_expire_tcp_rst: bool,
    /// Bits of [`seawall_fastpath::layout::switch`].
    pub switches: u32,
    /// Largest MSS that SYN/ACKs offer.
    pub init_mss: u16,
    /// Window shift that SYN/ACKs offer, or [`seawall_fastpath::layout::NO_SCALE`].
    pub window_scale: u8,
    /// TTL of segments of our own (LVS: `synproxy_synack_ttl`).
    pub ttl: u8,
    /// Added to the monotonic clock gives the timestamp clock, in milliseconds; a shared epoch may
    /// raise it.
    pub timestamp_offset: u64,
}
