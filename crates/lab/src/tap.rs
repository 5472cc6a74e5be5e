//! What passes the interfaces of a namespace, as tcpdump would see it, and what the kernel counted.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;

/// All protocols (`linux/if_ether.h`).
const ETH_P_ALL: u16 = 3;
/// Bytes that may wait to be read.
const BUFFER: usize = 4 << 20;
/// Longer frames are cut off.
const FRAME: usize = 2048;

/// Sees every frame that the namespace's interfaces receive and send.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    /// Starts to look.
    ///
    /// # Errors
    ///
    /// Those of packet(7).
    pub fn open(namespace: &Namespace) -> io::Result<Self> {
        // The protocol is in network order.
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = namespace.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(protocol)))?;
        socket.set_recv_buffer_size(BUFFER)?;
        Ok(Self { socket })
    }

    /// The first frame from now on that `take` makes something of; `None` when there is none
    /// within `limit`.
    ///
    /// # Errors
    ///
    /// Those of recv(2).
    pub fn find<T>(
        &self,
        limit: Duration,
        mut take: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + limit;
        let mut frame = [0; FRAME];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(&mut frame) {
                Ok(len) => {
                    if let Some(found) = take(&frame[..len]) {
                        return Ok(Some(found));
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Frames that the interfaces of a namespace have received, as `/proc/net/dev` counts them: name
/// and number, `lo` left out.
///
/// A veth with an XDP program counts a frame here when it has run the program for it, whatever
/// became of the frame, and not when its queue had no room.
///
/// # Errors
///
/// Those of reading the file.
pub fn received(namespace: &Namespace) -> io::Result<Vec<(String, u64)>> {
    Ok(devices(namespace)?.into_iter().map(|(name, [received, _])| (name, received)).collect())
}

/// Frames that an interface of a namespace has sent, those included for which the queue of its veth
/// peer had no room.
///
/// # Errors
///
/// Those of reading the file; when there is no such interface.
pub fn sent(namespace: &Namespace, interface: &str) -> io::Result<u64> {
    let found = devices(namespace)?.into_iter().find(|(name, _)| name == interface);
    found.map(|(_, [_, sent])| sent).ok_or_else(|| ErrorKind::NotFound.into())
}

/// Interfaces but for `lo`, with the frames that they have received and sent.
fn devices(namespace: &Namespace) -> io::Result<Vec<(String, [u64; 2])>> {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            // proc(5): bytes and packets received, six more, bytes and packets sent, errors, drops.
            let numbers: Vec<_> = numbers.split_whitespace().collect();
            let packets = |at: usize| numbers.get(at)?.parse::<u64>().ok();
            let counts = [packets(1)?, packets(9)? + packets(11)?];
            (name.trim() != "lo").then(|| (name.trim().to_owned(), counts))
        })
        .collect())
}

/// A number that a namespace's protocols count, of a file in `/proc/net` that has a line of names
/// and a line of numbers for each group: `snmp`, `Ip:`, `ForwDatagrams`.
///
/// # Errors
///
/// Those of reading the file; when it lacks the counter.
pub fn counted(namespace: &Namespace, file: &str, group: &str, name: &str) -> io::Result<u64> {
    let path = format!("/proc/thread-self/net/{file}");
    counter(&namespace.run(|| std::fs::read_to_string(path))?, group, name)
}

/// SYNs that the namespace's TCP has sent, again ones included.
///
/// # Errors
///
/// Those of reading the files; when they lack a counter.
pub fn syns_sent(namespace: &Namespace) -> io::Result<u64> {
    let opened = counted(namespace, "snmp", "Tcp:", "ActiveOpens")?;
    Ok(opened + counted(namespace, "netstat", "TcpExt:", "TCPSynRetrans")?)
}

fn counter(text: &str, group: &str, name: &str) -> io::Result<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, numbers) = (lines.next(), lines.next());
    let words = |line: Option<&str>| -> Vec<String> {
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let at = words(names).iter().position(|word| word == name);
    let number = at.and_then(|at| words(numbers).get(at)?.parse().ok());
    number.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("no {group} {name}")))
}

#[cfg(test)]
mod tests {
    use super::counter;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: A ActiveOpens\nTcp: 3 4\n";
        assert_eq!(counter(text, "Tcp:", "ActiveOpens").unwrap(), 4);
        assert!(counter(text, "Tcp:", "Opens").unwrap_err().to_string().contains("Tcp: Opens"));
    }
}
