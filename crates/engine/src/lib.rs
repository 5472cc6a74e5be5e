//! The slow path: what happens once a connection.
//!
//! Sans-IO: no clock, no randomness, no socket, no thread. Time (milliseconds of the monotonic
//! clock) and keys are arguments, so that a run can be repeated exactly. It shares the session
//! array with the packet path through [`seawall_fastpath::native::Memory`].
//!
//! # Order of calls
//!
//! [`Engine::handle_record`] for every record from the rings, [`Engine::handle_timeout`] when
//! [`Engine::poll_timeout`] says so, [`Engine::handle_statistics`] when [`Engine::poll_statistics`]
//! does, [`Engine::handle_epoch`] every
//! [`seawall_fastpath::cookie::EPOCH_MS`] (where keys are shared, when the epoch ends), [`Engine::handle_heartbeat`] after each round. After
//! any of them, [`Engine::poll_request`] until it is empty, [`Engine::take_frames`], and, once the
//! frames are sent, [`Engine::frames_sent`].
//!
//! An engine that takes over from another ([`Engine::adopt`]) has no service at first: set its
//! interfaces, then [`Engine::adopt_next_hops`], add the services and real servers, and
//! [`Engine::settle`].
//!
//! # Invariants
//!
//! - A slot is filled before its index entries are published, and reused only
//!   [`GRACE_MS`] after they were removed.
//! - A session in `SYN_SENT` has a handshake record; of the others only those have one whose PROXY
//!   header is not acknowledged yet.
//! - A session of UDP is in `SYN_RECV` or `ESTABLISHED`, and no timer or table of TCP's acts on it.
//! - Every session is in the timer wheel exactly once.
//! - No input makes it panic; what it cannot use is counted and dropped.

mod accounts;
mod adopt;
mod change;
mod counters;
mod desired;
mod early;
mod engine;
mod epoch;
mod estimator;
mod handshake;
mod ledger;
mod lengthen;
mod live;
mod next_hops;
mod outbox;
mod overload;
mod persistence;
mod ports;
mod preface;
mod proxy_header;
pub mod scheduler;
mod send;
mod statistics;
mod store;
mod table;
mod templates;
mod toa;
mod udp;
mod unproxied;
mod wheel;

pub use accounts::{Health, ServerReport, ServiceReport, SessionReport, Totals};
pub use adopt::Adoption;
pub use change::Proxy;
pub use counters::{Counter, DATAPATH_COUNTERS, counter_names};
pub use desired::{
    Config, Desired, Forwarding, Introduction, LocalPool, Netmask, Persistence, RealServerSpec,
    Secrets, ServiceSpec, StoreLimits, Timeouts,
};
pub use engine::{Engine, Request};
pub use epoch::{Epoch, SharedEpoch};
pub use estimator::Rates;
pub use next_hops::{Gateway, Interface};
pub use proxy_header::ProxyProtocol;
pub use table::GRACE_MS;
