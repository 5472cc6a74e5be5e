//! The session index only hints; the slot proves identity (DESIGN, "The session array").

use seawall_fastpath::layout::{Entry, Filter, first_bucket, mark, second_bucket, tag};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Direction, Reason, Transport, Tuple};

use crate::support::world::{CLIENT, PROXIED, Session, World, endpoint};

fn numbered(at: u16) -> Session {
    Session {
        client: (CLIENT.0, 20_000 + at),
        local: (crate::support::world::LOCAL.0, 6_000 + at),
        ..Session::established()
    }
}

fn tuple(session: &Session) -> Tuple {
    Tuple { source: endpoint(session.client), destination: endpoint(session.vip) }
}

/// A slot for `session` that no entry leads to.
fn hidden(world: &World, index: u32, session: &Session) {
    session.fill(world.slot(index));
}

fn found(world: &World, session: &Session) -> bool {
    match world.client_sends(&session.client_segment()).reason() {
        Reason::ForwardIn => true,
        Reason::BadAck => false,
        other => panic!("{other:?}"),
    }
}

struct Place {
    first: u32,
    second: u32,
    stash: u32,
    tag: u32,
}

fn place(world: &World, session: &Session) -> Place {
    let hash = world.hash(Transport::Tcp, &tuple(session));
    let mask = world.tables.memory.settings().bucket_mask.load();
    let (first, second) = (first_bucket(hash, mask), second_bucket(hash, mask));
    Place { first, second, stash: mask + 1, tag: tag(hash) }
}

const ENTRY: Entry = Entry { tag: 0, direction: Direction::Inbound, slot: 1 };

#[test]
fn both_buckets_are_searched() {
    let pick: [fn(&Place) -> u32; 2] = [|place| place.first, |place| place.second];
    for bucket in pick {
        let world = World::new();
        let session = numbered(1);
        hidden(&world, 1, &session);
        let place = place(&world, &session);
        assert_ne!(place.first, place.second);
        assert!(!found(&world, &session));
        assert!(world.put(bucket(&place), Entry { tag: place.tag, ..ENTRY }));
        assert!(found(&world, &session));
    }
}

#[test]
fn a_bucket_is_read_only_if_the_filter_has_the_mark() {
    let world = World::new();
    let session = numbered(1);
    hidden(&world, 1, &session);
    let place = place(&world, &session);
    assert!(world.put(place.first, Entry { tag: place.tag, ..ENTRY }));
    let filter = &world.tables.memory.filter()[Filter::word(place.first) as usize];
    filter.set_marks(place.first, !mark(place.tag));
    assert!(!found(&world, &session));
    filter.set_marks(place.first, mark(place.tag));
    assert!(found(&world, &session));
}

#[test]
fn the_stash_is_searched_only_while_something_is_in_it() {
    let world = World::new();
    let session = numbered(1);
    hidden(&world, 1, &session);
    let place = place(&world, &session);
    // Where the filter rules a bucket out, the stash is read in its place.
    for bucket in [place.first, place.second] {
        assert!(world.put(bucket, Entry { tag: place.tag, slot: 2, ..ENTRY }));
    }
    assert!(world.put(place.stash, Entry { tag: place.tag, ..ENTRY }));
    assert!(!found(&world, &session));
    world.tables.memory.settings().stashed.store(1);
    assert!(found(&world, &session));
}

/// Seven entries of the same tag, all of other sessions, some of no session at all.
#[test]
fn entries_with_the_same_tag_are_skipped() {
    let world = World::new();
    let wanted = numbered(0);
    let place = place(&world, &wanted);
    for at in 1..=5 {
        hidden(&world, at, &numbered(at as u16));
        assert!(world.put(place.first, Entry { tag: place.tag, slot: at, ..ENTRY }));
    }
    for slot in [0x7fff_ffff, 0] {
        let entry = Entry { tag: place.tag, slot, direction: Direction::Outbound };
        assert!(world.put(place.first, entry));
    }
    assert!(!found(&world, &wanted));
    hidden(&world, 6, &wanted);
    assert!(world.put(place.first, Entry { tag: place.tag, slot: 6, ..ENTRY }));
    assert!(found(&world, &wanted));
    let slot = world.slot(6);
    assert_eq!(slot.inbound.packets.load(), 1);
    for at in 1..=5 {
        assert_eq!(world.slot(at).inbound.packets.load(), 0, "{at}");
    }
}

#[test]
fn a_stale_entry_leads_nowhere() {
    let world = World::new();
    let old = numbered(1);
    let index = world.session(&old);
    assert!(found(&world, &old));
    let new = numbered(2);
    new.fill(world.slot(index));
    assert!(!found(&world, &old), "the slot is another session's now");
    assert!(!found(&world, &new), "and nothing leads to it yet");
    world.publish(&tuple(&new), Direction::Inbound, index);
    assert!(found(&world, &new));
}

/// An entry with the wrong direction must not match the tuple of the other side.
#[test]
fn the_direction_is_part_of_the_entry() {
    let world = World::new();
    let session = numbered(1);
    hidden(&world, 1, &session);
    let place = place(&world, &session);
    let entry = Entry { tag: place.tag, direction: Direction::Outbound, ..ENTRY };
    assert!(world.put(place.first, entry));
    assert!(!found(&world, &session));
}

#[test]
fn each_field_of_the_tuple_is_compared() {
    let session = numbered(1);
    for (client, vip) in [
        ((CLIENT.0 ^ 1, session.client.1), PROXIED),
        ((CLIENT.0, session.client.1 ^ 1), PROXIED),
        (session.client, (PROXIED.0 ^ 1, PROXIED.1)),
        (session.client, (PROXIED.0, 83)),
    ] {
        let world = World::new();
        let other = Session { client, vip, ..session };
        hidden(&world, 1, &other);
        let place = place(&world, &session);
        assert!(world.put(place.first, Entry { tag: place.tag, ..ENTRY }));
        assert!(!found(&world, &session), "{client:?} {vip:?}");
    }
}

#[test]
fn a_thousand_sessions_find_themselves() {
    let world = World::new();
    let sessions: Vec<_> = (0..1_000).map(numbered).collect();
    let slots: Vec<_> = sessions.iter().map(|session| world.session(session)).collect();
    for (session, slot) in sessions.iter().zip(&slots) {
        assert!(found(&world, session));
        let out = world.real_server_sends(&session.real_server_segment());
        assert_eq!(out.reason(), Reason::ForwardOut);
        let slot = world.slot(*slot);
        assert_eq!((slot.inbound.packets.load(), slot.outbound.packets.load()), (1, 1));
    }
}
