//! Frames made by hand, right or wrong on purpose, over IPv4 and IPv6 alike.
//!
//! A [`Packet`] is put together, bent out of shape where an attack wants it, and becomes a
//! [`Template`]: bytes whose checksums are right, and the fields that differ from frame to frame.

use std::net::{IpAddr, SocketAddr};

use crate::flood_layout::{FIELDS, FRAME_MAX, Field, order};

mod payload;
mod template;

pub use payload::{Segment, flags};
pub use template::Template;

use payload::{error, ports, tcp};
use template::sum;

const ETHERNET: usize = 14;
const TTL: u8 = 64;
/// Don't fragment (RFC 791).
const DONT_FRAGMENT: u16 = 0x4000;
/// Protocol numbers (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// Who sends a frame to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The receiver's MAC address.
    pub destination: [u8; 6],
    /// The sender's.
    pub source: [u8; 6],
}

/// Where a packet comes from and where it goes; both of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The first: offset 0, more follow.
    First,
    /// One that is neither the first nor the last.
    Middle,
    /// The last.
    Last,
}

/// A field that can differ from frame to frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The last 32 bits of the source address.
    Source,
    /// The source port.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The sequence number.
    Seq,
    /// The acknowledgment number.
    Ack,
    /// In an ICMP error: the source port of the segment that it quotes.
    QuotedSourcePort,
    /// In an ICMP error: the destination port of the segment that it quotes.
    QuotedDestinationPort,
    /// In an ICMP error: the sequence number that it quotes.
    QuotedSeq,
}

/// The order in which a field takes its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Order {
    /// At random.
    Random = order::RANDOM,
    /// One after the other, over and over.
    Rising = order::RISING,
}

/// The values that a field takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Values {
    /// The lowest; for an address, its last 32 bits.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
    /// In which order.
    pub order: Order,
}

impl Values {
    /// Any 32-bit number.
    pub const ANY: Self = Self { first: 0, count: u32::MAX, order: Order::Random };
    /// Any port that a client may have.
    pub const PORTS: Self = Self { first: 1024, count: 64_512, order: Order::Random };
}

/// An IP packet in the making.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    link: Link,
    path: Path,
    protocol: u8,
    /// What an IPv6 header names when there are extension headers between it and the payload.
    first: Option<u8>,
    /// IPv4 options or IPv6 extension headers.
    between: Vec<u8>,
    /// Flags and offset of IPv4.
    fragment: u16,
    payload: Vec<u8>,
    vary: Vec<(Place, Values)>,
}

impl Packet {
    fn new(link: Link, path: Path, protocol: u8, payload: Vec<u8>) -> Self {
        assert_eq!(path.source.is_ipv4(), path.destination.is_ipv4(), "{path:?}");
        let (first, between, vary) = (None, Vec::new(), Vec::new());
        Self { link, path, protocol, first, between, fragment: DONT_FRAGMENT, payload, vary }
    }

    /// A TCP segment.
    ///
    /// # Panics
    ///
    /// When it has more than 40 bytes of options.
    pub fn tcp(link: Link, path: Path, segment: &Segment) -> Self {
        Self::new(link, path, TCP, tcp(path, segment))
    }

    /// A UDP datagram.
    pub fn udp(link: Link, path: Path, data: &[u8]) -> Self {
        let len = 8 + data.len() as u16;
        let mut bytes = ports(path);
        bytes.extend(len.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        Self::new(link, path, UDP, bytes)
    }

    /// "Port unreachable" about a segment that went along `quoted` with that sequence number.
    pub fn port_unreachable(link: Link, path: Path, quoted: Path, seq: u32) -> Self {
        let (protocol, kind) = if path.source.is_ipv4() { (ICMP, 3) } else { (ICMPV6, 1) };
        let code = if protocol == ICMP { 3 } else { 4 };
        Self::new(link, path, protocol, error(link, [kind, code], 0, quoted, seq))
    }

    /// "Fragmentation needed" or "packet too big" about such a segment, for a path of that MTU.
    pub fn too_big(link: Link, path: Path, quoted: Path, seq: u32, mtu: u16) -> Self {
        let (protocol, kind) = if path.source.is_ipv4() { (ICMP, 3) } else { (ICMPV6, 2) };
        let code = if protocol == ICMP { 4 } else { 0 };
        Self::new(link, path, protocol, error(link, [kind, code], mtu.into(), quoted, seq))
    }

    /// Puts IPv4 options into the header.
    ///
    /// # Panics
    ///
    /// When it is IPv6, or their length is no multiple of 4.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        assert!(self.path.source.is_ipv4() && options.len().is_multiple_of(4), "{options:?}");
        self.between = options.to_vec();
        self
    }

    /// Puts an IPv6 extension header of that type, eight bytes of padding, before what there is.
    ///
    /// # Panics
    ///
    /// When it is IPv4.
    #[must_use]
    pub fn extension(mut self, header: u8) -> Self {
        assert!(self.path.source.is_ipv6(), "IPv4 has no extension headers");
        let next = self.first.unwrap_or(self.protocol);
        // PadN of 4 bytes (RFC 8200, section 4.2); to a routing header: type 1, no segments left.
        let mut between = vec![next, 0, 1, 4, 0, 0, 0, 0];
        if header == 43 {
            between[3] = 0;
        }
        between.extend(&self.between);
        (self.first, self.between) = (Some(header), between);
        self
    }

    /// Makes it a part of a larger packet.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 1480 / 8;
        let (offset, more) = match part {
            Part::First => (0, true),
            Part::Middle => (OFFSET, true),
            Part::Last => (2 * OFFSET, false),
        };
        if self.path.source.is_ipv4() {
            self.fragment = offset | if more { MORE } else { 0 };
        } else {
            let next = self.first.unwrap_or(self.protocol);
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            let mut between = vec![next, 0, high, low, 0, 0, 0x12, 0x34];
            between.extend(&self.between);
            (self.first, self.between) = (Some(FRAGMENT), between);
        }
        self
    }

    /// Lets a field differ from frame to frame.
    ///
    /// # Panics
    ///
    /// When there are too many.
    #[must_use]
    pub fn vary(mut self, place: Place, values: Values) -> Self {
        assert!(self.vary.len() < FIELDS, "more than {FIELDS} fields");
        self.vary.push((place, values));
        self
    }

    /// The frames.
    ///
    /// # Panics
    ///
    /// When they would be longer than [`FRAME_MAX`].
    pub fn template(&self) -> Template {
        let mut bytes = [self.link.destination, self.link.source].concat();
        self.write_header(&mut bytes);
        let l4 = bytes.len();
        bytes.extend(&self.payload);
        assert!(bytes.len() <= FRAME_MAX, "a frame of {} bytes", bytes.len());
        for (place, _) in &self.vary {
            let (offset, width) = self.at(*place, l4);
            if let Some(field) = bytes.get_mut(offset..offset + width) {
                field.fill(0);
            }
        }
        let sum = self.l4_sum(l4);
        self.write_sums(&mut bytes, l4, sum);
        let fields = self.vary.iter().map(|(place, values)| self.field(*place, *values, l4, sum));
        Template { fields: fields.collect(), bytes }
    }

    fn write_header(&self, bytes: &mut Vec<u8>) {
        let len = (self.between.len() + self.payload.len()) as u16;
        match (self.path.source.ip(), self.path.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = (20 + self.between.len()) as u8 / 4;
                bytes.extend([0x08, 0x00, 0x40 | words, 0]);
                bytes.extend((20 + len).to_be_bytes());
                bytes.extend([0x12, 0x34]);
                bytes.extend(self.fragment.to_be_bytes());
                bytes.extend([TTL, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([self.first.unwrap_or(self.protocol), TTL]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            _ => unreachable!("`new` takes one family"),
        }
        bytes.extend(&self.between);
    }

    /// Where the checksum of the payload stands in the frame; 0 where there is none to keep right:
    /// in a fragment that does not start with the header.
    fn l4_sum(&self, l4: usize) -> usize {
        let in_header = match self.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let later = if self.path.source.is_ipv4() {
            self.fragment & 0x1fff != 0
        } else {
            self.first == Some(FRAGMENT) && self.between[2..4] > [0, 1][..]
        };
        if later { 0 } else { l4 + in_header }
    }

    /// Makes the checksums right.
    fn write_sums(&self, bytes: &mut [u8], l4: usize, sum_at: usize) {
        if self.path.source.is_ipv4() {
            let sum = !sum(&bytes[ETHERNET..ETHERNET + 20 + self.between.len()]);
            bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        }
        if sum_at != 0 {
            let mut summed = Vec::new();
            if self.protocol != ICMP {
                summed.extend(&bytes[self.source_at()..self.source_at() + 2 * self.address_len()]);
                summed.extend([0, self.protocol]);
                summed.extend((self.payload.len() as u16).to_be_bytes());
            }
            summed.extend(&bytes[l4..]);
            bytes[sum_at..sum_at + 2].copy_from_slice(&(!sum(&summed)).to_be_bytes());
        }
    }

    const fn address_len(&self) -> usize {
        if self.path.source.is_ipv4() { 4 } else { 16 }
    }

    const fn source_at(&self) -> usize {
        ETHERNET + if self.path.source.is_ipv4() { 12 } else { 8 }
    }

    /// Offset and width of a field.
    const fn at(&self, place: Place, l4: usize) -> (usize, usize) {
        let quoted = l4 + 8 + if self.path.source.is_ipv4() { 20 } else { 40 };
        match place {
            Place::Source => (self.source_at() + self.address_len() - 4, 4),
            Place::SourcePort => (l4, 2),
            Place::DestinationPort => (l4 + 2, 2),
            Place::Seq => (l4 + 4, 4),
            Place::Ack => (l4 + 8, 4),
            Place::QuotedSourcePort => (quoted, 2),
            Place::QuotedDestinationPort => (quoted + 2, 2),
            Place::QuotedSeq => (quoted + 4, 4),
        }
    }

    fn field(&self, place: Place, values: Values, l4: usize, l4_sum: usize) -> Field {
        let (offset, width) = self.at(place, l4);
        let ip_sum = if self.path.source.is_ipv4() { ETHERNET as u32 + 10 } else { 0 };
        let l4_sum = l4_sum as u32;
        let sums = match place {
            Place::Source if self.protocol == ICMP => [ip_sum, 0],
            Place::Source => [ip_sum, l4_sum],
            Place::SourcePort
            | Place::DestinationPort
            | Place::Seq
            | Place::Ack
            | Place::QuotedSourcePort
            | Place::QuotedDestinationPort
            | Place::QuotedSeq => [0, l4_sum],
        };
        let Values { first, count, order } = values;
        let (offset, width, order) = (offset as u32, width as u32, order as u32);
        Field { first, count, order, offset, width, sums }
    }
}
