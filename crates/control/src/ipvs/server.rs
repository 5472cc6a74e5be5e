//! The socket of the IPVS protocol: sequenced packets, a datagram a message or a row of them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Type;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::proc_files::{self, Reading};
use super::{Backend, dialogue};
use crate::socket::{self, BindError, SocketName};

/// Connections served at once; further ones wait in the socket's backlog. keepalived has one, and
/// each ipvsadm one or two.
const CONNECTIONS: usize = 128;
/// Bytes of a datagram that comes; ipvsadm's are some 200 bytes long.
const REQUEST_MAX: usize = 16_384;
/// Bytes of a datagram of a file.
const FILE_DATAGRAM: usize = 16_384;
/// Before the next `accept` when one failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For one datagram; nothing ends a connection that asks nothing, as keepalived's does.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers under way when the daemon stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The listening socket, of a type that no library has a listener for; those of streams do the same
/// calls. Its name is removed when this is dropped or has run.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    name: SocketName,
}

impl Server {
    /// Makes the socket, mode 0600, and its directory, mode 0755, where absent. Connections wait
    /// until [`Server::run_blocking`] answers them.
    ///
    /// # Errors
    /// When a daemon listens there, the name is taken by something else, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let (listener, name) = socket::listen("[ipvs]", Type::SEQPACKET, path)?;
        Ok(Self { listener: OwnedFd::from(listener).into(), name })
    }

    /// Answers on the calling thread until `shutdown` is ready, then removes the socket.
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

    async fn run(
        self,
        backend: Arc<dyn Backend>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let Self { listener, name } = self;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, connection) = tokio::select! {
                () = &mut shutdown => break,
                (place, accepted) = accepted => match accepted {
                    Ok((connection, _)) => (place, connection),
                    Err(_) => {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let backend = Arc::clone(&backend);
            tokio::spawn(async move {
                // Who breaks off is told nothing: what was asked before has been done.
                let _ = serve(&connection, &backend).await;
                drop(place);
            });
        }
        drop(name);
        Ok(())
    }
}

/// Answers a connection until it ends.
async fn serve(connection: &UnixStream, backend: &Arc<dyn Backend>) -> io::Result<()> {
    let mut buffer = vec![0; REQUEST_MAX];
    loop {
        let receive = || {
            let (_, length) = recv(connection, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
            Ok(length)
        };
        let length = connection.async_io(Interest::READABLE, receive).await?;
        // A datagram that was longer cannot be answered.
        let datagram = match buffer.get(..length) {
            None | Some([]) => return Ok(()),
            Some(datagram) => datagram.to_vec(),
        };
        if let Some(file) = proc_files::named(&datagram) {
            return send_file(connection, backend, Reading::new(file)).await;
        }
        let asked = Arc::clone(backend);
        let answer = move || dialogue::answer(&*asked, &datagram);
        let answers = tokio::task::spawn_blocking(answer).await?;
        for answer in &answers {
            send_datagram(connection, answer).await?;
        }
    }
}

async fn send_file(
    connection: &UnixStream,
    backend: &Arc<dyn Backend>,
    mut reading: Reading,
) -> io::Result<()> {
    loop {
        let asked = Arc::clone(backend);
        let (page, rest) = tokio::task::spawn_blocking(move || {
            let page = reading.page(&*asked);
            (page, reading)
        })
        .await?;
        reading = rest;
        let Some(page) = page.map_err(|_| io::ErrorKind::WouldBlock)? else {
            return send_datagram(connection, &proc_files::END).await;
        };
        for datagram in page.as_bytes().chunks(FILE_DATAGRAM) {
            send_datagram(connection, datagram).await?;
        }
    }
}

async fn send_datagram(connection: &UnixStream, datagram: &[u8]) -> io::Result<()> {
    let send = || Ok(send(connection, datagram, SendFlags::NOSIGNAL)?);
    // A client that does not read must not keep its place.
    timeout(SEND_TIMEOUT, connection.async_io(Interest::WRITABLE, send)).await??;
    Ok(())
}
