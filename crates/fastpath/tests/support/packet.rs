//! TCP over IPv4 over Ethernet, written and read byte by byte.

pub(crate) const FIN: u16 = 0x001;
pub(crate) const SYN: u16 = 0x002;
pub(crate) const RST: u16 = 0x004;
pub(crate) const PSH: u16 = 0x008;
pub(crate) const ACK: u16 = 0x010;

/// Offsets in the frames that this builds: IPv4 without options.
pub(crate) const IP: usize = 14;
pub(crate) const TCP: usize = 34;

pub(crate) type Mac = [u8; 6];

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
    pub(crate) tos: u8,
    pub(crate) ident: u16,
    pub(crate) ttl: u8,
    pub(crate) source: (u32, u16),
    pub(crate) destination: (u32, u16),
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
        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        frame.extend([0x08, 0x00, 0x45, self.tos]);
        frame.extend((20 + tcp.len() as u16).to_be_bytes());
        frame.extend(self.ident.to_be_bytes());
        frame.extend([0x40, 0x00, self.ttl, 6, 0, 0]);
        frame.extend(self.source.0.to_be_bytes());
        frame.extend(self.destination.0.to_be_bytes());
        frame.extend(tcp);
        seal(&mut frame);
        frame
    }

    /// Reads a frame without IP options, insisting on right lengths and checksums.
    pub(crate) fn read(frame: &[u8]) -> Self {
        assert!(checksums_hold(frame), "checksums: {frame:02x?}");
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes(frame[at..at + 2].try_into().unwrap());
        let header = usize::from(frame[TCP + 12] >> 4) * 4;
        assert_eq!(usize::from(half(IP + 2)), frame.len() - IP, "total length");
        assert_eq!((half(12), frame[IP], frame[IP + 9]), (0x0800, 0x45, 6));
        Self {
            destination_mac: frame[0..6].try_into().unwrap(),
            source_mac: frame[6..12].try_into().unwrap(),
            tos: frame[IP + 1],
            ident: half(IP + 4),
            ttl: frame[IP + 8],
            source: (word(IP + 12), half(TCP)),
            destination: (word(IP + 16), half(TCP + 2)),
            seq: word(TCP + 4),
            ack: word(TCP + 8),
            flags: half(TCP + 12) & 0x1ff,
            window: half(TCP + 14),
            urgent: half(TCP + 18),
            options: read_options(&frame[TCP + 20..TCP + header]).expect("sound options"),
            raw_options: None,
            payload: frame[TCP + header..].to_vec(),
        }
    }
}

fn pseudo_header(frame: &[u8]) -> Vec<u8> {
    let len = u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]) - 20;
    let mut pseudo = frame[IP + 12..IP + 20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(len.to_be_bytes());
    pseudo
}

/// Ones' complement sum over the TCP segment with its pseudo-header: 0xffff if it is intact.
pub(crate) fn tcp_sum(frame: &[u8]) -> u16 {
    let end = IP + usize::from(u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]));
    ones_sum(&[&pseudo_header(frame), &frame[TCP..end]])
}

/// Whether both checksums are right.
pub(crate) fn checksums_hold(frame: &[u8]) -> bool {
    ones_sum(&[&frame[IP..TCP]]) == 0xffff && tcp_sum(frame) == 0xffff
}

/// Sets the checksum of the IP header.
pub(crate) fn seal_ip(frame: &mut [u8]) {
    frame[IP + 10..IP + 12].fill(0);
    let sum = !ones_sum(&[&frame[IP..TCP]]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

fn seal(frame: &mut [u8]) {
    seal_ip(frame);
    let sum = !tcp_sum(frame);
    frame[TCP + 16..TCP + 18].copy_from_slice(&sum.to_be_bytes());
}
