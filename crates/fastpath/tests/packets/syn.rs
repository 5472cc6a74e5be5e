//! SYNs and the SYN/ACKs that answer them (SPEC A1 to A3).

use crate::FAMILY;
use crate::support::packet::{ACK, IP, Ip, Opt, SYN, Segment};
use crate::support::world::{
    CLIENT, EARLY_DATA, OUTSIDE, OUTSIDE_MAC, PROXIED, ROUTER_MAC, START_MS, TCP, World,
    from_client,
};
use Opt::{End, Mss, Nop, Other, SackPermitted, Scale, Timestamps};
use seawall_fastpath::Reason;
use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{NO_SCALE, switch};

/// The MSS of a client that names none, which is also the least that we offer (SPEC A3).
const LEAST_MSS: u16 = match FAMILY {
    Version::V4 => 536,
    Version::V6 => 1_220,
};

/// What stacks put into a SYN.
pub(crate) fn layouts() -> Vec<(&'static str, Vec<Opt>)> {
    let ts = Timestamps(0x1122_3344, 0);
    vec![
        ("none", vec![]),
        ("MSS", vec![Mss(1_460)]),
        ("Linux", vec![Mss(1_460), SackPermitted, ts.clone(), Nop, Scale(7)]),
        ("Windows", vec![Mss(1_460), Nop, Scale(8), Nop, Nop, SackPermitted]),
        ("macOS", vec![Mss(1_460), Nop, Scale(6), Nop, Nop, ts.clone(), SackPermitted, End, End]),
        ("FreeBSD", vec![Mss(1_460), Nop, Scale(6), SackPermitted, ts.clone()]),
        ("SACK without timestamps", vec![Mss(1_400), Nop, Nop, SackPermitted]),
        ("timestamps only", vec![Nop, Nop, ts.clone()]),
        ("shift 0", vec![Mss(8_960), Nop, Scale(0)]),
        ("shift 14", vec![Mss(900), Nop, Scale(14)]),
        ("shift 15", vec![Mss(1_452), Nop, Scale(15)]),
        ("small MSS", vec![Mss(300)]),
        ("timestamps at an odd offset", vec![Nop, ts.clone(), SackPermitted]),
        ("fast open", vec![Mss(1_460), Other(34, vec![1; 8]), SackPermitted]),
        ("MPTCP", vec![Mss(1_460), SackPermitted, ts, Nop, Scale(7), Other(30, vec![0x81; 10])]),
        ("MD5", vec![Mss(1_460), Nop, Nop, Other(19, vec![9; 16])]),
        ("AO", vec![Mss(1_460), Other(29, vec![9; 14])]),
        ("experiments", vec![Mss(1_460), Other(253, vec![1; 6]), Other(254, vec![1; 8])]),
        ("a wrong length is skipped", vec![Other(2, vec![5]), Other(3, vec![5, 5]), Nop]),
        ("after the end", vec![Mss(1_300), End, SackPermitted]),
    ]
}

/// What a SYN offers: MSS, shift, SACK, timestamps.
pub(crate) struct Offered {
    pub(crate) mss: u16,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) timestamps: Option<u32>,
}

pub(crate) fn offered(options: &[Opt]) -> Offered {
    let mut offered = Offered { mss: LEAST_MSS, scale: None, sack: false, timestamps: None };
    for option in options.iter().take_while(|option| **option != End) {
        match option {
            Mss(mss) => offered.mss = *mss,
            Scale(shift) => offered.scale = Some((*shift).min(14)),
            SackPermitted => offered.sack = true,
            Timestamps(value, _) => offered.timestamps = Some(*value),
            _ => {}
        }
    }
    offered
}

pub(crate) fn syn(options: &[Opt]) -> Segment {
    Segment { flags: SYN, ack: 0, options: options.to_vec(), ..from_client(PROXIED) }
}

/// The options of a SYN/ACK without padding, each at most once.
fn answered(segment: &Segment) -> Vec<Opt> {
    let options: Vec<_> = segment.options.iter().filter(|it| **it != Nop).cloned().collect();
    for option in &options {
        assert_eq!(options.iter().filter(|it| *it == option).count(), 1);
        assert!(matches!(option, Mss(_) | Scale(_) | SackPermitted | Timestamps(..)), "{option:?}");
    }
    options
}

fn check_answer(world: &World, name: &str, syn: &Segment, ours: (u16, Option<u8>, u32)) {
    let (init_mss, scale, switches) = ours;
    let ran = world.client_sends(syn);
    assert_eq!(ran.reason(), Reason::Cookie, "{name}");
    let answer = ran.sent(OUTSIDE);
    let offered = offered(&syn.options);
    // Our own limit; a client with a tiny one (MSS 0 too) gets no window of nothing for it.
    // `init_mss` is IPv4's; a packet is as large over either version.
    let init_mss = (init_mss - (TCP - IP - 20) as u16).max(LEAST_MSS);
    let mss = offered.mss.max(LEAST_MSS).min(init_mss);
    assert_eq!((answer.source_mac, answer.destination_mac), (OUTSIDE_MAC, ROUTER_MAC), "{name}");
    assert_eq!((answer.source, answer.destination), (syn.destination, syn.source), "{name}");
    assert_eq!((answer.flags, answer.ack), (SYN | ACK, syn.seq.wrapping_add(1)), "{name}");
    assert_eq!((answer.ttl, answer.tos, answer.urgent), (64, 0, 0), "{name}");
    assert!(answer.payload.is_empty(), "{name}");
    let window = (u32::from(mss) * 10).min(EARLY_DATA).min(65_535);
    assert_eq!(u32::from(answer.window), window, "{name}");

    let options = answered(&answer);
    let find = |pick: fn(&Opt) -> Option<u32>| options.iter().find_map(pick);
    let seen = find(|it| if let Mss(mss) = it { Some(u32::from(*mss)) } else { None });
    assert_eq!(seen, Some(u32::from(mss)), "{name}");
    let seen = find(|it| if let Scale(shift) = it { Some(u32::from(*shift)) } else { None });
    let scale = scale.filter(|_| offered.scale.is_some());
    assert_eq!(seen, scale.map(u32::from), "{name}");
    let sack = offered.sack && switches & switch::SACK != 0;
    assert_eq!(options.contains(&SackPermitted), sack, "{name}");
    let echo = find(|it| if let Timestamps(_, echo) = it { Some(*echo) } else { None });
    let timestamps = offered.timestamps.filter(|_| switches & switch::TIMESTAMP != 0);
    assert_eq!(echo, timestamps, "{name}");
    let options_len = if timestamps.is_some() { 20 } else { 12 };
    assert_eq!(ran.bytes.len(), TCP + 20 + options_len, "{name}");

    // The option byte of DESIGN, "Cookie".
    let classes: [u16; 7] = match FAMILY {
        Version::V4 => [536, 1_220, 1_360, 1_400, 1_440, 1_460, 8_960],
        Version::V6 => [536, 1_220, 1_340, 1_380, 1_420, 1_440, 8_940],
    };
    let class = classes.iter().filter(|class| offered.mss >= **class).count() as u32;
    let shift = scale.and(offered.scale).map_or(15, u32::from);
    let byte = u32::from(sack) << 7 | shift << 3 | class;
    assert_eq!(answer.seq >> 24, byte, "{name}");
    assert!(world.records().is_empty());
}

#[test]
fn every_stack_is_answered() {
    let world = World::new();
    let all = switch::SACK | switch::TIMESTAMP;
    for (name, options) in layouts() {
        check_answer(&world, name, &syn(&options), (1_452, Some(7), all));
    }
}

#[test]
fn switches_and_limits_are_kept() {
    let world = World::new();
    for (name, options) in layouts() {
        for switches in [0, switch::SACK, switch::TIMESTAMP] {
            world.switches(switches, switch::SACK | switch::TIMESTAMP);
            check_answer(&world, name, &syn(&options), (1_452, Some(7), switches));
        }
    }
}

#[test]
fn sequence_numbers_wrap() {
    let world = World::new();
    for seq in [u32::MAX, u32::MAX - 1, 0] {
        let syn = Segment { seq, ..syn(&[Mss(1_460)]) };
        check_answer(&world, "wrap", &syn, (1_452, Some(7), switch::SACK));
    }
}

/// SPEC A1: payload of a SYN is ignored; B3: ECE, CWR and AE on a SYN are legal.
#[test]
fn payload_and_ecn_bits_are_ignored() {
    let world = World::new();
    for (flags, payload) in [(SYN, 100), (SYN | 0x1c0, 0), (SYN | 0x1e8, 1_400)] {
        let syn = Segment { flags, payload: vec![7; payload], ..syn(&layouts()[2].1) };
        check_answer(&world, "extras", &syn, (1_452, Some(7), switch::SACK | switch::TIMESTAMP));
    }
}

#[test]
fn frames_padded_by_the_network_card_are_cut() {
    let world = World::new();
    let mut frame = syn(&[]).bytes();
    frame.resize(TCP + 26, 0xaa);
    let ran = world.run(OUTSIDE, &frame);
    assert_eq!(ran.sent(OUTSIDE).options.len(), 9, "an MSS option and eight NOPs");
}

/// SPEC A3: a malformed option is never reflected.
#[test]
fn malformed_options_are_dropped() {
    let world = World::new();
    for raw in [
        vec![2, 4, 5, 0xb4, 3, 3, 7, 4],
        vec![2, 4, 5, 0xb4, 8, 10, 0, 0],
        vec![2, 0, 5, 0xb4],
        vec![2, 1, 5, 0xb4],
        vec![1, 1, 1, 2],
        vec![34, 5, 1, 1],
        vec![34, 255, 1, 1],
    ] {
        let syn = Segment { raw_options: Some(raw.clone()), ..syn(&[]) };
        assert_eq!(world.client_sends(&syn).reason(), Reason::SynMalformed, "{raw:?}");
        // What follows the header must not complete an option.
        let syn = Segment { payload: vec![2; 40], ..syn };
        assert_eq!(world.client_sends(&syn).reason(), Reason::SynMalformed, "{raw:?}");
    }
}

fn value(segment: &Segment) -> u32 {
    segment
        .options
        .iter()
        .find_map(|it| if let Timestamps(value, _) = it { Some(*value) } else { None })
        .expect("timestamps")
}

/// DESIGN, "Cookie": TSval is a millisecond clock with an origin of its own for each tuple.
#[test]
fn the_clock_ticks_in_milliseconds_and_differs_by_tuple() {
    let world = World::new();
    let syn = syn(&layouts()[2].1);
    let first = value(&world.client_sends(&syn).sent(OUTSIDE));
    world.wait(1_234);
    let other_isn = Segment { seq: 99, ..syn.clone() };
    let second = value(&world.client_sends(&other_isn).sent(OUTSIDE));
    assert_eq!(second.wrapping_sub(first), 1_234);
    let other = Segment { source: (CLIENT.0, CLIENT.1 + 1), ..syn.clone() };
    let third = value(&world.client_sends(&other).sent(OUTSIDE));
    assert!(third.abs_diff(second) > 10_000, "{third} {second}");
    assert_ne!(first, START_MS as u32);
}

#[test]
fn a_cookie_depends_on_all_it_covers() {
    let world = World::new();
    let base = syn(&[Mss(1_460)]);
    let cookie = |syn: &Segment| world.client_sends(syn).sent(OUTSIDE).seq;
    let first = cookie(&base);
    assert_eq!(cookie(&base), first, "no state, no clock in it");
    world.wait(1_000);
    assert_eq!(cookie(&base), first);
    let source = |address, port| Segment { source: (address, port), ..base.clone() };
    for other in [
        source(CLIENT.0 ^ 1, CLIENT.1),
        source(CLIENT.0, CLIENT.1 ^ 1),
        Segment { destination: (PROXIED.0, 83), ..base.clone() },
        Segment { seq: base.seq ^ 1, ..base.clone() },
        syn(&[Mss(1_400)]),
        syn(&[Mss(1_460), Timestamps(1, 0)]),
    ] {
        assert_ne!(cookie(&other) & 0x7f_ffff, first & 0x7f_ffff, "{other:?}");
    }
    world.next_epoch();
    let next = cookie(&base);
    assert_ne!(next & 0x7f_ffff, first & 0x7f_ffff);
    assert_eq!((next ^ first) >> 23, 1, "only the parity changes above the MAC");
}

#[test]
fn settings_rule_the_answer() {
    use seawall_fastpath::native::Memory;
    let world = World::new();
    let settings = world.tables.memory.settings();
    let all = switch::SACK | switch::TIMESTAMP;
    let linux = syn(&layouts()[2].1);
    settings.window_scale.store(u32::from(NO_SCALE));
    check_answer(&world, "no shift of ours", &linux, (1_452, None, all));
    settings.window_scale.store(0);
    check_answer(&world, "a shift of 0", &linux, (1_452, Some(0), all));
    settings.window_scale.store(14);
    check_answer(&world, "a shift of 14", &linux, (1_452, Some(14), all));
    settings.init_mss.store(LEAST_MSS.into());
    check_answer(&world, "init_mss", &linux, (LEAST_MSS, Some(14), all));
    settings.init_mss.store(65_535);
    check_answer(&world, "no cap", &syn(&[Mss(9_000)]), (65_535, Some(14), all));
    settings.ttl.store(200);
    assert_eq!(world.client_sends(&linux).sent(OUTSIDE).ttl, 200);
    settings.early_data.store(1 << 20);
    assert_eq!(world.client_sends(&syn(&[Mss(9_000)])).sent(OUTSIDE).window, 65_535);
}

/// SPEC A7: what a real server of the service is known to lack is not offered.
#[test]
fn a_service_offers_only_what_its_real_servers_take() {
    use seawall_fastpath::layout::ServiceEntry;
    let world = World::new();
    let proxied = ServiceEntry::SYNPROXY | ServiceEntry::USABLE;
    let all = switch::SACK | switch::TIMESTAMP;
    for (lacks, switches) in [
        (ServiceEntry::NO_SACK, switch::TIMESTAMP),
        (ServiceEntry::NO_TIMESTAMP, switch::SACK),
        (ServiceEntry::NO_SACK | ServiceEntry::NO_TIMESTAMP, 0),
        (0, all),
    ] {
        world.add_service(PROXIED, proxied | lacks);
        for (name, options) in layouts() {
            check_answer(&world, name, &syn(&options), (1_452, Some(7), switches));
        }
    }
}

/// RFC 9293, section 3.9.2.3: nobody is at these addresses to be answered.
#[test]
fn a_syn_from_nobody_is_ignored() {
    let nobody: &[Ip] = match FAMILY {
        Version::V4 => &[Ip::v4(0), Ip::v4(0x7f00_0001), Ip::v4(0xe000_0001), Ip::v4(u32::MAX)],
        Version::V6 => &[Ip(0), Ip(1), Ip(0xff02 << 112 | 1)],
    };
    for address in nobody {
        let syn = Segment { source: (*address, 1_234), ..syn(&[]) };
        assert_eq!(World::new().client_sends(&syn).reason(), Reason::IpMalformed, "{address:?}");
    }
}
