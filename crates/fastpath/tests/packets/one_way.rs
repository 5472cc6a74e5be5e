//! DR and TUNNEL: what a client sends goes on as it is, plain or wrapped (SPEC C1).

use seawall_fastpath::TcpState::{self, Close, Established, FinWait, SynRecv, TimeWait};
use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{Tunnel, Wrapping, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::one_way::LEAP;
use seawall_fastpath::{Action, Reason};

use crate::FAMILY;
use crate::support::icmp::Error;
use crate::support::packet::{ACK, FIN, IP, Ip, PSH, RST, SYN, Segment};
use crate::support::splice::Numbers;
use crate::support::tunnel::Outer;
use crate::support::world::{
    DATAGRAMS, HOP_IN, INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, REAL_MAC, ROUTER_MAC, Ran,
    Session, TCP, UNPROXIED, VIP, World, host,
};

/// A client's port and the service's are the real server's too.
const PORT: u16 = UNPROXIED.1;
const MTU: u32 = 1_500;
const OURS: [Ip; 2] = [Ip::v4(0x0a01_0001), Ip(0xfd00_0001 << 96 | 1)];
const THEIRS: [Ip; 2] = [Ip::v4(0x0a01_0002), Ip(0xfd00_0001 << 96 | 2)];

fn session(flags: u32, bits: u32, local: Ip, real: Ip, state: TcpState) -> Session {
    let established = Session::established();
    Session {
        vip: UNPROXIED,
        local: (local, established.client.1),
        real: (real, PORT),
        state,
        numbers: Numbers { flags, a: bits, ..Numbers::PLAIN },
        ..established
    }
}

fn direct(state: TcpState) -> Session {
    session(flag::ONE_WAY, 0, Session::established().client.0, host(0x0a01_0002), state)
}

/// Every way to wrap a packet, over either version.
fn tunnels() -> Vec<(Session, Outer)> {
    let kinds = [
        (Wrapping::Ipip, false, 0),
        (Wrapping::Gue, false, 6_080),
        (Wrapping::Gue, true, 6_080),
        (Wrapping::Gre, false, 0),
        (Wrapping::Gre, true, 0),
    ];
    let both = OURS.into_iter().zip(THEIRS);
    both.flat_map(|(source, destination)| {
        kinds.map(|(wrapping, checksum, port)| {
            let tunnel = Tunnel { wrapping, checksum, port };
            let flags = flag::ONE_WAY | flag::TUNNEL;
            let session = session(flags, tunnel.to_bits(), source, destination, Established);
            let fragment = if FAMILY == Version::V4 { [0, 0, 0x40, 0] } else { [0; 4] };
            (session, Outer { source, destination, tunnel, ttl: 56, tos: 2, fragment, port: 0 })
        })
    })
    .collect()
}

fn sized(session: &Session, len: usize) -> Segment {
    let headers = TCP - IP + 20;
    let payload = (0..len - headers).map(|at| (at * 7) as u8).collect();
    Segment { payload, ..session.client_segment() }
}

/// The packet of `segment` after a hop, without its link header.
fn hopped(segment: &Segment) -> Vec<u8> {
    Segment { ttl: segment.ttl - 1, tags: Vec::new(), ..segment.clone() }.bytes().split_off(IP)
}

/// GUE's source port, which is the hash of the flow.
fn port_of(frame: &[u8], outer: &Outer) -> u16 {
    let at = IP + if outer.destination.version() == Version::V4 { 20 } else { 40 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn sent(ran: &Ran, outer: Option<&Outer>, packet: &[u8]) {
    assert_eq!(ran.verdict.action, Action::Send { interface: INSIDE }, "{:?}", ran.reason());
    let wanted = match outer {
        None => {
            let ethertype = if FAMILY == Version::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
            [&REAL_MAC[..], &INSIDE_MAC[..], &ethertype, packet].concat()
        }
        Some(outer) => {
            let port = port_of(&ran.bytes, outer);
            assert!(outer.tunnel.wrapping != Wrapping::Gue || port >= 0xc000, "{port}");
            Outer { port, ..*outer }.frame(REAL_MAC, INSIDE_MAC, FAMILY, packet)
        }
    };
    assert_eq!(ran.bytes, wanted, "{outer:?}");
}

#[test]
fn by_dr_only_the_macs_and_the_hops_change() {
    let session = direct(Established);
    for tags in [vec![], vec![0x8100_0005], vec![0x88a8_0005, 0x8100_0006]] {
        let world = World::new();
        let slot = world.session(&session);
        let segment = Segment { tags, flags: ACK | PSH, ..sized(&session, 1_500) };
        let ran = world.client_sends(&segment);
        assert_eq!(ran.reason(), Reason::ForwardIn);
        sent(&ran, None, &hopped(&segment));
        let flow = &world.slot(slot).inbound;
        assert_eq!((flow.packets.load(), flow.bytes.load()), (1, 1_500));
    }
}

/// Byte by byte, checksums included, over IPv4 and IPv6.
#[test]
fn by_a_tunnel_the_packet_is_wrapped() {
    for (session, outer) in tunnels() {
        for tags in [vec![], vec![0x8100_0005], vec![0x88a8_0005, 0x8100_0006]] {
            for len in [100, 101, 1_400] {
                let world = World::new();
                let slot = world.session(&session);
                let segment = Segment { tags: tags.clone(), ..sized(&session, len) };
                let ran = world.client_sends(&segment);
                assert_eq!(ran.reason(), Reason::ForwardIn, "{outer:?}");
                sent(&ran, Some(&outer), &hopped(&segment));
                let flow = &world.slot(slot).inbound;
                assert_eq!((flow.packets.load(), flow.bytes.load()), (1, len as u64));
            }
        }
    }
}

/// RFC 6864, section 4.3: around IPv6 an IPv4 packet may be cut in pieces, which must not be mixed up.
#[test]
fn packets_that_may_be_cut_in_pieces_have_numbers_of_their_own() {
    for (session, outer) in tunnels() {
        let world = World::new();
        world.session(&session);
        for number in 0..3 {
            let segment = sized(&session, 100);
            let ran = world.client_sends(&segment);
            let numbered = FAMILY == Version::V6 && outer.destination.version() == Version::V4;
            let fragment = if numbered { [0, number, 0, 0] } else { outer.fragment };
            sent(&ran, Some(&Outer { fragment, ..outer }), &hopped(&segment));
        }
    }
}

/// What fits is what the link takes less what wrapping adds.
#[test]
fn a_client_is_told_what_fits_into_the_tunnel() {
    let direct = direct(Established);
    let ways = tunnels().into_iter().map(|(session, outer)| (session, outer.overhead()));
    for (session, overhead) in [(direct, 0)].into_iter().chain(ways) {
        let world = World::new();
        let slot = world.session(&session);
        let room = MTU as usize - overhead;
        assert_eq!(world.client_sends(&sized(&session, room)).reason(), Reason::ForwardIn);
        let segment = sized(&session, room + 1);
        let ran = world.client_sends(&segment);
        assert_eq!(ran.reason(), Reason::TooBig);
        assert_eq!(ran.verdict.action, Action::Send { interface: OUTSIDE });
        assert_eq!(mtu_of(&ran.bytes), room as u32);
        assert_eq!(&ran.bytes[..6], &ROUTER_MAC);
        assert_eq!(world.slot(slot).inbound.packets.load(), 1);
    }
}

fn mtu_of(error: &[u8]) -> u32 {
    assert_eq!(error[TCP], if FAMILY == Version::V4 { 3 } else { 2 }, "{error:02x?}");
    u32::from_be_bytes(error[TCP + 4..TCP + 8].try_into().unwrap())
}

/// IPVS's table for one direction; RFC 9293, section 3.10.7.4, for what can be held against it.
#[test]
fn states_follow_what_the_client_says() {
    let isn = 1_000_000;
    for (from, flags, by, to) in [
        (SynRecv, ACK, 0, Established),
        (SynRecv, ACK, LEAP, Established),
        (SynRecv, ACK, LEAP + 1, SynRecv),
        (SynRecv, ACK, 1 << 31, SynRecv),
        (SynRecv, RST, 0, SynRecv),
        (SynRecv, SYN, 0, SynRecv),
        (Established, ACK, 0, Established),
        (Established, FIN | ACK, 0, FinWait),
        (Established, FIN | ACK, LEAP - 1, FinWait),
        (Established, FIN | ACK, LEAP, Established),
        (Established, RST, 0, Close),
        (Established, RST | ACK, 0xffff, Close),
        (Established, RST, 0x1_0000, Established),
        (Established, RST, 0xffff_u32.wrapping_neg(), Close),
        (Established, RST, 0x1_0000_u32.wrapping_neg(), Established),
        (FinWait, ACK, 0, FinWait),
        (FinWait, FIN | ACK, 0, FinWait),
        (TimeWait, ACK, 0, TimeWait),
        (Close, ACK, 0, Close),
    ] {
        let world = World::new();
        let session = Session { known_out: (isn, 0), ..direct(from) };
        let slot = world.session(&session);
        let mut segment = session.client_segment();
        (segment.flags, segment.seq) = (flags, isn.wrapping_add(by));
        let ran = world.client_sends(&segment);
        assert_eq!(ran.reason(), Reason::ForwardIn, "{from:?} {flags:#x} {by}: it goes on");
        assert_eq!(world.slot(slot).state().state, to, "{from:?} {flags:#x} {by}");
        let told = world.records().len();
        assert_eq!(told, usize::from(from != to), "{from:?} {flags:#x} {by}: the engine hears");
    }
}

/// An RST is held against where the client stands, and that moves with what it sends.
#[test]
fn where_the_client_stands_is_known_from_what_it_sends() {
    let world = World::new();
    let session = direct(Established);
    let slot = world.session(&session);
    let mut seq = session.known_out.0;
    for len in [1_000, 1_400, 100, 1_400] {
        let segment = Segment { seq, ..sized(&session, len) };
        seq = seq.wrapping_add(segment.payload.len() as u32);
        assert_eq!(world.client_sends(&segment).reason(), Reason::ForwardIn);
        assert_eq!(world.slot(slot).outbound.ack.load(), seq);
    }
    let again = Segment { seq: session.known_out.0, ..sized(&session, 1_000) };
    let forged = Segment { seq: seq.wrapping_add(1 << 30), ..sized(&session, 1_000) };
    for segment in [again, forged] {
        assert_eq!(world.client_sends(&segment).reason(), Reason::ForwardIn);
        assert_eq!(world.slot(slot).outbound.ack.load(), seq, "neither old nor far ahead");
    }
}

/// SPEC A1: a SYN on an established session goes to its real server, once a second.
#[test]
fn a_syn_on_an_established_session_goes_on() {
    let world = World::new();
    let session = direct(Established);
    let slot = world.session(&session);
    let syn = Segment { flags: SYN, ..session.client_segment() };
    assert_eq!(world.client_sends(&syn).reason(), Reason::SynEstablished);
    assert_eq!(world.client_sends(&syn).reason(), Reason::SynLimited);
    assert_eq!(world.slot(slot).state().state, Established);
}

#[test]
fn ttl_next_hop_and_a_removed_real_server_are_minded() {
    let (wrapped, _) = tunnels()[0];
    for session in [direct(Established), wrapped] {
        let world = World::new();
        let slot = world.session(&session);
        let old = Segment { ttl: 1, ..session.client_segment() };
        assert_eq!(world.client_sends(&old).reason(), Reason::TtlExceeded);
        world.tables.memory.next_hops()[HOP_IN as usize].set_destination(None);
        let segment = session.client_segment();
        assert_eq!(world.client_sends(&segment).reason(), Reason::NextHopMissing);
        let word = world.slot(slot).state();
        let flags = word.flags | flag::NO_SERVER;
        world.slot(slot).word.store(seawall_fastpath::layout::Word { flags, ..word }.to_bits());
        assert_eq!(world.client_sends(&segment).reason(), Reason::NoServer);
    }
}

/// The packet that is `number`-th of those that have numbers: IPv4 that may be cut into pieces.
fn numbered(outer: Outer, number: u8) -> Outer {
    let [_, _, flags, offset] = outer.fragment;
    let may_be = outer.destination.version() == Version::V4 && flags == 0;
    Outer { fragment: [0, if may_be { number } else { 0 }, flags, offset], ..outer }
}

/// The same ends, spoken to by UDP.
fn of_datagrams(session: Session) -> Session {
    let flags = session.numbers.flags | flag::UDP;
    let numbers = Numbers { flags, ..session.numbers };
    Session { vip: DATAGRAMS, state: SynRecv, numbers, ..session }
}

/// Byte by byte; one without a checksum is wrapped without one. What confirms a flow is an answer, and
/// none is seen.
#[test]
fn datagrams_go_on_too() {
    let direct = (direct(Established), None);
    let ways = tunnels().into_iter().map(|(session, outer)| (session, Some(outer)));
    for (session, outer) in [direct].into_iter().chain(ways) {
        let session = of_datagrams(session);
        let world = World::new();
        let slot = world.session(&session);
        let segment = Segment { payload: b"who?".to_vec(), ..session.client_segment() };
        let hopped = Segment { ttl: segment.ttl - 1, ..segment.clone() };
        for number in 0..3 {
            let ran = world.run(OUTSIDE, &segment.datagram());
            assert_eq!(ran.reason(), Reason::ForwardIn, "{outer:?}");
            let outer = outer.map(|outer| numbered(outer, number));
            sent(&ran, outer.as_ref(), &hopped.datagram()[IP..]);
        }
        let (state, flow) = (world.slot(slot).state().state, &world.slot(slot).inbound);
        assert_eq!((state, flow.packets.load(), world.records().len()), (SynRecv, 3, 0));
        if FAMILY == Version::V4 {
            let ran = world.run(OUTSIDE, &segment.datagram_without_checksum());
            let outer = outer.map(|outer| {
                let tunnel = Tunnel { checksum: false, ..outer.tunnel };
                Outer { tunnel, ..outer }
            });
            sent(&ran, outer.as_ref(), &hopped.datagram_without_checksum()[IP..]);
        }
    }
}

/// A datagram that does not fit, and a client's error about what the real server sent.
#[test]
fn errors_about_datagrams_find_their_way_too() {
    for (session, outer) in tunnels() {
        let session = of_datagrams(session);
        let world = World::new();
        world.session(&session);
        let room = MTU as usize - outer.overhead();
        let header = TCP - IP + 8;
        let question =
            |len: usize| Segment { payload: vec![7; len - header], ..session.client_segment() };
        let fits = world.run(OUTSIDE, &question(room).datagram());
        assert_eq!(fits.reason(), Reason::ForwardIn, "{outer:?}");
        let ran = world.run(OUTSIDE, &question(room + 1).datagram());
        assert_eq!(ran.reason(), Reason::TooBig, "{outer:?}");
        assert_eq!(mtu_of(&ran.bytes), room as u32);
        let asked = question(1_400).datagram();
        let hopped = Segment { ttl: question(1_400).ttl - 1, ..question(1_400) }.datagram();
        assert_eq!(world.run(OUTSIDE, &asked).reason(), Reason::ForwardIn);
        let wrapped = outer.frame(REAL_MAC, INSIDE_MAC, FAMILY, &hopped[IP..]).split_off(IP);
        let ran = world.run(INSIDE, &about(&outer, &wrapped, 1_350, 200));
        assert_eq!(ran.reason(), Reason::TooBig, "{outer:?}");
        assert_eq!(mtu_of(&ran.bytes), 1_350 - outer.overhead() as u32);
        // "Port unreachable", of the client about an answer.
        let (kind, code) = if FAMILY == Version::V4 { (3, 3) } else { (1, 4) };
        let from = session.client.0;
        let error = Error { from, to: VIP, kind, code, rest: 0, ttl: 60, quote: 40 };
        let answer = Segment { source: session.vip, destination: session.client, ..question(200) };
        let ran = world.run(OUTSIDE, &error.about_datagram(OUTSIDE_MAC, &answer));
        assert_eq!(ran.reason(), Reason::IcmpIn, "{outer:?}");
    }
}

/// IPVS, `ip_vs_icmp_xmit`: what a client says of the real server's segments goes to that.
#[test]
fn a_clients_error_goes_the_way_of_its_segments() {
    let (kind, code) = if FAMILY == Version::V4 { (3, 4) } else { (2, 0) };
    let direct = (direct(Established), None);
    let ways = tunnels().into_iter().map(|(session, outer)| (session, Some(outer)));
    for (session, outer) in [direct].into_iter().chain(ways) {
        let world = World::new();
        world.session(&session);
        let about = session.sent_to_client();
        let error =
            Error { from: host(0x0909_0909), to: VIP, kind, code, rest: 1_300, ttl: 60, quote: 40 };
        let frame = error.bytes(OUTSIDE_MAC, &about);
        let ran = world.run(OUTSIDE, &frame);
        assert_eq!(ran.reason(), Reason::IcmpIn, "{outer:?}");
        let packet = Error { ttl: 59, ..error }.bytes(OUTSIDE_MAC, &about).split_off(IP);
        let tos = if FAMILY == Version::V4 { 0xc0 } else { 0 };
        // Like any packet without DF.
        let fragment = [0; 4];
        let outer = outer.map(|outer| Outer { ttl: 59, tos, fragment, ..outer });
        sent(&ran, outer.as_ref(), &packet);
        let far = Segment { seq: about.seq.wrapping_add(1 << 30), ..about };
        let ran = world.run(OUTSIDE, &error.bytes(OUTSIDE_MAC, &far));
        assert_eq!(ran.reason(), Reason::IcmpInvalid);
    }
}

/// An error from a router about the packet that `outer` makes of `segment`, as far as it quotes it.
fn from_a_router(outer: &Outer, segment: &Segment, mtu: u32, quote: usize) -> Vec<u8> {
    let wrapped = outer.frame(REAL_MAC, INSIDE_MAC, FAMILY, &hopped(segment)).split_off(IP);
    about(outer, &wrapped, mtu, quote)
}

/// The same about a packet that is wrapped already.
fn about(outer: &Outer, wrapped: &[u8], mtu: u32, quote: usize) -> Vec<u8> {
    let wrapped = &wrapped[..wrapped.len().min(quote)];
    Error {
        from: outer.destination + 77,
        to: outer.source,
        kind: if outer.source.version() == Version::V4 { 3 } else { 2 },
        code: if outer.source.version() == Version::V4 { 4 } else { 0 },
        rest: mtu,
        ttl: 60,
        quote,
    }
    .quoting(INSIDE_MAC, wrapped)
}

/// Path-MTU discovery through a tunnel (SPEC C1; IPVS, `ip_vs_in_icmp`).
#[test]
fn a_router_in_the_tunnel_is_heard_by_the_client() {
    for (session, outer) in tunnels() {
        let world = World::new();
        world.session(&session);
        let segment = sized(&session, 1_440);
        assert_eq!(world.client_sends(&segment).reason(), Reason::ForwardIn);
        let mtu = 1_400;
        let run = |outer: &Outer, segment: &Segment, quote| {
            // It comes in the version of the tunnel.
            world.run(INSIDE, &from_a_router(outer, segment, mtu, quote))
        };
        let ran = run(&outer, &segment, 200);
        assert_eq!(ran.reason(), Reason::TooBig, "{outer:?}");
        assert_eq!(ran.verdict.action, Action::Send { interface: OUTSIDE });
        assert_eq!((&ran.bytes[..6], &ran.bytes[6..12]), (&ROUTER_MAC[..], &OUTSIDE_MAC[..]));
        assert_eq!(mtu_of(&ran.bytes), mtu - outer.overhead() as u32);
        let quoted = TCP + 8;
        assert_eq!(ran.bytes[quoted..], hopped(&segment)[..TCP - IP + 20], "the client's own");
        // Another's tunnel, a number that the client has not sent, and too little to go by.
        let other = Outer { destination: outer.destination + 1, ..outer };
        assert_eq!(run(&other, &segment, 200).reason(), Reason::PassNotOurs);
        let far = Segment { seq: segment.seq.wrapping_add(LEAP), ..segment.clone() };
        assert_eq!(run(&outer, &far, 200).reason(), Reason::IcmpInvalid);
        assert_eq!(run(&outer, &segment, outer.overhead() + 8).reason(), Reason::PassNotOurs);
    }
}

/// The return path is not ours: such sessions have one entry, and what comes the other way is the
/// kernel's to route.
#[test]
fn what_the_real_server_says_passes() {
    let world = World::new();
    let session = direct(Established);
    world.session(&session);
    let back = Segment { source: session.vip, ..session.real_server_segment() };
    let back = Segment { destination: session.client, ..back };
    assert_eq!(world.real_server_sends(&back).reason(), Reason::PassNotOurs);
}
