//! Accepting connections, with a limit on everything a client can take.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::Type;
use tokio::time::timeout;

use super::{Backend, routes};
use crate::socket::{self, BindError, Listener, SHUTDOWN_TIMEOUT};

/// Connections served at once; further ones wait in the socket's backlog.
const CONNECTIONS: usize = 32;
/// Bytes of a request line with its headers.
const HEAD_LIMIT: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS: usize = 64;
/// From a connection (or the answer before) to a request's last header; ends idle ones.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a connection as a whole: a client that does not read its answer must not keep its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The API's listening socket. Its name is removed when this is dropped or has run.
#[derive(Debug)]
pub struct Server(Listener);

impl Server {
    /// Makes the socket, mode 0600, and its directory, mode 0755, where absent. Connections wait
    /// until [`Server::run`] answers them.
    ///
    /// # Errors
    /// When a daemon listens there, the name is taken by something else, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Listener::bind("[api]", Type::STREAM, path).map(Self)
    }

    /// Answers requests until `shutdown` is ready, then finishes those under way (for at most 2 s)
    /// and removes the socket. Needs a Tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub async fn run(
        self,
        backend: Arc<dyn Backend>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let router = routes::router(backend);
        let graceful = GracefulShutdown::new();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(HEADERS);
        let answer = |stream| {
            let service = TowerToHyperService::new(router.clone());
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            async move {
                // A client that fails or lingers is its own trouble: nothing is left undone here.
                let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            }
        };
        self.0.answer(CONNECTIONS, shutdown, answer).await?;
        // Answers that take longer are cut with the runtime.
        let _ = timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
        Ok(())
    }

    /// [`Server::run`] on the calling thread, with a runtime of its own.
    ///
    /// # Errors
    /// When the runtime cannot be made or cannot take the socket.
    pub fn run_blocking(
        self,
        backend: Arc<dyn Backend>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        socket::block_on(self.run(backend, shutdown))
    }
}
