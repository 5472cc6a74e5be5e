//! Attacks that are frames and nothing else, and what counts each of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::options::{self, Fate};
use super::stage::{Family, port};
use crate::flood::{LINUX_OPTIONS, SOURCES};
use crate::frame::{Link, Packet, Part, Path, Place, Segment, Template, Values, flags};
use crate::topology::LOCAL_ADDRESSES;

/// Names of the reasons, as `seawall stats` prints them.
pub(super) mod reason {
    pub(crate) const PASS_NOT_IP: &str = "pass_not_ip";
    pub(crate) const PASS_NOT_OURS: &str = "pass_not_ours";
    pub(crate) const COOKIE: &str = "synproxy_cookie_sent";
    pub(crate) const NO_DESTINATION: &str = "synproxy_no_dest";
    pub(crate) const SYN_MALFORMED: &str = "synproxy_syn_malformed";
    pub(crate) const BAD_ACK: &str = "synproxy_bad_ack";
    pub(crate) const NULL_ACK: &str = "synproxy_null_ack";
    pub(crate) const PUNT_LIMITED: &str = "punt_limited";
    pub(crate) const FLAGS: &str = "tcp_flags_impossible";
    pub(crate) const TCP: &str = "defence_tcp_drop";
    pub(crate) const UDP: &str = "defence_udp_drop";
    pub(crate) const FRAGMENT: &str = "defence_ip_frag_drop";
    pub(crate) const EXTENSION: &str = "ip6_extension_header";
    pub(crate) const MAC: &str = "not_our_mac";
    pub(crate) const IP_CHECKSUM: &str = "ip_checksum_bad";
    pub(crate) const IP_MALFORMED: &str = "ip_header_malformed";
    pub(crate) const IP_OPTIONS: &str = "ip_options";
    pub(crate) const TCP_MALFORMED: &str = "tcp_header_malformed";
    pub(crate) const LOCAL: &str = "local_no_session";
    pub(crate) const ICMP_INVALID: &str = "icmp_invalid";
    pub(crate) const ICMP_IN: &str = "icmp_in";
    pub(crate) const ICMP_OUT: &str = "icmp_out";
    pub(crate) const FORWARD_IN: &str = "forward_in";
    pub(crate) const FORWARD_OUT: &str = "forward_out";
    pub(crate) const PUNT_DATAGRAM: &str = "punt_new_udp";
    pub(crate) const RING_FULL: &str = "ring_full_unproven";
}

/// Frames, and the one reason that must count them.
pub(super) struct Wave {
    pub(super) template: Template,
    pub(super) reason: &'static str,
}

/// Where frames go: everything that the templates share.
#[derive(Clone, Copy)]
pub(super) struct Aim {
    pub(super) link: Link,
    pub(super) family: Family,
}

const ETHERNET: usize = 14;
/// Ports that no UDP service is on: all below [`port::DATAGRAMS`].
const OTHER_PORTS: u32 = port::DATAGRAMS as u32;
/// Values of a next-header field (RFC 8200): hop-by-hop options, routing, destination options.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

impl Aim {
    /// From nowhere in particular: 100.64.0.0 or 2001:db8:64::, before [`SOURCES`] fills it in.
    pub(super) const fn stranger(self) -> SocketAddr {
        SocketAddr::new(
            match self.family {
                Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0)),
            },
            0,
        )
    }

    pub(super) const fn to(self, port: u16) -> Path {
        Path { source: self.stranger(), destination: self.family.vip(port) }
    }

    /// A segment to a service from anywhere.
    fn segment(self, port: u16, segment: &Segment) -> Packet {
        Packet::tcp(self.link, self.to(port), segment)
            .vary(Place::Source, SOURCES)
            .vary(Place::SourcePort, Values::PORTS)
            .vary(Place::Seq, Values::ANY)
    }

    fn syn(self, port: u16) -> Packet {
        self.segment(port, &syn())
    }

    fn with_flags(self, flags: u8) -> Packet {
        let packet = self.segment(port::WEB, &Segment { flags, ..Segment::default() });
        if flags & flags::ACK == 0 { packet } else { packet.vary(Place::Ack, Values::ANY) }
    }

    fn flagged(self, flags: &[u8], reason: &'static str) -> Vec<Wave> {
        let wave = |flags: &u8| Wave { template: self.with_flags(*flags).template(), reason };
        flags.iter().map(wave).collect()
    }
}

fn syn() -> Segment {
    Segment { flags: flags::SYN, options: LINUX_OPTIONS.to_vec(), ..Segment::default() }
}

fn one(packet: &Packet, reason: &'static str) -> Vec<Wave> {
    vec![Wave { template: packet.template(), reason }]
}

pub(super) fn syn_plain(aim: Aim) -> Vec<Wave> {
    one(&aim.syn(port::WEB), reason::COOKIE)
}

pub(super) fn syn_payload(aim: Aim) -> Vec<Wave> {
    let request = Segment { payload: b"GET / HTTP/1.1\r\n\r\n".to_vec(), ..syn() };
    let empty = Segment { options: Vec::new(), ..request.clone() };
    let packets = [aim.segment(port::WEB, &request), aim.segment(port::WEB, &empty)];
    packets.iter().flat_map(|packet| one(packet, reason::COOKIE)).collect()
}

pub(super) fn syn_options(aim: Aim) -> Vec<Wave> {
    options::layouts()
        .into_iter()
        .flat_map(|(fate, options)| {
            let packet = aim.segment(port::WEB, &Segment { options, ..syn() });
            one(
                &packet,
                match fate {
                    Fate::Answered => reason::COOKIE,
                    Fate::Malformed => reason::SYN_MALFORMED,
                },
            )
        })
        .collect()
}

pub(super) fn syn_no_server(aim: Aim) -> Vec<Wave> {
    one(&aim.syn(port::CLOSED), reason::NO_DESTINATION)
}

pub(super) fn syn_fin(aim: Aim) -> Vec<Wave> {
    use flags::{ACK, FIN, RST, SYN};
    aim.flagged(&[SYN | FIN, SYN | FIN | ACK, SYN | RST, RST | FIN, 0x3f, 0xff], reason::FLAGS)
}

pub(super) fn xmas(aim: Aim) -> Vec<Wave> {
    aim.flagged(&[flags::FIN | flags::PSH | flags::URG], reason::FLAGS)
}

pub(super) fn null(aim: Aim) -> Vec<Wave> {
    aim.flagged(&[0, flags::PSH, flags::URG, flags::FIN], reason::FLAGS)
}

pub(super) fn syn_ack(aim: Aim) -> Vec<Wave> {
    aim.flagged(&[flags::SYN | flags::ACK], reason::TCP)
}

pub(super) fn ack(aim: Aim) -> Vec<Wave> {
    use flags::{ACK, PSH, URG};
    aim.flagged(&[ACK, PSH | ACK, URG | ACK], reason::BAD_ACK)
}

pub(super) fn rst(aim: Aim) -> Vec<Wave> {
    aim.flagged(&[flags::RST, flags::RST | flags::ACK], reason::TCP)
}

pub(super) fn fin(aim: Aim) -> Vec<Wave> {
    aim.flagged(&[flags::FIN | flags::ACK], reason::BAD_ACK)
}

pub(super) fn udp(aim: Aim) -> Vec<Wave> {
    [&[][..], &[0; 32], &[0xff; 96]]
        .into_iter()
        .flat_map(|data| {
            let packet = Packet::udp(aim.link, aim.to(0), data)
                .vary(Place::Source, SOURCES)
                .vary(Place::SourcePort, Values::PORTS)
                .vary(Place::DestinationPort, Values { first: 0, count: OTHER_PORTS, ..SOURCES });
            one(&packet, reason::UDP)
        })
        .collect()
}

/// Datagrams to the UDP service from anywhere, each a flow of its own.
pub(super) fn datagrams(aim: Aim) -> Template {
    Packet::udp(aim.link, aim.to(port::DATAGRAMS), b"who?")
        .vary(Place::Source, SOURCES)
        .vary(Place::SourcePort, Values::PORTS)
        .template()
}

pub(super) fn fragments(aim: Aim) -> Vec<Wave> {
    let local = SocketAddr::new(aim.family.of(LOCAL_ADDRESSES[0]), 5000);
    let to_local = Path { source: aim.stranger(), destination: local };
    let packets = [
        Packet::tcp(aim.link, aim.to(port::WEB), &syn()),
        Packet::udp(aim.link, aim.to(port::WEB), &[0; 32]),
        Packet::port_unreachable(aim.link, aim.to(0), aim.to(port::WEB), 0),
        Packet::tcp(aim.link, to_local, &syn()),
    ];
    packets
        .into_iter()
        .flat_map(|packet| {
            [Part::First, Part::Middle, Part::Last].into_iter().flat_map(move |part| {
                let packet = packet.clone().part(part).vary(Place::Source, SOURCES);
                one(&packet, reason::FRAGMENT)
            })
        })
        .collect()
}

/// Only IPv6 has them.
pub(super) fn extension_headers(aim: Aim) -> Vec<Wave> {
    let headers: [&[u8]; 5] = [
        &[HOP_BY_HOP],
        &[ROUTING],
        &[DESTINATION],
        &[DESTINATION, ROUTING, DESTINATION, HOP_BY_HOP],
        &[DESTINATION; 8],
    ];
    let udp = Packet::udp(aim.link, aim.to(53), &[]).vary(Place::Source, SOURCES);
    [Packet::tcp(aim.link, aim.to(port::WEB), &syn()).vary(Place::Source, SOURCES), udp]
        .into_iter()
        .flat_map(|packet| {
            headers.into_iter().flat_map(move |headers| {
                let packet = headers.iter().fold(packet.clone(), |p, header| p.extension(*header));
                one(&packet, reason::EXTENSION)
            })
        })
        .collect()
}

pub(super) fn wrong_mac(aim: Aim) -> Vec<Wave> {
    [[2, 0, 0xde, 0xad, 0, 1], [0xff; 6]]
        .into_iter()
        .flat_map(|destination| {
            let link = Link { destination, ..aim.link };
            let elsewhere = Aim { link, ..aim };
            let packets = [elsewhere.syn(port::WEB), elsewhere.with_flags(flags::ACK)];
            packets.map(|packet| Wave { template: packet.template(), reason: reason::MAC })
        })
        .collect()
}

/// Only IPv4 has one.
pub(super) fn ip_checksum(aim: Aim) -> Vec<Wave> {
    [aim.syn(port::WEB), aim.with_flags(flags::ACK)]
        .into_iter()
        .map(|packet| {
            let template = packet.template();
            let wrong = template.bytes[24] ^ 0x55;
            Wave { template: template.with(24, &[wrong]), reason: reason::IP_CHECKSUM }
        })
        .collect()
}

/// Only IPv4 has them.
pub(super) fn ip_options(aim: Aim) -> Vec<Wave> {
    // Record route, and loose source routing (RFC 791, section 3.1).
    [&[7, 7, 4, 0, 0, 0, 0, 0], &[131, 7, 4, 10, 0, 0, 1, 0], &[1; 40][..]]
        .into_iter()
        .flat_map(|options| one(&aim.syn(port::WEB).ip_options(options), reason::IP_OPTIONS))
        .collect()
}

/// Frames that end too early, and lengths that lie.
pub(super) fn truncated(aim: Aim) -> Vec<Wave> {
    let whole = aim.syn(port::WEB).template();
    let wave = |template, reason| Wave { template, reason };
    let header = match aim.family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let tcp = ETHERNET + header;
    // The data offset (RFC 9293, section 3.1), in words, in the high half of its byte.
    let offset = |words: u8| whole.clone().with(tcp + 12, &[words << 4]);
    let mut waves = vec![
        wave(whole.clone().cut(ETHERNET), reason::PASS_NOT_IP),
        wave(whole.clone().cut(tcp - 1), reason::PASS_NOT_IP),
        wave(whole.clone().cut(tcp), reason::TCP_MALFORMED),
        wave(whole.clone().cut(tcp + 19), reason::TCP_MALFORMED),
        wave(whole.clone().cut(tcp + 20), reason::IP_MALFORMED),
        wave(whole.clone().cut(tcp + 39), reason::IP_MALFORMED),
        wave(offset(0), reason::TCP_MALFORMED),
        wave(offset(4), reason::TCP_MALFORMED),
        wave(offset(15), reason::TCP_MALFORMED),
    ];
    match aim.family {
        Family::V4 => {
            let with = |at: usize, bytes: &[u8]| whole.clone().with_header(ETHERNET + at, bytes);
            waves.extend([
                wave(with(2, &[0xff, 0xff]), reason::IP_MALFORMED),
                wave(with(2, &[0, 61]), reason::IP_MALFORMED),
                wave(with(2, &[0, 19]), reason::IP_MALFORMED),
                wave(with(2, &[0, 0]), reason::IP_MALFORMED),
                wave(with(2, &[0, 59]), reason::TCP_MALFORMED),
                wave(with(2, &[0, 20]), reason::TCP_MALFORMED),
                wave(with(0, &[0x44]), reason::IP_MALFORMED),
                wave(with(0, &[0x40]), reason::IP_MALFORMED),
                wave(with(0, &[0x55]), reason::IP_MALFORMED),
                wave(with(0, &[0x4f]), reason::IP_OPTIONS),
            ]);
        }
        Family::V6 => {
            let with = |at: usize, bytes: &[u8]| whole.clone().with(ETHERNET + at, bytes);
            waves.extend([
                wave(with(4, &[0xff, 0xff]), reason::IP_MALFORMED),
                wave(with(4, &[0, 41]), reason::IP_MALFORMED),
                wave(with(4, &[0, 39]), reason::TCP_MALFORMED),
                wave(with(4, &[0, 0]), reason::TCP_MALFORMED),
                wave(with(0, &[0x50]), reason::IP_MALFORMED),
                // ::ffff:0:0/96 would stand for an IPv4 address.
                wave(with(8, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), reason::IP_MALFORMED),
            ]);
        }
    }
    waves
}
