//! The server: a fixed number of threads that accept and serve, one connection at a time each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use super::head::{Head, HeadError};
use super::{CHUNK, hex};
use crate::Namespace;
use crate::pattern;

/// Connections that wait for a thread; the kernel caps it at `net.core.somaxconn` (4096).
const BACKLOG: i32 = 4096;

/// How long a read or write may block before the thread looks whether the server stops.
const TICK: Duration = Duration::from_millis(100);

/// A connection that moves no byte for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Stack of a serving thread: two chunks and the rest.
const STACK: usize = 512 * 1024;

/// What a server answers.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// The value of `X-Server`.
    pub name: String,
    /// The body of `GET /`.
    pub body: Vec<u8>,
    /// The seed of the pattern of `GET /bytes/N`.
    pub seed: u64,
    /// Threads, and so connections served at once; more wait in the backlog. At least 1.
    pub threads: usize,
}

impl ServerSpec {
    /// A server of that name, whose body is its name, with 64 threads and seed 0.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), body: format!("{name}\n").into_bytes(), seed: 0, threads: 64 }
    }
}

struct Shared {
    spec: ServerSpec,
    listener: Socket,
    stop: AtomicBool,
    requests: AtomicU64,
}

/// A running server; it stops when dropped, and then no thread or socket of it is left.
pub struct HttpServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server inside a namespace.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound, or no threads can be started.
    pub fn start(namespace: &Namespace, address: SocketAddr, spec: ServerSpec) -> io::Result<Self> {
        namespace.run(|| Self::start_here(address, spec))
    }

    /// Starts a server in the calling thread's namespace. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound, or no threads can be started.
    pub fn start_here(address: SocketAddr, spec: ServerSpec) -> io::Result<Self> {
        let listener =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        listener.set_reuse_address(true)?;
        listener.bind(&address.into())?;
        listener.listen(BACKLOG)?;
        let address = listener
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("the listener has no IP address"))?;
        let threads = spec.threads.max(1);
        let shared = Arc::new(Shared {
            spec,
            listener,
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        });
        // Made before its threads, so that those already started are stopped if one cannot be.
        let mut server = Self { shared, address, threads: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let shared = Arc::clone(&server.shared);
            let builder = thread::Builder::new().name("http server".into()).stack_size(STACK);
            server.threads.push(builder.spawn(move || shared.accept())?);
        }
        Ok(server)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the threads in accept(2); on Linux they return with EINVAL.
        let _ = self.shared.listener.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What becomes of a connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Keep,
    Close,
}

impl Shared {
    fn accept(&self) {
        while !self.stop.load(Ordering::Acquire) {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    // A peer that fails or leaves ends its own connection only.
                    let _ = self.serve(socket.into());
                }
                // Out of descriptors or memory: others may give some back.
                Err(_) if !self.stop.load(Ordering::Acquire) => thread::sleep(TICK),
                Err(_) => {}
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        let mut stream = Patient { stream: &stream, stop: &self.stop };
        let mut buffer = Vec::new();
        loop {
            let head = match Head::read(&mut stream, &mut buffer) {
                Ok(head) => head,
                Err(HeadError::End) => return Ok(()),
                Err(HeadError::Io(error)) => return Err(error),
                Err(HeadError::Malformed(reason)) => {
                    return self.refuse(&mut stream, "400 Bad Request", reason);
                }
            };
            self.requests.fetch_add(1, Ordering::Relaxed);
            let next = next(&head);
            match (head.start[0].as_str(), head.start[1].as_str()) {
                ("GET", "/") => self.answer(&mut stream, next, "200 OK", &self.spec.body)?,
                ("GET", path) => match path.strip_prefix("/bytes/").map(str::parse) {
                    Some(Ok(length)) => self.send_pattern(&mut stream, next, length)?,
                    _ => self.answer(&mut stream, next, "404 Not Found", b"no such page\n")?,
                },
                ("POST", "/upload") => match head.content_length() {
                    Ok(Some(length)) => {
                        // RFC 9110, section 10.1.1: curl waits a second for this.
                        if head.field("expect").is_some() {
                            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                        }
                        let answer = receive(&mut stream, &mut buffer, length)?;
                        self.answer(&mut stream, next, "200 OK", answer.as_bytes())?;
                    }
                    _ => {
                        let reason = "an upload needs a Content-Length";
                        return self.refuse(&mut stream, "411 Length Required", reason);
                    }
                },
                _ => {
                    let reason = "GET /, GET /bytes/N and POST /upload are served";
                    return self.refuse(&mut stream, "405 Method Not Allowed", reason);
                }
            }
            if next == Next::Close {
                return Ok(());
            }
        }
    }

    fn head(&self, next: Next, status: &str, length: u64) -> String {
        let connection = match next {
            Next::Keep => "keep-alive",
            Next::Close => "close",
        };
        format!(
            "HTTP/1.1 {status}\r\nX-Server: {}\r\nContent-Length: {length}\r\nConnection: \
             {connection}\r\n\r\n",
            self.spec.name
        )
    }

    fn answer(
        &self,
        stream: &mut Patient<'_>,
        next: Next,
        status: &str,
        body: &[u8],
    ) -> io::Result<()> {
        let mut bytes = self.head(next, status, body.len() as u64).into_bytes();
        bytes.extend_from_slice(body);
        stream.write_all(&bytes)
    }

    /// Answers a request whose body, if any, is not read, so the connection cannot be kept.
    fn refuse(&self, stream: &mut Patient<'_>, status: &str, reason: &str) -> io::Result<()> {
        self.answer(stream, Next::Close, status, format!("{reason}\n").as_bytes())?;
        // Closing with unread bytes would send a reset that overtakes the answer.
        stream.stream.shutdown(Shutdown::Write)?;
        let mut rest = [0; 4096];
        for _ in 0..256 {
            if stream.read(&mut rest)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn send_pattern(&self, stream: &mut Patient<'_>, next: Next, length: u64) -> io::Result<()> {
        stream.write_all(self.head(next, "200 OK", length).as_bytes())?;
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        while offset < length {
            let size = (length - offset).min(CHUNK as u64);
            let piece = &mut chunk[..size as usize];
            pattern::fill(self.spec.seed, offset, piece);
            stream.write_all(piece)?;
            offset += size;
        }
        Ok(())
    }
}

/// Reads an upload; what came with the head is in `buffer`, and so is what follows the body.
fn receive(stream: &mut impl Read, buffer: &mut Vec<u8>, length: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let early = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
    hash.update(&buffer[..early]);
    buffer.drain(..early);
    let mut left = length - early as u64;
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let size = left.min(CHUNK as u64) as usize;
        let received = stream.read(&mut chunk[..size])?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&chunk[..received]);
        left -= received as u64;
    }
    Ok(format!("{} {length}\n", hex(&hash.finalize())))
}

/// RFC 9112, section 9.3: persistent unless the client says otherwise or speaks HTTP/1.0.
fn next(head: &Head) -> Next {
    let asked = head.field("connection").unwrap_or_default();
    let old = head.start[2] == "HTTP/1.0";
    if asked.eq_ignore_ascii_case("close") || (old && !asked.eq_ignore_ascii_case("keep-alive")) {
        Next::Close
    } else {
        Next::Keep
    }
}

/// A stream whose reads and writes wait up to [`IDLE_LIMIT`], but not beyond the server's stop.
struct Patient<'a> {
    stream: &'a TcpStream,
    stop: &'a AtomicBool,
}

impl Patient<'_> {
    fn wait(&self, mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match attempt(self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stop.load(Ordering::Acquire) || start.elapsed() > IDLE_LIMIT {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                result => return result,
            }
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|mut stream| stream.read(buffer))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(|mut stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
