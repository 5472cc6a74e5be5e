//! Real servers that answer the client themselves: DR and TUNNEL (SPEC C1).

use seawall_engine::{Adoption, Counter, Forwarding, Proxy, RealServerSpec};
use seawall_fastpath::layout::{Tunnel, Wrapping};
use seawall_fastpath::{Addr, Reason, TcpState};

use crate::support::balancer::{Framed, OUTSIDE, Setup, server_mac};
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::stage::{CLIENT_ISN, CLIENT_PORT, Stage};

in_each_family! {
    a_session_lives_by_what_its_client_says,
    a_client_that_comes_back_goes_to_the_same_real_server,
    after_time_wait_a_client_may_go_to_another,
    a_syn_is_wrapped_for_a_tunnel,
    sessions_keep_their_way_and_tunnels_change_under_them,
    they_leave_a_quarter_of_the_table_to_others,
    a_cookie_from_before_is_refused,
    sessions_go_on_with_the_next_engine,
}

fn setup(family: Family, forwarding: Forwarding) -> Setup {
    Setup { forwarding, synproxy: false, ..Setup::of(family) }
}

fn tunnel(family: Family) -> Forwarding {
    let tunnel = Tunnel { wrapping: Wrapping::Gue, checksum: false, port: 6_080 };
    Forwarding::Tunnel { tunnel, source: family.local().into() }
}

/// What XDP and then the engine send for a client's segment.
fn sent(stage: &mut Stage, segment: &Segment) -> Vec<Framed> {
    let at_once = stage.balancer.receive(OUTSIDE, &segment.bytes());
    at_once.into_iter().chain(stage.balancer.round()).collect()
}

/// The same for what a client says.
fn says(stage: &mut Stage, port: u16, flags: u16, seq: u32, ack: u32) -> Vec<Framed> {
    let segment = stage.client_says(port, flags, seq, ack);
    sent(stage, &segment)
}

/// The number of the real server that it goes to, as it is.
#[track_caller]
fn server_of(stage: &mut Stage, segment: &Segment) -> u32 {
    let frames = sent(stage, segment);
    let [(interface, frame)] = frames.as_slice() else { panic!("{frames:02x?}") };
    assert_eq!(*interface, stage.inside());
    let read = Segment::read(frame);
    assert_eq!((read.source, read.destination), (segment.source, segment.destination));
    assert_eq!((read.seq, read.ack, read.ttl), (segment.seq, segment.ack, segment.ttl - 1));
    (0..9).find(|server| read.destination_mac == server_mac(*server)).expect("a real server")
}

fn state(stage: &Stage) -> TcpState {
    stage.balancer.engine.sessions(stage.balancer.now(), 0, 1)[0].1.state
}

/// SYN and ACK; gives the real server.
#[track_caller]
fn open(stage: &mut Stage, port: u16) -> u32 {
    let syn = stage.client_says(port, SYN, CLIENT_ISN, 0);
    let server = server_of(stage, &syn);
    let ack = stage.client_says(port, ACK, CLIENT_ISN.wrapping_add(1), 0x7777_0000);
    assert_eq!(server_of(stage, &ack), server);
    server
}

fn a_session_lives_by_what_its_client_says(family: Family) {
    let mut setup = setup(family, Forwarding::Dr);
    setup.config.conn_expire_tcp_rst = true;
    let mut stage = Stage::new(&setup);
    let syn = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0);
    let server = server_of(&mut stage, &syn);
    assert_eq!(state(&stage), TcpState::SynRecv);
    assert_eq!(server_of(&mut stage, &syn), server, "sent again");
    open(&mut stage, CLIENT_PORT);
    assert_eq!(state(&stage), TcpState::Established);
    let report = &stage.balancer.engine.sessions(stage.balancer.now(), 0, 1)[0].1;
    assert_eq!(report.forwarding, Forwarding::Dr);
    let next = CLIENT_ISN.wrapping_add(1);
    // Blind: dropped by nobody, believed by nobody.
    let blind = stage.client_says(CLIENT_PORT, RST, next.wrapping_add(1 << 30), 0);
    assert_eq!(server_of(&mut stage, &blind), server);
    assert_eq!(state(&stage), TcpState::Established);
    let fin = stage.client_says(CLIENT_PORT, FIN | ACK, next, 0x7777_0000);
    assert_eq!(server_of(&mut stage, &fin), server);
    assert_eq!(state(&stage), TcpState::FinWait);
    let wait = setup.config.timeouts.get(TcpState::FinWait);
    stage.pass(wait - 10);
    assert_eq!(stage.balancer.engine.session_count(), 1);
    stage.pass(20);
    assert!(stage.to_client.is_empty() && stage.to_servers.is_empty());
    stage.balancer.assert_empty();

    // Idle for too long: neither end is reset, for we do not know where they stand.
    open(&mut stage, CLIENT_PORT + 1);
    stage.pass(setup.config.timeouts.get(TcpState::Established) + 10);
    assert!(stage.to_client.is_empty() && stage.to_servers.is_empty());
    stage.balancer.assert_empty();
}

/// Adoption: such a session has one entry, and is counted among its own kind.
fn sessions_go_on_with_the_next_engine(family: Family) {
    for forwarding in [Forwarding::Dr, tunnel(family)] {
        let setup = setup(family, forwarding);
        let mut stage = Stage::new(&setup);
        says(&mut stage, CLIENT_PORT, SYN, CLIENT_ISN, 0);
        let next = CLIENT_ISN.wrapping_add(1);
        let sends = |stage: &mut Stage| {
            let frames = says(stage, CLIENT_PORT, ACK, next, 0x7777_0000);
            let [(interface, frame)] = frames.as_slice() else { panic!("{frames:02x?}") };
            assert_eq!(*interface, stage.inside());
            // To which real server, and how much around what.
            (frame[..6].to_vec(), frame.len(), frame[frame.len() - 20..].to_vec())
        };
        let before = sends(&mut stage);
        for _ in 0..2 {
            let adoption = stage.balancer.restart(0..2);
            let expected = Adoption { sessions: 1, services: 1, ..Adoption::default() };
            assert_eq!(adoption, expected);
            assert_eq!(sends(&mut stage), before);
            assert!(!stage.balancer.has_records());
        }
        assert_eq!(state(&stage), TcpState::Established);
        says(&mut stage, CLIENT_PORT, FIN | ACK, next, 0x7777_0000);
        stage.pass(setup.config.timeouts.get(TcpState::FinWait) + 10);
        stage.balancer.assert_empty();
    }
}

/// IPVS: FIN_WAIT is no state in which a new SYN finds another real server.
fn a_client_that_comes_back_goes_to_the_same_real_server(family: Family) {
    let mut stage = Stage::new(&setup(family, Forwarding::Dr));
    let server = open(&mut stage, CLIENT_PORT);
    let fin = stage.client_says(CLIENT_PORT, FIN | ACK, CLIENT_ISN.wrapping_add(1), 1);
    assert_eq!(server_of(&mut stage, &fin), server);
    let isn = CLIENT_ISN.wrapping_add(1 << 28);
    let syn = stage.client_says(CLIENT_PORT, SYN, isn, 0);
    assert_eq!(server_of(&mut stage, &syn), server);
    assert_eq!(state(&stage), TcpState::SynRecv);
    let ack = stage.client_says(CLIENT_PORT, ACK, isn.wrapping_add(1), 0x1234);
    assert_eq!(server_of(&mut stage, &ack), server);
    assert_eq!(state(&stage), TcpState::Established);
    assert_eq!(stage.balancer.engine.session_count(), 1);
    assert_eq!(stage.balancer.engine.counter(Counter::Opened), 1);
}

fn after_time_wait_a_client_may_go_to_another(family: Family) {
    let mut stage = Stage::new(&setup(family, Forwarding::Dr));
    let syn = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0);
    let server = server_of(&mut stage, &syn);
    let fin = stage.client_says(CLIENT_PORT, FIN | ACK, CLIENT_ISN.wrapping_add(1), 1);
    assert_eq!(server_of(&mut stage, &fin), server);
    assert_eq!(state(&stage), TcpState::TimeWait);
    let syn = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN.wrapping_add(1 << 28), 0);
    assert_ne!(server_of(&mut stage, &syn), server, "round robin");
    assert_eq!(stage.balancer.engine.session_count(), 1);
}

fn a_syn_is_wrapped_for_a_tunnel(family: Family) {
    let mut stage = Stage::new(&setup(family, tunnel(family)));
    let syn = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0);
    let frames = sent(&mut stage, &syn);
    let [(_, frame)] = frames.as_slice() else { panic!("{frames:02x?}") };
    let overhead = family.headers() - 14 - 20 + 12;
    assert_eq!(frame.len(), syn.bytes().len() + overhead);
    let packet = [&syn.bytes()[..14], &frame[14 + overhead..]].concat();
    assert_eq!(Segment::read(&packet), Segment { ttl: syn.ttl - 1, ..syn });
    assert_eq!(state(&stage), TcpState::SynRecv);
}

/// IPVS: `cp->flags` are the session's, `cp->dest` is the real server as it is now.
fn sessions_keep_their_way_and_tunnels_change_under_them(family: Family) {
    let setup = Setup { servers: 1, ..setup(family, tunnel(family)) };
    let mut stage = Stage::new(&setup);
    says(&mut stage, CLIENT_PORT, SYN, CLIENT_ISN, 0);
    let spec = stage.balancer.engine.services().swap_remove(0).servers[0].spec;
    let change = |stage: &mut Stage, forwarding| {
        let spec = RealServerSpec { forwarding, ..spec };
        stage.balancer.engine.set_server(0, 0, spec);
        let now = stage.balancer.now();
        stage.balancer.engine.settle(now);
        stage.balancer.engine.sessions(now, 0, 1)[0].1.forwarding
    };
    let changed = Forwarding::Tunnel {
        tunnel: Tunnel { wrapping: Wrapping::Gre, checksum: true, port: 0 },
        source: Addr::from(std::net::IpAddr::from(family.client())),
    };
    assert_eq!(change(&mut stage, changed), changed);
    for other in [Forwarding::Dr, Forwarding::Nat] {
        assert_eq!(change(&mut stage, other), changed);
    }
    // A new one goes the new way.
    says(&mut stage, CLIENT_PORT + 1, SYN, CLIENT_ISN, 0);
    let sessions = stage.balancer.engine.sessions(stage.balancer.now(), 0, 2);
    assert_eq!(sessions[1].1.forwarding, Forwarding::Nat);
}

/// Nobody can tell whether such a client is there (SPEC B6).
fn they_leave_a_quarter_of_the_table_to_others(family: Family) {
    let mut stage = Stage::new(&Setup { sessions: 63, ..setup(family, Forwarding::Dr) });
    for number in 0..60 {
        let port = CLIENT_PORT + number;
        says(&mut stage, port, SYN, CLIENT_ISN, 0);
        says(&mut stage, port, ACK, CLIENT_ISN.wrapping_add(1), 7);
    }
    assert_eq!(stage.balancer.engine.session_count(), 48);
    assert_eq!(stage.balancer.engine.counter(Counter::ExceededUnproxied), 12);
    let rst = stage.client_says(CLIENT_PORT, RST, CLIENT_ISN.wrapping_add(1), 0);
    sent(&mut stage, &rst);
    stage.pass(10_010);
    says(&mut stage, CLIENT_PORT + 99, SYN, CLIENT_ISN, 0);
    assert_eq!(stage.balancer.engine.session_count(), 48, "one has ended, one has come");
}

/// Switched from a proxied service to DR in one reload: who has a cookie cannot be served by it.
fn a_cookie_from_before_is_refused(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    stage.accept(CLIENT_PORT, Vec::new());
    let servers = stage.balancer.engine.services().swap_remove(0).servers;
    for (number, server) in (0..).zip(servers) {
        let spec = RealServerSpec { forwarding: Forwarding::Dr, ..server.spec };
        stage.balancer.engine.set_server(0, number, spec);
    }
    stage.balancer.engine.set_synproxy(0, Proxy::Off);
    stage.round();
    assert_eq!(stage.one_to_client().flags & RST, RST);
    assert_eq!(stage.balancer.reason(Reason::Accepted), 1);
    assert_eq!(stage.balancer.engine.session_count(), 0);
}
