//! Writes segments of our own: SYN/ACK to the client, SYN, ACK and RST to either side.
//!
//! Options come in two layouts each, so that lengths are few and every option lies where all
//! receivers' fast paths expect it: MSS, SACK permitted, timestamps and window scale for a SYN,
//! aligned timestamps for anything else. Places of options that are not sent hold NOPs.

use seawall_wire::checksum::Sum;
use seawall_wire::ethernet::{self, EtherType, MacAddr};
use seawall_wire::ipv4::{self, DONT_FRAGMENT, Protocol};
use seawall_wire::tcp::option::ALIGNED_TIMESTAMPS;
use seawall_wire::tcp::{self, Flags};
use seawall_wire::{Bytes, SeqNumber};

use crate::layout::NO_SCALE;
use crate::options::Timestamps;
use crate::{Frame, Tuple};

/// Where a frame goes on its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Our MAC.
    pub source: MacAddr,
    /// The next hop's MAC.
    pub destination: MacAddr,
}

/// The options of a SYN or SYN/ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SynOptions {
    /// Maximum segment size.
    pub mss: u16,
    /// Window shift, or [`NO_SCALE`] to send none.
    pub window_scale: u8,
    /// Send SACK permitted.
    pub sack_permitted: bool,
}

/// A segment without payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it goes on the link.
    pub link: Link,
    /// Sender and receiver.
    pub tuple: Tuple,
    /// Sequence number.
    pub seq: SeqNumber,
    /// Acknowledgment number; zero where the flags have no ACK.
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// Window, as it stands in the header.
    pub window: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options of a SYN; `None` for any other segment.
    pub syn: Option<SynOptions>,
    /// Timestamps to send.
    pub timestamps: Option<Timestamps>,
}

const NOPS: u32 = 0x0101_0101;
const MSS: u32 = 0x0204_0000;
const SACK_PERMITTED_TIMESTAMPS: u32 = 0x0402_080a;
const NOPS_SACK_PERMITTED: u32 = 0x0101_0402;
const NOP_WINDOW_SCALE: u32 = 0x0103_0300;

const L4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
const OPTIONS: usize = L4 + tcp::HEADER_LEN;

/// Makes `frame` this segment, whatever it was. `None` if it cannot be resized or the tuple is
/// not IPv4; then the frame must not be sent.
#[inline(always)]
#[must_use]
pub fn write<F: Frame>(frame: &mut F, segment: &Segment) -> Option<()> {
    let source = segment.tuple.source.address.as_v4()?;
    let destination = segment.tuple.destination.address.as_v4()?;
    let options_len = match (segment.syn.is_some(), segment.timestamps.is_some()) {
        (true, true) => 20,
        (true, false) | (false, true) => 12,
        (false, false) => 0,
    };
    frame.resize(OPTIONS + options_len)?;

    let tcp_len = (tcp::HEADER_LEN + options_len) as u16;
    write_headers(frame, segment, (source, destination), tcp_len)?;

    let offset_flags = tcp_len << 10 | segment.flags.0;
    let sum = Sum::new()
        .dword(source)
        .dword(destination)
        .word(Protocol::TCP.0 as u16)
        .word(tcp_len)
        .dword(segment.tuple.ports())
        .dword(segment.seq.0)
        .dword(segment.ack.0)
        .word(offset_flags)
        .word(segment.window);
    let mut header = tcp::Header {
        source_port: segment.tuple.source.port,
        destination_port: segment.tuple.destination.port,
        seq: segment.seq,
        ack: segment.ack,
        header_len: tcp_len as u8,
        flags: segment.flags,
        window: segment.window,
        checksum: 0,
        urgent: 0,
    };
    let timestamps = segment.timestamps.unwrap_or_default();
    match (segment.syn, segment.timestamps) {
        (Some(syn), Some(_)) => {
            let words = [
                MSS | syn.mss as u32,
                if syn.sack_permitted { SACK_PERMITTED_TIMESTAMPS } else { ALIGNED_TIMESTAMPS },
                timestamps.value,
                timestamps.echo,
                window_scale(syn),
            ];
            header.checksum = frame.window::<20>(OPTIONS).map(|mut to| put(&mut to, words, sum))?;
        }
        (Some(syn), None) => {
            let words = [
                MSS | syn.mss as u32,
                if syn.sack_permitted { NOPS_SACK_PERMITTED } else { NOPS },
                window_scale(syn),
            ];
            header.checksum = frame.window::<12>(OPTIONS).map(|mut to| put(&mut to, words, sum))?;
        }
        (None, Some(_)) => {
            let words = [ALIGNED_TIMESTAMPS, timestamps.value, timestamps.echo];
            header.checksum = frame.window::<12>(OPTIONS).map(|mut to| put(&mut to, words, sum))?;
        }
        (None, None) => header.checksum = sum.finish(),
    }
    let mut bytes = frame.window::<{ tcp::HEADER_LEN }>(L4)?;
    header.write(&mut bytes);
    Some(())
}

#[inline(always)]
fn write_headers<F: Frame>(
    frame: &mut F,
    segment: &Segment,
    (source, destination): (u32, u32),
    tcp_len: u16,
) -> Option<()> {
    let mut bytes = frame.window::<{ OPTIONS }>(0)?;
    ethernet::Header {
        destination: segment.link.destination,
        source: segment.link.source,
        ethertype: EtherType::IPV4,
    }
    .write(&mut bytes);
    ipv4::Header {
        version: 4,
        header_len: ipv4::HEADER_LEN as u8,
        tos: 0,
        total_len: ipv4::HEADER_LEN as u16 + tcp_len,
        ident: 0,
        fragment: DONT_FRAGMENT,
        ttl: segment.ttl,
        protocol: Protocol::TCP,
        checksum: 0,
        source,
        destination,
    }
    .write(&mut At::<{ ethernet::HEADER_LEN }, _>(&mut bytes));
    Some(())
}

#[inline(always)]
const fn window_scale(syn: SynOptions) -> u32 {
    if syn.window_scale == NO_SCALE { NOPS } else { NOP_WINDOW_SCALE | syn.window_scale as u32 }
}

#[inline(always)]
fn put<const N: usize>(to: &mut impl Bytes, words: [u32; N], mut sum: Sum) -> u16 {
    let mut at = 0;
    while at < N {
        to.set_u32(at * 4, words[at]);
        sum = sum.dword(words[at]);
        at += 1;
    }
    sum.finish()
}

/// The same run of bytes, seen from `OFFSET` on.
struct At<'a, const OFFSET: usize, B>(&'a mut B);

impl<const OFFSET: usize, B: Bytes> Bytes for At<'_, OFFSET, B> {
    #[inline(always)]
    fn u8(&self, at: usize) -> u8 {
        self.0.u8(OFFSET + at)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> u16 {
        self.0.u16(OFFSET + at)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> u32 {
        self.0.u32(OFFSET + at)
    }

    #[inline(always)]
    fn set_u8(&mut self, at: usize, value: u8) {
        self.0.set_u8(OFFSET + at, value);
    }

    #[inline(always)]
    fn set_u16(&mut self, at: usize, value: u16) {
        self.0.set_u16(OFFSET + at, value);
    }

    #[inline(always)]
    fn set_u32(&mut self, at: usize, value: u32) {
        self.0.set_u32(OFFSET + at, value);
    }
}
