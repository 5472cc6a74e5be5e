//! The handshake with real servers, resets, and ports that are used again.

use seawall_engine::{Counter, Forwarding};
use seawall_fastpath::{Reason, TcpState};

use crate::conversation::{Conversation, Offer, PORT};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::stage::{answer, clock_of, data};

in_each_family! {
    lvs_a_refusal_leaves_no_ghost_syn,
    lvs_a_reset_of_the_client_is_not_lost,
    lvs_the_syn_acks_number_is_checked,
    lvs_duplicates_do_not_fill_the_store,
    lvs_more_than_four_early_segments_are_kept,
    lvs_a_duplicate_third_ack_opens_nothing,
    lvs_a_fin_before_the_real_server_answers_is_kept,
    lvs_another_real_server_is_tried,
    dpvs_an_expiry_in_syn_sent_resets_the_client,
    dpvs_c93be4a7_a_syn_sent_again_is_the_same,
    dpvs_167_early_data_is_given_back,
    lvs_reuse_forgets_the_old_delta,
    lvs_reuse_takes_a_fresh_local_port,
    lvs_a_syn_on_an_established_session_is_not_answered,
    dpvs_692_nat_does_not_hang,
    jupiter_27_the_real_servers_syn_ack_is_acknowledged,
    dpvs_296_no_session_stays_for_ever,
}

fn begin(family: Family) -> Conversation {
    Conversation::begin(&Setup::of(family), Offer::CLIENT)
}

fn open(family: Family) -> Conversation {
    Conversation::open(&Setup::of(family), Offer::CLIENT, Offer::SERVER)
}

fn engine(talk: &Conversation, counter: Counter) -> u64 {
    talk.stage.balancer.engine.counter(counter)
}

/// LVS and DPVS keep the SYN when the real server refuses, and send it again when the session
/// expires.
fn lvs_a_refusal_leaves_no_ghost_syn(family: Family) {
    let mut talk = begin(family);
    talk.stage.server(&answer(&talk.syn, RST | ACK, 0, talk.syn.seq.wrapping_add(1)));
    talk.stage.round();
    assert_eq!(talk.stage.one_to_client().seq, talk.client.expects);
    talk.end();
}

/// LVS and DPVS drop a RST without ACK while the real server is asked.
fn lvs_a_reset_of_the_client_is_not_lost(family: Family) {
    let mut talk = begin(family);
    talk.stage.client(&Segment { flags: RST, ack: 0, ..talk.first.clone() });
    talk.stage.round();
    assert_eq!(talk.stage.one_to_server().flags, RST);
    talk.end();
}

/// LVS and DPVS take any SYN/ACK from the real server's port for the answer.
fn lvs_the_syn_acks_number_is_checked(family: Family) {
    let mut talk = begin(family);
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&Segment { ack: accept.ack.wrapping_add(1), ..accept.clone() });
    talk.stage.round();
    assert_eq!(engine(&talk, Counter::Established), 0);
    talk.stage.to_servers.clear();
    talk.stage.server(&accept);
    talk.stage.round();
    assert_eq!(engine(&talk, Counter::Established), 1);
}

/// The queue of LVS and DPVS has no check for duplicates: a retransmission fills it.
fn lvs_duplicates_do_not_fill_the_store(family: Family) {
    let mut talk = begin(family);
    for _ in 0..20 {
        talk.stage.client(&data(&talk.first, 0, b"abc"));
        talk.stage.round();
    }
    talk.stage.client(&data(&talk.first, 3, b"def"));
    talk.stage.round();
    assert_eq!((engine(&talk, Counter::QueueFull), engine(&talk, Counter::EarlyStored)), (0, 3));
}

/// LVS and DPVS keep four packets; a TLS hello over five lost one.
fn lvs_more_than_four_early_segments_are_kept(family: Family) {
    let mut talk = begin(family);
    for at in 0..10 {
        talk.stage.client(&data(&talk.first, at, &[at as u8]));
    }
    talk.stage.round();
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    let got: Vec<_> = talk.stage.to_servers.iter().flat_map(|sent| sent.payload.clone()).collect();
    assert_eq!(got, (0..10).collect::<Vec<u8>>());
}

/// PEERS (f).
fn lvs_a_duplicate_third_ack_opens_nothing(family: Family) {
    let mut talk = begin(family);
    for _ in 0..5 {
        talk.stage.client(&talk.first.clone());
        talk.stage.round();
    }
    assert_eq!((engine(&talk, Counter::Opened), talk.stage.to_servers.len()), (1, 0));
}

/// PEERS (f).
fn lvs_a_fin_before_the_real_server_answers_is_kept(family: Family) {
    let mut talk = begin(family);
    talk.stage.client(&Segment { flags: FIN | ACK, ..talk.first.clone() });
    talk.stage.round();
    let accept = talk.accepts(Offer::SERVER);
    talk.stage.server(&accept);
    talk.stage.round();
    assert_eq!(talk.stage.to_servers.last().unwrap().flags, FIN | ACK);
}

/// LVS and DPVS ask one real server for ever.
fn lvs_another_real_server_is_tried(family: Family) {
    let mut talk = begin(family);
    let asked = talk.syn.destination;
    talk.stage.pass(16_000);
    assert!(
        talk.stage.to_servers.iter().any(|sent| sent.flags == SYN && sent.destination != asked)
    );
}

/// DPVS frees the session without a word, and the client hangs.
fn dpvs_an_expiry_in_syn_sent_resets_the_client(family: Family) {
    let mut talk = begin(family);
    talk.stage.pass(121_000);
    let reset = talk.stage.one_to_client();
    assert_eq!((reset.flags & RST, reset.seq), (RST, talk.client.expects));
    talk.stage.to_servers.clear();
    talk.end();
}

/// iqiyi/dpvs commit c93be4a7: the copy that was sent again was not the SYN any more.
fn dpvs_c93be4a7_a_syn_sent_again_is_the_same(family: Family) {
    let mut talk = begin(family);
    for wait in [1_100, 2_000, 4_000] {
        talk.stage.pass(wait);
        assert_eq!(talk.stage.one_to_server(), talk.syn);
    }
}

/// iqiyi/dpvs#167: what was kept for a handshake that failed leaked.
fn dpvs_167_early_data_is_given_back(family: Family) {
    let mut talk = begin(family);
    for at in 0..10 {
        talk.stage.client(&data(&talk.first, at * 100, &[1; 100]));
    }
    talk.stage.round();
    assert!(talk.stage.balancer.engine.early_bytes() > 1_000);
    talk.stage.pass(121_000);
    assert_eq!(talk.stage.balancer.engine.early_bytes(), 0);
}

fn reused(family: Family) -> (Conversation, Conversation) {
    let mut old = Conversation::open(
        &Setup { servers: 1, ..Setup::of(family) },
        Offer::CLIENT,
        Offer::SERVER,
    );
    old.client_says(FIN | ACK, b"");
    old.server_says(FIN | ACK, b"");
    old.client_says(ACK, b"");
    let stage =
        std::mem::replace(&mut old.stage, crate::support::stage::Stage::new(&Setup::of(family)));
    let client = Offer { isn: 0x9000_0000, clock: Some(90_000), ..Offer::CLIENT };
    (old, Conversation::begin_on(stage, PORT, client))
}

/// LVS and DPVS keep the old delta until the new SYN/ACK: what came between was translated by it.
fn lvs_reuse_forgets_the_old_delta(family: Family) {
    let (_, mut new) = reused(family);
    new.stage.client(&data(&new.first, 0, b"early"));
    new.stage.round();
    assert!(new.stage.to_servers.is_empty(), "nothing is forwarded before the new numbers");
    let accept = new.accepts(Offer { isn: 5, ..Offer::SERVER });
    new.stage.server(&accept);
    new.stage.round();
    assert!(new.stage.to_servers.iter().all(|sent| sent.ack == 6), "{:?}", new.stage.to_servers);
    assert_eq!(new.stage.to_servers.last().unwrap().payload, b"early");
}

/// LVS and DPVS reuse the same local port at the same real server, which is in TIME_WAIT there.
fn lvs_reuse_takes_a_fresh_local_port(family: Family) {
    let (old, new) = reused(family);
    assert_ne!(old.syn.source, new.syn.source);
}

/// LVS and DPVS answer a SYN before they look for a session.
fn lvs_a_syn_on_an_established_session_is_not_answered(family: Family) {
    let mut talk = open(family);
    talk.stage.client(&Segment { flags: SYN, seq: 1, ack: 0, ..talk.first.clone() });
    assert!(talk.stage.to_client.is_empty());
    assert_eq!(talk.stage.balancer.reason(Reason::SynEstablished), 1);
}

/// iqiyi/dpvs#692, #1030: with the proxy, anything but FULLNAT hung. (DR is refused with the
/// configuration.)
fn dpvs_692_nat_does_not_hang(family: Family) {
    let setup = Setup { forwarding: Forwarding::Nat, ..Setup::of(family) };
    let mut talk = Conversation::open(&setup, Offer::CLIENT, Offer::SERVER);
    talk.client_says(ACK, b"a");
    talk.server_says(ACK, b"b");
    talk.close(family);
}

/// tiglabs/jupiter#27: the real server's SYN/ACK was not acknowledged; a server that speaks first
/// never spoke.
fn jupiter_27_the_real_servers_syn_ack_is_acknowledged(family: Family) {
    let mut talk = open(family);
    assert_eq!(clock_of(&talk.first).map(|clock| clock.0), talk.client.clock);
    talk.server_says(ACK, b"220 ready");
    talk.client_says(ACK, b"");
    talk.close(family);
}

/// iqiyi/dpvs#296: sessions that stayed in SYN_RECV.
fn dpvs_296_no_session_stays_for_ever(family: Family) {
    let mut stage =
        crate::support::stage::Stage::new(&Setup { synproxy: false, ..Setup::of(family) });
    let syn = stage.client_says(PORT, SYN, 1, 0);
    stage.client(&syn);
    stage.round();
    let state = stage.balancer.engine.sessions(stage.balancer.now(), 0, 1)[0].1.state;
    assert_eq!(state, TcpState::SynRecv);
    stage.pass(61_000);
    stage.balancer.assert_empty();
}
