//! The flood policy over IPv6 (SPEC B1 to B4): what is dropped, and what is nobody's business.

use seawall_fastpath::Reason;
use seawall_fastpath::layout::switch;

use crate::support::packet::{ACK, IP, Ip, RST, SYN, Segment};
use crate::support::world::{
    INSIDE, LOCAL, OUTSIDE, PROXIED, REAL, TCP, VIP, World, from_client, host,
};

const ELSEWHERE: Ip = host(0x0808_0808);
const FRAGMENT: u8 = 44;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const AH: u8 = 51;
const ESP: u8 = 50;

/// A packet with that next header and a little behind it.
fn with_next_header(next: u8, to: Ip) -> Vec<u8> {
    let mut frame = Segment { destination: (to, 9_999), ..from_client(PROXIED) }.bytes();
    frame[IP + 6] = next;
    // An echo request, where it is ICMPv6.
    frame[TCP] = 128;
    frame
}

/// By next header; what is dropped only on an address of ours.
#[test]
fn next_headers_by_address_and_switch() {
    let extensions = [0, 43, 60, 135, 139, 140, 253, 254];
    let both = switch::UDP_DROP | switch::FRAGMENT_DROP;
    for switches in [0, switch::UDP_DROP, switch::FRAGMENT_DROP, both] {
        let world = World::new();
        world.switches(switches, both);
        for next in (0..=u8::MAX).filter(|next| *next != 6) {
            let on = |switch| switches & switch != 0;
            let vip = match next {
                next if extensions.contains(&next) => Reason::ExtensionHeader,
                FRAGMENT if on(switch::FRAGMENT_DROP) => Reason::FragmentDrop,
                UDP if on(switch::UDP_DROP) => Reason::UdpDrop,
                _ => Reason::PassNotOurs,
            };
            let local = match next {
                next if extensions.contains(&next) => Reason::ExtensionHeader,
                FRAGMENT => Reason::FragmentDrop,
                UDP => Reason::LocalNoSession,
                _ => Reason::PassNotOurs,
            };
            for (interface, to, reason) in [
                (OUTSIDE, VIP, vip),
                (INSIDE, LOCAL.0, local),
                (OUTSIDE, ELSEWHERE, Reason::PassNotOurs),
            ] {
                let ran = world.run(interface, &with_next_header(next, to));
                assert_eq!(ran.reason(), reason, "{next} {switches} {to:?}");
            }
        }
    }
}

/// SPEC B4: neighbour discovery, echo, AH and ESP are the kernel's, on our addresses too.
#[test]
fn what_keeps_a_network_going_passes() {
    let world = World::new();
    for kind in [128, 129, 133, 134, 135, 136, 137, 143] {
        let mut frame = with_next_header(ICMPV6, VIP);
        frame[TCP] = kind;
        assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::PassNotOurs, "{kind}");
    }
    for next in [AH, ESP] {
        let ran = world.run(OUTSIDE, &with_next_header(next, VIP));
        assert_eq!(ran.reason(), Reason::PassNotOurs);
    }
}

/// On the wire an IPv4-mapped address would pass for an IPv4 host's in our tables.
#[test]
fn mapped_addresses_open_nothing() {
    let world = World::new();
    let mapped = Ip::v4(0x0102_0304);
    let mut from = Segment { flags: SYN, ..from_client(PROXIED) }.bytes();
    from[IP + 8..IP + 24].copy_from_slice(&mapped.0.to_be_bytes());
    assert_eq!(world.run(OUTSIDE, &from).reason(), Reason::IpMalformed);
    let mut to = Segment { flags: SYN, ..from_client(PROXIED) }.bytes();
    to[IP + 24..IP + 40].copy_from_slice(&mapped.0.to_be_bytes());
    assert_eq!(world.run(OUTSIDE, &to).reason(), Reason::PassNotOurs);
}

/// SPEC B3: each fault has its own reason, and is only looked for in what is ours.
#[test]
fn malformed_packets_by_reason() {
    type Damage = (&'static str, fn(&mut Vec<u8>), Reason);
    let damages: [Damage; 8] = [
        ("MAC", |it| it[5] ^= 1, Reason::NotOurMac),
        ("broadcast", |it| it[..6].fill(0xff), Reason::NotOurMac),
        ("length over", |it| it[IP + 5] += 1, Reason::IpMalformed),
        ("length huge", |it| it[IP + 4..IP + 6].fill(0xff), Reason::IpMalformed),
        ("length zero", |it| it[IP + 4..IP + 6].fill(0), Reason::TcpMalformed),
        ("data offset over", |it| it[TCP + 12] = 0xf0, Reason::TcpMalformed),
        ("data offset under", |it| it[TCP + 12] = 0x40, Reason::TcpMalformed),
        ("version", |it| it[IP] = 0x45, Reason::IpMalformed),
    ];
    for (name, damage, reason) in damages {
        for flags in [SYN, ACK] {
            let world = World::new();
            let mut frame = Segment { flags, ..from_client(PROXIED) }.bytes();
            damage(&mut frame);
            assert_eq!(world.run(OUTSIDE, &frame).reason(), reason, "{name}");
            let mut frame =
                Segment { flags, destination: (ELSEWHERE, 80), ..from_client(PROXIED) }.bytes();
            damage(&mut frame);
            assert_eq!(world.run(OUTSIDE, &frame).reason(), Reason::PassNotOurs, "{name}");
        }
    }
}

/// SPEC B1, and what belongs to nobody.
#[test]
fn strangers_by_flags() {
    let world = World::new();
    for (flags, reason) in [
        (SYN, Reason::Cookie),
        (ACK, Reason::BadAck),
        (RST, Reason::TcpDrop),
        (SYN | ACK, Reason::TcpDrop),
        (0, Reason::FlagsImpossible),
        (0x29, Reason::FlagsImpossible),
    ] {
        let segment = Segment { flags, ..from_client(PROXIED) };
        assert_eq!(world.client_sends(&segment).reason(), reason, "{flags:#x}");
        let elsewhere = Segment { destination: (ELSEWHERE, 80), ..segment.clone() };
        assert_eq!(world.client_sends(&elsewhere).reason(), Reason::PassNotOurs);
        let late = Segment { source: REAL, destination: LOCAL, ..segment };
        assert_eq!(world.client_sends(&late).reason(), Reason::LocalNoSession);
    }
}
