//! Options, windows and clocks.

use crate::conversation::{Conversation, Offer, PORT, mss_of, scale_of};
use crate::support::balancer::{OUTSIDE, Setup};
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, IP, Opt, SYN, Segment, seal_ip};
use crate::support::stage::{Stage, clock_of};

in_each_family! {
    dpvs_924_unknown_options_are_not_reflected,
    dpvs_899_a_shift_that_differs_is_made_up_for,
    dpvs_721_the_syn_ack_opens_a_window,
    lvs_the_syn_ack_has_not_the_clients_window,
    lvs_a_payload_in_the_syn_is_not_sent_back,
    lvs_a_shift_of_zero_is_not_none,
    lvs_an_mss_below_64_is_not_rounded_up,
    lvs_no_mss_means_the_default,
    lvs_timestamps_are_translated,
    netfilter_scale_and_mss_need_not_match_the_server,
    bpfire_59_a_packet_that_may_be_fragmented_is_answered,
    bpf_examples_111_every_set_of_options_is_answered_with_its_own,
}

fn answered(family: Family, syn: impl FnOnce(Segment) -> Segment) -> Segment {
    let mut stage = Stage::new(&Setup::of(family));
    let like = stage.client_says(PORT, SYN, 7, 0);
    stage.client(&syn(like));
    stage.one_to_client()
}

/// iqiyi/dpvs#924: unknown options of a SYN came back in the SYN/ACK (RFC 9293, section 3.1).
fn dpvs_924_unknown_options_are_not_reflected(family: Family) {
    for kind in [9, 14, 19, 27, 28, 29, 30, 34, 69, 253, 254] {
        let unknown = Opt::Other(kind, vec![0x5a; 6]);
        let options = vec![Opt::Mss(1_400), unknown.clone(), Opt::SackPermitted];
        let cookie = answered(family, |syn| Segment { options, ..syn });
        assert!(cookie.options.iter().all(|option| !matches!(option, Opt::Other(..))), "{kind}");
        assert_eq!(mss_of(&cookie), Some(1_400));
    }
}

/// iqiyi/dpvs#899: a 10 MB upload took ten minutes, because windows were read by another shift
/// than they were written by.
fn dpvs_899_a_shift_that_differs_is_made_up_for(family: Family) {
    for (ours, server) in [(7, 0), (0, 7), (14, 3), (3, 14)] {
        let mut setup = Setup::of(family);
        setup.config.window_scale = ours;
        let server = Offer { scale: Some(server), ..Offer::SERVER };
        let mut talk = Conversation::open(&setup, Offer::CLIENT, server);
        for window in [1, 100, 30_000, 0xffff] {
            talk.server.window = window;
            talk.server_says(ACK, b"");
        }
    }
}

/// iqiyi/dpvs#721, #835, #338: a SYN/ACK with window 0 cost latency, and broke clients.
fn dpvs_721_the_syn_ack_opens_a_window(family: Family) {
    let cookie = answered(family, |syn| Segment { options: vec![Opt::Mss(1_460)], ..syn });
    assert!(u32::from(cookie.window) >= 10 * 1_400, "{}", cookie.window);
}

/// alibaba/LVS left the client's own window in the SYN/ACK.
fn lvs_the_syn_ack_has_not_the_clients_window(family: Family) {
    for window in [0, 1, 0xffff] {
        let cookie = answered(family, |syn| Segment { window, ..syn });
        assert_ne!(cookie.window, window);
    }
}

/// alibaba/LVS and DPVS did not cut the payload of a SYN.
fn lvs_a_payload_in_the_syn_is_not_sent_back(family: Family) {
    let cookie = answered(family, |syn| Segment { payload: vec![1; 500], ..syn });
    assert_eq!((cookie.payload.len(), cookie.ack), (0, 8));
}

/// In the cookie of LVS and DPVS, shift 0 stands for none.
fn lvs_a_shift_of_zero_is_not_none(family: Family) {
    let zero = Offer { scale: Some(0), ..Offer::CLIENT };
    let none = Offer { scale: None, ..Offer::CLIENT };
    let syn = |offer| scale_of(&Conversation::open(&Setup::of(family), offer, Offer::SERVER).syn);
    assert_eq!((syn(zero), syn(none)), (Some(0), None));
}

/// LVS's table begins at 64, so that the real server was told more than the client takes.
fn lvs_an_mss_below_64_is_not_rounded_up(family: Family) {
    for mss in [48, 60, 63] {
        let offer = Offer { mss: Some(mss), ..Offer::CLIENT };
        let talk = Conversation::open(&Setup::of(family), offer, Offer::SERVER);
        assert!(mss_of(&talk.syn).unwrap() <= mss);
    }
}

/// PEERS (f): a SYN without MSS.
fn lvs_no_mss_means_the_default(family: Family) {
    let offer = Offer { mss: None, ..Offer::CLIENT };
    let talk = Conversation::open(&Setup::of(family), offer, Offer::SERVER);
    assert_eq!(mss_of(&talk.syn), Some(family.default_mss()));
}

/// LVS has a switch for timestamps and translates none: PAWS throws the connection away.
fn lvs_timestamps_are_translated(family: Family) {
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER);
    for _ in 0..10 {
        talk.client.tick(3);
        talk.server.tick(5);
        talk.client_says(ACK, b"a");
        talk.server_says(ACK, b"b");
    }
    talk.close(family);
}

/// nft's `synproxy` must be told the MSS and scale of the server ("must match the backend").
fn netfilter_scale_and_mss_need_not_match_the_server(family: Family) {
    let server = Offer { mss: Some(900), scale: Some(2), ..Offer::SERVER };
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, server);
    assert_ne!(scale_of(&talk.cookie), Some(2));
    talk.client_says(ACK, &[1; 1_400]);
    talk.server_says(ACK, &[2; 900]);
    talk.close(family);
}

/// xdp-project/bpf-examples#111: one bit of the options stood for another.
fn bpf_examples_111_every_set_of_options_is_answered_with_its_own(family: Family) {
    for bits in 0..8 {
        let offer = Offer {
            sack: bits & 1 != 0,
            scale: (bits & 2 != 0).then_some(5),
            clock: (bits & 4 != 0).then_some(9),
            ..Offer::CLIENT
        };
        let talk = Conversation::begin(&Setup::of(family), offer);
        for segment in [&talk.cookie, &talk.syn] {
            assert_eq!(segment.options.contains(&Opt::SackPermitted), offer.sack, "{bits}");
            assert_eq!(scale_of(segment).is_some(), offer.scale.is_some(), "{bits}");
            assert_eq!(clock_of(segment).is_some(), offer.clock.is_some(), "{bits}");
        }
    }
}

/// vincentmli/bpfire#59: packets without "don't fragment" were dropped.
fn bpfire_59_a_packet_that_may_be_fragmented_is_answered(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let mut frame = stage.client_says(PORT, SYN, 7, 0).bytes();
    if family == Family::V4 {
        frame[IP + 6] = 0;
        seal_ip(&mut frame);
    }
    let (_, cookie) = stage.balancer.receive(OUTSIDE, &frame).expect("a SYN/ACK");
    assert_eq!(Segment::read(&cookie).flags, SYN | ACK);
}
