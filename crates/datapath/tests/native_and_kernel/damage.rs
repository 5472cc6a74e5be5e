//! What goes wrong with a frame, by accident or design.

use seawall_fastpath::family::Version;

use crate::FAMILY;
use crate::support::packet::{IP, seal_ip};
use crate::support::random::Random;
use crate::support::world::TCP;

/// The shortest frame that `BPF_PROG_TEST_RUN` takes: an Ethernet header.
pub(crate) const SHORTEST: usize = 14;
/// An Ethernet frame, without its check sequence.
pub(crate) const LONGEST: usize = 1_514;

/// Changes one thing in `frame`, which has whole IP and TCP headers; the IP checksum stays right
/// where that lets the frame get further.
pub(crate) fn damage(random: &mut Random, frame: &mut Vec<u8>) -> &'static str {
    let (what, seal) = match random.below(15) {
        0 => {
            let at = random.below(frame.len().min(74));
            frame[at] ^= 1 << random.below(8);
            ("a flipped bit", false)
        }
        1 => {
            let at = IP + random.below(TCP - IP);
            frame[at] ^= 1 << random.below(8);
            ("a flipped bit in the IP header", true)
        }
        2 => {
            frame.truncate(SHORTEST + random.below(frame.len() - SHORTEST + 1));
            ("truncated", false)
        }
        3 => {
            let padding = random.below(40);
            frame.extend(random.bytes(padding));
            ("padded", false)
        }
        4 => {
            let any = random.u32() as u16;
            let length = random.pick(&[0, 19, 20, 39, 40, 52, 60, 1_500, 65_535, any]);
            let at = match FAMILY {
                Version::V4 => IP + 2,
                Version::V6 => IP + 4,
            };
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            ("another length", true)
        }
        5 => {
            frame[TCP + 12] = frame[TCP + 12] & 0x0f | (random.below(16) as u8) << 4;
            ("another data offset", false)
        }
        6 => {
            frame[IP] = random.pick(&[0x44, 0x46, 0x4f, 0x40, 0x65, 0x05]);
            ("another version or header length", true)
        }
        7 => {
            let bits: u16 = random.pick(&[0x2000, 0x0001, 0x1fff, 0x3fff, 0x8000, 0xc000]);
            frame[IP + 6..IP + 8].copy_from_slice(&bits.to_be_bytes());
            ("fragment bits", true)
        }
        14 => {
            let next = random.pick(&[0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135, 139, 140, 253]);
            frame[IP + 6] = next;
            ("another next header", true)
        }
        8 => {
            frame[IP + 9] = random.pick(&[1, 17, 47, 58, 132, 255]);
            ("another protocol", true)
        }
        9 => {
            // A fragment of UDP and ICMP too.
            frame[IP + 9] = random.pick(&[1, 6, 17, 47]);
            frame[IP + 6] |= 0x20;
            ("a fragment of another protocol", true)
        }
        10 => {
            let any = random.u32() as u16;
            let ethertype: u16 = random.pick(&[0x0806, 0x86dd, 0x8100, 0x88a8, 0x8847, any]);
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            ("another EtherType", false)
        }
        11 => {
            let to: [u8; 6] = random.pick(&[[0xff; 6], [2, 0, 0, 0, 0, 0x99], [0; 6]]);
            frame[..6].copy_from_slice(&to);
            ("another destination MAC", false)
        }
        12 => {
            frame[IP] = 0x46;
            let options = random.u32().to_be_bytes();
            frame.splice(TCP..TCP, options);
            let length = u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]).wrapping_add(4);
            frame[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
            ("IP options", true)
        }
        _ => {
            let sum = random.u32().to_be_bytes();
            frame[TCP + 16..TCP + 18].copy_from_slice(&sum[..2]);
            ("another TCP checksum", false)
        }
    };
    if seal {
        seal_ip(frame);
    }
    what
}

/// Bytes that nobody made on purpose, half of them under an EtherType of IP.
pub(crate) fn noise(random: &mut Random, destination: [u8; 6]) -> Vec<u8> {
    let most = random.pick(&[60, LONGEST]);
    let length = SHORTEST + random.below(most - SHORTEST + 1);
    let mut frame = random.bytes(length);
    frame[..6].copy_from_slice(&destination);
    if random.below(2) == 0 {
        frame[12..14].copy_from_slice(match FAMILY {
            Version::V4 => &[0x08, 0x00],
            Version::V6 => &[0x86, 0xdd],
        });
    }
    frame
}
