//! Floods, cookies and what they must not cost.

use seawall_engine::Counter;
use seawall_fastpath::Reason;

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, RST, SYN, Segment};
use crate::support::random::Random;
use crate::support::stage::Stage;

in_each_family! {
    dpvs_a_storm_is_dropped_and_not_forwarded,
    lvs_eleven_duplicate_acks_are_no_storm,
    dpvs_602_a_wrong_cookie_gets_no_answer,
    dpvs_719_ack_and_rst_floods_are_dropped,
    dpvs_198_a_syn_flood_asks_for_no_neighbour,
    dpvs_956_without_the_proxy_no_cookie_is_tested,
    dpvs_682_every_local_port_is_tried,
    lvs_12_ports_are_free_again,
    lvs_5_a_cookie_lives_through_the_change_of_keys,
    lvs_blind_acks_pass_once_in_eight_million,
    bpfire_64_handshakes_are_finished_during_an_ack_flood,
}

/// DPVS's limiter said "OK" when it cut: the segment went on with untranslated numbers.
fn dpvs_a_storm_is_dropped_and_not_forwarded(family: Family) {
    let plain = |offer: Offer| Offer { clock: None, ..offer };
    let mut talk =
        Conversation::open(&Setup::of(family), plain(Offer::CLIENT), plain(Offer::SERVER));
    let (mine, theirs) = (talk.client_segment(ACK, b""), talk.server_segment(ACK, b""));
    for _ in 0..100 {
        talk.stage.client(&mine);
        talk.stage.server(&theirs);
    }
    let expected = (talk.server.expects, talk.server.next);
    assert!(talk.stage.balancer.reason(Reason::AckStorm) > 0);
    let right = |sent: &Segment| (sent.seq, sent.ack) == expected;
    assert!(talk.stage.to_servers.iter().all(right), "an untranslated segment");
}

/// LVS's limiter counts one side only: eleven duplicate ACKs, and fast retransmit starves.
fn lvs_eleven_duplicate_acks_are_no_storm(family: Family) {
    let mut talk = Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER);
    for _ in 0..11 {
        let same = talk.server_segment(ACK, b"");
        talk.server_sends(&same);
    }
    assert_eq!(talk.stage.balancer.reason(Reason::AckStorm), 0);
}

/// iqiyi/dpvs#602, #706: DPVS answers a wrong cookie with a RST, one packet for one.
fn dpvs_602_a_wrong_cookie_gets_no_answer(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let ack = stage.client_says(PORT, ACK, 1, 2);
    stage.client(&ack);
    stage.round();
    assert!(stage.to_client.is_empty() && stage.to_servers.is_empty());
    assert_eq!(stage.balancer.reason(Reason::BadAck), 1);
}

/// iqiyi/dpvs#719: ACK and RST floods passed, because `defence_tcp_drop` was off.
fn dpvs_719_ack_and_rst_floods_are_dropped(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    for number in 0..1_000 {
        for flags in [ACK, RST, RST | ACK, SYN | ACK] {
            let segment = stage.client_says(number as u16, flags, number, !number);
            stage.client(&segment);
        }
    }
    stage.round();
    assert!(stage.to_client.is_empty() && stage.to_servers.is_empty());
    let dropped = [Reason::TcpDrop, Reason::BadAck].map(|reason| stage.balancer.reason(reason));
    assert_eq!(dropped.iter().sum::<u64>(), 4_000);
    stage.balancer.assert_empty();
}

/// iqiyi/dpvs#198: two million spoofed SYNs a second filled the queue of unresolved neighbours.
fn dpvs_198_a_syn_flood_asks_for_no_neighbour(family: Family) {
    let mut stage = Stage::new(&Setup { resolved: false, ..Setup::of(family) });
    for number in 0..1_000 {
        let mut syn = stage.client_says(number as u16, SYN, number, 0);
        syn.source.0 = syn.source.0 ^ number << 8;
        stage.client(&syn);
    }
    stage.round();
    assert_eq!(stage.to_client.len(), 1_000);
    assert!(stage.balancer.requests.is_empty());
    assert_eq!(stage.balancer.engine.counter(Counter::Opened), 0);
}

/// iqiyi/dpvs#956: with the proxy off, every stray ACK was tested for a cookie.
fn dpvs_956_without_the_proxy_no_cookie_is_tested(family: Family) {
    let mut stage = Stage::new(&Setup { synproxy: false, ..Setup::of(family) });
    let ack = stage.client_says(PORT, ACK, 1, 2);
    stage.client(&ack);
    stage.round();
    let reasons = [Reason::BadAck, Reason::TcpDrop].map(|reason| stage.balancer.reason(reason));
    assert_eq!(reasons, [0, 1]);
}

/// iqiyi/dpvs#682, #72, #819, #861, #767: ports ran out while there were free ones.
fn dpvs_682_every_local_port_is_tried(family: Family) {
    let setup = Setup { ports: (5_000, 5_009), servers: 1, ..Setup::of(family) };
    let mut stage = Stage::new(&setup);
    for number in 0..10 {
        let offer = Offer { isn: number, ..Offer::CLIENT };
        stage = Conversation::begin_on(stage, PORT + number as u16, offer).stage;
    }
    assert_eq!(stage.balancer.engine.session_count(), 10);
    assert_eq!(stage.balancer.engine.counter(Counter::PortsExhausted), 0);
}

/// alibaba/LVS#12, jlijian3/lvs-snat#10: "bind local address: no port available", with ports that
/// no session used any more.
fn lvs_12_ports_are_free_again(family: Family) {
    let setup = Setup { ports: (5_000, 5_001), servers: 1, ..Setup::of(family) };
    let mut stage = Stage::new(&setup);
    for number in 0..20 {
        let offer = Offer { isn: number * 0x100_0000, ..Offer::CLIENT };
        let mut talk = Conversation::begin_on(stage, PORT + number as u16, offer);
        talk.stage.client(&Segment { flags: RST, ..talk.first.clone() });
        talk.stage.pass(200);
        talk.stage.to_servers.clear();
        stage = talk.stage;
    }
    assert_eq!(stage.balancer.engine.counter(Counter::PortsExhausted), 0);
}

/// alibaba/LVS#5, PEERS (f): cookies at the change of a minute, and when its counter wraps.
fn lvs_5_a_cookie_lives_through_the_change_of_keys(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    for number in 0..600 {
        let syn = stage.client_says(number, SYN, 7, 0);
        stage.client(&syn);
        let cookie = stage.one_to_client();
        stage.pass(64_000);
        let ack = stage.client_says(number, ACK, 8, cookie.seq.wrapping_add(1));
        stage.client(&ack);
        stage.round();
        stage.client(&Segment { flags: RST, ..ack });
        stage.pass(200);
        stage.to_servers.clear();
    }
    assert_eq!(stage.balancer.engine.counter(Counter::OkAck), 600);
}

/// Of blind ACKs LVS and DPVS take one in 447,000; one in 8,388,608 is meant here.
fn lvs_blind_acks_pass_once_in_eight_million(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let mut random = Random(1);
    for _ in 0..200_000 {
        let ack = stage.client_says(random.u32() as u16, ACK, random.u32(), random.u32());
        stage.client(&ack);
    }
    assert_eq!(stage.balancer.reason(Reason::BadAck), 200_000);
}

/// bpfire#64: under attack, ACKs passed XDP and no handshake with the server began.
fn bpfire_64_handshakes_are_finished_during_an_ack_flood(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let mut random = Random(2);
    for number in 0..20 {
        for _ in 0..500 {
            let port = random.below(30_000) as u16;
            let ack = stage.client_says(port, ACK, random.u32(), random.u32());
            stage.client(&ack);
        }
        let offer = Offer { isn: number << 16, ..Offer::CLIENT };
        let mut talk = Conversation::begin_on(stage, PORT + number as u16, offer);
        talk.establish(Offer::SERVER);
        stage = talk.stage;
    }
    assert_eq!(stage.balancer.engine.counter(Counter::Established), 20);
}
