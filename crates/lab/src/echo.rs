//! UDP peers: a server that answers each datagram with its own name in front of it, as a DNS server
//! would with one answer a question, and a client that asks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Namespace;

/// How long the server waits for a datagram before it looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// No datagram here is longer.
const LONGEST: usize = 2048;

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Answers on `address` in `namespace`, as `name`.
    ///
    /// # Errors
    /// When the address is taken, or no thread can be started.
    pub fn start(namespace: &Namespace, address: SocketAddr, name: &str) -> io::Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(TICK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, ended) = (format!("{name}:"), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("echo".into()).spawn(move || {
            let mut buffer = [0; LONGEST];
            while !ended.load(Ordering::Relaxed) {
                // A timeout, or an ICMP error about an answer: neither is ours to mend.
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                let mut answer = name.clone().into_bytes();
                answer.extend_from_slice(&buffer[..len]);
                let _ = socket.send_to(&answer, from);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client's port, connected to one server.
#[derive(Debug)]
pub struct Asker {
    socket: UdpSocket,
    asked: u32,
}

impl Asker {
    /// A new port in `namespace` that talks to `server` only.
    ///
    /// # Errors
    /// Those of making and connecting a socket.
    pub fn open(namespace: &Namespace, server: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = namespace.run(|| {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(server).map(|()| socket)
        })?;
        Ok(Self { socket, asked: 0 })
    }

    /// Asks once and gives the name of the server that answers within `limit`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when none does, [`io::ErrorKind::ConnectionRefused`] when an
    /// ICMP error says that nobody will, and others of sockets; [`io::ErrorKind::InvalidData`] when
    /// the answer is not to this question.
    pub fn ask(&mut self, limit: Duration) -> io::Result<String> {
        self.asked += 1;
        let question = format!("question {}", self.asked);
        self.socket.set_read_timeout(Some(limit))?;
        self.socket.send(question.as_bytes())?;
        let mut buffer = [0; LONGEST];
        let len = self.socket.recv(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..len]);
        match answer.split_once(':') {
            Some((name, echo)) if echo == question => Ok(name.to_owned()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, answer.into_owned())),
        }
    }
}
