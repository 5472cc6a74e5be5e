//! Makes a finished segment longer: other options, or payload at its end. Lengths and checksums
//! follow, the checksums incrementally: a segment that came in corrupt stays so.

use seawall_fastpath::Frame;
use seawall_fastpath::family::Version;
use seawall_fastpath::packet::Packet;
use seawall_wire::Bytes;
use seawall_wire::checksum::Update;
use seawall_wire::tcp::option::{END, NOP};
use seawall_wire::tcp::{HEADER_LEN, MAX_HEADER_LEN};

/// Most bytes of options that a header has room for.
pub(crate) const MAX_OPTIONS: usize = MAX_HEADER_LEN - HEADER_LEN;

/// What becomes of a segment's length.
#[derive(Clone, Copy)]
struct Growth {
    options: usize,
    whole: usize,
}

/// The options of the segment `packet` in `frame`, in front of as many zeros as there is room.
pub(crate) fn options_of<F: Frame>(frame: &mut F, packet: &Packet) -> [u8; MAX_OPTIONS] {
    let mut options = [0; MAX_OPTIONS];
    let len = usize::from(packet.tcp.header_len) - HEADER_LEN;
    for (at, byte) in options.iter_mut().enumerate().take(len) {
        *byte = frame.window::<1>(packet.l4 + HEADER_LEN + at).map_or(0, |from| from.u8(0));
    }
    options
}

/// Where the first option of that kind and length stands in `options`.
pub(crate) fn find(options: &[u8], kind: u8, len: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at..)? {
            [END, ..] => return None,
            [NOP, ..] => at += 1,
            [its, its_len, ..] if (its, its_len) == (kind, len) => return Some(at),
            [_, its_len, ..] => at += usize::from(its_len).max(1),
            [] | [_] => return None,
        }
    }
}

/// Gives the segment `packet` in `frame` these options, no shorter than those it has and a multiple
/// of four bytes. `None` if there is no room; then it must not be sent.
#[must_use]
pub(crate) fn set_options<F: Frame>(frame: &mut F, packet: &Packet, options: &[u8]) -> Option<()> {
    let old_len = usize::from(packet.tcp.header_len) - HEADER_LEN;
    let by = options.len().checked_sub(old_len)?;
    let old = options_of(frame, packet);
    frame.grow_head(by as i32)?;
    let at = packet.l4 + HEADER_LEN;
    for to in 0..at {
        let byte = frame.window::<1>(to + by)?.u8(0);
        frame.window::<1>(to)?.set_u8(0, byte);
    }
    let update = replace(frame, at, old.get(..old_len)?, options)?;
    resize(frame, packet, Growth { options: by, whole: by }, update)
}

/// Puts `payload` behind the segment `packet` in `frame`, which has none. `None` if there is no
/// room; then it must not be sent.
#[must_use]
pub(crate) fn append<F: Frame>(frame: &mut F, packet: &Packet, payload: &[u8]) -> Option<()> {
    let at = frame.len();
    frame.resize(at + payload.len())?;
    let update = replace(frame, at, &[], payload)?;
    resize(frame, packet, Growth { options: 0, whole: payload.len() }, update)
}

/// Writes `new` at the even offset `at` of the segment, where `old` was counted.
fn replace<F: Frame>(frame: &mut F, at: usize, old: &[u8], new: &[u8]) -> Option<Update> {
    let mut update = Update::new();
    for (offset, byte) in new.iter().enumerate() {
        let before = old.get(offset).copied().unwrap_or(0);
        frame.window::<1>(at + offset)?.set_u8(0, *byte);
        update = update.byte_at(offset, before, *byte);
    }
    Some(update)
}

fn resize<F: Frame>(frame: &mut F, packet: &Packet, growth: Growth, update: Update) -> Option<()> {
    let (l3, l4) = (packet.l3, packet.l4);
    let old = packet.ip.len as u16;
    let new = old.checked_add(u16::try_from(growth.whole).ok()?)?;
    match packet.version() {
        Version::V4 => {
            let mut header = frame.window::<12>(l3)?;
            let checksum = Update::new().word(old, new).apply(header.u16(10));
            header.set_u16(2, new);
            header.set_u16(10, checksum);
        }
        Version::V6 => {
            let header_len = (l4 - l3) as u16;
            frame.window::<6>(l3)?.set_u16(4, new - header_len);
        }
    }
    let mut header = frame.window::<HEADER_LEN>(l4)?;
    let flags = header.u16(12);
    let longer = flags + (((growth.options / 4) as u16) << 12);
    // The pseudo-header counts the segment alone, which grows by as much as the packet.
    let checksum = update.word(old, new).word(flags, longer).apply(header.u16(16));
    header.set_u16(12, longer);
    header.set_u16(16, checksum);
    Some(())
}
