//! Limits, neighbours that are not known yet, and input that means nothing.

use seawall_engine::{Counter, Request};
use seawall_fastpath::layout::RecordHeader;

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, RST, SYN, Segment, tcp_at};
use crate::support::random::Random;
use crate::support::stage::{CLIENT_PORT, Stage, all_options, data, syn_ack};

in_each_family! {
    sessions_have_a_limit,
    local_ports_run_out,
    an_unknown_neighbour_is_asked_for,
    an_unknown_neighbour_is_asked_for_without_the_proxy,
    an_old_syn_without_the_proxy_is_no_new_connection,
    nonsense_never_panics,
}

/// LVS `conn_exceeded`: the client is told, and a place that is free again is used again.
fn sessions_have_a_limit(family: Family) {
    let mut stage = Stage::new(&Setup { sessions: 2, ..Setup::of(family) });
    let (one, _) = stage.open(CLIENT_PORT, all_options());
    stage.open(CLIENT_PORT + 1, all_options());
    let refused = stage.prove(CLIENT_PORT + 2, all_options());
    assert!(stage.to_servers.is_empty());
    let reset = stage.one_to_client();
    assert_eq!((reset.flags, reset.seq), (RST, refused.ack));
    assert_eq!(stage.balancer.engine.counter(Counter::Exceeded), 1);
    assert_eq!(stage.balancer.engine.session_count(), 2);
    stage.client(&Segment { flags: RST, ..one });
    stage.round();
    stage.one_to_server();
    // The slot rests, and so does the note that this client has just been accepted.
    stage.pass(600);
    stage.open(CLIENT_PORT + 2, all_options());
}

/// LVS `lport_exhausted`: the client is told, and nothing is left of it.
fn local_ports_run_out(family: Family) {
    let mut stage = Stage::new(&Setup { ports: (5000, 5001), servers: 1, ..Setup::of(family) });
    stage.open(CLIENT_PORT, all_options());
    stage.open(CLIENT_PORT + 1, all_options());
    let refused = stage.prove(CLIENT_PORT + 2, all_options());
    let reset = stage.one_to_client();
    assert_eq!((reset.flags, reset.seq), (RST, refused.ack));
    assert_eq!(stage.balancer.engine.counter(Counter::PortsExhausted), 1);
    stage.pass(300_000);
    stage.balancer.assert_empty();
}

/// The SYN waits for its next hop's MAC, and leaves in the moment it is known.
fn an_unknown_neighbour_is_asked_for(family: Family) {
    let mut stage = Stage::new(&Setup { resolved: false, servers: 1, ..Setup::of(family) });
    stage.balancer.answers = false;
    let first = stage.prove(CLIENT_PORT, all_options());
    stage.client(&data(&first, 0, b"abc"));
    stage.round();
    assert!(stage.to_servers.is_empty());
    assert!(matches!(stage.balancer.requests[..], [Request::Resolve(_)]));
    stage.balancer.resolve(0);
    stage.round();
    let syn = stage.one_to_server();
    assert_eq!(syn.flags, SYN);
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    assert_eq!(stage.to_servers.len(), 2);
}

/// Without the proxy too, somebody asks (the client sends its SYN again).
fn an_unknown_neighbour_is_asked_for_without_the_proxy(family: Family) {
    let setup = Setup { resolved: false, synproxy: false, servers: 1, ..Setup::of(family) };
    let mut stage = Stage::new(&setup);
    let syn = Segment { options: all_options(), ..stage.client_says(CLIENT_PORT, SYN, 9, 0) };
    stage.client(&syn);
    stage.round();
    assert!(matches!(stage.balancer.requests[..], [Request::Resolve(_)]));
    stage.client(&syn);
    stage.round();
    assert_eq!(stage.one_to_server().flags, SYN);
}

/// Without the proxy: the SYN that opened a session, come late, ends nothing.
fn an_old_syn_without_the_proxy_is_no_new_connection(family: Family) {
    let mut stage = Stage::new(&Setup { synproxy: false, ..Setup::of(family) });
    let syn = stage.client_says(CLIENT_PORT, SYN, 9, 0);
    stage.client(&syn);
    stage.round();
    let out = stage.one_to_server();
    stage.server(&syn_ack(&out, Vec::new()));
    stage.round();
    let accept = stage.one_to_client();
    let first = stage.client_says(CLIENT_PORT, ACK, 10, accept.seq.wrapping_add(1));
    stage.client(&first);
    stage.client(&Segment { flags: ACK | 1, ..data(&first, 0, b"") });
    stage.round();
    stage.to_servers.clear();
    stage.client(&syn);
    stage.round();
    assert!(stage.to_servers.iter().all(|segment| segment.flags & RST == 0));
    assert_eq!(stage.balancer.engine.counter(Counter::Opened), 1);
}

/// Whatever comes up the rings or over the wire, in any order and at any time, nothing panics,
/// and when all has timed out nothing is left.
fn nonsense_never_panics(family: Family) {
    const TRIES: usize = 100_000;
    let mut random = Random(99);
    for synproxy in [true, false] {
        let mut stage = Stage::new(&Setup { sessions: 32, synproxy, ..Setup::of(family) });
        let mut seen: Vec<(u32, Vec<u8>)> = Vec::new();
        let first = stage.client_says(CLIENT_PORT, SYN, 1, 0);
        for _ in 0..TRIES / 2 {
            let mut segment = first.clone();
            segment.source.1 = CLIENT_PORT + random.below(8) as u16;
            segment.flags = random.pick(&[SYN, SYN, ACK, ACK | 1, RST, SYN | ACK, 0x1ff]);
            segment.seq = random.below(100) as u32;
            segment.payload = vec![0; random.below(40)];
            let (interface, mut frame) = match random.below(3) {
                0 if !seen.is_empty() => seen[random.below(seen.len())].clone(),
                _ => (1, segment.bytes()),
            };
            for _ in 0..random.below(3) {
                let at = random.below(frame.len());
                frame[at] = random.u64() as u8;
            }
            frame.truncate(frame.len() - random.pick(&[0, 0, 0, 1]) * random.below(frame.len()));
            let mut sent: Vec<_> = stage.balancer.receive(interface, &frame).into_iter().collect();
            let header = RecordHeader {
                kind: random.below(8) as u16,
                interface: random.below(4) as u32,
                service: random.below(3) as u32 / 2,
                slot: random.below(40) as u32,
                generation: random.below(8) as u32,
                detail: random.u32(),
                time: stage.balancer.now(),
                ..RecordHeader::default()
            };
            let now = stage.balancer.now();
            stage.balancer.engine.handle_record(now, &header, &frame);
            if random.below(4) == 0 {
                stage.balancer.set_now(now + random.u64() % 2_000);
                sent.extend(stage.balancer.round());
            }
            // What we sent comes back, from whoever got it, as it was or mirrored.
            for (interface, mut frame) in sent {
                let (left, right) = frame.split_at_mut(6);
                left.swap_with_slice(&mut right[..6]);
                let tcp = tcp_at(&frame);
                let addresses = family.address_len();
                frame[tcp - 2 * addresses..tcp].rotate_left(addresses);
                frame[tcp..tcp + 4].rotate_left(2);
                frame[tcp + 4..tcp + 12].rotate_left(4);
                let ack = u32::from_be_bytes(frame[tcp + 8..tcp + 12].try_into().unwrap());
                frame[tcp + 8..tcp + 12].copy_from_slice(&ack.wrapping_add(1).to_be_bytes());
                frame[tcp + 13] = random.pick(&[frame[tcp + 13], 0x12, 0x10, 0x11, 0x04]);
                seen.push((interface, frame));
            }
            if seen.len() > 64 {
                seen.drain(..32);
            }
        }
        assert!(stage.balancer.engine.counter(Counter::Opened) > 1_000);
        let end = stage.balancer.now() + 2_000_000;
        while stage.balancer.now() < end {
            let now = stage.balancer.now();
            stage.balancer.set_now(stage.balancer.next_round().clamp(now + 1, end));
            stage.balancer.round();
        }
        stage.balancer.assert_empty();
    }
}
