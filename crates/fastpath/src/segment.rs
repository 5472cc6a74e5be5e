//! Writes segments of our own: SYN/ACK to the client, SYN, ACK and RST to either side.
//!
//! Options come in two layouts each, so that lengths are few and every option lies where all
//! receivers' fast paths expect it: MSS, SACK permitted, timestamps and window scale for a SYN,
//! aligned timestamps for anything else. Places of options that are not sent hold NOPs.

use seawall_wire::checksum::Sum;
use seawall_wire::ipv4::{DONT_FRAGMENT, Protocol};
use seawall_wire::tcp::option::ALIGNED_TIMESTAMPS;
use seawall_wire::tcp::{self, Flags};
use seawall_wire::{Bytes, SeqNumber};

use crate::family::{Family, OwnHeader, V4, V6, Version};
use crate::layout::NO_SCALE;
use crate::link::Link;
use crate::options::Timestamps;
use crate::{Frame, Tuple};

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

/// Makes `frame` this segment, whatever it was, over the IP version of its tuple. `None` if it
/// cannot be resized; then the frame must not be sent.
#[must_use]
pub fn write<F: Frame>(frame: &mut F, segment: &Segment) -> Option<()> {
    match Version::of(segment.tuple.source.address) {
        Version::V4 => write_as::<V4, F>(frame, segment),
        Version::V6 => write_as::<V6, F>(frame, segment),
    }
}

/// [`write()`] for a tuple of version `V`.
#[inline(always)]
#[must_use]
pub fn write_as<V: Family, F: Frame>(frame: &mut F, segment: &Segment) -> Option<()> {
    let header = OwnHeader {
        source: segment.tuple.source.address,
        destination: segment.tuple.destination.address,
        payload_len: 0,
        ttl: segment.ttl,
        protocol: Protocol::TCP,
        tos: 0,
        fragment: DONT_FRAGMENT,
        ident: 0,
    };
    if !V::has(header.source) || !V::has(header.destination) {
        return None;
    }
    let options_len = match (segment.syn.is_some(), segment.timestamps.is_some()) {
        (true, true) => 20,
        (true, false) | (false, true) => 12,
        (false, false) => 0,
    };
    let l3 = segment.link.l3(frame);
    let l4 = l3 + V::HEADER_LEN;
    let at_options = l4 + tcp::HEADER_LEN;
    frame.resize(at_options + options_len)?;

    let tcp_len = (tcp::HEADER_LEN + options_len) as u16;
    let header = OwnHeader { payload_len: tcp_len, ..header };
    segment.link.write(frame, V::ETHERTYPE)?;
    V::write(frame, l3, &header)?;

    let offset_flags = tcp_len << 10 | segment.flags.0;
    let sum = V::sum_addresses(Sum::new(), &header)
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
            header.checksum =
                frame.window::<20>(at_options).map(|mut to| put(&mut to, words, sum))?;
        }
        (Some(syn), None) => {
            let words = [
                MSS | syn.mss as u32,
                if syn.sack_permitted { NOPS_SACK_PERMITTED } else { NOPS },
                window_scale(syn),
            ];
            header.checksum =
                frame.window::<12>(at_options).map(|mut to| put(&mut to, words, sum))?;
        }
        (None, Some(_)) => {
            let words = [ALIGNED_TIMESTAMPS, timestamps.value, timestamps.echo];
            header.checksum =
                frame.window::<12>(at_options).map(|mut to| put(&mut to, words, sum))?;
        }
        (None, None) => header.checksum = sum.finish(),
    }
    let mut bytes = frame.window::<{ tcp::HEADER_LEN }>(l4)?;
    header.write(&mut bytes);
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
