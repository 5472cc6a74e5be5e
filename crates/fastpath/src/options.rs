//! TCP options of a segment (RFC 9293, section 3.1).

use seawall_wire::Bytes;
use seawall_wire::tcp::option::{
    ALIGNED_TIMESTAMPS, END, MAX_WINDOW_SCALE, MSS, MSS_LEN, NOP, SACK_PERMITTED,
    SACK_PERMITTED_LEN, TIMESTAMPS, TIMESTAMPS_LEN, WINDOW_SCALE, WINDOW_SCALE_LEN,
};
use seawall_wire::tcp::{HEADER_LEN, MAX_HEADER_LEN};

use crate::Frame;
use crate::layout::NO_SCALE;
use crate::packet::Packet;

/// A timestamps option (RFC 7323, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The receiver's clock, as the sender last heard it.
    pub echo: u32,
}

/// The options that mean something here. Any other is skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window shift, at most 14 (RFC 7323, section 2.3 cuts larger ones), or [`NO_SCALE`].
    pub window_scale: u8,
    /// SACK is permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
}

impl Options {
    /// No options.
    pub const NONE: Self =
        Self { mss: None, window_scale: NO_SCALE, sack_permitted: false, timestamps: None };
}

/// The options run over the header, or one has a length below 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Reads the options of `packet`. A known option with a wrong length is skipped, as Linux does
/// (`tcp_parse_options`).
///
/// # Errors
/// [`Malformed`] where a length contradicts the header.
#[inline(always)]
pub fn parse<F: Frame>(frame: &mut F, packet: &Packet) -> Result<Options, Malformed> {
    let mut options = Options::NONE;
    let header_len = packet.tcp.header_len as usize;
    if header_len <= HEADER_LEN {
        return Ok(options);
    }
    if let Some(timestamps) = aligned_timestamps(frame, packet) {
        options.timestamps = Some(timestamps);
        return Ok(options);
    }
    let mut found = Found(NO_SCALE as usize);
    let mut timestamps = Timestamps::default();
    let mut at = HEADER_LEN;
    let mut steps = HEADER_LEN;
    while steps < MAX_HEADER_LEN {
        steps += 1;
        at = frame.opaque(at) & 0x3f;
        found = Found(frame.opaque(found.0));
        if at >= header_len {
            break;
        }
        let Some(kind) = frame.window::<1>(packet.l4 + at).map(|byte| byte.u8(0)) else {
            return Err(Malformed);
        };
        if kind == END {
            break;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let Some(len) = frame.window::<2>(packet.l4 + at).map(|bytes| bytes.u8(1)) else {
            return Err(Malformed);
        };
        if len < 2 || at + len as usize > header_len {
            return Err(Malformed);
        }
        if kind == MSS && len == MSS_LEN {
            if let Some(bytes) = frame.window::<4>(packet.l4 + at) {
                found = found.with_mss(bytes.u16(2));
            }
        } else if kind == WINDOW_SCALE && len == WINDOW_SCALE_LEN {
            if let Some(bytes) = frame.window::<3>(packet.l4 + at) {
                found = found.with_window_scale(bytes.u8(2));
            }
        } else if kind == SACK_PERMITTED && len == SACK_PERMITTED_LEN {
            found = Found(found.0 | Found::SACK_PERMITTED);
        } else if kind == TIMESTAMPS
            && len == TIMESTAMPS_LEN
            && let Some(bytes) = frame.window::<10>(packet.l4 + at)
        {
            timestamps = Timestamps { value: bytes.u32(2), echo: bytes.u32(6) };
            found = Found(found.0 | Found::TIMESTAMPS);
        }
        at += len as usize;
    }
    Ok(found.options(timestamps))
}

/// The options found so far, in one word, so that one [`Frame::opaque`] hides from the verifier
/// which of them there were: it would walk every combination on from here.
#[derive(Clone, Copy)]
struct Found(usize);

impl Found {
    const WINDOW_SCALE: usize = 0xff;
    const SACK_PERMITTED: usize = 1 << 8;
    const TIMESTAMPS: usize = 1 << 9;
    const MSS: usize = 1 << 10;
    const MSS_SHIFT: u32 = 16;

    #[inline(always)]
    const fn with_mss(self, mss: u16) -> Self {
        let rest = self.0 & ((1 << Self::MSS_SHIFT) - 1);
        Self((mss as usize) << Self::MSS_SHIFT | Self::MSS | rest)
    }

    #[inline(always)]
    const fn with_window_scale(self, shift: u8) -> Self {
        let shift = if shift > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { shift };
        Self(self.0 & !Self::WINDOW_SCALE | shift as usize)
    }

    #[inline(always)]
    fn options(self, timestamps: Timestamps) -> Options {
        let has = |bit| self.0 & bit != 0;
        Options {
            mss: if has(Self::MSS) { Some((self.0 >> Self::MSS_SHIFT) as u16) } else { None },
            window_scale: (self.0 & Self::WINDOW_SCALE) as u8,
            sack_permitted: has(Self::SACK_PERMITTED),
            timestamps: if has(Self::TIMESTAMPS) { Some(timestamps) } else { None },
        }
    }
}

/// The timestamps of a segment whose only option they are, in the layout that every common
/// stack uses once a connection is open (RFC 7323, appendix A).
#[inline(always)]
pub fn aligned_timestamps<F: Frame>(frame: &mut F, packet: &Packet) -> Option<Timestamps> {
    if packet.tcp.header_len != 32 {
        return None;
    }
    let bytes = frame.window::<12>(packet.l4 + HEADER_LEN)?;
    if bytes.u32(0) != ALIGNED_TIMESTAMPS {
        return None;
    }
    Some(Timestamps { value: bytes.u32(4), echo: bytes.u32(8) })
}
