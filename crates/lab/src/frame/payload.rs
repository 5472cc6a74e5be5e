//! What IP packets carry: TCP, and ICMP errors that quote it.

use super::{ETHERNET, Link, Packet, Path};

/// The window of every segment.
const WINDOW: u16 = 64_240;

/// Flags of a TCP header (RFC 9293, section 3.1).
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronize.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// What a TCP segment says. Ports are the [`Path`]'s.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// See [`flags`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Options, filled up with zeros to a multiple of 4; at most 40 bytes.
    pub options: Vec<u8>,
    /// What follows the header.
    pub payload: Vec<u8>,
}

pub(super) fn ports(path: Path) -> Vec<u8> {
    [path.source.port().to_be_bytes(), path.destination.port().to_be_bytes()].concat()
}

pub(super) fn tcp(path: Path, segment: &Segment) -> Vec<u8> {
    let mut options = segment.options.clone();
    options.resize(options.len().next_multiple_of(4), 0);
    assert!(options.len() <= 40, "{} bytes of options", options.len());
    let mut bytes = ports(path);
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    bytes.extend([((20 + options.len()) << 2) as u8, segment.flags]);
    bytes.extend(WINDOW.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(options);
    bytes.extend(&segment.payload);
    bytes
}

/// An ICMP error: type and code, the rest of its header, the IP header and the first eight bytes of
/// a segment.
pub(super) fn error(link: Link, kind: [u8; 2], rest: u32, quoted: Path, seq: u32) -> Vec<u8> {
    let segment = Segment { flags: flags::ACK, seq, payload: vec![0; 16], ..Segment::default() };
    let quote = Packet::tcp(link, quoted, &segment).template().bytes;
    let headers = if quoted.source.is_ipv4() { 20 } else { 40 } + 8;
    let mut bytes = [&kind[..], &[0, 0], &rest.to_be_bytes()].concat();
    bytes.extend(&quote[ETHERNET..ETHERNET + headers]);
    bytes
}
