//! A session whose real server is to hear who its client is (SPEC C7), as XDP sees it.

use seawall_fastpath::layout::{ServiceEntry, Word, flag};
use seawall_fastpath::{Action, Reason, Ring, TcpState};

use crate::FAMILY;
use crate::support::packet::{ACK, Opt, PSH, SYN, Segment, tcp_sum};
use crate::support::world::{INSIDE, Session, TCP, VIP, World, from_client};
use Opt::{Nop, Other, Timestamps};
use seawall_fastpath::family::Version;

/// An established session with more flags, and the number of its slot.
fn session(world: &World, more: u32) -> (Session, u32) {
    let session = Session::established();
    let index = world.session(&session);
    let slot = world.slot(index);
    let word = slot.state();
    slot.word.store(Word { flags: word.flags | more, ..word }.to_bits());
    (session, index)
}

/// SPEC C7: all of a forged option and nothing else becomes NOPs, at even offsets and odd.
#[test]
fn forged_toa_becomes_nops_and_the_checksum_stays_incremental() {
    let world = World::new();
    let (session, _) = session(&world, flag::TOA);
    for kind in [253, 254] {
        for len in [0, 1, 5, 6, 18, 30] {
            for before in 0..4 {
                let clocks = Timestamps(7, 8);
                let mut options = vec![Nop; before];
                options.push(Other(kind, vec![254; len]));
                if len + before < 20 {
                    options.push(clocks.clone());
                    options.push(Other(252, vec![1, 2]));
                    options.push(Other(kind, vec![]));
                }
                let said = Segment { options, ..session.client_segment() };
                let ran = world.client_sends(&said);
                assert_eq!(ran.reason(), Reason::ForwardIn);
                let heard = ran.sent(INSIDE);
                assert!(!heard.options.iter().any(|it| matches!(it, Other(253 | 254, _))));
                let kept = heard.options.iter().filter(|it| **it != Nop).count();
                assert_eq!(kept, if len + before < 20 { 2 } else { 0 }, "{heard:?}");
                // What came in corrupt leaves corrupt, by as much.
                let mut frame = said.bytes();
                frame[TCP + 16] ^= 0x40;
                let ran = world.run(crate::support::world::OUTSIDE, &frame);
                assert_ne!(tcp_sum(&ran.bytes), 0xffff);
            }
        }
    }
}

#[test]
fn without_the_flag_and_from_the_real_server_options_pass() {
    let world = World::new();
    let options = vec![Other(254, vec![9; 6]), Other(253, vec![9; 18])];
    let (session, index) = session(&world, 0);
    let said = Segment { options: options.clone(), ..session.client_segment() };
    assert_eq!(world.client_sends(&said).sent(INSIDE).options, options);
    let word = world.slot(index).state();
    world.slot(index).word.store(Word { flags: word.flags | flag::TOA, ..word }.to_bits());
    let said = Segment { options: options.clone(), ..session.real_server_segment() };
    let ran = world.real_server_sends(&said);
    assert_eq!(ran.sent(crate::support::world::OUTSIDE).options, options);
}

#[test]
fn both_sides_go_to_the_engine_until_it_is_known() {
    let world = World::new();
    let (session, _) = session(&world, flag::INTRODUCING);
    for (ran, reason) in [
        (world.client_sends(&session.client_segment()), Reason::PuntClient),
        (world.real_server_sends(&session.real_server_segment()), Reason::PuntRealServer),
    ] {
        assert_eq!((ran.verdict.action, ran.reason()), (Action::Punt, reason));
    }
    assert!(world.records().iter().all(|record| record.ring == Ring::Proven));
}

/// SPEC B6: who has proved nothing has a ring of his own.
#[test]
fn without_the_proxy_the_client_has_the_other_ring() {
    let world = World::new();
    let (session, index) = session(&world, flag::INTRODUCING);
    let word = Word { state: TcpState::SynRecv, flags: flag::INTRODUCING, d: 0 };
    world.slot(index).word.store(word.to_bits());
    let ran = world.client_sends(&Segment { flags: ACK | PSH, ..session.client_segment() });
    assert_eq!((ran.verdict.action, ran.reason()), (Action::Punt, Reason::PuntUnproxied));
    assert!(world.records().iter().all(|record| record.ring == Ring::Unproven));
}

/// LVS: `fullnat_mss_adjust_entry`; DPVS #1041 for IPv6.
#[test]
fn clients_are_told_to_leave_room() {
    let world = World::new();
    let flags = ServiceEntry::SYNPROXY | ServiceEntry::USABLE;
    let at = [(VIP, 90), (VIP, 91)];
    world.add_service(at[0], flags);
    world.add_service(at[1], flags | ServiceEntry::TOA);
    for offered in [300, 536, 1_220, 1_460, 9_000] {
        let mss = at.map(|at| {
            let options = vec![Opt::Mss(offered)];
            let syn = Segment { flags: SYN, ack: 0, options, ..from_client(at) };
            let answer = world.client_sends(&syn).sent(crate::support::world::OUTSIDE);
            answer
                .options
                .iter()
                .find_map(|it| if let Opt::Mss(mss) = it { Some(*mss) } else { None })
        });
        let room = match FAMILY {
            Version::V4 => 8,
            Version::V6 => 20,
        };
        assert_eq!(mss[0].map(|mss| mss - room), mss[1], "{offered}");
    }
}
