//! The kernel's IPVS protocol on a Unix socket (SPEC D3): generic netlink's family `IPVS`, version 1,
//! the commands and attributes of `linux/ip_vs.h` with the kernel's errors. The preload library
//! `libipvs_preload.so` carries the netlink socket of stock tools here.
//!
//! A connection of sequenced packets stands for a netlink socket: a datagram is what a `sendmsg()` to
//! the kernel would have been, and each that comes back what a `recvmsg()` would have given. Sequence
//! numbers and ports of requests come back in their answers. The families `IPVS` and `nlctrl` are
//! there. Whoever may open the socket may do everything: it has mode 0600.
//!
//! What stock tools have no word for: `IP_VS_SVC_F_SCHED3` (ipvsadm `-b flag-3`) is the SYN proxy, and
//! masquerading is FULLNAT in a service with local addresses.

mod dialogue;
mod edit;
mod netlink;
mod proc_files;
mod reply;
mod request;
mod server;
mod uapi;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use rustix::io::Errno;

pub use edit::{Edit, edit};
pub use request::{
    Change, DestinationName, DestinationSettings, ServiceSettings, Target, Timeouts,
};
pub use server::Server;

use crate::api::Declined;
use crate::config::{Config, RealServerConfig, ServiceConfig};
use crate::report::{Page, RealServerReport, ServiceReport, SessionsReport};

/// Why something is not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the tool is told.
    pub errno: Errno,
    /// What is wrong, and what would be right, for the daemon's log; empty where the number says all.
    pub reason: String,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, reason: String::new() }
    }
}

/// Everything that is served.
#[derive(Clone, Debug)]
pub struct Table {
    /// As it is configured.
    pub config: Arc<Config>,
    /// As it does, service by service.
    pub reports: Vec<ServiceReport>,
}

impl Table {
    /// The services with their reports.
    fn services(&self) -> impl Iterator<Item = (&ServiceConfig, &ServiceReport)> {
        self.config.services.iter().zip(&self.reports)
    }
}

/// The real servers of a service with their reports, the last one added first, as IPVS has them.
fn with_reports<'a>(
    service: &'a ServiceConfig,
    report: &'a ServiceReport,
) -> impl Iterator<Item = (&'a RealServerConfig, &'a RealServerReport)> {
    let reports = report.real_servers.iter().map(|report| (report.address, report));
    let reports: HashMap<_, _> = reports.collect();
    let servers = service.real_servers.iter().rev();
    servers.filter_map(move |server| Some((server, *reports.get(&server.address)?)))
}

/// What the daemon answers; each call runs on a thread that may block.
pub trait Backend: Send + Sync + 'static {
    /// What is served.
    ///
    /// # Errors
    /// When the daemon is busy or about to end; likewise the other calls.
    fn config(&self) -> Result<Arc<Config>, Declined>;

    /// What is served, with every change, and how it did at most `age` ago.
    ///
    /// # Errors
    /// As [`Backend::config`].
    fn table(&self, age: Duration) -> Result<Arc<Table>, Declined>;

    /// One page of sessions.
    ///
    /// # Errors
    /// As [`Backend::config`].
    fn sessions(&self, page: Page) -> Result<SessionsReport, Declined>;

    /// Changes something, whole or not at all.
    ///
    /// # Errors
    /// Why it is not changed.
    fn change(&self, change: &Change) -> Result<(), Refusal>;

    /// Takes note of a refusal.
    fn refused(&self, change: &Change, refusal: &Refusal);
}

#[cfg(test)]
mod tests;
