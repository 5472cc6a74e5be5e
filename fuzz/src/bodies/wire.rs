//! `wire`: any bytes are read without a panic, what is written is what was read, and checksums are
//! RFC 1071's.

use seawall_wire::checksum::{Sum, Update};
use seawall_wire::{SeqNumber, ethernet, icmp, ipv4, ipv6, tcp};

use super::input::Input;
use crate::support::packet::ones_sum;

/// See the module.
pub(crate) fn wire(data: &[u8]) {
    headers(data);
    checksums(data);
    sequence_numbers(&mut Input(data));
    tags(&mut Input(data));
}

fn headers(data: &[u8]) {
    let mut out = [0u8; 64];
    let header = ethernet::Header::read(data);
    header.write(&mut out[..]);
    assert_eq!(ethernet::Header::read(&out[..]), header);
    let _ = icmp::Kind::read(data);

    let header = ipv4::Header::read(data);
    let _ =
        (header.is_fragment(), ipv4::Header::checksum_holds(data), header.protocol.is_extension());
    let header = ipv4::Header { version: 4, header_len: 20, ..header };
    header.write(&mut out[..]);
    assert!(ipv4::Header::checksum_holds(&out[..]));
    assert_eq!(ones_sum(&[&out[..20]]), 0xffff);
    let again = ipv4::Header::read(&out[..]);
    assert_eq!(ipv4::Header { checksum: header.checksum, ..again }, header);

    let header = ipv6::Header { version: 6, ..ipv6::Header::read(data) };
    header.write(&mut out[..]);
    assert_eq!(ipv6::Header::read(&out[..]), header);

    let header = tcp::Header::read(data);
    let _ = header.flags.are_possible();
    header.write(&mut out[..]);
    assert_eq!(tcp::Header::read(&out[..]), header);
}

/// A sum in one go and in parts, and one that is brought up to date, agree with the plain one.
fn checksums(data: &[u8]) {
    let plain = !ones_sum(&[data]);
    assert_eq!(Sum::new().bytes(data).finish(), plain);
    let mut input = Input(data);
    let (at, new) = (usize::from(input.u8()) * 2, input.u32());
    let mut changed = data.to_vec();
    let Some(bytes) = changed.get_mut(at..at + 4) else { return };
    let old = u32::from_be_bytes(bytes.try_into().unwrap());
    bytes.copy_from_slice(&new.to_be_bytes());
    let updated = Update::new().dword(old, new).apply(plain);
    // 0x0000 and 0xffff are the same number.
    let expected = !ones_sum(&[&changed]);
    assert_eq!(updated % 0xffff, expected % 0xffff);
    let odd = at + 1;
    let Some(bytes) = changed.get(odd..odd + 4) else { return };
    let from = u32::from_be_bytes(bytes.try_into().unwrap());
    changed[odd..odd + 4].copy_from_slice(&(!new).to_be_bytes());
    let updated = Update::new().dword_at(odd, from, !new).apply(expected);
    assert_eq!(updated % 0xffff, !ones_sum(&[&changed]) % 0xffff);
}

fn sequence_numbers(input: &mut Input<'_>) {
    let (number, by, len) = (SeqNumber(input.u32()), input.u32(), input.u32());
    let later = number.add(by);
    assert_eq!(later.since(number), by);
    assert_eq!(later.sub(by), number);
    assert_eq!(later.is_within(number, len), by < len);
    if by != 0 && by != 1 << 31 {
        assert!(later.is_after(number) != number.is_after(later));
    }
}

fn tags(input: &mut Input<'_>) {
    let mut tags = ethernet::Tags::NONE;
    for _ in 0..3 {
        let tag = ethernet::Tags::word(ethernet::EtherType(input.u16()), input.u16());
        let len = tags.len();
        match tags.with(tag) {
            Some(longer) => {
                assert!(longer.len() >= len && longer.len() <= 8);
                tags = longer;
            }
            None => break,
        }
        let _ = (tags.identity(), tags.is_empty());
    }
}
