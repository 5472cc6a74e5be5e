//! The socket of the IPVS protocol: sequenced packets, a datagram a message or a row of them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Type;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::proc_files::{self, Reading};
use super::{Backend, dialogue};
use crate::socket::{self, BindError, Listener};

/// Connections served at once; further ones wait in the socket's backlog. keepalived has one, and
/// each ipvsadm one or two.
const CONNECTIONS: usize = 128;
/// Bytes of a datagram that comes; ipvsadm's are some 200 bytes long.
const REQUEST_MAX: usize = 16_384;
/// Bytes of a datagram of a file.
const FILE_DATAGRAM: usize = 16_384;
/// For one datagram; nothing ends a connection that asks nothing, as keepalived's does.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The listening socket. Its name is removed when this is dropped or has run.
#[derive(Debug)]
pub struct Server(Listener);

impl Server {
    /// Makes the socket, mode 0600, and its directory, mode 0755, where absent. Connections wait
    /// until [`Server::run_blocking`] answers them.
    ///
    /// # Errors
    /// When a daemon listens there, the name is taken by something else, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Listener::bind("[ipvs]", Type::SEQPACKET, path).map(Self)
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
        let answer = |connection| {
            let backend = Arc::clone(&backend);
            async move {
                // Who breaks off is told nothing: what was asked before has been done.
                let _ = serve(&connection, &backend).await;
            }
        };
        socket::block_on(self.0.answer(CONNECTIONS, shutdown, answer))
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
