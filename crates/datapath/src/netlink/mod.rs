//! A small synchronous rtnetlink client for the calling thread's network namespace.
//!
//! Routes and neighbours are the kernel's: nothing is copied, each question is asked when it
//! matters ([`Netlink::route_to`], [`Netlink::neighbour`]) and changes are followed with a
//! [`Monitor`]. A socket belongs to the namespace it was opened in, and keeps belonging to it when
//! the thread moves on.
//!
//! Messages are those of rtnetlink(7), `include/uapi/linux/rtnetlink.h` and its neighbours.

mod address;
pub mod ethtool;
mod link;
mod monitor;
mod neighbour;
mod route;
mod socket;
#[cfg(test)]
mod tests;

pub use address::{Address, AddressSpec};
pub use ethtool::Offload;
pub use link::{Link, VethSpec, Vlan};
pub use monitor::{Event, Monitor};
pub use neighbour::{Neighbour, NeighbourKey, NeighbourState};
pub use route::{Route, RouteKind, RouteSpec};
pub use socket::Netlink;

use std::io;

/// What went wrong with a request to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the request.
    #[error("cannot {request} {object}: {source}{}", explained(explanation))]
    Refused {
        /// What was asked, as a verb.
        request: &'static str,
        /// What it was asked about.
        object: String,
        /// The kernel's own words (`NLMSGERR_ATTR_MSG`), often the only hint behind an `EINVAL`.
        explanation: Option<String>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket itself failed, before or after the kernel had a say.
    #[error("netlink socket: cannot {action}: {source}")]
    Socket {
        /// What was tried, as a verb.
        action: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The kernel's answer could not be read, or was not an answer to the question.
    #[error("cannot {request} {object}: the kernel's answer was not understood: {reason}")]
    Answer {
        /// What was asked, as a verb.
        request: &'static str,
        /// What it was asked about.
        object: String,
        /// What was wrong with the answer.
        reason: String,
    },
}

fn explained(explanation: &Option<String>) -> String {
    explanation.as_ref().map(|words| format!(" ({words})")).unwrap_or_default()
}

impl Error {
    /// The errno of the kernel's refusal or of the failed system call; `None` for an answer that
    /// was not understood.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::Answer { .. } => None,
        }
    }
}

/// What every request of this module returns.
pub type Result<T> = std::result::Result<T, Error>;
