//! Real clients: those that attack, and those that must not notice.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::Error;
use crate::frame::{Link, Packet, Path, Segment, flags};
use crate::http::{Connection, Timeouts};
use crate::tap::Tap;
use crate::{Namespace, http};

/// How long a handshake may take that XDP answers.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a recorded segment may take to be seen.
const SEEN: Duration = Duration::from_secs(2);
/// Kept connections have one limit for all their requests.
const KEPT: Timeouts = Timeouts { connect: CONNECT, total: Duration::from_secs(120) };

/// Connects from an address of the calling thread's namespace; `None` if the handshake was
/// completed and then reset, which is how the daemon refuses. Closing a connection resets it, so
/// that nothing is sent again afterwards.
pub(super) fn connect(source: IpAddr, target: SocketAddr) -> Result<Option<TcpStream>, Error> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect_timeout(&target.into(), CONNECT) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
        result => result?,
    }
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(Some(socket.into()))
}

/// Connections that are open while an attack goes on, and must go on after it.
pub(super) struct Kept(Vec<Connection>);

impl Kept {
    /// Opens some, and has each carry a request.
    pub(super) fn open(
        namespace: &Namespace,
        target: SocketAddr,
        count: usize,
    ) -> Result<Self, Error> {
        let open = || (0..count).map(|_| Connection::open(target, &KEPT)).collect();
        let opened: Result<Vec<_>, http::Error> = namespace.run(open);
        let mut kept = Self(opened?);
        let faults = kept.ask();
        if let Some(fault) = faults.into_iter().next() {
            return Err(Error::Unexpected(fault));
        }
        Ok(kept)
    }

    /// Has each carry another request; says of which ones it cannot.
    pub(super) fn ask(&mut self) -> Vec<String> {
        let answers = self.0.iter_mut().map(|connection| connection.get("/"));
        let failed = answers.filter_map(Result::err);
        failed.map(|error| format!("an established connection: {error}")).collect()
    }
}

/// A request on a connection that may have nobody behind it: whether an answer comes within
/// `limit`.
pub(super) fn is_answered(stream: &mut TcpStream, limit: Duration) -> bool {
    let mut byte = [0];
    stream.set_read_timeout(Some(limit)).is_ok()
        && stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read(&mut byte).is_ok_and(|len| len > 0)
}

/// The segment that completed a real handshake.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) path: Path,
    pub(super) segment: Segment,
}

impl Proof {
    /// Completes a handshake from `source`, and gives the ACK that did and the connection.
    pub(super) fn record(
        namespace: &Namespace,
        source: IpAddr,
        target: SocketAddr,
    ) -> Result<(Self, TcpStream), Error> {
        let tap = Tap::open(namespace)?;
        let stream = namespace.run(|| connect(source, target))?;
        let stream = stream.ok_or_else(|| Error::Unexpected("a client was reset".to_owned()))?;
        let path = Path { source: stream.local_addr()?, destination: target };
        let ack = tap.find(SEEN, |frame| ack(frame, path))?;
        let segment = ack.ok_or_else(|| Error::Unexpected("no ACK was seen".to_owned()))?;
        Ok((Self { path, segment }, stream))
    }

    /// The same numbers and options along another path.
    pub(super) fn along(&self, link: Link, path: Path) -> Packet {
        Packet::tcp(link, path, &self.segment)
    }
}

/// The bare ACK in `frame`, if it goes along `path`.
fn ack(frame: &[u8], path: Path) -> Option<Segment> {
    let l4 = if path.source.is_ipv4() { 34 } else { 54 };
    let tcp = frame.get(l4..)?;
    let word = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
    let ports = u32::from(path.source.port()) << 16 | u32::from(path.destination.port());
    let header_len = usize::from(tcp.get(12)? >> 4) * 4;
    if word(0)? != ports || *tcp.get(13)? != flags::ACK {
        return None;
    }
    let options = tcp.get(20..header_len)?.to_vec();
    let (seq, ack) = (word(4)?, word(8)?);
    Some(Segment { flags: flags::ACK, seq, ack, options, payload: Vec::new() })
}
