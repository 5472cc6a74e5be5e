//! UDP services: sessions, their limits and their ends, and one-packet scheduling (SPEC B6, C2, C5).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use seawall_engine::scheduler::Kind;
use seawall_engine::{Counter, Forwarding, Gateway, Health, RealServerSpec, ServiceReport};
use seawall_fastpath::layout::{Tunnel, Wrapping};
use seawall_fastpath::{Reason, TcpState, Transport};
use seawall_wire::ethernet::MacAddr;

use crate::support::balancer::{
    Balancer, CLIENT_MAC, Framed, OUTSIDE, SERVER_PORT, Setup, interface_mac,
};
use crate::support::family::{Family, in_each_family};
use crate::support::model::Model;
use crate::support::packet::{Ip, Segment, checksums_hold, tcp_at};

in_each_family! {
    the_engine_places_a_flow_and_xdp_does_the_rest,
    datagrams_on_their_way_up_open_one_session,
    a_flow_expires_by_its_timeout,
    unconfirmed_flows_have_a_share_and_end_early_when_it_is_taken,
    confirmed_flows_have_a_share_too,
    local_ports_are_each_protocols_own,
    ports_that_nobody_answers_for_are_soon_free_again,
    a_flow_whose_confirmation_was_not_told_is_confirmed_all_the_same,
    two_services_of_one_real_server_conflict_under_nat,
    a_removed_real_server_ends_what_is_not_confirmed,
    one_marked_down_ends_what_is_not_confirmed,
    one_datagram_one_choice_and_every_answer_comes_back,
    one_packet_scheduling_comes_and_goes,
    flows_go_on_with_the_next_engine,
    ways_of_answers_go_on_with_the_next_engine,
    by_dr_a_flow_stays_with_its_server_and_is_never_confirmed,
    by_dr_one_datagram_is_one_choice_too,
    datagrams_are_wrapped_for_a_tunnel,
}

const PORT: u16 = 40_000;
/// More than a tick of the engine's timers.
pub(crate) const TICK: u64 = 20;

/// A balancer of UDP, and who talks through it.
pub(crate) struct Talk {
    pub(crate) balancer: Balancer,
    pub(crate) setup: Setup,
}

impl Talk {
    pub(crate) fn new(setup: Setup) -> Self {
        let setup = Setup { transport: Transport::Udp, synproxy: false, ..setup };
        Self { balancer: Balancer::new(&setup), setup }
    }

    fn says(&self, from: (Ip, u16), to: (Ip, u16)) -> Segment {
        Segment {
            source_mac: CLIENT_MAC,
            destination_mac: interface_mac(OUTSIDE),
            tags: Vec::new(),
            tos: 0,
            ident: 1,
            ttl: 64,
            source: from,
            destination: to,
            seq: 0,
            ack: 0,
            flags: 0,
            window: 0,
            urgent: 0,
            options: Vec::new(),
            raw_options: None,
            payload: b"who?".to_vec(),
        }
    }

    pub(crate) fn client(&self, number: u32) -> (Ip, u16) {
        (self.setup.family.client() + number / 60_000, PORT + (number % 60_000) as u16)
    }

    /// The frame of a client's datagram to a service.
    pub(crate) fn question(&self, client: (Ip, u16), service: u16) -> Vec<u8> {
        let (vip, first_port) = self.setup.family.vip();
        self.says(client, (vip, first_port + service)).datagram()
    }

    /// XDP gets a client's datagram; what it or the engine sends.
    pub(crate) fn ask(&mut self, client: (Ip, u16)) -> Option<Datagram> {
        one(self.ask_for(client, 0))
    }

    /// The same of the service, or the port of one, of that number; as frames.
    pub(crate) fn ask_for(&mut self, client: (Ip, u16), service: u16) -> Vec<Framed> {
        let frame = self.question(client, service);
        let sent = self.balancer.receive(OUTSIDE, &frame);
        sent.into_iter().chain(self.balancer.round()).collect()
    }

    /// The real server answers what it got; what the client gets.
    pub(crate) fn answer(&mut self, question: &Datagram) -> Option<Datagram> {
        let inside = self.setup.inside();
        let answer = Segment {
            destination_mac: interface_mac(inside),
            payload: b"me".to_vec(),
            ..self.says(question.destination, question.source)
        };
        one(self.balancer.receive(inside, &answer.datagram()))
    }

    /// A question, its answer, and another question.
    #[track_caller]
    pub(crate) fn converse(&mut self, client: (Ip, u16)) -> Datagram {
        let question = self.ask(client).expect("sent on");
        self.answer(&question).expect("sent back");
        assert_eq!(self.ask(client).as_ref(), Some(&question));
        question
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.balancer.now() + milliseconds;
        while self.balancer.now() < end {
            let next = self.balancer.next_round().clamp(self.balancer.now() + 1, end);
            self.balancer.set_now(next);
            self.balancer.round();
        }
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.balancer.engine.counter(counter)
    }

    pub(crate) fn sessions(&self) -> usize {
        self.balancer.engine.session_count()
    }

    pub(crate) fn service(&self) -> ServiceReport {
        self.balancer.engine.services().swap_remove(0)
    }
}

/// What a datagram says, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Datagram {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source: (Ip, u16),
    pub(crate) destination: (Ip, u16),
    payload: Vec<u8>,
}

impl Datagram {
    /// Reads a frame, insisting on right lengths and checksums.
    pub(crate) fn read(frame: &[u8]) -> Self {
        assert!(checksums_hold(frame), "checksums: {frame:02x?}");
        let udp = tcp_at(frame);
        let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(usize::from(half(udp + 4)), frame.len() - udp, "lengths");
        let address = |number: usize| match frame[14] >> 4 {
            4 => {
                let at = 26 + number * 4;
                assert_eq!(frame[23], 17);
                Ip::v4(u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()))
            }
            _ => {
                let at = 22 + number * 16;
                assert_eq!(frame[20], 17);
                Ip(u128::from_be_bytes(frame[at..at + 16].try_into().unwrap()))
            }
        };
        Self {
            destination_mac: frame[0..6].try_into().unwrap(),
            source: (address(0), half(udp)),
            destination: (address(1), half(udp + 2)),
            payload: frame[udp + 8..].to_vec(),
        }
    }
}

fn one(frames: impl IntoIterator<Item = Framed>) -> Option<Datagram> {
    let mut sent: Vec<_> = frames.into_iter().map(|(_, frame)| Datagram::read(&frame)).collect();
    assert!(sent.len() <= 1, "{sent:?}");
    sent.pop()
}

fn the_engine_places_a_flow_and_xdp_does_the_rest(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let mut talk = Talk::new(Setup { forwarding, ..Setup::of(family) });
        let client = talk.client(0);
        let first = talk.ask(client).expect("sent on");
        assert_eq!(talk.balancer.reason(Reason::PuntDatagram), 1);
        let local = match forwarding {
            Forwarding::Nat => client,
            Forwarding::FullNat => (family.local(), 5000),
            Forwarding::Dr | Forwarding::Tunnel { .. } => unreachable!("not among those tried"),
        };
        assert_eq!((first.source, first.destination.1), (local, SERVER_PORT));
        let answer = talk.answer(&first).expect("sent back");
        assert_eq!((answer.source, answer.destination), (family.vip(), client));
        assert_eq!(answer.destination_mac, CLIENT_MAC);
        assert_eq!(talk.ask(client), Some(first));
        assert_eq!(talk.balancer.reason(Reason::PuntDatagram), 1, "the engine was needed once");
        let other = talk.client(1);
        assert_ne!(talk.ask(other).expect("sent on").source, local, "a flow of its own");
        let reports = talk.balancer.engine.sessions(talk.balancer.now(), 0, 10);
        let [(_, one), (_, two)] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((one.transport, two.transport), (Transport::Udp, Transport::Udp));
        assert_eq!((one.state, two.state), (TcpState::Established, TcpState::SynRecv));
        assert_eq!((one.totals.in_packets, one.totals.out_packets), (2, 1));
        assert_eq!((one.expires, two.expires), (300_000, 300_000));
        let service = talk.service();
        let counts = service.servers.iter().map(|server| (server.active, server.inactive));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 1), (0, 1)], "IPVS: never active");
        assert_eq!((service.totals.connections, service.totals.in_packets), (2, 3));
        talk.pass(300_000 + TICK);
        talk.balancer.assert_empty();
    }
}

fn datagrams_on_their_way_up_open_one_session(family: Family) {
    let mut talk = Talk::new(Setup::of(family));
    let frame = talk.question(talk.client(0), 0);
    for _ in 0..3 {
        assert_eq!(talk.balancer.receive(OUTSIDE, &frame), None);
    }
    let sent = talk.balancer.round();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0], sent[2]);
    assert_eq!(talk.sessions(), 1);
}

/// IPVS's 300 s from the last datagram of either side, or what the service says; a change is gone by
/// when the timer is next set.
fn a_flow_expires_by_its_timeout(family: Family) {
    for timeout in [None, Some(20_000)] {
        let mut talk = Talk::new(Setup { timeout, ..Setup::of(family) });
        let idle = timeout.unwrap_or(300_000);
        let client = talk.client(0);
        let question = talk.converse(client);
        talk.pass(idle - TICK);
        talk.answer(&question).expect("there still");
        talk.pass(idle - TICK);
        assert_eq!(talk.sessions(), 1);
        talk.pass(2 * TICK);
        talk.balancer.assert_empty();
        assert_eq!(talk.count(Counter::Expired), 1);
        talk.balancer.engine.set_timeout(0, Some(7_000));
        talk.ask(client);
        talk.pass(7_000 - TICK);
        assert_eq!(talk.sessions(), 1);
        talk.pass(2 * TICK);
        assert_eq!(talk.sessions(), 0);
    }
}

/// SPEC B6: a flood from nowhere takes its share and no more, what is confirmed goes on, and soon
/// after there is room again.
fn unconfirmed_flows_have_a_share_and_end_early_when_it_is_taken(family: Family) {
    let mut talk = Talk::new(Setup { sessions: 63, ..Setup::of(family) });
    let kept = talk.client(1_000);
    let question = talk.converse(kept);
    for number in 0..100 {
        let client = talk.client(number);
        assert_eq!(talk.ask(client).is_some(), number < 16, "{number}");
    }
    assert_eq!(talk.count(Counter::ExceededUdp), 84);
    assert_eq!(talk.sessions(), 17);
    for _ in 0..10 {
        talk.pass(999);
        assert_eq!(talk.ask(kept).as_ref(), Some(&question));
        talk.answer(&question).expect("goes on");
    }
    // As many as half of the share may stay as long as they like.
    assert_eq!(talk.count(Counter::ExpiredUnconfirmed), 8);
    assert_eq!(talk.sessions(), 9);
    let client = talk.client(50);
    assert!(talk.ask(client).is_some(), "there is room again");
    talk.pass(400_000);
    talk.balancer.assert_empty();
    assert!(talk.ask(client).is_some(), "all that was counted has been given back");
}

/// Who guesses when the answer has come can confirm what is not its own: no more than half.
fn confirmed_flows_have_a_share_too(family: Family) {
    let mut talk = Talk::new(Setup { sessions: 63, ..Setup::of(family) });
    for number in 0..32 {
        let client = talk.client(number);
        talk.converse(client);
    }
    let client = talk.client(32);
    assert_eq!(talk.ask(client), None);
    assert_eq!(talk.count(Counter::ExceededUdp), 1);
    talk.pass(301_000);
    talk.balancer.assert_empty();
    talk.converse(client);
}

fn flows_go_on_with_the_next_engine(family: Family) {
    for (forwarding, timeout) in [(Forwarding::Nat, None), (Forwarding::FullNat, Some(20_000))] {
        let mut talk = Talk::new(Setup { forwarding, timeout, sessions: 63, ..Setup::of(family) });
        let kept = talk.client(1_000);
        let question = talk.converse(kept);
        for number in 0..16 {
            let client = talk.client(number);
            assert!(talk.ask(client).is_some());
        }
        let before = Model::of(&talk.balancer);
        assert_eq!(talk.balancer.restart(0..2).sessions, 17);
        assert_eq!(Model::of(&talk.balancer), before);
        let other = talk.client(20);
        assert_eq!(talk.ask(other), None, "the share is still taken");
        talk.pass(4_000);
        talk.answer(&question).expect("goes on");
        assert_eq!(talk.ask(kept).as_ref(), Some(&question));
        talk.pass(2_000);
        assert_eq!(talk.count(Counter::ExpiredUnconfirmed), 8, "and given back as before");
        assert!(talk.ask(other).is_some());
        let idle = timeout.unwrap_or(300_000);
        talk.pass(idle - 2_000 - TICK);
        assert!(talk.answer(&question).is_some(), "as long as the service says");
        talk.pass(idle + TICK);
        talk.balancer.assert_empty();
    }
}

fn ways_of_answers_go_on_with_the_next_engine(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let setup = Setup { forwarding, one_packet: true, servers: 1, ..Setup::of(family) };
        let mut talk = Talk::new(setup);
        let client = talk.client(0);
        let question = talk.ask(client).expect("sent on");
        let before = Model::of(&talk.balancer);
        let adoption = talk.balancer.restart(0..1);
        assert_eq!((adoption.sessions, adoption.orphan_slots, adoption.orphan_entries), (1, 0, 0));
        assert_eq!(Model::of(&talk.balancer), before);
        assert_eq!(talk.answer(&question).expect("sent back").source, family.vip());
        assert_eq!(talk.ask(client), Some(question), "the same way");
        assert_eq!(talk.sessions(), 1);
        assert_eq!(talk.service().servers[0].inactive, 0, "no connection");
        talk.pass(30_000 + TICK);
        talk.balancer.assert_empty();
    }
}

fn local_ports_are_each_protocols_own(family: Family) {
    let mut talk = Talk::new(Setup { ports: (5000, 5001), servers: 1, ..Setup::of(family) });
    let ports: Vec<_> = (0..3)
        .map(|number| talk.ask(talk.client(number)).map(|question| question.source.1))
        .collect();
    assert_eq!(ports, [Some(5000), Some(5001), None]);
    assert_eq!(talk.count(Counter::PortsExhausted), 1);
}

/// A flood from nowhere that takes all ports towards a real server has them for seconds, however much
/// room there is for sessions; who has been confirmed keeps its own.
fn ports_that_nobody_answers_for_are_soon_free_again(family: Family) {
    let ports = (5000, 5015);
    let mut talk = Talk::new(Setup { ports, servers: 1, sessions: 1_023, ..Setup::of(family) });
    let kept = talk.client(1_000);
    let question = talk.converse(kept);
    for number in 0..15 {
        assert!(talk.ask(talk.client(number)).is_some());
    }
    assert_eq!(talk.ask(talk.client(15)), None);
    talk.pass(11_000);
    assert_eq!(talk.count(Counter::ExpiredUnconfirmed), 8, "as many as half may stay");
    let ports: HashSet<_> = (20..28)
        .map(|number| talk.ask(talk.client(number)).expect("free again").source.1)
        .collect();
    assert_eq!(ports.len(), 8);
    assert_eq!(talk.ask(kept), Some(question));
    assert_eq!(talk.ask(talk.client(28)), None);
    assert_eq!(talk.count(Counter::PortsExhausted), 2);
    talk.pass(400_000);
    talk.balancer.assert_empty();
    for number in 0..16 {
        assert!(talk.ask(talk.client(number)).is_some());
    }
}

/// What XDP says of a state is a hint, which a full ring loses.
fn a_flow_whose_confirmation_was_not_told_is_confirmed_all_the_same(family: Family) {
    let mut talk = Talk::new(Setup { sessions: 63, ..Setup::of(family) });
    for number in 0..16 {
        let client = talk.client(number);
        let question = talk.ask(client).expect("sent on");
        talk.answer(&question).expect("sent back");
        let frame = talk.question(client, 0);
        assert!(talk.balancer.receive(OUTSIDE, &frame).is_some());
        talk.balancer.tables.records.borrow_mut().clear();
    }
    talk.pass(20_000);
    assert_eq!((talk.sessions(), talk.count(Counter::ExpiredUnconfirmed)), (16, 0));
    for number in 16..32 {
        assert!(talk.ask(talk.client(number)).is_some(), "none of them takes the share");
    }
}

fn two_services_of_one_real_server_conflict_under_nat(family: Family) {
    let mut talk = Talk::new(Setup {
        forwarding: Forwarding::Nat,
        servers: 1,
        services: 2,
        ..Setup::of(family)
    });
    let client = talk.client(0);
    let question = talk.ask(client).expect("sent on");
    let frame = talk.question(client, 1);
    talk.balancer.receive(OUTSIDE, &frame);
    assert_eq!(talk.balancer.round(), []);
    assert_eq!(talk.count(Counter::Conflict), 1);
    assert_eq!(talk.answer(&question).expect("sent back").source, family.vip());
}

fn a_removed_real_server_ends_what_is_not_confirmed(family: Family) {
    let mut talk = Talk::new(Setup::of(family));
    let (confirmed, other) = (talk.client(0), talk.client(1));
    let server = talk.converse(confirmed).destination;
    talk.ask(other);
    assert_eq!(talk.ask(talk.client(2)).expect("sent on").destination, server);
    let number = talk.setup.family.server_number(server.0);
    talk.balancer.engine.remove_server(0, number);
    talk.balancer.engine.settle(talk.balancer.now());
    talk.pass(TICK);
    assert_eq!(talk.sessions(), 2);
    assert_eq!(talk.ask(confirmed), None);
    assert_eq!(talk.balancer.reason(Reason::NoServer), 1);
    let moved = talk.ask(talk.client(2)).expect("another real server takes it");
    assert_ne!(moved.destination, server);
}

/// As when it is removed, but that confirmed flows go on.
fn one_marked_down_ends_what_is_not_confirmed(family: Family) {
    let mut talk = Talk::new(Setup::of(family));
    let (confirmed, other) = (talk.client(0), talk.client(1));
    let question = talk.converse(confirmed);
    talk.ask(other);
    assert_eq!(talk.ask(talk.client(2)).expect("sent on").destination, question.destination);
    let number = talk.setup.family.server_number(question.destination.0);
    talk.balancer.engine.set_health(0, number, Health::Down);
    talk.balancer.engine.settle(talk.balancer.now());
    talk.pass(TICK);
    assert_eq!(talk.sessions(), 2);
    let moved = talk.ask(talk.client(2)).expect("another real server takes it");
    assert_ne!(moved.destination, question.destination);
    assert_eq!(talk.ask(confirmed), Some(question));
}

/// Each datagram is a connection to the scheduler and in the statistics, none is kept, and what the
/// real servers answer reaches the client, by NAT and by FULLNAT.
fn one_datagram_one_choice_and_every_answer_comes_back(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let mut talk = Talk::new(Setup { forwarding, one_packet: true, ..Setup::of(family) });
        let client = talk.client(0);
        let mut questions = Vec::new();
        for _ in 0..6 {
            let question = talk.ask(client).expect("sent on");
            let answer = talk.answer(&question).expect("sent back");
            assert_eq!((answer.source, answer.destination), (family.vip(), client));
            questions.push(question);
        }
        let servers: Vec<_> = questions.iter().map(|it| it.destination.0).collect();
        assert_ne!(servers[0], servers[1]);
        assert_eq!(
            (servers[..2].to_vec(), servers[..4].to_vec()),
            (servers[2..4].to_vec(), servers[2..].to_vec())
        );
        let ends: HashSet<_> = questions.iter().map(|it| (it.source, it.destination)).collect();
        assert_eq!(ends.len(), 2, "one way back a real server");
        assert_eq!(talk.balancer.reason(Reason::PuntDatagram), 6);
        let service = talk.service();
        assert_eq!((service.totals.connections, service.totals.in_packets), (6, 6));
        assert!(service.servers.iter().all(|server| (server.active, server.inactive) == (0, 0)));
        talk.pass(29_000);
        assert!(talk.answer(&questions[0]).is_some(), "a slow answer");
        talk.pass(60_000);
        talk.balancer.assert_empty();
        assert!(talk.answer(&questions[0]).is_none(), "too slow");
    }
}

/// As in IPVS, sessions that there are go on.
fn one_packet_scheduling_comes_and_goes(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let mut talk = Talk::new(Setup { forwarding, ..Setup::of(family) });
        let client = talk.client(0);
        let question = talk.converse(client);
        talk.balancer.engine.set_one_packet(0, true);
        assert_eq!(talk.ask(client), Some(question));
        talk.pass(301_000);
        talk.balancer.assert_empty();
        let questions = [(); 2].map(|()| talk.ask(client).expect("sent on"));
        assert_ne!(questions[0].destination, questions[1].destination);
        talk.balancer.engine.set_one_packet(0, false);
        let question = talk.converse(client);
        assert_eq!(talk.ask(client), Some(question));
        talk.pass(301_000);
        talk.balancer.assert_empty();
    }
}

/// The recordings of the kernel's choices, whose arrivals come as datagrams: under one-packet
/// scheduling each is a connection to the scheduler and none is left, which is all the same to
/// those that do not look at connections.
#[test]
fn single_datagrams_go_where_the_kernel_sends_connections() {
    for (kind, recording) in [
        (Kind::RoundRobin, include_str!("../schedulers/rr.txt")),
        (Kind::WeightedRoundRobin, include_str!("../schedulers/wrr.txt")),
        (Kind::SourceHashing, include_str!("../schedulers/sh.txt")),
        (Kind::Maglev, include_str!("../schedulers/mh.txt")),
    ] {
        replay(kind, recording);
    }
}

fn replay(kind: Kind, recording: &str) {
    let forwarding = Forwarding::Nat;
    let base =
        Setup { scheduler: kind, servers: 0, sessions: 4096, forwarding, ..Setup::of(Family::V4) };
    let mut talk = Talk::new(Setup { one_packet: true, ..base });
    let mut servers: Vec<(SocketAddr, RealServerSpec)> = Vec::new();
    let mut arrivals = 0;
    for line in recording.lines() {
        let (event, outcome) = line.split_once(" -> ").unwrap_or((line, ""));
        let words: Vec<_> = event.split(' ').collect();
        let engine = &mut talk.balancer.engine;
        match words[..] {
            ["server", address, weight] => {
                let address: SocketAddr = address.parse().unwrap();
                let gateway = Gateway { interface: 2, address: address.ip().into() };
                let next_hop = engine.next_hop(gateway).unwrap();
                engine.set_neighbour(gateway, MacAddr([2, 0, 0, 0, 3, servers.len() as u8]));
                let weight = weight.parse().unwrap();
                let spec = RealServerSpec {
                    address: address.into(),
                    forwarding,
                    weight,
                    upper_threshold: 0,
                    lower_threshold: 0,
                    next_hop,
                };
                engine.add_server(0, spec).unwrap();
                servers.push((address, spec));
            }
            ["weight", address, weight] => {
                let address: SocketAddr = address.parse().unwrap();
                let at = servers.iter().position(|(known, _)| *known == address).unwrap();
                servers[at].1.weight = weight.parse().unwrap();
                engine.set_server(0, at as u32, servers[at].1);
            }
            ["syn", client, "10.0.0.254:80"] => {
                arrivals += 1;
                talk.balancer.round();
                let client: SocketAddrV4 = client.parse().unwrap();
                let question = talk.ask((Ip::v4(client.ip().to_bits()), client.port()));
                let got = question.map(|it| IpAddr::from(it.destination.0).to_string());
                let wanted = outcome.split(' ').next().filter(|word| *word != "none");
                assert_eq!(got.as_deref(), wanted, "{kind:?}: {line}");
            }
            ["#", ..] | ["service" | "ack" | "fin" | "rst", ..] => {}
            _ => panic!("no event: {words:?}"),
        }
    }
    assert!(arrivals >= 30);
}

fn by_dr_a_flow_stays_with_its_server_and_is_never_confirmed(family: Family) {
    let forwarding = Forwarding::Dr;
    let mut talk = Talk::new(Setup { forwarding, sessions: 63, ..Setup::of(family) });
    let client = talk.client(0);
    let first = talk.ask(client).expect("sent on");
    assert_eq!((first.source, first.destination), (client, family.vip()));
    for _ in 0..3 {
        assert_eq!(talk.ask(client).as_ref(), Some(&first), "to the same MAC");
    }
    assert_eq!(talk.balancer.reason(Reason::PuntDatagram), 1, "the engine was needed once");
    let report = talk.balancer.engine.sessions(talk.balancer.now(), 0, 1).remove(0).1;
    assert_eq!((report.state, report.forwarding), (TcpState::SynRecv, forwarding));
    assert_eq!((report.totals.in_packets, report.totals.out_packets), (4, 0));
    let other = talk.client(1);
    assert_ne!(talk.ask(other).expect("sent on").destination_mac, first.destination_mac);
    // Theirs is the share of the unconfirmed.
    for number in 2..40 {
        let client = talk.client(number);
        assert_eq!(talk.ask(client).is_some(), number < 16, "{number}");
    }
    talk.pass(301_000);
    talk.balancer.assert_empty();
    assert!(talk.ask(client).is_some(), "all that was counted has been given back");
}

fn by_dr_one_datagram_is_one_choice_too(family: Family) {
    let forwarding = Forwarding::Dr;
    let mut talk = Talk::new(Setup { forwarding, one_packet: true, ..Setup::of(family) });
    let client = talk.client(0);
    let macs = [(); 6].map(|()| talk.ask(client).expect("sent on").destination_mac);
    assert_ne!(macs[0], macs[1]);
    assert_eq!((macs[..2].to_vec(), macs[..4].to_vec()), (macs[2..4].to_vec(), macs[2..].to_vec()));
    assert_eq!(talk.balancer.reason(Reason::PuntDatagram), 6);
    let service = talk.service();
    assert_eq!((service.totals.connections, service.totals.in_packets), (6, 6));
    talk.pass(61_000);
    talk.balancer.assert_empty();
}

fn datagrams_are_wrapped_for_a_tunnel(family: Family) {
    let tunnel = Tunnel { wrapping: Wrapping::Ipip, checksum: false, port: 0 };
    let forwarding = Forwarding::Tunnel { tunnel, source: family.local().into() };
    for one_packet in [false, true] {
        let mut talk = Talk::new(Setup { forwarding, one_packet, ..Setup::of(family) });
        let question = talk.question(talk.client(0), 0);
        for _ in 0..2 {
            let sent = talk.balancer.receive(OUTSIDE, &question);
            let sent: Vec<_> = sent.into_iter().chain(talk.balancer.round()).collect();
            let [(_, frame)] = sent.as_slice() else { panic!("{sent:02x?}") };
            let outer = frame.len() - question.len();
            let inner = Datagram::read(&[&frame[..14], &frame[14 + outer..]].concat());
            assert_eq!((inner.source, inner.destination), (talk.client(0), family.vip()));
            assert_eq!(outer, if frame[14] >> 4 == 4 { 20 } else { 40 });
        }
    }
}
