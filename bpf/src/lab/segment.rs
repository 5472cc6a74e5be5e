//! Whole segments over IPv4, read and written in one go, for ends that remember nothing.

use seawall_bpf::Packet;
use seawall_fastpath::Frame;
use seawall_wire::Bytes;
use seawall_wire::checksum::Sum;
use seawall_wire::ethernet::{self, EtherType};
use seawall_wire::ipv4::{self, Protocol};
use seawall_wire::tcp;

use crate::connections_layout::End;

const L3: usize = ethernet::HEADER_LEN;
const L4: usize = L3 + ipv4::HEADER_LEN;
const OPTIONS: usize = L4 + tcp::HEADER_LEN;
/// Length of a frame with timestamps and no payload.
pub(crate) const HEADERS: usize = OPTIONS + 12;
/// Length of a frame with the options of a SYN.
const SYN_HEADERS: usize = OPTIONS + 20;

const NO_IP_OPTIONS: u32 = 0x45;
const DO_NOT_FRAGMENT: u32 = 0x4000;
const TTL: u32 = 64;
/// Window of every segment, scaled by 7 where it is scaled.
const WINDOW: u32 = 0xfff0;
/// NOP, NOP, timestamps (RFC 7323, appendix A).
const CLOCKS: u32 = 0x0101_080a;
/// MSS 1460; SACK permitted and timestamps; NOP and window scale 7: as Linux has them.
const MSS: u32 = 0x0204_05b4;
const SACK_PERMITTED_CLOCKS: u32 = 0x0402_080a;
const SCALE: u32 = 0x0103_0307;
/// What payload consists of: dots.
const PAYLOAD: u32 = 0x2e2e_2e2e;

/// What a segment says.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// Of the answer.
    pub(crate) link: ethernet::Header,
    /// Of the answer: in it, all that the segment holds is acknowledged.
    pub(crate) answer: End,
    pub(crate) flags: u32,
    pub(crate) window: u32,
    /// Bytes.
    pub(crate) payload: u32,
    /// The sender's clock.
    pub(crate) clock: u32,
}

/// Whether it is TCP over IPv4 without options.
#[inline(always)]
pub(crate) fn is_segment(frame: &mut Packet) -> bool {
    frame.window::<OPTIONS>(0).is_some_and(|bytes| {
        bytes.u16(12) == EtherType::IPV4.0
            && bytes.u8(L3) as u32 == NO_IP_OPTIONS
            && bytes.u8(L3 + 9) == Protocol::TCP.0
    })
}

/// Reads one for which [`is_segment`] holds; `None` unless it has timestamps where Linux puts them,
/// or is a reset.
#[inline(always)]
pub(crate) fn read(frame: &mut Packet) -> Option<Seen> {
    let bytes = frame.window::<OPTIONS>(0)?;
    let there = ethernet::Header::read(&bytes);
    let link = ethernet::Header {
        destination: there.source,
        source: there.destination,
        ethertype: there.ethertype,
    };
    let header_len = (bytes.u8(L4 + 12) >> 4) as u32 * 4;
    let len = bytes.u16(L3 + 2) as u32;
    let payload = len.wrapping_sub(ipv4::HEADER_LEN as u32).wrapping_sub(header_len);
    let flags = bytes.u8(L4 + 13) as u32;
    let taken = payload.wrapping_add(flags & 1).wrapping_add(flags >> 1 & 1);
    let answer = End {
        source: bytes.u32(L3 + 16),
        destination: bytes.u32(L3 + 12),
        ports: bytes.u32(L4).rotate_left(16),
        seq: bytes.u32(L4 + 8),
        ack: bytes.u32(L4 + 4).wrapping_add(taken),
    };
    let window = bytes.u16(L4 + 14) as u32;
    let clock = if flags & flag::RST != 0 {
        0
    } else if flags & flag::SYN != 0 {
        let bytes = frame.window::<SYN_HEADERS>(0)?;
        if bytes.u32(OPTIONS + 4) != SACK_PERMITTED_CLOCKS {
            return None;
        }
        bytes.u32(OPTIONS + 8)
    } else {
        let bytes = frame.window::<HEADERS>(0)?;
        if bytes.u32(OPTIONS) != CLOCKS {
            return None;
        }
        bytes.u32(OPTIONS + 4)
    };
    Some(Seen { link, answer, flags, window, payload, clock })
}

/// TCP's flags.
pub(crate) mod flag {
    pub(crate) const FIN: u32 = 0x01;
    pub(crate) const SYN: u32 = 0x02;
    pub(crate) const RST: u32 = 0x04;
    pub(crate) const PSH: u32 = 0x08;
    pub(crate) const ACK: u32 = 0x10;
}

/// A segment to write; `clocks` are its sender's and the one that it echoes.
pub(crate) struct Segment<'a> {
    pub(crate) link: &'a ethernet::Header,
    pub(crate) end: &'a End,
    pub(crate) flags: u32,
    pub(crate) clocks: [u32; 2],
}

impl Segment<'_> {
    /// Makes `frame` this segment: `N` bytes, [`HEADERS`] and the payload, which is a multiple of 4.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, frame: &mut Packet) -> Option<()> {
        let sum = self.write_headers::<N>(frame)?;
        let mut bytes = frame.window::<N>(0)?;
        let sum = put(&mut bytes, OPTIONS, CLOCKS, sum);
        let sum = put(&mut bytes, OPTIONS + 4, self.clocks[0], sum);
        let mut sum = put(&mut bytes, OPTIONS + 8, self.clocks[1], sum);
        let mut at = HEADERS;
        while at < N {
            sum = put(&mut bytes, at, PAYLOAD, sum);
            at += 4;
        }
        bytes.set_u16(L4 + 16, sum.finish());
        Some(())
    }

    /// Makes `frame` this SYN or SYN/ACK, with the options of Linux.
    #[inline(always)]
    pub(crate) fn write_syn(&self, frame: &mut Packet) -> Option<()> {
        let sum = self.write_headers::<SYN_HEADERS>(frame)?;
        let mut bytes = frame.window::<SYN_HEADERS>(0)?;
        let sum = put(&mut bytes, OPTIONS, MSS, sum);
        let sum = put(&mut bytes, OPTIONS + 4, SACK_PERMITTED_CLOCKS, sum);
        let sum = put(&mut bytes, OPTIONS + 8, self.clocks[0], sum);
        let sum = put(&mut bytes, OPTIONS + 12, self.clocks[1], sum);
        let sum = put(&mut bytes, OPTIONS + 16, SCALE, sum);
        bytes.set_u16(L4 + 16, sum.finish());
        Some(())
    }

    /// All before the options of a frame of `N` bytes; gives the sum over it and the
    /// pseudo-header.
    #[inline(always)]
    fn write_headers<const N: usize>(&self, frame: &mut Packet) -> Option<Sum> {
        let syn = self.flags & flag::SYN != 0;
        let header_len = if syn { SYN_HEADERS } else { HEADERS } - L4;
        let (ip_len, tcp_len) = ((N - L3) as u32, (N - L4) as u32);
        frame.resize(N)?;
        let mut bytes = frame.window::<OPTIONS>(0)?;
        self.link.write(&mut bytes);
        let sum = Sum::new();
        let sum = put(&mut bytes, L3, NO_IP_OPTIONS << 24 | ip_len, sum);
        let sum = put(&mut bytes, L3 + 4, DO_NOT_FRAGMENT, sum);
        let sum = put(&mut bytes, L3 + 8, TTL << 24 | (Protocol::TCP.0 as u32) << 16, sum);
        let sum = put(&mut bytes, L3 + 12, self.end.source, sum);
        let sum = put(&mut bytes, L3 + 16, self.end.destination, sum);
        bytes.set_u16(L3 + 10, sum.finish());
        let sum = Sum::new()
            .dword(self.end.source)
            .dword(self.end.destination)
            .dword((Protocol::TCP.0 as u32) << 16 | tcp_len);
        let sum = put(&mut bytes, L4, self.end.ports, sum);
        let sum = put(&mut bytes, L4 + 4, self.end.seq, sum);
        let sum = put(&mut bytes, L4 + 8, self.end.ack, sum);
        let offset_flags = (header_len as u32) << 10 | self.flags;
        let sum = put(&mut bytes, L4 + 12, offset_flags << 16 | WINDOW, sum);
        Some(put(&mut bytes, L4 + 16, 0, sum))
    }
}

#[inline(always)]
fn put(bytes: &mut impl Bytes, at: usize, word: u32, sum: Sum) -> Sum {
    bytes.set_u32(at, word);
    sum.dword(word)
}
