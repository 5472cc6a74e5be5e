//! How segments move a session's state (SPEC C5, A1; IPVS's table).

use seawall_fastpath::TcpState::{self, Close, CloseWait, Established, FinWait, SynRecv, TimeWait};
use seawall_fastpath::layout::{RecordKind, Word, flag};
use seawall_fastpath::{Direction, Reason};

use crate::support::packet::{ACK, FIN, IP, PSH, RST, SYN, Segment};
use crate::support::random::Random;
use crate::support::world::{GENERATION, Ran, Session, TCP, World};
use Direction::{Inbound, Outbound};

const WINDOW: u32 = 10_000;

fn session(state: TcpState) -> Session {
    let base = Session::established();
    Session {
        state,
        known_in: (base.known_in.0, WINDOW),
        known_out: (base.known_out.0, WINDOW),
        ..base
    }
}

/// A segment that starts `offset` after what the other side last acknowledged.
fn segment(session: &Session, direction: Direction, flags: u16, offset: i64) -> Segment {
    let base = match direction {
        Inbound => session.client_segment(),
        Outbound => session.real_server_segment(),
    };
    Segment { flags, seq: base.seq.wrapping_add(offset as u32), ..base }
}

fn send(world: &World, direction: Direction, segment: &Segment) -> Ran {
    let ran = match direction {
        Inbound => world.client_sends(segment),
        Outbound => world.real_server_sends(segment),
    };
    let forwarded = [Reason::ForwardIn, Reason::ForwardOut][direction as usize];
    assert_eq!(ran.reason(), forwarded, "{segment:?}");
    ran
}

/// What the state is after such a segment, with the record that must say so.
fn after(state: TcpState, direction: Direction, flags: u16, offset: i64) -> TcpState {
    let world = World::new();
    let session = session(state);
    let slot = world.session(&session);
    let punted = || {
        let slot = world.slot(slot);
        (slot.inbound.punted.load(), slot.outbound.punted.load())
    };
    world.slot(slot).inbound.punted.store(5);
    world.slot(slot).outbound.punted.store(6);
    send(&world, direction, &segment(&session, direction, flags, offset));
    let now = world.slot(slot).state();
    assert_eq!((now.d, now.flags), (session.numbers.d, session.numbers.flags));
    let records = world.records();
    if now.state == state {
        assert!(records.is_empty());
        assert_eq!(punted(), (5, 6));
    } else {
        assert_eq!(records.len(), 1);
        let header = &records[0].header;
        assert_eq!((header.kind, header.frame_len), (RecordKind::StateChanged as u16, 0));
        assert_eq!((header.slot, header.generation), (slot, GENERATION));
        assert_eq!(header.detail, now.state as u32);
        assert_eq!(punted(), (0, 0), "counted between changes of state");
    }
    now.state
}

#[test]
fn resets_count_inside_the_window_only() {
    let window = i64::from(WINDOW);
    for direction in [Inbound, Outbound] {
        for (offset, inside) in [
            (-1, false),
            (-2_000_000_000, false),
            (0, true),
            (1, true),
            (window, true),
            (window + 2, false),
            (1 << 31, false),
            (2_000_000_000, false),
        ] {
            for flags in [RST, RST | ACK] {
                let expected = if inside { Close } else { Established };
                let state = after(Established, direction, flags, offset);
                assert_eq!(state, expected, "{direction:?} {offset}");
            }
        }
    }
}

#[test]
fn fins_count_inside_the_window_only() {
    let window = i64::from(WINDOW);
    for (direction, closed) in [(Inbound, CloseWait), (Outbound, FinWait)] {
        for (offset, inside) in [
            (-2, false),
            (-1, true),
            (0, true),
            (window, true),
            (window + 2, false),
            (1 << 30, false),
        ] {
            let expected = if inside { closed } else { Established };
            let state = after(Established, direction, FIN | ACK, offset);
            assert_eq!(state, expected, "{direction:?} {offset}");
        }
    }
}

/// IPVS, `tcp_states`, for segments inside the window.
#[test]
fn closing_goes_as_in_ipvs() {
    for (from, direction, flags, to) in [
        (Established, Inbound, ACK | PSH, Established),
        (CloseWait, Inbound, FIN | ACK, CloseWait),
        (CloseWait, Outbound, ACK, CloseWait),
        (CloseWait, Outbound, FIN | ACK, TimeWait),
        (FinWait, Outbound, FIN | ACK, FinWait),
        (FinWait, Inbound, FIN | ACK, TimeWait),
        (FinWait, Inbound, RST, Close),
        (CloseWait, Outbound, RST, Close),
        (TimeWait, Inbound, FIN | ACK, TimeWait),
        (TimeWait, Outbound, FIN | ACK, TimeWait),
        (TimeWait, Inbound, RST, Close),
        (TimeWait, Outbound, RST, TimeWait),
        (Close, Inbound, ACK, Close),
        (Close, Outbound, ACK, Close),
        (Close, Inbound, FIN | ACK, Close),
        (SynRecv, Outbound, RST | ACK, Close),
    ] {
        assert_eq!(after(from, direction, flags, 0), to, "{from:?} {direction:?} {flags:#x}");
    }
}

/// SPEC B6: a spoofed SYN and a spoofed ACK make no established session.
#[test]
fn without_the_proxy_only_an_ack_of_the_real_servers_isn_establishes() {
    const RS_ISN: u32 = u32::MAX - 1;
    for (answered, direction, ack, to) in [
        (false, Inbound, RS_ISN.wrapping_add(1), SynRecv),
        (true, Inbound, RS_ISN.wrapping_add(1), Established),
        (true, Inbound, RS_ISN.wrapping_add(1000), Established),
        (true, Inbound, RS_ISN, SynRecv),
        (true, Inbound, RS_ISN.wrapping_add(1 << 17), SynRecv),
        (true, Outbound, RS_ISN.wrapping_add(1), SynRecv),
    ] {
        let world = World::new();
        let session = session(SynRecv);
        let index = world.session(&session);
        let slot = world.slot(index);
        slot.cookie.store(RS_ISN);
        let flags = if answered { flag::ANSWERED } else { 0 };
        slot.word.publish(Word { state: SynRecv, flags, d: 0 }.to_bits());
        let segment = Segment { ack, ..segment(&session, direction, ACK, 0) };
        send(&world, direction, &segment);
        assert_eq!(slot.state().state, to, "{answered} {direction:?} {ack:#x}");
    }
}

#[test]
fn both_sides_close_at_once() {
    for first in [Inbound, Outbound] {
        let world = World::new();
        let session = session(Established);
        let slot = world.session(&session);
        let other = if first == Inbound { Outbound } else { Inbound };
        send(&world, first, &segment(&session, first, FIN | ACK, 0));
        send(&world, other, &segment(&session, other, FIN | ACK, 0));
        assert_eq!(world.slot(slot).state().state, TimeWait);
        let details: Vec<_> = world.records().iter().map(|it| it.header.detail).collect();
        let middle = if first == Inbound { CloseWait } else { FinWait };
        assert_eq!(details, [middle as u32, TimeWait as u32]);
    }
}

/// The window that counts is the last one the other side sent, in bytes.
#[test]
fn the_window_follows_the_other_side() {
    for (direction, other) in [(Inbound, Outbound), (Outbound, Inbound)] {
        let world = World::new();
        let session = session(Established);
        let slot = world.session(&session);
        let mut ack = segment(&session, other, ACK, 0);
        ack.ack = ack.ack.wrapping_add(1_000);
        ack.window = 3;
        send(&world, other, &ack);
        // Older than what is known, so it changes nothing.
        ack.ack = ack.ack.wrapping_sub(500);
        ack.window = 60_000;
        send(&world, other, &ack);
        let open = 1_000 + (3 << 7);
        for (offset, state) in [(open + 2, Established), (999, Established), (open, Close)] {
            send(&world, direction, &segment(&session, direction, RST, offset));
            assert_eq!(world.slot(slot).state().state, state, "{direction:?} {offset}");
        }
    }
}

/// Blind resets over all of the sequence space: 65,536 of 2^32 numbers are in the window, so of
/// 100,000 tries 1.5 succeed.
#[test]
fn blind_resets_and_fins_rarely_succeed() {
    let world = World::new();
    let session = Session {
        known_in: (u32::MAX - 100, 65_535),
        known_out: (u32::MAX - 100, 65_535),
        ..Session::established()
    };
    let slot = world.session(&session);
    let mut random = Random(3);
    let mut changed = 0;
    for _ in 0..100_000 {
        let direction = random.pick(&[Inbound, Outbound]);
        let flags = random.pick(&[RST, RST | ACK, FIN | ACK]);
        let blind = segment(&session, direction, flags, i64::from(random.u32()));
        send(&world, direction, &Segment { window: 511, ..blind });
        if world.slot(slot).state().state != Established {
            changed += 1;
            session.fill(world.slot(slot));
        }
    }
    assert!(changed <= 8, "{changed}");
}

/// SPEC A1: at most one SYN a second goes to the real server of an established session.
#[test]
fn a_syn_on_an_established_session_is_forwarded_once_a_second() {
    let world = World::new();
    let session = session(Established);
    let slot = world.session(&session);
    let syn = Segment { flags: SYN, seq: 7, ack: 0, ..session.client_segment() };
    for (wait, reason) in [
        (0, Reason::SynEstablished),
        (0, Reason::SynLimited),
        (999, Reason::SynLimited),
        (1, Reason::SynEstablished),
        (1, Reason::SynLimited),
        (5_000, Reason::SynEstablished),
    ] {
        world.wait(wait);
        assert_eq!(world.client_sends(&syn).reason(), reason, "{wait}");
        assert_eq!(world.slot(slot).state().state, Established);
    }
    // The challenge ACK passes, and the RST that answers it ends the session.
    let challenge = segment(&session, Outbound, ACK, 0);
    send(&world, Outbound, &challenge);
    let reset = Segment {
        seq: challenge.ack.wrapping_sub(session.numbers.f),
        flags: RST,
        ack: 0,
        ..session.client_segment()
    };
    send(&world, Inbound, &reset);
    assert_eq!(world.slot(slot).state().state, Close);
}

/// A stream and its acknowledgments in both directions, then a close: last-seen times, counters
/// and windows follow.
#[test]
fn an_ordinary_connection() {
    let world = World::new();
    let session = session(Established);
    let slot = world.session(&session);
    let (mut client, mut server) = (session.client_segment(), session.real_server_segment());
    let headers = (TCP - IP + 20) as u64;
    for round in 1..=100u64 {
        world.wait(10);
        client.payload = vec![1; 900];
        send(&world, Inbound, &client);
        client.seq = client.seq.wrapping_add(900);
        server.ack = server.ack.wrapping_add(900);
        server.payload = vec![2; 1_400];
        send(&world, Outbound, &server);
        server.seq = server.seq.wrapping_add(1_400);
        client.ack = client.ack.wrapping_add(1_400);
        let slot = world.slot(slot);
        assert_eq!((slot.inbound.packets.load(), slot.outbound.packets.load()), (round, round));
        assert_eq!(slot.inbound.bytes.load(), round * (900 + headers));
        assert_eq!(slot.outbound.bytes.load(), round * (1_400 + headers));
        assert_eq!(slot.inbound.last_seen.load(), 10_000_000 + round * 10);
    }
    client.flags = FIN | ACK;
    client.payload.clear();
    send(&world, Inbound, &client);
    assert_eq!(world.slot(slot).state().state, CloseWait);
    server.flags = FIN | ACK;
    server.ack = server.ack.wrapping_add(1);
    send(&world, Outbound, &server);
    assert_eq!(world.slot(slot).state().state, TimeWait);
}

/// SPEC C5: anybody can send a SYN, and nothing tells a good one, so none moves a session on; IPVS's
/// table would lead a half-closed one to SYN_RECV, where no segment is held against a window.
#[test]
fn a_syn_moves_no_session() {
    use crate::support::world::UNPROXIED;
    for state in [Established, FinWait, CloseWait, TcpState::LastAck, TimeWait, SynRecv] {
        for seq in [0, 7, 0x8000_0000] {
            let world = World::new();
            let session = Session { state, vip: UNPROXIED, ..Session::established() };
            let slot = world.session(&session);
            let syn = Segment { flags: SYN, seq, ack: 0, ..session.client_segment() };
            world.client_sends(&syn);
            let memory = &world.tables.memory;
            use seawall_fastpath::native::{Buffer, Memory};
            // As the engine passes it on.
            let mut bytes = syn.bytes();
            let len = bytes.len();
            let mut frame = Buffer::new(&mut bytes, len);
            let packet = seawall_fastpath::packet::parse(&mut frame, len).unwrap();
            let hop = &memory.next_hops()[crate::support::world::HOP_IN as usize];
            let (slot, direction) = (world.slot(slot), Direction::Inbound);
            let spliced =
                seawall_fastpath::splice::splice(&mut frame, &packet, direction, slot, hop, 1);
            assert_eq!(spliced.unwrap().changed, None);
            assert_eq!(slot.state().state, state);
        }
    }
}

/// While early data is about to be sent, what follows goes the same way; the real server's segments
/// need not.
#[test]
fn clients_of_opening_sessions_go_through_the_engine() {
    let world = World::new();
    let session = session(Established);
    let slot = world.session(&session);
    let word = world.slot(slot).state();
    let opening = Word { flags: word.flags | flag::OPENING, ..word };
    world.slot(slot).word.store(opening.to_bits());
    for flags in [ACK, ACK | PSH, FIN | ACK, RST] {
        let ran = world.client_sends(&segment(&session, Inbound, flags, 0));
        assert_eq!(ran.reason(), Reason::PuntClient, "{flags}");
    }
    assert!(world.records().iter().all(|it| it.header.kind == RecordKind::FromClient as u16));
    assert_eq!(world.slot(slot).state(), opening);
    send(&world, Outbound, &segment(&session, Outbound, ACK, 0));
}

/// IPVS: a connection whose destination is not available. Its real server may finish what it says.
#[test]
fn clients_of_removed_real_servers_are_not_heard() {
    for state in [Established, FinWait, TimeWait, Close, CloseWait] {
        let world = World::new();
        let session = session(state);
        let slot = world.session(&session);
        let word = world.slot(slot).state();
        let removed = Word { flags: word.flags | flag::NO_SERVER, ..word };
        world.slot(slot).word.store(removed.to_bits());
        for flags in [ACK, FIN | ACK, RST] {
            let ran = world.client_sends(&segment(&session, Inbound, flags, 0));
            assert_eq!(ran.reason(), Reason::NoServer, "{state:?} {flags}");
        }
        assert_eq!(world.slot(slot).state(), removed);
        assert_eq!(world.slot(slot).inbound.packets.load(), 0);
        send(&world, Outbound, &segment(&session, Outbound, ACK, 0));
    }
}
