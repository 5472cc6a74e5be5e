//! TCP options as stacks send them, and as they do not.

use seawall_fastpath::family::{Family, V4, V6, Version};

use crate::FAMILY;
use crate::support::packet::Opt;
use crate::support::random::Random;
use Opt::{End, Mss, Nop, Other, Sack, SackPermitted, Scale, Timestamps};

/// The classes of this test's version.
const MSS_CLASSES: [u16; 8] = match FAMILY {
    Version::V4 => V4::MSS_CLASSES,
    Version::V6 => V6::MSS_CLASSES,
};

/// Bytes that options may take (RFC 9293, section 3.1).
const MAX: usize = 40;

/// What stacks put into a SYN; `value` is their clock.
fn stacks(value: u32) -> [Vec<Opt>; 6] {
    let ts = Timestamps(value, 0);
    [
        vec![Mss(1_460)],
        vec![Mss(1_460), SackPermitted, ts.clone(), Nop, Scale(7)],
        vec![Mss(1_460), Nop, Scale(8), Nop, Nop, SackPermitted],
        vec![Mss(1_460), Nop, Scale(6), Nop, Nop, ts.clone(), SackPermitted, End, End],
        vec![Mss(1_400), Nop, Scale(6), SackPermitted, ts.clone()],
        vec![Mss(1_460), SackPermitted, ts, Nop, Scale(7), Other(30, vec![0x81; 10])],
    ]
}

/// For a SYN.
pub(crate) fn of_syn(random: &mut Random) -> Vec<Opt> {
    let stacks = stacks(random.u32());
    match random.below(10) {
        0 => vec![],
        1..4 => stacks[random.below(stacks.len())].clone(),
        _ => any(random),
    }
}

/// For a segment that is no SYN; `near` is where its SACK edges lie.
pub(crate) fn of_segment(random: &mut Random, near: u32) -> Vec<Opt> {
    let timestamps = Timestamps(random.u32(), random.u32());
    let blocks = |random: &mut Random, most: usize| {
        let edge = |random: &mut Random| near.wrapping_add(random.u32() >> 12);
        Sack((0..1 + random.below(most)).map(|_| (edge(random), edge(random))).collect())
    };
    let toa = |random: &mut Random| {
        let length = random.pick(&[6, 6, 16, 0, 3]);
        Other(random.pick(&[253, 254]), random.bytes(length))
    };
    match random.below(10) {
        0 => vec![],
        8 => vec![toa(random), timestamps, Nop],
        9 => vec![Nop, toa(random), Nop, toa(random)],
        1 | 2 => vec![Nop, Nop, timestamps],
        3 => vec![Nop, Nop, timestamps, Nop, Nop, blocks(random, 3)],
        4 => vec![Nop, Nop, blocks(random, 4)],
        5 => vec![Nop, blocks(random, 4)],
        6 => vec![Nop, timestamps, blocks(random, 3)],
        _ => any(random),
    }
}

/// Any options in any order that fit.
fn any(random: &mut Random) -> Vec<Opt> {
    let mut options = Vec::new();
    for _ in 0..random.below(7) {
        options.push(match random.below(10) {
            0 | 1 => Nop,
            2 | 3 => {
                // At and below the bounds of the classes.
                let mss: u16 = random.pick(&MSS_CLASSES);
                Mss(random.pick(&[0, mss, mss, mss - 1, mss - 1, 65_535]))
            }
            4 => Scale(random.pick(&[0, 1, 7, 13, 14, 15, 255])),
            5 => SackPermitted,
            6 | 7 => Timestamps(random.u32(), random.u32()),
            8 => {
                let (kind, length) =
                    (random.pick(&[2, 3, 4, 5, 8, 19, 34, 252, 253, 254, 255]), random.below(9));
                Other(kind, random.bytes(length))
            }
            _ if random.below(4) == 0 => End,
            _ => Sack((0..random.below(3)).map(|_| (random.u32(), random.u32())).collect()),
        });
    }
    while options.iter().map(|option| option.bytes().len()).sum::<usize>() > MAX {
        options.pop();
    }
    options
}

/// Bytes that are options by chance only.
pub(crate) fn raw(random: &mut Random) -> Vec<u8> {
    let length = random.below(MAX / 4 + 1) * 4;
    // Small numbers, so that kinds and lengths are often right.
    (0..length).map(|_| random.u64() as u8 % 12).collect()
}
