//! The CLI's side of the API: blocking, one connection a request.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{NewFile, Stop};
use crate::report::{
    DiffReport, DropsReport, ErrorReport, Health, HealthReport, Page, ReloadReport, ServerName,
    SessionsReport, StatsReport, StopReport, VersionReport,
};

/// For a whole request; a page of sessions takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer; 65,536 real servers make some 20 MB.
const ANSWER_LIMIT: usize = 64 << 20;

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon listens on {0}: is `seawall run` started? (--api PATH names another socket)"
    )]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("no permission for {0}: run this as root, or as the user that `seawall run` runs as")]
    Denied(PathBuf),
    /// The daemon refused the request; what it said.
    #[error("the daemon refused: {0}")]
    Refused(String),
    /// The daemon did not answer in time.
    #[error(
        "the daemon on {path} did not answer within {} s: is it stopped or overloaded?",
        TIMEOUT.as_secs()
    )]
    TimedOut {
        /// The socket.
        path: PathBuf,
    },
    /// What answered is not a daemon of this version, or broke off.
    #[error(
        "bad answer from {path}: {why}; expected a `seawall run` of version {}",
        env!("CARGO_PKG_VERSION")
    )]
    BadAnswer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system failed.
    #[error("cannot ask the daemon on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A daemon's API socket; every call is a connection of its own and takes at most 30 s.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the daemon on that socket; nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All counters and services.
    ///
    /// # Errors
    /// When the daemon does not run, refuses, or answers nonsense; likewise the other calls.
    pub fn stats(&self) -> Result<StatsReport, ClientError> {
        self.ask(Method::GET, "/v1/stats")
    }

    /// Every counter that moved.
    ///
    /// # Errors
    /// As [`Client::stats`].
    pub fn drops(&self) -> Result<DropsReport, ClientError> {
        self.ask(Method::GET, "/v1/drops")
    }

    /// One page of sessions.
    ///
    /// # Errors
    /// As [`Client::stats`].
    pub fn sessions(&self, page: Page) -> Result<SessionsReport, ClientError> {
        let Page { limit, offset } = page;
        self.ask(Method::GET, &format!("/v1/sessions?limit={limit}&offset={offset}"))
    }

    /// Version and process id of the daemon.
    ///
    /// # Errors
    /// As [`Client::stats`].
    pub fn version(&self) -> Result<VersionReport, ClientError> {
        self.ask(Method::GET, "/v1/version")
    }

    /// Has the daemon read its configuration file anew.
    ///
    /// # Errors
    /// As [`Client::stats`]; [`ClientError::Refused`] when the file is wrong or needs a new start.
    pub fn reload(&self) -> Result<ReloadReport, ClientError> {
        self.ask(Method::POST, "/v1/reload")
    }

    /// What a reload would change if the file were `file`; changes nothing.
    ///
    /// # Errors
    /// As [`Client::stats`]; [`ClientError::Refused`] when a reload would be, for another reason than
    /// that something needs a new start.
    pub fn diff(&self, file: NewFile) -> Result<DiffReport, ClientError> {
        let target = format!("/v1/diff?file={}", percent_encoded(&file.name));
        self.ask_with(Method::POST, &target, file.bytes.into())
    }

    /// Marks a real server up or down.
    ///
    /// # Errors
    /// As [`Client::stats`]; [`ClientError::Refused`] when there is none of that name.
    pub fn set_health(
        &self,
        name: ServerName,
        health: Health,
    ) -> Result<HealthReport, ClientError> {
        let ServerName { service, protocol, server } = name;
        let word = match health {
            Health::Up => "up",
            Health::Down => "down",
        };
        let parameters = format!("service={service}&protocol={protocol}&server={server}");
        self.ask(Method::POST, &format!("/v1/servers/{word}?{parameters}"))
    }

    /// Begins to stop the daemon.
    ///
    /// # Errors
    /// As [`Client::stats`].
    pub fn stop(&self, what: Stop) -> Result<StopReport, ClientError> {
        let target = match what {
            Stop::End => "/v1/stop",
            Stop::Keep => "/v1/stop?keep=true",
        };
        self.ask(Method::POST, target)
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, target: &str) -> Result<T, ClientError> {
        self.ask_with(method, target, Bytes::new())
    }

    fn ask_with<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| self.io(source))?;
        let exchange =
            async { tokio::time::timeout(TIMEOUT, self.exchange(method, target, body)).await };
        let (ok, body) = runtime
            .block_on(exchange)
            .map_err(|_| ClientError::TimedOut { path: self.path.clone() })??;
        if ok {
            return serde_json::from_slice(&body).map_err(|error| self.bad(error));
        }
        match serde_json::from_slice::<ErrorReport>(&body) {
            Ok(report) => Err(ClientError::Refused(report.error)),
            Err(_) => Err(self.bad("a refusal without a reason")),
        }
    }

    /// Whether the status was a success, and the body.
    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(bool, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(self.path.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied(self.path.clone()),
            _ => self.io(error),
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.bad(error))?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "seawall")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| self.bad(error))?;
        // The connection's own error reaches the request as well.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.bad(error))?;
        let ok = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        Ok((ok, body.map_err(|error| self.bad(error))?.to_bytes()))
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { path: self.path.clone(), source }
    }

    fn bad(&self, why: impl ToString) -> ClientError {
        ClientError::BadAnswer { path: self.path.clone(), why: why.to_string() }
    }
}

/// Text as it may stand in a URI's query (RFC 3986, section 2).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
