//! The daemon's API: JSON over HTTP/1.1 on a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/version` | [`VersionReport`](crate::report::VersionReport) |
//! | `GET /v1/stats` | [`StatsReport`] |
//! | `GET /v1/drops` | [`DropsReport`] |
//! | `GET /v1/sessions?limit=&offset=` | [`SessionsReport`] |
//! | `POST /v1/servers/down?service=&server=`, `/v1/servers/up` | [`HealthReport`]; both addresses as in the configuration, `protocol=` too if it is not `tcp` |
//! | `POST /v1/reload` | [`ReloadReport`]; a refusal when the file is wrong or needs a new start |
//! | `POST /v1/diff?file=` | [`DiffReport`]; the request's body is the text of a configuration file, and `file` its name in messages |
//! | `POST /v1/stop` | [`StopReport`](crate::report::StopReport), then the daemon ends |
//! | `POST /v1/stop?keep=true` | likewise, and leaves everything to the next daemon |
//!
//! Whoever may open the socket may do everything: it is created with mode 0600. What is not one of
//! these requests gets [`ErrorReport`](crate::report::ErrorReport) and changes nothing; what is
//! not HTTP at all gets a bare status from the HTTP library, or is closed.

mod client;
mod routes;
mod server;

pub use crate::socket::BindError;
pub use client::{Client, ClientError};
pub use server::Server;

use crate::report::{
    DiffReport, DropsReport, Health, HealthReport, Page, ReloadReport, ServerName, SessionsReport,
    StatsReport,
};

/// Why the daemon does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declined {
    /// It is busy or about to end.
    NoAnswer,
    /// What is wrong, and what would be right.
    Refused(String),
}

/// What becomes of the packet path and the sessions when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// They end, and what the daemon has added to the machine goes.
    End,
    /// They go on, for the next daemon to take over.
    Keep,
}

/// A configuration file that is not the daemon's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// How messages call it.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What the daemon answers; each call runs on a thread that may block.
pub trait Backend: Send + Sync + 'static {
    /// All counters and services.
    ///
    /// # Errors
    /// [`Declined::NoAnswer`]; likewise the other calls.
    fn stats(&self) -> Result<StatsReport, Declined>;

    /// Every counter that moved ([`counters::moved`](crate::counters::moved) makes the rows).
    ///
    /// # Errors
    /// As [`Backend::stats`].
    fn drops(&self) -> Result<DropsReport, Declined>;

    /// One page of sessions; `page.limit` is within 1 to [`Page::MAX_LIMIT`].
    ///
    /// # Errors
    /// As [`Backend::stats`].
    fn sessions(&self, page: Page) -> Result<SessionsReport, Declined>;

    /// Reads the configuration file anew and applies what differs.
    ///
    /// # Errors
    /// [`Declined::Refused`] says what is wrong with the file, or cannot be applied to a running
    /// daemon; then nothing has changed.
    fn reload(&self) -> Result<ReloadReport, Declined>;

    /// What [`Backend::reload`] would change if the file were `file`. Changes nothing.
    ///
    /// # Errors
    /// [`Declined::Refused`] says why a reload would be refused, but for what needs a new start: that
    /// is in the report.
    fn diff(&self, file: NewFile) -> Result<DiffReport, Declined>;

    /// Marks a real server up or down.
    ///
    /// # Errors
    /// As [`Backend::stats`]; [`Declined::Refused`] when there is none of that name.
    fn set_health(&self, name: ServerName, health: Health) -> Result<HealthReport, Declined>;

    /// Begins to stop the daemon and returns at once; called again, it changes nothing.
    fn stop(&self, what: Stop);
}

#[cfg(test)]
mod tests;
