//! Floods as their receiver sees them: whole, with right checksums, and as many as were sent.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use seawall_lab::flood::{Attacker, LINUX_OPTIONS, Passes, SOURCES};
use seawall_lab::frame::{Link, Packet, Part, Path, Place, Segment, Template, Values, flags};
use seawall_lab::tap::{Tap, received};
use seawall_lab::{Topology, TopologySpec, require};

const RATE: u32 = 20_000;
const SECOND: Duration = Duration::from_secs(1);

fn syn(link: Link, source: &str, destination: &str) -> Packet {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let path = Path { source: address(source), destination: address(destination) };
    let options = LINUX_OPTIONS.to_vec();
    Packet::tcp(link, path, &Segment { flags: flags::SYN, options, ..Segment::default() })
        .vary(Place::Source, SOURCES)
        .vary(Place::SourcePort, Values::PORTS)
        .vary(Place::Seq, Values::ANY)
}

/// RFC 1071: over a range with a right checksum in it, the sum is all ones.
fn holds(bytes: &[u8]) -> bool {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff || sum == 0x1_fffe
}

fn pseudo_header(addresses: &[u8], segment: &[u8]) -> Vec<u8> {
    let len = (segment.len() as u16).to_be_bytes();
    [addresses, &[0, 6], &len, segment].concat()
}

/// What differed in the frames of one template: source address, port and sequence number.
fn seen(tap: &Tap, template: &Template) -> HashSet<Vec<u8>> {
    let ipv4 = template.bytes[12..14] == [0x08, 0x00];
    let l4 = if ipv4 { 34 } else { 54 };
    let mut found = HashSet::new();
    tap.find(SECOND, |frame| {
        if frame.len() != template.bytes.len() || frame[12..22] != template.bytes[12..22] {
            return None;
        }
        let addresses = if ipv4 { &frame[26..34] } else { &frame[22..54] };
        assert!(!ipv4 || holds(&frame[14..34]), "{frame:x?}");
        assert!(holds(&pseudo_header(addresses, &frame[l4..])), "{frame:x?}");
        assert_eq!(frame[l4 + 20..], template.bytes[l4 + 20..]);
        let last = addresses[..addresses.len() / 2].last_chunk::<4>().unwrap();
        found.insert([last, &frame[l4..l4 + 2], &frame[l4 + 4..l4 + 8]].concat());
        (found.len() == 500).then_some(())
    })
    .unwrap();
    found
}

#[test]
fn frames_arrive_as_described_and_are_counted() {
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    let attacker = Attacker::new(&topology).unwrap();
    let _programs = Passes::attach_to_balancer(&topology).unwrap();
    let host = topology.attacker.as_ref().unwrap();
    let link = attacker.link();
    let ipv4 = syn(link, "0.0.0.0:0", "10.0.0.254:80");
    let ipv6 = syn(link, "[2001:db8:64::]:0", "[fd00:10::254]:80");
    let templates = [
        ipv4.template(),
        ipv6.template(),
        ipv4.part(Part::Middle).template(),
        ipv6.extension(60).part(Part::Last).template().cut(60),
    ];
    let tap = Tap::open(&topology.balancer.namespace).unwrap();
    let eth2 = || {
        let all = received(&topology.balancer.namespace).unwrap();
        all.into_iter().find(|(name, _)| name == "eth2").unwrap().1
    };
    let before = eth2();
    let flood = attacker.send(host, &templates, RATE).unwrap();
    for template in &templates[..2] {
        let seen = seen(&tap, template);
        assert_eq!(seen.len(), 500);
        assert!(seen.iter().all(|fields| (0x64..0xe4).contains(&fields[0])), "{seen:x?}");
    }
    let sent = flood.stop_each().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(sent.iter().all(|count| *count > 0 && count.abs_diff(sent[0]) <= 2), "{sent:?}");
    let (all, arrived) = (sent.iter().sum::<u64>(), eth2() - before);
    // What the queue of a veth has no room for is lost before it is counted; what is not sent by
    // the flood is a handful of neighbour discoveries.
    assert!(arrived <= all + 10 && arrived >= all * 9 / 10, "{arrived} of {all}");
    println!("{all} sent, {arrived} arrived");
}

#[test]
fn a_limited_flood_comes_steadily_and_at_its_rate() {
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    let attacker = Attacker::new(&topology).unwrap();
    let _programs = Passes::attach_to_balancer(&topology).unwrap();
    let host = topology.attacker.as_ref().unwrap();
    let template = syn(attacker.link(), "0.0.0.0:0", "10.0.0.254:80").template();
    let flood = attacker.send(host, &[template], RATE).unwrap();
    let start = Instant::now();
    let (mut last, mut risen) = (0, 0);
    while start.elapsed() < SECOND {
        std::thread::sleep(Duration::from_millis(2));
        let all = received(&topology.balancer.namespace).unwrap();
        let now = all.into_iter().find(|(name, _)| name == "eth2").unwrap().1;
        risen += u32::from(now > last + 10);
        last = now;
    }
    let (sent, elapsed) = (flood.stop().unwrap(), start.elapsed().as_secs_f64());
    // A machine with other things to do delays both the flood and who looks at it.
    assert!(risen > 50, "the count rose {risen} times in a second");
    let expected = f64::from(RATE) * elapsed;
    assert!((sent as f64 - expected).abs() < expected / 10.0, "{sent} instead of {expected}");
}
