//! What a client sends before its real server has answered (SPEC A8, A11).

use seawall_engine::{Counter, StoreLimits};
use seawall_fastpath::TcpState;
use seawall_fastpath::native::Memory;

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, Segment};
use crate::support::stage::{CLIENT_PORT, Stage, all_options, data, syn_ack};

in_each_family! {
    a_request_in_pieces_arrives_in_order_and_once,
    segments_on_the_heels_of_the_accepted_ack_are_kept,
    what_follows_early_data_does_not_overtake_it,
    what_is_overtaken_in_the_ring_arrives_once_and_takes_nothing_back,
    a_client_that_resets_takes_everything_with_it,
    the_store_has_three_limits,
    sessions_share_the_store_and_give_back,
}

fn payloads(sent: &[Segment]) -> Vec<u8> {
    sent.iter().flat_map(|segment| segment.payload.clone()).collect()
}

/// Bytes of a bare ACK with timestamps.
const fn ack_len(family: Family) -> usize {
    family.headers() + 12
}

/// A request over several segments, one of them late and one twice, then the client's FIN.
fn a_request_in_pieces_arrives_in_order_and_once(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    let fin = Segment { flags: FIN | ACK, ..data(&first, 9, b"") };
    for segment in [
        data(&first, 3, b"def"),
        data(&first, 0, b"abc"),
        fin,
        data(&first, 0, b"abc"),
        data(&first, 6, b"ghi"),
        data(&first, 3, b"def"),
    ] {
        stage.client(&segment);
        stage.round();
    }
    assert!(stage.to_servers.is_empty(), "nothing before the real server has answered");
    assert_eq!(stage.balancer.engine.counter(Counter::EarlyDuplicate), 2);
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    let sent = std::mem::take(&mut stage.to_servers);
    assert_eq!(payloads(&sent), b"abcdefghi");
    let numbers: Vec<_> = sent.iter().map(|segment| segment.seq.wrapping_sub(syn.seq)).collect();
    assert_eq!(numbers, [1, 1, 4, 7, 10]);
    assert_eq!(sent[4].flags, FIN | ACK, "the FIN in its place");
    assert_eq!(stage.balancer.engine.early_bytes(), 0);
    assert!(stage.to_client.is_empty());
}

/// Segments that reach XDP before the engine has made the session are not lost either.
fn segments_on_the_heels_of_the_accepted_ack_are_kept(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let probe = stage.prove(CLIENT_PORT + 1, Vec::new());
    stage.to_servers.clear();
    assert!(probe.payload.is_empty());
    let syn = stage.client_says(CLIENT_PORT, 2, 500, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    let first = stage.client_says(CLIENT_PORT, ACK, 501, cookie.seq.wrapping_add(1));
    stage.client(&first);
    stage.client(&data(&first, 0, b"abc"));
    stage.client(&data(&first, 3, b"def"));
    stage.round();
    let syn = stage.one_to_server();
    stage.server(&syn_ack(&syn, Vec::new()));
    stage.round();
    assert_eq!(payloads(&stage.to_servers), b"abcdef");
}

/// The real server would answer what it hears late as a segment that was lost, and a client that
/// has closed meanwhile would answer that with a reset.
fn what_follows_early_data_does_not_overtake_it(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.client(&data(&first, 0, b"abc"));
    stage.round();
    stage.server(&syn_ack(&syn, all_options()));
    let early = stage.balancer.work();
    stage.client(&data(&first, 3, b"def"));
    assert!(stage.to_servers.is_empty(), "nothing before what was sent first");
    stage.take(early);
    stage.balancer.engine.frames_sent();
    stage.round();
    stage.client(&data(&first, 6, b"ghi"));
    assert_eq!(payloads(&stage.to_servers), b"abcdefghi");
    assert!(!stage.balancer.has_records(), "the last one needed no engine");
}

/// What came up the ring while early data was being sent is itself overtaken by what comes after: late,
/// as on a network that reorders, but never lost, doubled, or the cause of a step back.
fn what_is_overtaken_in_the_ring_arrives_once_and_takes_nothing_back(family: Family) {
    for end in [FIN | ACK, RST | ACK] {
        let mut stage = Stage::new(&Setup::of(family));
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        stage.client(&data(&first, 0, b"abc"));
        stage.round();
        stage.server(&syn_ack(&syn, all_options()));
        let early = stage.balancer.work();
        stage.client(&data(&first, 3, b"def"));
        stage.take(early);
        stage.balancer.engine.frames_sent();
        stage.client(&data(&first, 6, b"ghi"));
        let acks = Segment { ack: first.ack.wrapping_add(9), ..data(&first, 9, b"jkl") };
        stage.client(&acks);
        stage.client(&Segment { flags: end, ack: acks.ack, ..data(&first, 12, b"") });
        assert_eq!(payloads(&stage.to_servers), b"abcghijkl");
        let now = |stage: &Stage| {
            let (index, report) =
                stage.balancer.engine.sessions(stage.balancer.now(), 0, 2).remove(0);
            let slot = &stage.balancer.memory.slots()[index as usize];
            (report.state, slot.inbound.ack.load())
        };
        let before = now(&stage);
        assert!(!matches!(before.0, TcpState::SynSent | TcpState::Established));
        stage.to_servers.clear();
        stage.round();
        assert_eq!(payloads(&stage.to_servers), b"def", "once");
        assert_eq!(now(&stage), before);
        stage.round();
        assert_eq!((stage.to_servers.len(), stage.to_client.len()), (1, 0));
        stage.pass(200_000);
        stage.balancer.assert_empty();
    }
}

/// SPEC A11: a RST frees the session and the real server's half. A blind one does not.
fn a_client_that_resets_takes_everything_with_it(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.client(&data(&first, 0, b"abc"));
    stage.client(&Segment { flags: RST, ..data(&first, 0x10_0000, b"") });
    stage.round();
    assert_eq!(stage.balancer.engine.session_count(), 1);
    assert!(stage.balancer.engine.early_bytes() > 0);
    stage.client(&Segment { flags: RST, ..data(&first, 3, b"") });
    stage.round();
    let reset = stage.one_to_server();
    assert_eq!((reset.flags, reset.seq), (RST, syn.seq.wrapping_add(1)));
    assert_eq!(stage.balancer.engine.counter(Counter::ClientAborted), 1);
    stage.balancer.assert_empty();
}

/// SPEC A8: segments and bytes a session, bytes over all; beyond them dropped and counted.
fn the_store_has_three_limits(family: Family) {
    let ack = ack_len(family);
    let roomy = StoreLimits { segments: 16, bytes: 30_000, total_bytes: 1 << 20 };
    let narrow = [
        StoreLimits { segments: 4, ..roomy },
        StoreLimits { bytes: ack + 3 * (ack + 100), ..roomy },
        StoreLimits { total_bytes: ack + 3 * (ack + 100), ..roomy },
    ];
    for store in narrow {
        let mut setup = Setup::of(family);
        setup.config.store = store;
        let mut stage = Stage::new(&setup);
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        for at in 0..5 {
            stage.client(&data(&first, at * 100, &[at as u8; 100]));
            stage.round();
        }
        assert_eq!(stage.balancer.engine.counter(Counter::QueueFull), 2, "{store:?}");
        stage.server(&syn_ack(&syn, all_options()));
        stage.round();
        let sent = std::mem::take(&mut stage.to_servers);
        assert_eq!(payloads(&sent), [[0; 100], [1; 100], [2; 100]].concat());
        assert_eq!(stage.balancer.engine.early_bytes(), 0);
    }
}

/// The bytes over all sessions are given back by those that end.
fn sessions_share_the_store_and_give_back(family: Family) {
    let mut setup = Setup::of(family);
    let ack = ack_len(family);
    setup.config.store.total_bytes = 2 * ack + ack + 100;
    let mut stage = Stage::new(&setup);
    let (one, _) = stage.open(CLIENT_PORT, all_options());
    let (two, _) = stage.open(CLIENT_PORT + 1, all_options());
    stage.client(&data(&one, 0, &[1; 100]));
    stage.client(&data(&two, 0, &[2; 100]));
    stage.round();
    assert_eq!(stage.balancer.engine.counter(Counter::QueueFull), 1);
    stage.client(&Segment { flags: RST, ..one });
    stage.client(&data(&two, 0, &[2; 100]));
    stage.round();
    assert_eq!(stage.balancer.engine.counter(Counter::QueueFull), 1);
    assert_eq!(stage.balancer.engine.early_bytes(), ack + ack + 100);
}
