//! TCP over IPv4 or IPv6 over Ethernet, with VLAN tags, written and read byte by byte.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Add, BitXor};

use seawall_fastpath::family::Version;

pub(crate) const FIN: u16 = 0x001;
pub(crate) const SYN: u16 = 0x002;
pub(crate) const RST: u16 = 0x004;
pub(crate) const PSH: u16 = 0x008;
pub(crate) const ACK: u16 = 0x010;

/// Offset of the IP header in an untagged frame.
pub(crate) const IP: usize = 14;

pub(crate) type Mac = [u8; 6];

/// An address of either family; IPv4 is mapped. `+` and `^` change the last word, to name
/// neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ip(pub(crate) u128);

impl Ip {
    pub(crate) const fn v4(address: u32) -> Self {
        Self(0xffff << 32 | address as u128)
    }

    /// The address if it is one of IPv4.
    pub(crate) const fn as_v4(self) -> Option<u32> {
        if self.0 >> 32 == 0xffff { Some(self.0 as u32) } else { None }
    }

    /// Its version.
    pub(crate) const fn version(self) -> Version {
        if self.as_v4().is_some() { Version::V4 } else { Version::V6 }
    }

    /// The bytes of the address in a header.
    pub(crate) fn octets(self) -> Vec<u8> {
        match self.as_v4() {
            Some(address) => address.to_be_bytes().to_vec(),
            None => self.0.to_be_bytes().to_vec(),
        }
    }
}

impl Add<u32> for Ip {
    type Output = Self;

    fn add(self, other: u32) -> Self {
        Self(self.0 & !0xffff_ffff | u128::from((self.0 as u32).wrapping_add(other)))
    }
}

impl BitXor<u32> for Ip {
    type Output = Self;

    fn bitxor(self, other: u32) -> Self {
        Self(self.0 ^ u128::from(other))
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        match ip.as_v4() {
            Some(address) => Ipv4Addr::from_bits(address).into(),
            None => Ipv6Addr::from_bits(ip.0).into(),
        }
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", IpAddr::from(*self))
    }
}

/// Where the TCP header of a frame begins.
pub(crate) fn tcp_at(frame: &[u8]) -> usize {
    Layout::of(frame).tcp
}

/// RFC 1071, section 4.1: the sum of the 16-bit words, carries folded in.
pub(crate) fn ones_sum(runs: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for run in runs {
        for (at, byte) in run.iter().enumerate() {
            sum += u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// A TCP option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Opt {
    Nop,
    End,
    Mss(u16),
    Scale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    Timestamps(u32, u32),
    Other(u8, Vec<u8>),
}

impl Opt {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let with = |kind: u8, value: &[u8]| {
            let mut bytes = vec![kind, value.len() as u8 + 2];
            bytes.extend_from_slice(value);
            bytes
        };
        match self {
            Self::End => vec![0],
            Self::Nop => vec![1],
            Self::Mss(mss) => with(2, &mss.to_be_bytes()),
            Self::Scale(shift) => with(3, &[*shift]),
            Self::SackPermitted => with(4, &[]),
            Self::Sack(blocks) => {
                let edges = blocks.iter().flat_map(|(left, right)| [*left, *right]);
                with(5, &edges.flat_map(u32::to_be_bytes).collect::<Vec<_>>())
            }
            Self::Timestamps(value, echo) => {
                with(8, &[value.to_be_bytes(), echo.to_be_bytes()].concat())
            }
            Self::Other(kind, value) => with(*kind, value),
        }
    }
}

/// The options in `bytes`, or `None` if one runs over them.
pub(crate) fn read_options(mut bytes: &[u8]) -> Option<Vec<Opt>> {
    let mut options = Vec::new();
    while let Some(kind) = bytes.first() {
        if *kind <= 1 {
            if *kind == 0 {
                break;
            }
            options.push(Opt::Nop);
            bytes = &bytes[1..];
            continue;
        }
        let len = usize::from(*bytes.get(1)?);
        if len < 2 || len > bytes.len() {
            return None;
        }
        let value = &bytes[2..len];
        let word = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().unwrap());
        options.push(match (*kind, value.len()) {
            (2, 2) => Opt::Mss(u16::from_be_bytes([value[0], value[1]])),
            (3, 1) => Opt::Scale(value[0]),
            (4, 0) => Opt::SackPermitted,
            (5, 8 | 16 | 24 | 32) => {
                Opt::Sack((0..value.len() / 8).map(|at| (word(at * 8), word(at * 8 + 4))).collect())
            }
            (8, 8) => Opt::Timestamps(word(0), word(4)),
            _ => Opt::Other(*kind, value.to_vec()),
        });
        bytes = &bytes[len..];
    }
    Some(options)
}

/// A TCP segment and everything around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) source_mac: Mac,
    pub(crate) destination_mac: Mac,
    /// VLAN tags, EtherType and control information each, the outer first.
    pub(crate) tags: Vec<u32>,
    /// Type of service, or traffic class.
    pub(crate) tos: u8,
    /// Identification, or the end of the flow label.
    pub(crate) ident: u16,
    pub(crate) ttl: u8,
    pub(crate) source: (Ip, u16),
    pub(crate) destination: (Ip, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u16,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<Opt>,
    /// In place of `options`, as they are; a multiple of four bytes.
    pub(crate) raw_options: Option<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    fn option_bytes(&self) -> Vec<u8> {
        let mut bytes = match &self.raw_options {
            Some(raw) => raw.clone(),
            None => self.options.iter().flat_map(Opt::bytes).collect(),
        };
        while bytes.len() % 4 != 0 {
            bytes.push(0);
        }
        assert!(bytes.len() <= 40, "options do not fit: {self:?}");
        bytes
    }

    /// The frame, with right lengths and checksums.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let options = self.option_bytes();
        let mut tcp = Vec::new();
        tcp.extend(self.source.1.to_be_bytes());
        tcp.extend(self.destination.1.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend((((20 + options.len() as u16) / 4) << 12 | self.flags).to_be_bytes());
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(options);
        tcp.extend(&self.payload);
        let mut frame = self.wrap(6, &tcp);
        seal(&mut frame);
        frame
    }

    /// The payload as a datagram of UDP between the same ends, with right lengths and checksums.
    pub(crate) fn datagram(&self) -> Vec<u8> {
        let mut frame = self.datagram_without_checksum();
        let sum = !tcp_sum(&frame);
        let at = tcp_at(&frame) + 6;
        // RFC 768: zero is none.
        let sum = if sum == 0 { 0xffff } else { sum };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// The same without a UDP checksum.
    pub(crate) fn datagram_without_checksum(&self) -> Vec<u8> {
        let mut udp = Vec::new();
        udp.extend(self.source.1.to_be_bytes());
        udp.extend(self.destination.1.to_be_bytes());
        udp.extend((8 + self.payload.len() as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let mut frame = self.wrap(17, &udp);
        seal_ip(&mut frame);
        frame
    }

    /// Whether a frame is this one as a datagram that has been translated, its checksums right.
    pub(crate) fn is_datagram(&self, frame: &[u8]) -> bool {
        assert!(checksums_hold(frame), "checksums: {frame:02x?}");
        frame == self.datagram()
    }

    /// The frame around what is `protocol`; its IP checksum is not set.
    fn wrap(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        frame.extend(self.tags.iter().flat_map(|tag| tag.to_be_bytes()));
        let len = payload.len() as u16;
        match self.source.0.version() {
            Version::V4 => {
                frame.extend([0x08, 0x00, 0x45, self.tos]);
                frame.extend((20 + len).to_be_bytes());
                frame.extend(self.ident.to_be_bytes());
                frame.extend([0x40, 0x00, self.ttl, protocol, 0, 0]);
            }
            Version::V6 => {
                frame.extend([0x86, 0xdd, 0x60 | self.tos >> 4, self.tos << 4]);
                frame.extend(self.ident.to_be_bytes());
                frame.extend(len.to_be_bytes());
                frame.extend([protocol, self.ttl]);
            }
        }
        assert_eq!(self.source.0.version(), self.destination.0.version(), "{self:?}");
        frame.extend(self.source.0.octets());
        frame.extend(self.destination.0.octets());
        frame.extend(payload);
        frame
    }

    /// Reads a frame without IP options, insisting on right lengths and checksums.
    pub(crate) fn read(frame: &[u8]) -> Self {
        assert!(checksums_hold(frame), "checksums: {frame:02x?}");
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes(frame[at..at + 2].try_into().unwrap());
        let Layout { family, ip, tcp } = Layout::of(frame);
        let header = usize::from(frame[tcp + 12] >> 4) * 4;
        assert_eq!(layout_end(frame), frame.len(), "lengths");
        let wide = |at: usize| Ip(u128::from_be_bytes(frame[at..at + 16].try_into().unwrap()));
        let (tos, ident, ttl, source, destination) = match family {
            Version::V4 => {
                assert_eq!((frame[ip], frame[ip + 9]), (0x45, 6));
                let (source, destination) = (Ip::v4(word(ip + 12)), Ip::v4(word(ip + 16)));
                (frame[ip + 1], half(ip + 4), frame[ip + 8], source, destination)
            }
            Version::V6 => {
                assert_eq!((frame[ip] >> 4, frame[ip + 6]), (6, 6));
                let tos = frame[ip] << 4 | frame[ip + 1] >> 4;
                (tos, half(ip + 2), frame[ip + 7], wide(ip + 8), wide(ip + 24))
            }
        };
        Self {
            destination_mac: frame[0..6].try_into().unwrap(),
            source_mac: frame[6..12].try_into().unwrap(),
            tags: (12..ip - 2).step_by(4).map(word).collect(),
            tos,
            ident,
            ttl,
            source: (source, half(tcp)),
            destination: (destination, half(tcp + 2)),
            seq: word(tcp + 4),
            ack: word(tcp + 8),
            flags: half(tcp + 12) & 0x1ff,
            window: half(tcp + 14),
            urgent: half(tcp + 18),
            options: read_options(&frame[tcp + 20..tcp + header]).expect("sound options"),
            raw_options: None,
            payload: frame[tcp + header..].to_vec(),
        }
    }
}

/// Length of an IP header without options or extensions.
pub(crate) const fn header_len(family: Version) -> usize {
    match family {
        Version::V4 => 20,
        Version::V6 => 40,
    }
}

/// Where the headers of a frame are.
pub(crate) struct Layout {
    pub(crate) family: Version,
    pub(crate) ip: usize,
    pub(crate) tcp: usize,
}

impl Layout {
    /// Of a frame that is IP behind any number of tags, without options.
    pub(crate) fn of(frame: &[u8]) -> Self {
        Self::find(frame).unwrap_or_else(|| panic!("not IP: {frame:02x?}"))
    }

    /// The same, or `None` if it is not IP or ends before.
    pub(crate) fn find(frame: &[u8]) -> Option<Self> {
        let mut ip = 14;
        loop {
            let family = match frame.get(ip - 2..ip)? {
                [0x08, 0x00] => Version::V4,
                [0x86, 0xdd] => Version::V6,
                [0x81, 0x00] | [0x88, 0xa8] => {
                    ip += 4;
                    continue;
                }
                _ => return None,
            };
            let tcp = ip + header_len(family);
            return (tcp <= frame.len()).then_some(Self { family, ip, tcp });
        }
    }
}

/// Where the packet in a frame ends, by its IP header.
fn layout_end(frame: &[u8]) -> usize {
    let Layout { family, ip, tcp } = Layout::of(frame);
    let half = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match family {
        Version::V4 => ip + half(ip + 2),
        Version::V6 => tcp + half(ip + 4),
    }
}

fn pseudo_header(frame: &[u8]) -> Vec<u8> {
    let Layout { family, ip, tcp } = Layout::of(frame);
    let len = (layout_end(frame) - tcp) as u16;
    let mut pseudo = match family {
        Version::V4 => frame[ip + 12..tcp].to_vec(),
        Version::V6 => frame[ip + 8..tcp].to_vec(),
    };
    let protocol = match family {
        Version::V4 => frame[ip + 9],
        Version::V6 => frame[ip + 6],
    };
    pseudo.extend([0, protocol]);
    pseudo.extend(len.to_be_bytes());
    pseudo
}

/// Ones' complement sum over the TCP segment or datagram with its pseudo-header: 0xffff if it is intact.
pub(crate) fn tcp_sum(frame: &[u8]) -> u16 {
    ones_sum(&[&pseudo_header(frame), &frame[tcp_at(frame)..layout_end(frame)]])
}

/// Whether every checksum is right.
pub(crate) fn checksums_hold(frame: &[u8]) -> bool {
    let Layout { family, ip, tcp } = Layout::of(frame);
    (family == Version::V6 || ones_sum(&[&frame[ip..tcp]]) == 0xffff) && tcp_sum(frame) == 0xffff
}

/// Sets the checksum of the IP header, if it has one.
pub(crate) fn seal_ip(frame: &mut [u8]) {
    let Some(Layout { family, ip, tcp }) = Layout::find(frame) else { return };
    if family == Version::V4 {
        frame[ip + 10..ip + 12].fill(0);
        let sum = !ones_sum(&[&frame[ip..tcp]]);
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn seal(frame: &mut [u8]) {
    seal_ip(frame);
    let sum = !tcp_sum(frame);
    let at = tcp_at(frame) + 16;
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
