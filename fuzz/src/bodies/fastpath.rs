//! `fastpath`: any frame over any table content. No panic, exactly one counter, what is passed or
//! punted is untouched, and what is sent has right lengths and checksums if what came had.

use seawall_fastpath::family::Version;
use seawall_fastpath::layout::InterfaceEntry;
use seawall_fastpath::native::{Buffer, Memory, NativeTables};
use seawall_fastpath::{Action, Outcome, Reason, process};

use super::input::Input;
use super::tables::{INTERFACES, segment, tables};
use crate::support::packet::{Layout, checksums_hold, ones_sum};

/// See the module.
pub(crate) fn fastpath(data: &[u8]) {
    let mut input = Input(data);
    let tables = tables(&mut input);
    for _ in 0..8 {
        if input.is_empty() {
            return;
        }
        let frame = frame(&mut input, &tables);
        run(&tables, input.pick(&INTERFACES), &frame);
        let wait = u64::from(input.u8()) * u64::from(input.u8());
        tables.set_now(seawall_fastpath::Tables::now(&tables) + wait);
    }
}

/// A sound segment, one that something happened to, or any bytes.
fn frame(input: &mut Input<'_>, tables: &NativeTables) -> Vec<u8> {
    if input.below(8) == 0 {
        let len = usize::from(input.u8());
        return input.bytes(len);
    }
    let segment = segment(input, tables);
    let mut frame = if input.below(3) == 0 { segment.datagram() } else { segment.bytes() };
    if input.below(4) == 0 {
        for _ in 0..=input.below(3) {
            let at = usize::from(input.u8()) % frame.len();
            frame[at] = input.u8();
        }
        if input.below(4) == 0 {
            frame.truncate(usize::from(input.u8()));
        }
    }
    if input.below(8) == 0 {
        // As a link pads short frames.
        frame.resize(frame.len() + input.below(20), 0);
    }
    frame
}

/// Whether a frame is a TCP segment or a datagram over IP without options, lengths and checksums as they should
/// be. Gives where its IP packet ends.
fn sound(frame: &[u8]) -> Option<usize> {
    let Layout { family, ip, tcp } = Layout::find(frame)?;
    let half = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (end, protocol) = match family {
        Version::V4 => {
            let whole = frame[ip] == 0x45 && half(ip + 6) & 0x3fff == 0;
            (ip + half(ip + 2), if whole { frame[ip + 9] } else { 0 })
        }
        Version::V6 => (tcp + half(ip + 4), if frame[ip] >> 4 == 6 { frame[ip + 6] } else { 0 }),
    };
    let is_whole = match protocol {
        6 => end >= tcp + 20 && end >= tcp + usize::from(frame[tcp + 12] >> 4) * 4,
        17 => end >= tcp + 8 && end == tcp + half(tcp + 4) && half(tcp + 6) != 0,
        _ => false,
    };
    (is_whole && end <= frame.len() && checksums_hold(frame)).then_some(end)
}

/// Whether the checksums of an error of our own about a frame are right.
fn is_sound_error(frame: &[u8]) -> bool {
    let Layout { family, ip, tcp } = Layout::of(frame);
    match family {
        Version::V4 => [&frame[ip..tcp], &frame[tcp..]].iter().all(|it| ones_sum(&[it]) == 0xffff),
        Version::V6 => checksums_hold(frame),
    }
}

/// The packet that a tunnel's packet `after` carries, behind the link header of `frame`, which it came
/// in as.
fn unwrapped(frame: &[u8], after: &[u8]) -> Vec<u8> {
    let ip = Layout::of(frame).ip;
    let inner = after.len().saturating_sub(frame.len() - ip);
    [&frame[..ip], &after[inner..]].concat()
}

fn run(tables: &NativeTables, ingress: u32, frame: &[u8]) {
    let mut bytes = frame.to_vec();
    bytes.resize(frame.len() + 128, 0xee);
    let counters = || Reason::ALL.iter().map(|it| tables.counter(*it)).collect::<Vec<_>>();
    let (before, records) = (counters(), tables.records.borrow().len());
    let mut buffer = Buffer::new(&mut bytes, frame.len());
    let verdict = process(&mut buffer, ingress, tables);
    for ((reason, before), after) in Reason::ALL.iter().zip(before).zip(counters()) {
        assert_eq!(after - before, u64::from(*reason == verdict.reason), "{reason:?} {verdict:?}");
    }
    let after = buffer.bytes();
    let punted = tables.records.borrow().len() - records;
    match verdict.action {
        Action::Pass => {
            assert_eq!(verdict.reason.outcome(), Outcome::Passed);
            assert_eq!((after, punted), (frame, 0));
        }
        Action::Punt => {
            assert_eq!(verdict.reason.outcome(), Outcome::Served);
            assert_eq!(after, frame);
            let records = tables.records.borrow();
            assert_eq!((punted, &records[records.len() - 1].frame[..]), (1, frame));
        }
        Action::Drop => {
            assert_eq!(verdict.reason.outcome(), Outcome::Dropped);
            // A reset that closes its session is dropped and reported.
            assert!(punted <= 1);
        }
        Action::Send { interface } => {
            assert_eq!(verdict.reason.outcome(), Outcome::Served);
            assert!(punted <= 1, "a change of state is one record");
            assert_eq!(
                tables.interfaces.borrow().get(&ingress).map(|it| InterfaceEntry::mac(*it).0),
                Some(frame[..6].try_into().unwrap()),
                "somebody else's frame"
            );
            assert!(interface == ingress || (1..=2).contains(&interface));
            if verdict.reason == Reason::TooBig {
                assert!(is_sound_error(after), "{verdict:?}: {after:02x?}");
            } else if sound(frame).is_some() {
                let sound = sound(after).or_else(|| sound(&unwrapped(frame, after)));
                assert!(sound.is_some(), "{verdict:?}: {after:02x?}");
            }
        }
    }
    assert!(tables.memory.slots().len() == 5);
}
