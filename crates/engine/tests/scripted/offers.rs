//! What a client may write into its SYN, and what becomes of it (SPEC A2, A3).

use seawall_engine::Counter;
use seawall_fastpath::Reason;

use crate::conversation::{Conversation, Offer, PORT, mss_of, scale_of};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt, PSH, SYN, Segment};
use crate::support::stage::{Stage, clock_of};

in_each_family! {
    every_mss_comes_through_rounded_down,
    a_syn_without_mss_means_the_default,
    options_in_odd_layouts_are_read,
    malformed_options_are_dropped_and_counted,
    a_payload_in_the_syn_is_not_taken,
    a_real_server_without_any_option,
    a_service_learns_what_its_real_servers_lack,
    ecn_is_refused,
    odd_options_pass_in_an_established_session,
}

/// SPEC A3: the MSS sent to the real server is at most the client's, and what we advertise is at
/// most `init_mss`.
fn every_mss_comes_through_rounded_down(family: Family) {
    for mss in [48, 49, 88, 535, 536, 537, 1_219, 1_220, 1_400, 1_460, 1_461, 8_959, 8_960, 65_535]
    {
        let offer = Offer { mss: Some(mss), ..Offer::CLIENT };
        let mut talk = Conversation::open(&Setup::of(family), offer, Offer::SERVER);
        let (ours, to_server) = (mss_of(&talk.cookie).unwrap(), mss_of(&talk.syn).unwrap());
        assert!(ours <= 1_452, "{mss}: advertised {ours}");
        assert!(to_server <= mss, "{mss}: the real server was told {to_server}");
        if mss >= 536 {
            assert!(
                u32::from(to_server) * 3 > u32::from(mss.min(1_460)),
                "{mss}: only {to_server}"
            );
        }
        talk.client_says(ACK | PSH, &vec![1; usize::from(ours.min(1_400))]);
        talk.server_says(ACK | PSH, &vec![2; usize::from(to_server.min(1_400))]);
        talk.close(family);
    }
}

/// RFC 9293, section 3.7.1.
fn a_syn_without_mss_means_the_default(family: Family) {
    let offer = Offer { mss: None, ..Offer::CLIENT };
    let talk = Conversation::open(&Setup::of(family), offer, Offer::SERVER);
    assert_eq!(mss_of(&talk.syn), Some(family.default_mss()));
    assert_eq!(mss_of(&talk.cookie), Some(family.default_mss()));
    talk.close(family);
}

fn answered(stage: &mut Stage, isn: u32, raw: &[Opt]) -> Segment {
    let like = stage.client_says(PORT, SYN, isn, 0);
    stage.client(&Segment { options: raw.to_vec(), ..like });
    stage.one_to_client()
}

/// Any order, any padding, unknown options between, nothing after the end of the list.
fn options_in_odd_layouts_are_read(family: Family) {
    let mss = Opt::Mss(1_400);
    let (scale, clock) = (Opt::Scale(3), Opt::Timestamps(77, 0));
    let sack = Opt::SackPermitted;
    let unknown = |kind: u8, len: usize| Opt::Other(kind, vec![0xee; len]);
    let mut stage = Stage::new(&Setup::of(family));
    for (isn, layout) in [
        vec![clock.clone(), mss.clone(), scale.clone(), sack.clone()],
        vec![Opt::Nop, scale.clone(), Opt::Nop, sack.clone(), Opt::Nop, clock.clone(), mss.clone()],
        // TFO, MPTCP, MD5-like lengths, user timeout, SMC, TOA (PEERS, a.1).
        vec![unknown(34, 8), mss.clone(), sack.clone(), clock.clone(), scale.clone()],
        vec![mss.clone(), unknown(30, 10), sack.clone(), clock.clone(), scale.clone()],
        vec![mss.clone(), sack.clone(), clock.clone(), scale.clone(), unknown(28, 2)],
        vec![unknown(254, 6), mss.clone(), sack.clone(), clock.clone(), scale.clone()],
        vec![mss.clone(), sack.clone(), clock.clone(), scale.clone(), Opt::End, unknown(2, 9)],
    ]
    .into_iter()
    .enumerate()
    {
        let cookie = answered(&mut stage, isn as u32, &layout);
        assert_eq!(
            (mss_of(&cookie), scale_of(&cookie), clock_of(&cookie).map(|clock| clock.1)),
            (Some(1_400), Some(7), Some(77)),
            "{layout:?}"
        );
        let known = |option: &Opt| !matches!(option, Opt::Other(..));
        assert!(cookie.options.iter().all(known), "reflected: {cookie:?}");
        assert!(cookie.options.contains(&sack));
        assert!(cookie.payload.is_empty());
    }
}

fn malformed_options_are_dropped_and_counted(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let layouts: [[u8; 4]; 6] = [
        [2, 0, 5, 180],
        [2, 1, 5, 180],
        [2, 5, 5, 180],
        [8, 10, 0, 0],
        [1, 1, 1, 2],
        [99, 255, 0, 0],
    ];
    for (at, layout) in layouts.into_iter().enumerate() {
        let like = stage.client_says(PORT, SYN, 7, 0);
        stage.client(&Segment { raw_options: Some(layout.to_vec()), ..like });
        assert!(stage.to_client.is_empty(), "answered {layout:?}");
        assert_eq!(stage.malformed_syns(), at as u64 + 1);
    }
    stage.balancer.assert_empty();
}

/// SPEC A1: no TFO. The SYN/ACK acknowledges the SYN only, and the client sends its data again.
fn a_payload_in_the_syn_is_not_taken(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let like = stage.client_says(PORT, SYN, 100, 0);
    stage.client(&Segment { payload: b"too early".to_vec(), ..like.clone() });
    let cookie = stage.one_to_client();
    assert_eq!((cookie.ack, cookie.payload.len()), (101, 0));
    stage.client(&Segment {
        flags: ACK | PSH,
        seq: 101,
        ack: cookie.seq.wrapping_add(1),
        payload: b"too early".to_vec(),
        ..like
    });
    stage.round();
    let syn = stage.one_to_server();
    assert!(syn.payload.is_empty());
    stage.server(&crate::support::stage::syn_ack(&syn, Vec::new()));
    stage.round();
    assert_eq!(stage.one_to_server().payload, b"too early");
}

fn a_real_server_without_any_option(family: Family) {
    let plain = Offer { mss: None, sack: false, scale: None, clock: None, ..Offer::SERVER };
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, plain);
    for window in [1, 1_000, 0xffff] {
        talk.client.window = window;
        talk.client_says(ACK, b"a");
        talk.server.window = window;
        talk.server_says(ACK, b"b");
    }
    talk.close(family);
}

fn a_service_learns_what_its_real_servers_lack(family: Family) {
    let plain = Offer { mss: None, sack: false, scale: None, clock: None, ..Offer::SERVER };
    let talk = Conversation::open(&Setup::of(family), Offer::CLIENT, plain);
    let cookie = talk.cookie.clone();
    assert!(scale_of(&cookie).is_some() && clock_of(&cookie).is_some());
    let next = Conversation::begin_on(talk.stage, PORT + 1, Offer::CLIENT);
    assert_eq!((scale_of(&next.cookie), clock_of(&next.cookie)), (None, None));
    assert!(!next.cookie.options.contains(&Opt::SackPermitted));
    let engine = &next.stage.balancer.engine;
    assert_eq!(engine.counter(Counter::Established), 1);
}

const ECE: u16 = 0x040;
const CWR: u16 = 0x080;

/// A SYN that asks for ECN is answered without it, and the real server is not asked; codepoints
/// and flags of what follows are carried as they are.
fn ecn_is_refused(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let like = stage.client_says(PORT, SYN | ECE | CWR, 100, 0);
    stage.client(&Segment { options: vec![Opt::Mss(1_460)], ..like });
    let cookie = stage.one_to_client();
    assert_eq!((cookie.flags, cookie.tos), (SYN | ACK, 0));
    let first = stage.client_says(PORT, ACK, 101, cookie.seq.wrapping_add(1));
    stage.client(&first);
    stage.round();
    let syn = stage.one_to_server();
    assert_eq!((syn.flags, syn.tos), (SYN, 0));
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER);
    for (tos, flags) in [(1, ACK), (2, ACK | PSH), (3, ACK), (3, ACK | ECE), (0, ACK | CWR)] {
        let said = Segment { tos, ..talk.client_segment(flags, b"a") };
        assert_eq!(talk.client_sends(&said).tos, tos);
        let said = Segment { tos, ..talk.server_segment(flags, b"b") };
        assert_eq!(talk.server_sends(&said).tos, tos);
    }
    talk.close(family);
}

fn odd_options_pass_in_an_established_session(family: Family) {
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER);
    for odd in [
        vec![Opt::Other(28, vec![1, 2])],
        vec![Opt::Nop, Opt::Other(30, vec![9; 10]), Opt::Nop],
        vec![Opt::End, Opt::Nop],
        vec![Opt::Other(253, vec![0; 24])],
    ] {
        let mut said = talk.client_segment(ACK, b"a");
        said.options.extend(odd.clone());
        said.options.retain(|option| !matches!(option, Opt::End));
        talk.client_sends(&said);
        let mut said = talk.server_segment(ACK, b"b");
        said.options = odd.into_iter().filter(|option| !matches!(option, Opt::End)).collect();
        talk.server_sends(&said);
    }
    assert_eq!(talk.stage.balancer.reason(Reason::OptionsMalformed), 0);
    talk.close(family);
}
