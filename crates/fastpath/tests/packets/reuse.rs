//! New connections on the tuple of an old session (SPEC A1, A12).

use seawall_fastpath::Reason;
use seawall_fastpath::TcpState::{
    self, Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent, TimeWait,
};
use seawall_fastpath::layout::{RecordKind, switch};

use super::accept::ack_of;
use super::syn::{layouts, syn};
use crate::support::packet::{ACK, FIN, RST, SYN, Segment};
use crate::support::world::{GENERATION, SERVICE_ID, Session, UNPROXIED, World};

const OVER: [TcpState; 5] = [Close, TimeWait, FinWait, CloseWait, LastAck];

/// A session that a real cookie began, and the ACK that carried it.
fn old(world: &World, state: TcpState) -> (Session, Segment) {
    let ack = ack_of(world, &syn(&layouts()[2].1));
    (Session { state, cookie: ack.ack.wrapping_sub(1), ..Session::established() }, ack)
}

#[test]
fn a_syn_is_answered_in_every_state_but_established() {
    for state in [SynSent, FinWait, TimeWait, Close, CloseWait, LastAck] {
        let world = World::new();
        let (session, _) = old(&world, state);
        let slot = world.session(&session);
        assert_eq!(world.client_sends(&syn(&layouts()[2].1)).reason(), Reason::Cookie, "{state:?}");
        assert_eq!(world.slot(slot).state().state, state);
    }
}

/// B1: a SYN/ACK from a client opens nothing, whatever is left on its tuple.
#[test]
fn a_syn_ack_from_a_client_is_dropped_in_every_state() {
    for state in [SynSent, SynRecv, Established, FinWait, TimeWait, Close, CloseWait, LastAck] {
        for vip in [crate::support::world::PROXIED, UNPROXIED] {
            let world = World::new();
            let session = Session { state, vip, ..Session::established() };
            world.session(&session);
            let strange = Segment { flags: SYN | ACK, ..session.client_segment() };
            assert_eq!(world.client_sends(&strange).reason(), Reason::TcpDrop, "{state:?}");
        }
    }
}

#[test]
fn a_new_cookie_is_accepted_where_its_switch_is_on() {
    for state in OVER {
        for on in [false, true] {
            let world = World::new();
            let all = OVER.iter().fold(0, |all, state| all | switch::reuse(*state));
            let one = switch::reuse(state);
            world.switches(if on { one } else { all & !one }, all);
            let (session, _) = old(&world, state);
            let slot = world.session(&session);
            world.next_epoch();
            let ack = ack_of(&world, &Segment { seq: 0x7000_0000, ..syn(&layouts()[2].1) });
            let reason = world.client_sends(&ack).reason();
            if !on {
                assert_eq!(reason, Reason::ForwardIn, "{state:?}");
                continue;
            }
            assert_eq!(reason, Reason::Accepted, "{state:?}");
            let record = world.records().pop().expect("a record");
            let header = &record.header;
            assert_eq!(header.kind, RecordKind::Accepted as u16);
            assert_eq!((header.service, header.slot), (SERVICE_ID, slot));
            assert_eq!((header.generation, header.detail), (GENERATION, ack.ack >> 24));
            assert_eq!(world.slot(slot).inbound.packets.load(), 0);
            // What follows belongs to the new connection, not to the old session.
            let follower = Segment { seq: ack.seq + 500, payload: vec![1; 9], ..ack };
            assert_eq!(world.client_sends(&follower).reason(), Reason::Embryo);
        }
    }
}

/// DESIGN, "Splice arithmetic": in a half-closed session, which may go on for long, a segment that
/// fits is never tested; one in 2^23 would pass for a new handshake. In one that is over, nothing
/// can be lost.
#[test]
fn what_fits_a_half_closed_session_is_its_own() {
    for state in OVER {
        let over = state == Close || state == TimeWait;
        for (seq_by, ack_by, fits) in [
            (0, 0, true),
            (60_000, 0, true),
            (0, 60_000, true),
            (0, 0xffff_0001, true),
            // The client cannot have heard so much, or the real server so little.
            (0, 0x1000_0000, false),
            (0, 0xf000_0000, false),
            (0x1000_0000, 0, false),
        ] {
            let world = World::new();
            world.switches(OVER.iter().fold(0, |all, state| all | switch::reuse(*state)), 0);
            let ack = ack_of(&world, &syn(&layouts()[2].1));
            world.session(&Session {
                state,
                known_out: (ack.seq.wrapping_sub(seq_by), 60_000),
                known_in: (ack.ack.wrapping_sub(ack_by), 60_000),
                ..Session::established()
            });
            let wanted = if over || !fits { Reason::Accepted } else { Reason::ForwardIn };
            let reason = world.client_sends(&ack).reason();
            assert_eq!(reason, wanted, "{state:?} {seq_by:#x} {ack_by:#x}");
        }
    }
}

/// A slot that was given back between the look-up and now is none: a new connection loses nothing
/// because it meets the end of the one before.
#[test]
fn a_session_that_has_just_ended_is_none() {
    for known_out in [(0, 0), (0x1000_0000, 60_000)] {
        let world = World::new();
        let ack = ack_of(&world, &syn(&layouts()[2].1));
        let known_in = (ack.ack, 60_000);
        let ended =
            Session { state: TcpState::None, known_in, known_out, ..Session::established() };
        world.session(&ended);
        assert_eq!(world.client_sends(&syn(&layouts()[2].1)).reason(), Reason::Cookie);
        assert_eq!(world.client_sends(&ack).reason(), Reason::Accepted);
        let follower = Segment { seq: ack.seq + 500, payload: vec![1; 9], ..ack.clone() };
        assert_eq!(world.client_sends(&follower).reason(), Reason::Embryo);
        let forged = Segment { ack: ack.ack ^ 1, ..ack.clone() };
        assert_eq!(world.client_sends(&forged).reason(), Reason::BadAck);
        let reset = Segment { flags: RST, ..ack.clone() };
        assert_eq!(world.client_sends(&reset).reason(), Reason::TcpDrop);
        assert_eq!(world.real_server_sends(&ended.real_server_segment()).reason(), Reason::TcpDrop);
    }
}

/// The old session's own ACK carries a cookie that is still valid, and is still its own.
#[test]
fn the_old_cookie_is_not_accepted_again() {
    for state in [Close, TimeWait] {
        let world = World::new();
        let (session, ack) = old(&world, state);
        let slot = world.session(&session);
        assert_eq!(world.client_sends(&ack).reason(), Reason::ForwardIn, "{state:?}");
        assert_eq!(world.slot(slot).inbound.packets.load(), 1);
    }
}

#[test]
fn segments_of_the_old_session_go_on() {
    for state in [Close, TimeWait] {
        for flags in [ACK, ACK | FIN, RST, RST | ACK] {
            let world = World::new();
            let (session, _) = old(&world, state);
            world.session(&session);
            let late = Segment { flags, ..session.client_segment() };
            assert_eq!(world.client_sends(&late).reason(), Reason::ForwardIn, "{state:?}");
        }
    }
}

/// SPEC A12: ESTABLISHED is never reused, and a valid cookie in its data means nothing.
#[test]
fn an_established_session_is_never_reused() {
    let world = World::new();
    let (session, _) = old(&world, Established);
    world.session(&session);
    // Made by a box with the same keys and no such session.
    let ack = ack_of(&World::new(), &Segment { seq: 0x7000_0000, ..syn(&[]) });
    assert_eq!(world.client_sends(&ack).reason(), Reason::ForwardIn);
}

/// A reset never opens a connection, even with a valid cookie in its acknowledgment.
#[test]
fn a_reset_is_never_accepted() {
    let world = World::new();
    let (session, _) = old(&world, TimeWait);
    world.session(&session);
    let ack = ack_of(&world, &Segment { seq: 0x7000_0000, ..syn(&[]) });
    let reset = Segment { flags: RST | ACK, ..ack };
    assert_eq!(world.client_sends(&reset).reason(), Reason::ForwardIn);
}

#[test]
fn without_the_proxy_a_syn_goes_up_with_its_old_slot() {
    let world = World::new();
    let session = Session { state: TimeWait, vip: UNPROXIED, ..Session::established() };
    let slot = world.session(&session);
    let syn = Segment { destination: UNPROXIED, ..syn(&[]) };
    assert_eq!(world.client_sends(&syn).reason(), Reason::PuntUnproxied);
    let header = world.records().pop().expect("a record").header;
    assert_eq!((header.slot, header.generation), (slot, GENERATION));
}
