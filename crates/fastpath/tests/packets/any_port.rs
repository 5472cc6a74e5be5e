//! Services of port 0, which take every port of their VIP that has no service of its own.

use std::cell::Cell;

use seawall_fastpath::cell::Cell64;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Bucket, Filter, InterfaceEntry, NextHop, RecordHeader, RecordKind,
    ServiceEntry, ServiceKey, Settings, Slot, switch,
};
use seawall_fastpath::native::{Buffer, NativeTables};
use seawall_fastpath::{Frame, Reason, Ring, Sessions, Tables, TcpState, process};

use crate::support::packet::{ACK, Ip, SYN, Segment};
use crate::support::world::{
    INSIDE, LOCAL, OUTSIDE, PROXIED, SERVICE_ID, Session, UNPROXIED, UNUSABLE, VIP, World,
    from_client,
};

/// No service of its own.
const OTHER: (Ip, u16) = (VIP, 7_000);
const USABLE: u32 = ServiceEntry::SYNPROXY | ServiceEntry::USABLE;

fn world(flags: u32) -> World {
    let world = World::new();
    world.add_service((VIP, 0), flags);
    world.switches(switch::ANY_PORT, 0);
    world
}

fn syn(to: (Ip, u16)) -> Segment {
    Segment { flags: SYN, ack: 0, ..from_client(to) }
}

#[test]
fn the_proxy_answers_on_every_port_and_takes_its_cookies() {
    let world = world(USABLE);
    for port in [1, 22, 7_000, 65_535] {
        let to = (VIP, port);
        let ran = world.client_sends(&syn(to));
        assert_eq!(ran.reason(), Reason::Cookie);
        let answer = ran.sent(OUTSIDE);
        assert_eq!(answer.source, to);
        let seq = answer.ack;
        let ack = Segment { flags: ACK, seq, ack: answer.seq.wrapping_add(1), ..from_client(to) };
        assert_eq!(world.client_sends(&ack).reason(), Reason::Accepted);
        let record = world.records().pop().expect("a record");
        assert_eq!(record.header.kind, RecordKind::Accepted as u16);
        assert_eq!(record.header.service, SERVICE_ID);
        let forged = Segment { ack: ack.ack ^ 8, ..ack };
        assert_eq!(world.client_sends(&forged).reason(), Reason::BadAck);
    }
}

#[test]
fn a_service_of_the_port_comes_first() {
    let world = world(ServiceEntry::USABLE);
    for (to, reason) in [
        (PROXIED, Reason::Cookie),
        (UNPROXIED, Reason::PuntUnproxied),
        (UNUSABLE, Reason::NoDestination),
        (OTHER, Reason::PuntUnproxied),
        ((LOCAL.0, OTHER.1), Reason::LocalNoSession),
        ((LOCAL.0, 22), Reason::PassNotOurs),
    ] {
        assert_eq!(world.client_sends(&syn(to)).reason(), reason, "{to:?}");
    }
    world.switches(0, switch::ANY_PORT);
    assert_eq!(world.client_sends(&syn(OTHER)).reason(), Reason::PassNotOurs);
}

#[test]
fn overloaded_services_drop_under_a_name_of_their_own() {
    let world = world(ServiceEntry::SYNPROXY | ServiceEntry::OVERLOADED);
    assert_eq!(world.client_sends(&syn(OTHER)).reason(), Reason::Overloaded);
    world.add_service((VIP, 0), ServiceEntry::OVERLOADED);
    assert_eq!(world.client_sends(&syn(OTHER)).reason(), Reason::OverloadedUnproxied);
    world.add_service((VIP, 0), USABLE | ServiceEntry::OVERLOADED);
    assert_eq!(world.client_sends(&syn(OTHER)).reason(), Reason::Cookie);
}

#[test]
fn a_session_that_is_over_gives_way_there_too() {
    let world = world(USABLE);
    let session = Session { vip: OTHER, state: TcpState::TimeWait, ..Session::established() };
    world.session(&session);
    let ran = world.client_sends(&Segment { flags: SYN, ack: 0, ..session.client_segment() });
    assert_eq!(ran.reason(), Reason::Cookie);
}

/// Tables that count how often they are asked for a service.
struct Asked<'a>(&'a NativeTables, Cell<u32>);

impl Sessions for Asked<'_> {
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.0.bucket(index)
    }

    fn filter(&self, word: u32) -> Option<&Filter> {
        self.0.filter(word)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.0.slot(index)
    }
}

impl Tables for Asked<'_> {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn settings(&self) -> Option<&Settings> {
        self.0.settings()
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        self.1.set(self.1.get() + 1);
        self.0.service(key)
    }

    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        self.0.address(key)
    }

    fn interface(&self, index: u32) -> Option<InterfaceEntry> {
        self.0.interface(index)
    }

    fn next_hop(&self, index: u32) -> Option<&NextHop> {
        self.0.next_hop(index)
    }

    fn embryo(&self, hash: u64) -> Option<&Cell64> {
        self.0.embryo(hash)
    }

    fn punt(&self, ring: Ring, header: &RecordHeader, frame: &mut impl Frame) -> bool {
        self.0.punt(ring, header, frame)
    }

    fn count(&self, reason: Reason) {
        self.0.count(reason);
    }
}

/// What XDP does for every packet must not cost more for a feature that few use.
#[test]
fn only_a_miss_that_may_be_a_clients_costs_a_second_look_up() {
    let world = world(USABLE);
    let established = Session::established();
    let other = Session {
        vip: OTHER,
        client: (established.client.0, 40_001),
        local: (LOCAL.0, 5_001),
        ..established
    };
    world.session(&established);
    world.session(&other);
    let asked = |interface: u32, segment: &Segment| {
        let mut bytes = segment.bytes();
        let len = bytes.len();
        bytes.resize(len + 256, 0);
        let tables = Asked(&world.tables, Cell::new(0));
        let _ = process(&mut Buffer::new(&mut bytes, len), interface, &tables);
        tables.1.get()
    };
    assert_eq!(asked(OUTSIDE, &syn(PROXIED)), 1);
    assert_eq!(asked(OUTSIDE, &established.client_segment()), 1);
    assert_eq!(asked(INSIDE, &established.real_server_segment()), 1);
    assert_eq!(asked(INSIDE, &other.real_server_segment()), 1);
    assert_eq!(asked(OUTSIDE, &other.client_segment()), 2);
    assert_eq!(asked(OUTSIDE, &syn(OTHER)), 2);
    world.switches(0, switch::ANY_PORT);
    assert_eq!(asked(OUTSIDE, &syn(OTHER)), 1);
}
