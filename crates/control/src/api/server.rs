//! Accepting connections, with a limit on everything a client can take.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::Type;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Backend, routes};
use crate::socket::{self, BindError, SocketName};

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
/// For answers under way when the daemon stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Before the next `accept` when one failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The API's listening socket. Its name is removed when this is dropped or has run.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    name: SocketName,
}

impl Server {
    /// Makes the socket, mode 0600, and its directory, mode 0755, where absent. Connections wait
    /// until [`Server::run`] answers them.
    ///
    /// # Errors
    /// When a daemon listens there, the name is taken by something else, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let (listener, name) = socket::listen("[api]", Type::STREAM, path)?;
        Ok(Self { listener: OwnedFd::from(listener).into(), name })
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
        let Self { listener, name } = self;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let router = routes::router(backend);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(HEADERS);
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, stream) = tokio::select! {
                () = &mut shutdown => break,
                (place, accepted) = accepted => match accepted {
                    Ok((stream, _)) => (place, stream),
                    Err(_) => {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                // A client that fails or lingers is its own trouble: nothing is left undone here.
                let _ = timeout(CONNECTION_TIMEOUT, connection).await;
                drop(place);
            });
        }
        drop(listener);
        drop(name);
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(self.run(backend, shutdown));
        // A backend call that hangs must not keep the daemon from ending.
        runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        result
    }
}
