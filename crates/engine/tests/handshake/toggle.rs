//! The proxy of a service is switched (SPEC A15).

use seawall_engine::{Config, Counter, Proxy, RealServerSpec};
use seawall_fastpath::Reason;
use seawall_fastpath::cookie::EPOCH_MS;

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt, SYN, Segment};
use crate::support::stage::{CLIENT_ISN, CLIENT_PORT, Stage, all_options, answer, data, syn_ack};

in_each_family! {
    switching_disturbs_neither_sessions_nor_handshakes,
    old_cookies_are_taken_as_long_as_they_live,
    settings_change_under_way,
}

const OPTIONS: [Opt; 1] = [Opt::Mss(1460)];

/// A client that has its SYN/ACK; the ACK that it is about to send.
fn promised(stage: &mut Stage, port: u16) -> Segment {
    let options = OPTIONS.to_vec();
    let syn = Segment { options, ..stage.client_says(port, SYN, CLIENT_ISN, 0) };
    stage.client(&syn);
    let cookie = stage.one_to_client();
    stage.client_says(port, ACK, cookie.ack, cookie.seq.wrapping_add(1))
}

/// PEERS (f): the flag toggled between SYN and ACK; DPVS #956 and #126.
fn switching_disturbs_neither_sessions_nor_handshakes(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, OPTIONS.to_vec());
    stage.server(&syn_ack(&syn, OPTIONS.to_vec()));
    stage.round();
    stage.to_servers.clear();
    let handshake = promised(&mut stage, CLIENT_PORT + 1);

    stage.balancer.engine.set_synproxy(0, Proxy::Off);
    stage.round();
    // The session, both ways.
    stage.client(&data(&first, 0, b"request"));
    let request = stage.one_to_server();
    assert_eq!(request.payload, b"request");
    stage.server(&answer(&request, ACK, syn.seq, request.seq.wrapping_add(7)));
    stage.to_client.clear();
    // The handshake that a cookie began.
    stage.client(&handshake);
    stage.round();
    let asked = stage.one_to_server();
    assert_eq!(asked.flags, SYN);
    // A new client is no longer answered by us.
    let options = OPTIONS.to_vec();
    let new = Segment { options, ..stage.client_says(CLIENT_PORT + 2, SYN, 77, 0) };
    stage.client(&new);
    stage.round();
    assert!(stage.to_client.is_empty());
    assert_eq!(stage.one_to_server().flags, SYN);

    stage.balancer.engine.set_synproxy(0, Proxy::On);
    stage.round();
    stage.client(&data(&first, 7, b"more"));
    assert_eq!(stage.one_to_server().payload, b"more");
    stage.client(&data(&handshake, 0, b"early"));
    stage.round();
    stage.server(&syn_ack(&asked, OPTIONS.to_vec()));
    stage.round();
    let sent: Vec<u8> = stage.to_servers.drain(..).flat_map(|segment| segment.payload).collect();
    assert_eq!(sent, b"early");
    assert_eq!(stage.balancer.engine.counter(Counter::RecordInvalid), 0);
    promised(&mut stage, CLIENT_PORT + 3);
}

fn old_cookies_are_taken_as_long_as_they_live(family: Family) {
    for (wait, accepted) in [(0, true), (EPOCH_MS - 1, true), (2 * EPOCH_MS, false)] {
        let mut stage = Stage::new(&Setup::of(family));
        let handshake = promised(&mut stage, CLIENT_PORT);
        stage.balancer.engine.set_synproxy(0, Proxy::Off);
        stage.round();
        stage.pass(wait);
        stage.client(&handshake);
        stage.round();
        assert_eq!(stage.to_servers.len(), usize::from(accepted), "{wait}");
        // When none can be alive any more, nobody is asked for one.
        let refused = u64::from(!accepted);
        assert_eq!(stage.balancer.reason(Reason::TcpDrop), refused, "{wait}");
        assert_eq!(stage.balancer.reason(Reason::BadAck), 0);
    }
}

/// What a cookie in flight has promised stays, everything else is the new configuration's.
fn settings_change_under_way(family: Family) {
    let setup = Setup::of(family);
    let mut stage = Stage::new(&setup);
    let options_of = |stage: &mut Stage, port| {
        let syn = stage.client_says(port, SYN, CLIENT_ISN, 0);
        stage.client(&Segment { options: all_options(), ..syn });
        stage.one_to_client().options
    };
    let before = options_of(&mut stage, CLIENT_PORT);
    let init_mss = setup.config.init_mss - 100;
    let config = Config { init_mss, window_scale: 3, ttl: 9, ..setup.config };
    stage.balancer.engine.set_config(config);
    let after = options_of(&mut stage, CLIENT_PORT);
    let lower = |option: &Opt| match option {
        Opt::Mss(mss) => Opt::Mss(mss - 100),
        other => other.clone(),
    };
    let replaced: Vec<_> = before.iter().map(lower).collect();
    assert_eq!(after, replaced, "the scale stays");

    stage.balancer.engine.set_defer(0, true);
    stage.round();
    let bare = promised(&mut stage, CLIENT_PORT + 1);
    stage.client(&bare);
    stage.round();
    assert_eq!(stage.balancer.reason(Reason::NullAck), 1);
    stage.client(&data(&bare, 0, b"x"));
    stage.round();
    let syn = stage.one_to_server();
    assert_eq!((syn.flags, syn.ttl), (SYN, 9));

    let servers = stage.balancer.engine.services().swap_remove(0).servers;
    for (number, server) in (0..).zip(servers) {
        let spec = RealServerSpec { weight: 0, ..server.spec };
        stage.balancer.engine.set_server(0, number, spec);
    }
    stage.round();
    let nobody =
        Segment { options: OPTIONS.to_vec(), ..stage.client_says(CLIENT_PORT + 2, SYN, 7, 0) };
    stage.client(&nobody);
    assert_eq!(stage.balancer.reason(Reason::NoDestination), 1);
}
