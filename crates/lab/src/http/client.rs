//! The client: one deadline for everything, and errors that a table can count.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::head::{Head, HeadError};
use super::{CHUNK, hex};
use crate::pattern::{self, Checker};

/// The longest body that [`get`] keeps, in bytes; [`download`] has no limit.
const MAX_BODY: u64 = 16 * 1024 * 1024;

/// How long a client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP handshake.
    pub connect: Duration,
    /// From the first SYN to the last byte of one request.
    pub total: Duration,
}

impl Default for Timeouts {
    /// 3 s to connect (a SYN and its first two retransmissions), 10 s in all.
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), total: Duration::from_secs(10) }
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// No answer to the SYN in time.
    ConnectTimeout,
    /// A reset in answer to the SYN.
    Refused,
    /// The handshake failed otherwise: no route, no free port …
    Connect,
    /// Connected, but not done in time.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The server closed before the answer was complete.
    Truncated,
    /// Something else failed on the socket.
    Other,
    /// What came is not HTTP.
    Malformed,
    /// An answer, but not 200.
    Status,
    /// The bytes are not the ones that should have come, or arrived.
    Corrupt,
}

impl ErrorKind {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::ConnectTimeout,
        Self::Refused,
        Self::Connect,
        Self::Timeout,
        Self::Reset,
        Self::Truncated,
        Self::Other,
        Self::Malformed,
        Self::Status,
        Self::Corrupt,
    ];

    /// A few words for a table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect timeout",
            Self::Refused => "refused",
            Self::Connect => "connect failed",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Other => "socket error",
            Self::Malformed => "malformed answer",
            Self::Status => "bad status",
            Self::Corrupt => "corrupt",
        }
    }
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {}: {detail}", kind.name())]
pub struct Error {
    /// How.
    pub kind: ErrorKind,
    /// The server asked.
    pub address: SocketAddr,
    /// In words.
    pub detail: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The fields, as they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The `X-Server` field.
    pub server: Option<String>,
    /// From the first SYN, or from the request on a kept connection, to the last byte.
    pub latency: Duration,
}

/// A stretch of the pattern, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Bytes.
    pub length: u64,
    /// The seed of the pattern; for a download the server's.
    pub seed: u64,
}

/// A large transfer that arrived complete and unaltered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes moved.
    pub length: u64,
    /// Their SHA-256, in hex; computed by whoever received them.
    pub sha256: String,
    /// The `X-Server` field.
    pub server: Option<String>,
    /// From the first SYN to the last byte.
    pub elapsed: Duration,
}

/// One request on a connection of its own, in the calling thread's namespace.
///
/// # Errors
///
/// [`Error`]; any status is an answer.
pub fn get(address: SocketAddr, path: &str, timeouts: &Timeouts) -> Result<Response, Error> {
    Connection::open(address, timeouts)?.request(path, "close")
}

/// Fetches a stretch of the pattern and compares each.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] names the first byte that differs; and the others of [`Error`].
pub fn download(
    address: SocketAddr,
    payload: Payload,
    timeouts: &Timeouts,
) -> Result<Transfer, Error> {
    let Payload { length, seed } = payload;
    let mut connection = Connection::open(address, timeouts)?;
    connection.send_head(&format!("GET /bytes/{length} HTTP/1.1"), "Connection: close\r\n")?;
    let (head, announced) = connection.read_answer()?;
    if announced != length {
        let detail = format!("asked for {length} bytes, {announced} announced");
        return Err(connection.error(ErrorKind::Corrupt, detail));
    }
    let mut checker = Checker::new(seed);
    let mut hash = Sha256::new();
    connection.read_body(length, |bytes| {
        checker.update(bytes);
        hash.update(bytes);
    })?;
    if let Some(offset) = checker.first_difference() {
        let detail = format!("the byte at {offset} of {length} is not the one sent");
        return Err(connection.error(ErrorKind::Corrupt, detail));
    }
    Ok(Transfer {
        length,
        sha256: hex(&hash.finalize()),
        server: head.field("x-server").map(str::to_owned),
        elapsed: connection.start.elapsed(),
    })
}

/// Sends a stretch of the pattern and compares what the server says it received.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] when that is something else; and the others of [`Error`].
pub fn upload(
    address: SocketAddr,
    payload: Payload,
    timeouts: &Timeouts,
) -> Result<Transfer, Error> {
    let Payload { length, seed } = payload;
    let mut connection = Connection::open(address, timeouts)?;
    let fields = format!("Content-Length: {length}\r\nConnection: close\r\n");
    connection.send_head("POST /upload HTTP/1.1", &fields)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let size = (length - offset).min(CHUNK as u64);
        let piece = &mut chunk[..size as usize];
        pattern::fill(seed, offset, piece);
        hash.update(&*piece);
        connection.write_all(piece)?;
        offset += size;
    }
    let (head, announced) = connection.read_answer()?;
    let mut answer = Vec::new();
    connection.read_body(announced.min(MAX_BODY), |bytes| answer.extend_from_slice(bytes))?;
    let sent = format!("{} {length}", hex(&hash.finalize()));
    let received = String::from_utf8_lossy(&answer).trim_end().to_owned();
    if sent != received {
        let detail = format!("sent {sent}, the server received {received}");
        return Err(connection.error(ErrorKind::Corrupt, detail));
    }
    let sha256 = sent.split(' ').next().unwrap_or_default().to_owned();
    let server = head.field("x-server").map(str::to_owned);
    Ok(Transfer { length, sha256, server, elapsed: connection.start.elapsed() })
}

/// A connection that may carry several requests.
pub struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    timeouts: Timeouts,
    start: Instant,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, from the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ConnectTimeout`], [`ErrorKind::Refused`] and [`ErrorKind::Connect`].
    pub fn open(address: SocketAddr, timeouts: &Timeouts) -> Result<Self, Error> {
        let start = Instant::now();
        let failed = |source: io::Error| {
            let kind = match source.kind() {
                io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
                io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
                _ => ErrorKind::Connect,
            };
            Error { kind, address, detail: source.to_string() }
        };
        let stream = TcpStream::connect_timeout(&address, timeouts.connect).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { stream, address, timeouts: *timeouts, start, buffer: Vec::new() })
    }

    /// Our end of it: what a capture or the session table shows.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// One request on this connection, which stays open; its time starts now.
    ///
    /// # Errors
    ///
    /// [`Error`]; any status is an answer.
    pub fn get(&mut self, path: &str) -> Result<Response, Error> {
        self.start = Instant::now();
        self.request(path, "keep-alive")
    }

    fn request(&mut self, path: &str, connection: &str) -> Result<Response, Error> {
        self.send_head(&format!("GET {path} HTTP/1.1"), &format!("Connection: {connection}\r\n"))?;
        let (head, length) = self.read_head()?;
        if length > MAX_BODY {
            let detail = format!("a body of {length} bytes; at most {MAX_BODY} are kept");
            return Err(self.error(ErrorKind::Malformed, detail));
        }
        let mut body = Vec::new();
        self.read_body(length, |bytes| body.extend_from_slice(bytes))?;
        Ok(Response {
            status: status(&head),
            server: head.field("x-server").map(str::to_owned),
            headers: head.fields,
            body,
            latency: self.start.elapsed(),
        })
    }

    fn send_head(&mut self, request: &str, fields: &str) -> Result<(), Error> {
        let head = format!("{request}\r\nHost: {}\r\n{fields}\r\n", self.address);
        self.write_all(head.as_bytes())
    }

    fn read_head(&mut self) -> Result<(Head, u64), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let head = Head::read(&mut Deadline(self), &mut buffer);
        self.buffer = buffer;
        let parsed = head.and_then(|head| head.content_length().map(|length| (head, length)));
        match parsed {
            Ok((head, Some(length))) if head.start[0].starts_with("HTTP/1.") => Ok((head, length)),
            Ok(_) => Err(self.error(ErrorKind::Malformed, "no HTTP/1 answer with a length".into())),
            Err(HeadError::End) => {
                Err(self.error(ErrorKind::Truncated, "closed without an answer".into()))
            }
            Err(HeadError::Io(error)) => Err(self.failed(&error)),
            Err(HeadError::Malformed(reason)) => {
                Err(self.error(ErrorKind::Malformed, reason.into()))
            }
        }
    }

    /// A head that must be of status 200.
    fn read_answer(&mut self) -> Result<(Head, u64), Error> {
        let (head, length) = self.read_head()?;
        if status(&head) == 200 {
            Ok((head, length))
        } else {
            Err(self.error(ErrorKind::Status, format!("status {}", head.start[1])))
        }
    }

    fn read_body(&mut self, length: u64, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        let early = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
        take(&self.buffer[..early]);
        self.buffer.drain(..early);
        let mut left = length - early as u64;
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        while left > 0 {
            let size = left.min(chunk.len() as u64) as usize;
            match Deadline(self).read(&mut chunk[..size]) {
                Ok(0) => {
                    let detail = format!("{left} of {length} bytes missing");
                    return Err(self.error(ErrorKind::Truncated, detail));
                }
                Ok(received) => {
                    take(&chunk[..received]);
                    left -= received as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result = Deadline(self).write_all(bytes);
        result.map_err(|error| self.failed(&error))
    }

    fn left(&self) -> io::Result<Duration> {
        match self.timeouts.total.checked_sub(self.start.elapsed()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        let kind = match error.kind() {
            // A blocking socket reports its timeout as EAGAIN.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::Timeout,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ErrorKind::Reset,
            io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
            _ => ErrorKind::Other,
        };
        self.error(kind, error.to_string())
    }

    fn error(&self, kind: ErrorKind, detail: String) -> Error {
        Error { kind, address: self.address, detail }
    }
}

/// A connection whose every read and write ends at the deadline of the request.
struct Deadline<'a>(&'a Connection);

impl Read for Deadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.stream.set_read_timeout(Some(self.0.left()?))?;
        (&self.0.stream).read(buffer)
    }
}

impl Write for Deadline<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.stream.set_write_timeout(Some(self.0.left()?))?;
        (&self.0.stream).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn status(head: &Head) -> u16 {
    head.start[1].parse().unwrap_or(0)
}
