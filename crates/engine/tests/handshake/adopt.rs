//! An engine takes over from one that died (SPEC E; DESIGN, "Adoption").

use std::collections::HashSet;

use seawall_engine::{Adoption, Counter, Forwarding, Health, Netmask, Persistence, Rates, Totals};
use seawall_fastpath::layout::{Account, Entry, Template, Word, flag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Direction, Reason, TcpState};

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::model::Model;
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::random::Random;
use crate::support::stage::{
    CLIENT_ISN, CLIENT_PORT, SERVER_ISN, Stage, all_options, answer, clock_of, data, syn_ack,
};

in_each_family! {
    sessions_go_on_with_their_numbers_and_totals,
    sessions_of_every_state_are_taken_over_and_expire,
    a_handshake_goes_on_with_the_next_engine,
    a_handshake_without_options_goes_on_too,
    a_handshake_over_nat_goes_on_too,
    a_cookie_of_the_dead_engine_is_good,
    a_client_that_was_opening_goes_past_the_next_engine,
    sessions_of_a_server_that_is_gone_wait_for_it,
    a_handshake_with_a_server_that_is_gone_is_refused,
    ports_in_use_are_not_given_again,
    what_is_half_made_is_cleared,
    templates_go_on_with_their_sessions_and_times,
    templates_of_nobody_are_freed,
    a_real_server_that_is_full_stays_full,
    a_real_server_that_is_down_stays_down,
    a_service_has_its_own_timeout_again,
    the_filter_is_what_the_index_says,
    rates_begin_anew_and_nothing_is_counted_twice,
    late_records_are_for_nobody,
}

const ALL: std::ops::Range<u32> = 0..2;

fn establish(stage: &mut Stage, port: u16) -> (Segment, Segment) {
    let (first, syn) = stage.open(port, all_options());
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    stage.to_servers.clear();
    (first, syn)
}

/// Both directions work, by XDP alone.
#[track_caller]
fn talk(stage: &mut Stage, first: &Segment, syn: &Segment) {
    stage.client(&data(first, 0, b"ask"));
    assert_eq!(stage.one_to_server().payload, b"ask");
    let says = answer(syn, ACK, SERVER_ISN.wrapping_add(1), syn.seq.wrapping_add(1));
    stage.server(&Segment { payload: b"tell".to_vec(), ..says });
    assert_eq!(stage.one_to_client().payload, b"tell");
    assert!(!stage.balancer.has_records());
}

fn totals(stage: &Stage) -> Totals {
    stage.balancer.engine.services()[0].totals
}

fn sessions_go_on_with_their_numbers_and_totals(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let kept: Vec<_> = (0..4).map(|at| establish(&mut stage, CLIENT_PORT + at)).collect();
    let (gone, _) = establish(&mut stage, CLIENT_PORT + 9);
    stage.client(&Segment { flags: RST | ACK, ..data(&gone, 0, b"") });
    stage.round();
    stage.pass(20_000);
    stage.to_servers.clear();
    for (first, syn) in &kept {
        talk(&mut stage, first, syn);
    }
    let before = Model::of(&stage.balancer);
    let opened = stage.balancer.engine.counter(Counter::Opened);
    for round in 0..3 {
        let adoption = stage.balancer.restart(ALL);
        let expected = Adoption { sessions: 4, services: 1, ..Adoption::default() };
        assert_eq!(adoption, expected);
        assert_eq!(Model::of(&stage.balancer), before, "round {round}");
    }
    assert_eq!(stage.balancer.engine.counter(Counter::Opened), opened);
    assert_eq!(stage.balancer.engine.counter(Counter::Adopted), 12);
    let before = totals(&stage);
    for (first, syn) in &kept {
        talk(&mut stage, first, syn);
    }
    assert_eq!(totals(&stage).in_packets, before.in_packets + 4);
    establish(&mut stage, CLIENT_PORT + 20);
    assert_eq!(totals(&stage).connections, before.connections + 1);
    stage.pass(901_000);
    stage.balancer.assert_empty();
    assert!(totals(&stage).in_packets > before.in_packets);
}

fn sessions_of_every_state_are_taken_over_and_expire(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let ends = [(FIN, true), (FIN, false), (RST, true), (ACK, true)];
    for (at, (flags, client)) in (0..).zip(ends) {
        let (first, syn) = establish(&mut stage, CLIENT_PORT + at);
        let says = answer(&syn, flags | ACK, SERVER_ISN.wrapping_add(1), syn.seq.wrapping_add(1));
        match client {
            true => stage.client(&Segment { flags: flags | ACK, ..data(&first, 0, b"") }),
            false => stage.server(&says),
        }
        stage.to_servers.clear();
        stage.to_client.clear();
    }
    // The engine dies before it has heard of any of that.
    stage.open(CLIENT_PORT + 8, all_options());
    let states = |stage: &Stage| -> Vec<_> {
        let all = stage.balancer.engine.sessions(stage.balancer.now(), 0, 64);
        let mut states: Vec<_> = all.iter().map(|(_, session)| session.state as u8).collect();
        states.sort_unstable();
        states
    };
    let before = states(&stage);
    assert_eq!(before.len(), 5);
    let adoption = stage.balancer.restart(ALL);
    assert_eq!((adoption.sessions, adoption.handshakes), (5, 1));
    assert_eq!(states(&stage), before);
    stage.pass(11_000);
    assert_eq!(states(&stage).len(), 4, "CLOSE is over after 10 s");
    stage.pass(50_000);
    assert_eq!(states(&stage).len(), 2, "CLOSE_WAIT after 60, the handshake after 30");
    stage.pass(60_000);
    assert_eq!(states(&stage).len(), 1, "FIN_WAIT after 120");
    stage.pass(800_000);
    stage.balancer.assert_empty();
}

fn resumed(setup: &Setup, options: fn() -> Vec<crate::support::packet::Opt>) {
    let mut stage = Stage::new(setup);
    let (first, syn) = stage.open(CLIENT_PORT, options());
    stage.client(&data(&first, 0, b"lost"));
    stage.round();
    stage.balancer.set_now(stage.balancer.now() + 3_000);
    let adoption = stage.balancer.restart(ALL);
    assert_eq!((adoption.sessions, adoption.handshakes), (1, 1));
    stage.pass(100);
    let again = stage.one_to_server();
    assert_eq!((again.seq, &again.options), (syn.seq, &syn.options), "the same SYN");
    assert_eq!((again.window, again.source, again.flags), (syn.window, syn.source, SYN));
    stage.server(&syn_ack(&again, options()));
    stage.round();
    let ack = stage.one_to_server();
    assert_eq!((ack.flags, ack.ack), (ACK, SERVER_ISN.wrapping_add(1)));
    assert_eq!(ack.seq, syn.seq.wrapping_add(1));
    if let Some((value, echo)) = clock_of(&ack) {
        let (asked, _) = clock_of(&again).unwrap();
        assert_eq!(echo, crate::support::stage::CLIENT_CLOCK, "what its SYN/ACK said");
        assert_eq!(value, asked, "no older than the SYN");
    }
    talk(&mut stage, &first, &syn);
    assert_eq!(stage.balancer.engine.early_bytes(), 0);
    assert!(stage.to_client.is_empty());
}

fn a_handshake_goes_on_with_the_next_engine(family: Family) {
    resumed(&Setup::of(family), all_options);
}

fn a_handshake_without_options_goes_on_too(family: Family) {
    resumed(&Setup::of(family), Vec::new);
}

fn a_handshake_over_nat_goes_on_too(family: Family) {
    let setup = Setup { forwarding: Forwarding::Nat, ..Setup::of(family) };
    resumed(&setup, all_options);
}

fn a_cookie_of_the_dead_engine_is_good(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let syn =
        Segment { options: all_options(), ..stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0) };
    stage.client(&syn);
    let cookie = stage.one_to_client();
    stage.balancer.set_now(stage.balancer.now() + 30_000);
    stage.balancer.restart(ALL);
    let clock = clock_of(&cookie).unwrap().0;
    let ack = stage.client_says(CLIENT_PORT, ACK, cookie.ack, cookie.seq.wrapping_add(1));
    let options = vec![crate::support::packet::Opt::Timestamps(1_005, clock)];
    stage.client(&Segment { options, ..ack });
    stage.round();
    assert_eq!(stage.one_to_server().flags, SYN);
    assert_eq!(stage.balancer.engine.counter(Counter::OkAck), 1);
}

fn a_client_that_was_opening_goes_past_the_next_engine(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    stage.server(&syn_ack(&syn, all_options()));
    // The frames of this round are lost with the engine.
    stage.balancer.work();
    stage.client(&data(&first, 0, b"ask"));
    assert!(stage.balancer.has_records());
    stage.balancer.restart(ALL);
    stage.round();
    stage.to_servers.clear();
    talk(&mut stage, &first, &syn);
    // The real server has not heard that it was accepted.
    stage.server(&syn_ack(&syn, all_options()));
    stage.round();
    assert_eq!(stage.one_to_server().ack, SERVER_ISN.wrapping_add(1));
}

fn sessions_of_a_server_that_is_gone_wait_for_it(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let pair = [establish(&mut stage, CLIENT_PORT), establish(&mut stage, CLIENT_PORT + 1)];
    let before = totals(&stage);
    let of = |number: u32, stage: &Stage| {
        let is_it = |(_, syn): &&(Segment, Segment)| {
            stage.family.server_number(syn.destination.0) == number
        };
        pair.iter().find(is_it).unwrap().clone()
    };
    let (first, syn) = of(1, &stage);
    stage.balancer.restart(0..1);
    stage.client(&data(&first, 0, b"lost"));
    assert!(stage.to_servers.is_empty());
    assert_eq!(stage.balancer.reason(Reason::NoServer), 1);
    let (other, its_syn) = of(0, &stage);
    talk(&mut stage, &other, &its_syn);
    assert_eq!(stage.balancer.engine.services()[0].servers.len(), 1);
    assert!(totals(&stage).in_packets > before.in_packets, "nothing is lost with the server");
    stage.balancer.restart(ALL);
    talk(&mut stage, &first, &syn);
}

fn a_handshake_with_a_server_that_is_gone_is_refused(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 1, ..Setup::of(family) });
    let (_, syn) = stage.open(CLIENT_PORT, all_options());
    stage.balancer.restart(0..0);
    stage.pass(100);
    assert_eq!(stage.one_to_client().flags & RST, RST);
    let reset = stage.one_to_server();
    assert_eq!((reset.flags, reset.source), (RST, syn.source));
    stage.balancer.assert_empty();
}

fn ports_in_use_are_not_given_again(family: Family) {
    let setup = Setup { servers: 1, ports: (5_000, 5_009), ..Setup::of(family) };
    let mut stage = Stage::new(&setup);
    let mut used = Vec::new();
    for at in 0..10 {
        let (_, syn) = establish(&mut stage, CLIENT_PORT + at);
        used.push(syn.source.1);
        stage.balancer.restart(0..1);
    }
    used.sort_unstable();
    assert_eq!(used, (5_000..5_010).collect::<Vec<_>>());
    stage.prove(CLIENT_PORT + 10, all_options());
    assert_eq!(stage.balancer.engine.counter(Counter::PortsExhausted), 1);
}

/// What a crash can leave: a slot with one entry, with none, entries to nothing, a tuple twice.
fn what_is_half_made_is_cleared(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = establish(&mut stage, CLIENT_PORT);
    let (lost, _) = establish(&mut stage, CLIENT_PORT + 1);
    let memory = std::rc::Rc::clone(&stage.balancer.memory);
    let live: Vec<_> = stage.balancer.engine.sessions(stage.balancer.now(), 0, 9);
    let index_of = |port: u16| live.iter().find(|(_, s)| s.ends.client.port == port).unwrap().0;
    let (whole, torn) = (index_of(CLIENT_PORT), index_of(CLIENT_PORT + 1));
    let entries = || memory.index().iter().flat_map(|bucket| &bucket.entries);
    for cell in entries() {
        let entry = Entry::from_bits(cell.load());
        if entry.is_some_and(|it| it.slot == torn && it.direction == Direction::Outbound) {
            cell.store(0);
        }
    }
    // A slot that nothing leads to, one that is a copy, and entries that lead to free slots.
    let (ghost, copy) = (&memory.slots()[40], &memory.slots()[41]);
    let word = Word { state: TcpState::Established, flags: flag::PROXIED, d: 1 };
    for slot in [ghost, copy] {
        slot.word.store(word.to_bits());
        slot.set_ends(&memory.slots()[whole as usize].ends());
    }
    let put = |bits| assert!(entries().any(|cell| cell.replace_if(0, bits)));
    put(Entry { tag: 9, direction: Direction::Inbound, slot: 50 }.to_bits());
    put(Entry { tag: 8, direction: Direction::Outbound, slot: 0x7fff_ffff }.to_bits());
    let stash = memory.index().last().unwrap();
    stash.entries[7].store(Entry { tag: 7, direction: Direction::Inbound, slot: whole }.to_bits());
    memory.settings().stashed.store(3);

    let adoption = stage.balancer.restart(ALL);
    let expected = Adoption {
        sessions: 1,
        services: 1,
        orphan_slots: 3,
        orphan_entries: 3,
        ..Adoption::default()
    };
    assert_eq!(adoption, expected);
    assert_eq!(stage.balancer.engine.counter(Counter::OrphanSlot), 3);
    assert_eq!(stage.balancer.engine.counter(Counter::OrphanEntry), 3);
    assert_eq!(entries().filter(|cell| cell.load() != 0).count(), 2);
    assert_eq!(memory.settings().stashed.load(), 0);
    talk(&mut stage, &first, &syn);
    stage.client(&data(&lost, 0, b"nobody"));
    assert!(stage.to_servers.is_empty());
    // What was freed is free once.
    for at in 10..80 {
        stage.prove(CLIENT_PORT + at, all_options());
        stage.to_client.clear();
    }
    let all = stage.balancer.engine.sessions(stage.balancer.now(), 0, 100);
    let clients: HashSet<_> = all.iter().map(|(_, session)| session.ends.client.port).collect();
    assert_eq!((all.len(), clients.len()), (61, 61), "63 but for two that rest");
    stage.pass(1_000_000);
    stage.balancer.assert_empty();
}

const TIMEOUT: u32 = 20_000;

fn persistent(family: Family) -> Setup {
    let netmask = match family {
        Family::V4 => Netmask::v4(u32::MAX),
        Family::V6 => Netmask::v6(128),
    };
    let persistence = Some(Persistence { timeout: TIMEOUT, netmask });
    Setup { persistence, servers: 3, ..Setup::of(family) }
}

fn templates(stage: &Stage) -> Vec<u32> {
    let servers = stage.balancer.engine.services().swap_remove(0).servers;
    servers.iter().map(|server| server.persistent).collect()
}

fn templates_go_on_with_their_sessions_and_times(family: Family) {
    let mut stage = Stage::new(&persistent(family));
    let (first, syn) = establish(&mut stage, CLIENT_PORT);
    stage.from = family.client() + 1;
    let second = stage.ask();
    stage.pass(10_000);
    let before = Model::of(&stage.balancer);
    let adoption = stage.balancer.restart(0..3);
    assert_eq!((adoption.sessions, adoption.templates), (1, 2));
    assert_eq!(Model::of(&stage.balancer), before);
    assert_eq!(stage.ask(), second, "and 20 s anew");
    stage.balancer.restart(0..3);
    stage.pass(11_000);
    assert_eq!(templates(&stage).iter().sum::<u32>(), 2, "one has a session, one a new time");
    assert_eq!(stage.ask(), second);
    // Its session is still one of its: it is given a minute at a time.
    stage.balancer.restart(0..3);
    stage.pass(70_000);
    assert_eq!(templates(&stage).iter().sum::<u32>(), 1);
    stage.from = family.client();
    assert_eq!(stage.ask(), family.server_number(syn.destination.0));
    stage.client(&Segment { flags: RST | ACK, ..data(&first, 0, b"") });
    stage.pass(72_000);
    assert_eq!(templates(&stage).iter().sum::<u32>(), 0);
    stage.balancer.assert_empty();
}

fn templates_of_nobody_are_freed(family: Family) {
    let mut stage = Stage::new(&persistent(family));
    let server = stage.ask();
    let memory = std::rc::Rc::clone(&stage.balancer.memory);
    // One of a number that no real server has, one that never ends.
    for (at, (server, deadline)) in (40..).zip([(9, 0), (server, u64::MAX)]) {
        let template = &memory.templates()[at];
        template.set_client((family.client() + at as u32).into());
        template.server.store(server);
        template.timeout.store(TIMEOUT);
        template.deadline.store(deadline);
        template.flags.store(Template::LIVE);
    }
    let adoption = stage.balancer.restart(0..3);
    assert_eq!((adoption.templates, adoption.orphan_templates), (2, 1));
    assert_eq!(stage.balancer.engine.counter(Counter::OrphanTemplate), 1);
    stage.pass(u64::from(TIMEOUT) + 100);
    assert_eq!(templates(&stage), [0; 3]);
    // As many as there is room for, each once.
    for at in 0..64 {
        stage.from = family.client() + at;
        stage.ask();
        stage.pass(100);
    }
    assert_eq!(templates(&stage).iter().sum::<u32>(), 64);
}

/// `ip_vs_unbind_dest`: with a lower threshold of 1 it is full until it has none.
fn a_real_server_that_is_full_stays_full(family: Family) {
    let mut stage = Stage::new(&Setup { thresholds: (3, 1), ..Setup::of(family) });
    let opened: Vec<_> = (0..6).map(|at| establish(&mut stage, CLIENT_PORT + at)).collect();
    let full = |stage: &Stage| -> Vec<_> {
        let servers = stage.balancer.engine.services().swap_remove(0).servers;
        servers.iter().map(|server| server.overloaded).collect()
    };
    let close = |stage: &mut Stage, (first, _): &(Segment, Segment)| {
        stage.client(&Segment { flags: RST | ACK, ..data(first, 0, b"") });
        stage.round();
        stage.pass(11_000);
        stage.to_servers.clear();
    };
    for session in &opened[..4] {
        close(&mut stage, session);
    }
    for _ in 0..2 {
        assert_eq!(full(&stage), [true, true]);
        let before = Model::of(&stage.balancer);
        stage.balancer.restart(ALL);
        assert_eq!(Model::of(&stage.balancer), before);
    }
    for (session, expected) in opened[4..].iter().zip([1, 0]) {
        close(&mut stage, session);
        let full = full(&stage);
        assert_eq!(full.iter().filter(|full| **full).count(), expected);
    }
    // One whose sessions a crash has torn is not full for ever.
    for at in 10..16 {
        establish(&mut stage, CLIENT_PORT + at);
    }
    assert_eq!(full(&stage), [true, true]);
    for cell in stage.balancer.memory.index().iter().flat_map(|bucket| &bucket.entries) {
        cell.store(0);
    }
    let adoption = stage.balancer.restart(ALL);
    assert_eq!((adoption.sessions, adoption.orphan_slots), (0, 6));
    assert_eq!(full(&stage), [false, false]);
}

/// Whoever watches a real server says when it is back; a daemon that comes back does not know it.
fn a_real_server_that_is_down_stays_down(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let (first, syn) = establish(&mut stage, CLIENT_PORT);
    let down = stage.family.server_number(syn.destination.0);
    stage.balancer.engine.set_health(0, down, Health::Down);
    stage.balancer.engine.settle(stage.balancer.now());
    stage.round();
    let before = Model::of(&stage.balancer);
    stage.balancer.restart(ALL);
    assert_eq!(Model::of(&stage.balancer), before);
    assert_eq!(stage.balancer.engine.health(0, down), Some(Health::Down));
    talk(&mut stage, &first, &syn);
    for _ in 0..4 {
        assert_ne!(stage.ask(), down);
    }
    stage.balancer.engine.set_health(0, down, Health::Up);
    stage.balancer.restart(ALL);
    assert_eq!(stage.balancer.engine.health(0, down), Some(Health::Up));
}

fn a_service_has_its_own_timeout_again(family: Family) {
    for timeout in [20_000, 2_000_000] {
        let mut stage = Stage::new(&Setup { timeout: Some(timeout), ..Setup::of(family) });
        establish(&mut stage, CLIENT_PORT);
        stage.pass(10_000);
        stage.balancer.restart(ALL);
        stage.pass(timeout - 10_000 - 100);
        assert_eq!(stage.balancer.engine.session_count(), 1);
        stage.pass(200);
        stage.balancer.assert_empty();
    }
}

/// A mark too few would hide a session, one too many would have buckets read for nothing.
fn the_filter_is_what_the_index_says(family: Family) {
    for marks in [0, 0xff] {
        let mut stage = Stage::new(&Setup::of(family));
        let pair = [establish(&mut stage, CLIENT_PORT), establish(&mut stage, CLIENT_PORT + 1)];
        let before = Model::of(&stage.balancer);
        for (number, filter) in (0..).zip(stage.balancer.memory.filter()) {
            (0..8).for_each(|at| filter.set_marks(number * 8 + at, marks));
        }
        // Beyond the index there is nothing to say.
        let buckets = stage.balancer.memory.index().len() as u32;
        for beyond in buckets..buckets.next_multiple_of(8) {
            stage.balancer.memory.filter()[beyond as usize / 8].set_marks(beyond, 0);
        }
        stage.balancer.restart(ALL);
        assert_eq!(Model::of(&stage.balancer), before);
        for (first, syn) in &pair {
            talk(&mut stage, first, syn);
        }
    }
}

fn rates_begin_anew_and_nothing_is_counted_twice(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let kept: Vec<_> = (0..3).map(|at| establish(&mut stage, CLIENT_PORT + at)).collect();
    for _ in 0..4 {
        for (first, syn) in &kept {
            talk(&mut stage, first, syn);
        }
        stage.pass(2_100);
        let before = totals(&stage);
        // XDP goes on without an engine.
        stage.balancer.set_now(stage.balancer.now() + 3_000);
        talk(&mut stage, &kept[0].0, &kept[0].1);
        stage.balancer.restart(ALL);
        let now = totals(&stage);
        assert_eq!(now.in_packets, before.in_packets + 1);
        let rates = stage.balancer.engine.services()[0].rates;
        assert_eq!(rates, Rates::default());
        stage.pass(2_000);
        let rates = stage.balancer.engine.services()[0].rates;
        assert_eq!(rates, Rates::default(), "what was before is in no rate");
        assert_eq!(totals(&stage), now);
    }
    for (first, _) in &kept {
        stage.client(&Segment { flags: RST | ACK, ..data(first, 0, b"") });
    }
    stage.round();
    stage.pass(11_000);
    let last = totals(&stage);
    assert_eq!(stage.balancer.engine.session_count(), 0);
    stage.balancer.restart(ALL);
    assert_eq!(totals(&stage), last);
}

fn late_records_are_for_nobody(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    let syn = stage.client_says(CLIENT_PORT, SYN, CLIENT_ISN, 0);
    stage.client(&syn);
    let cookie = stage.one_to_client();
    stage.client(&stage.client_says(CLIENT_PORT, ACK, cookie.ack, cookie.seq.wrapping_add(1)));
    stage.balancer.set_now(stage.balancer.now() + 64_001);
    stage.balancer.restart(ALL);
    stage.round();
    assert!(stage.to_servers.is_empty());
    assert_eq!(stage.balancer.engine.counter(Counter::RecordStale), 1);
}

/// No content of the tables makes an engine panic, neither at once nor later; and what is in order
/// survives beside what is not.
#[test]
fn garbage_is_taken_for_what_it_is() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let family = [Family::V4, Family::V6][seed as usize % 2];
        let mut stage = Stage::new(&Setup { sessions: 32, ..Setup::of(family) });
        let (first, syn) = establish(&mut stage, CLIENT_PORT);
        for at in 1..8 {
            stage.prove(CLIENT_PORT + at, all_options());
        }
        stage.to_servers.clear();
        let memory = std::rc::Rc::clone(&stage.balancer.memory);
        let kept = stage.balancer.engine.sessions(0, 0, 9);
        let kept = kept.iter().find(|(_, s)| s.ends.client.port == CLIENT_PORT).unwrap().0;
        let mut word = || random.u64();
        for (index, slot) in memory.slots().iter().enumerate().skip(1) {
            if index as u32 == kept || word() % 2 == 0 {
                continue;
            }
            // States and numbers that exist, half of the time.
            slot.word.store(if word() % 2 == 0 { word() } else { (word() & !0xff) | (word() % 9) });
            slot.service.store(word() as u32 % 3);
            slot.real_server.store(word() as u32 % 3);
            slot.scales.store(if word() % 2 == 0 { word() as u32 } else { 0x0007_0709 });
            slot.next_hop_in.store(word() as u32 % 5_000);
            slot.next_hop_out.store(word() as u32 % 5_000);
            for flow in [&slot.inbound, &slot.outbound] {
                flow.last_seen.store(word());
                flow.packets.store(word() >> 8);
                flow.data.store(word() as u32);
                flow.window.store(word() as u32);
            }
            slot.cookie.store(word() as u32);
        }
        for bucket in memory.index() {
            for cell in &bucket.entries {
                if cell.load() == 0 && word() % 4 == 0 {
                    cell.store(word() & 0xffff_ffff_8000_003f);
                }
            }
        }
        for record in memory.ledger() {
            if record.account().is_none() && word() % 3 == 0 {
                let address = memory.slots()[kept as usize].ends().real;
                let (service, server) = (word() as u32 % 4, word() as u32 % 4);
                record.set_account(Some(if word() % 2 == 0 {
                    Account::Service {
                        service: service + 1,
                        transport: seawall_fastpath::Transport::Tcp,
                        address,
                        proxied: true,
                    }
                } else {
                    Account::Server { service: service + 1, server, address }
                }));
            }
        }
        memory.settings().stashed.store(word() as u32);
        memory.settings().bucket_mask.store(word() as u32);
        stage.balancer.restart(ALL);
        talk(&mut stage, &first, &syn);
        stage.balancer.answers = false;
        // Where the frames of nonsense go is nobody's business.
        let end = stage.balancer.now() + 2_000_000;
        while stage.balancer.now() < end {
            let next = stage.balancer.next_round().clamp(stage.balancer.now() + 1, end);
            stage.balancer.set_now(next);
            stage.balancer.round();
        }
        stage.balancer.assert_empty();
    }
}
