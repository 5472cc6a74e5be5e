//! The life of a Unix socket that the daemon listens on: made with mode 0600, a stale one replaced, a
//! live one respected, its connections answered with a limit on how many, removed at the end.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Connections that wait to be accepted; further ones wait in `connect`.
const BACKLOG: i32 = 64;

/// Before the next `accept` when one failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers under way when the daemon stops.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// A listening socket of either type: those of streams and of sequenced packets do the same calls.
/// Its name is removed when this is dropped or has answered.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    name: SocketName,
}

impl Listener {
    /// Makes the socket, mode 0600, and its directory, mode 0755, where absent. Connections wait
    /// until [`Listener::answer`].
    pub(crate) fn bind(section: &'static str, kind: Type, path: &Path) -> Result<Self, BindError> {
        let (listener, name) = listen(section, kind, path)?;
        Ok(Self { listener: OwnedFd::from(listener).into(), name })
    }

    /// Has `answer` serve connections, at most `at_once` of them, until `shutdown` is ready; then
    /// closes and removes the socket. Those under way go on. Needs a Tokio runtime with I/O and time.
    pub(crate) async fn answer<C: Future<Output = ()> + Send + 'static>(
        self,
        at_once: usize,
        shutdown: impl Future<Output = ()>,
        mut answer: impl FnMut(UnixStream) -> C,
    ) -> io::Result<()> {
        let Self { listener, name: _name } = self;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(at_once));
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, stream) = tokio::select! {
                () = &mut shutdown => return Ok(()),
                (place, accepted) = accepted => match accepted {
                    Ok((stream, _)) => (place, stream),
                    Err(_) => {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let connection = answer(stream);
            tokio::spawn(async move {
                connection.await;
                drop(place);
            });
        }
    }
}

/// Serves on the calling thread, with a runtime of its own.
pub(crate) fn block_on(serving: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serving);
    // A backend call that hangs must not keep the daemon from ending.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

/// Removes the socket's name when dropped, unless another socket has taken it.
#[derive(Debug)]
struct SocketName {
    path: PathBuf,
    /// Device and inode of the name we made.
    identity: (u64, u64),
}

impl Drop for SocketName {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity) {
            // Nobody is left to tell; a name that stays is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Why a socket could not be made; `section` is that of the configuration which names it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error(
        "a daemon already listens on {path}; stop it with `seawall stop`, or set another {section} \
         socket"
    )]
    Live {
        /// The section.
        section: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket has the name.
    #[error("{path} exists and is not a socket; remove it, or set another {section} socket")]
    NotASocket {
        /// The section.
        section: &'static str,
        /// What exists.
        path: PathBuf,
    },
    /// A step failed.
    #[error("cannot {step} {path}: {source}; expected a {section} socket in a writable directory")]
    Io {
        /// The section.
        section: &'static str,
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A non-blocking listener of that type on `path`, and the name's owner.
fn listen(
    section: &'static str,
    kind: Type,
    path: &Path,
) -> Result<(Socket, SocketName), BindError> {
    let failed = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Io { section, step, path, source }
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
    made.map_err(failed("create the directory", parent))?;

    // Of two daemons that start together, one must not take the other's new socket for a stale
    // one: the directory is locked from the look to the listening socket.
    let lock = File::open(parent).map_err(failed("open the directory", parent))?;
    lock.lock().map_err(failed("lock the directory", parent))?;
    remove_stale(section, kind, path)?;

    let bound = || -> io::Result<(Socket, fs::Metadata)> {
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        // The name gets the mode of the unbound socket (`unix_bind_bsd`, net/unix/af_unix.c), so
        // that it never exists with a wider one.
        File::from(OwnedFd::from(socket.try_clone()?))
            .set_permissions(Permissions::from_mode(0o600))?;
        socket.bind(&SockAddr::unix(path)?)?;
        let metadata = fs::symlink_metadata(path)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok((socket, metadata))
    };
    let (listener, metadata) = bound().map_err(failed("listen on", path))?;
    Ok((listener, SocketName { path: path.to_owned(), identity: identity(&metadata) }))
}

/// Removes a socket that nobody listens on; anything else in its place is an error.
fn remove_stale(section: &'static str, kind: Type, path: &Path) -> Result<(), BindError> {
    let failed = |step, source| BindError::Io { section, step, path: path.to_owned(), source };
    let live = || Err(BindError::Live { section, path: path.to_owned() });
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { section, path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match connect_without_waiting(kind, path) {
        // A full backlog (`WouldBlock`) has a daemon behind it too.
        Ok(()) => live(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => live(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| failed("remove the stale socket", source))
        }
        Err(error) => Err(failed("ask who listens on", error)),
    }
}

fn connect_without_waiting(kind: Type, path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}
