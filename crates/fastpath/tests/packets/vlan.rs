//! VLAN tags: up to two are read, kept on an answer, and changed between sides (DESIGN, "Facts
//! about the ground").

use seawall_fastpath::layout::RecordKind;
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Direction, Reason};
use seawall_wire::ethernet::Tags;

use super::syn::{layouts, syn};
use crate::support::packet::Segment;
use crate::support::splice::expected;
use crate::support::world::{HOP_IN, HOP_OUT, INSIDE, OUTSIDE, Session, World};

/// None, one, and two tags, with priorities.
fn stacks() -> [Vec<u32>; 3] {
    [vec![], vec![0x8100_6064], vec![0x88a8_0fff, 0x8100_e001]]
}

fn tags(stack: &[u32]) -> Tags {
    Tags {
        outer: stack.first().copied().unwrap_or_default(),
        inner: stack.get(1).copied().unwrap_or_default(),
    }
}

/// The flood of a tagged network meets the same proxy.
#[test]
fn an_answer_bears_the_tags_of_its_syn() {
    for stack in stacks() {
        for (name, options) in layouts() {
            let world = World::new();
            let plain = syn(&options);
            let tagged = Segment { tags: stack.clone(), ..plain.clone() };
            let answer = world.client_sends(&tagged).sent(OUTSIDE);
            assert_eq!(answer.tags, stack, "{name}");
            let untagged = world.client_sends(&plain).sent(OUTSIDE);
            assert_eq!(answer, Segment { tags: stack.clone(), ..untagged }, "{name}");
        }
    }
}

/// What the engine must know to answer goes up with the frame.
#[test]
fn a_tagged_ack_goes_up_whole() {
    for stack in stacks() {
        let world = World::new();
        let ack = super::accept::ack_of(&world, &syn(&layouts()[2].1));
        let ack = Segment { tags: stack, ..ack };
        assert_eq!(world.client_sends(&ack).reason(), Reason::Accepted);
        let record = world.records().pop().expect("a record");
        assert_eq!(record.header.kind, RecordKind::Accepted as u16);
        assert_eq!(record.frame, ack.bytes());
    }
}

#[test]
fn each_side_has_its_own_tags() {
    for stack_in in stacks() {
        for stack_out in stacks() {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let world = World::new();
                let session = Session::established();
                world.session(&session);
                let (hop, ingress, egress, base) = match direction {
                    Direction::Inbound => (HOP_IN, OUTSIDE, INSIDE, session.client_segment()),
                    Direction::Outbound => {
                        (HOP_OUT, INSIDE, OUTSIDE, session.real_server_segment())
                    }
                };
                world.tables.memory.next_hops()[hop as usize].set_tags(tags(&stack_out));
                // Full to the MTU: tags do not count.
                let segment =
                    Segment { payload: vec![7; super::translation::FULL], ..base.clone() };
                let arriving = Segment { tags: stack_in.clone(), ..segment.clone() };
                let ran = world.run(ingress, &arriving.bytes());
                let leaving =
                    Segment { tags: stack_out.clone(), ..expected(&segment, direction, &session) };
                assert_eq!(ran.sent(egress), leaving);
                assert_eq!(ran.bytes, leaving.bytes());
            }
        }
    }
}

#[test]
fn a_third_tag_is_not_looked_behind() {
    let world = World::new();
    let tags = vec![0x88a8_0001, 0x8100_0002, 0x8100_0003];
    let syn = Segment { tags, ..syn(&[]) };
    assert_eq!(world.client_sends(&syn).reason(), Reason::PassNotIp);
}

#[test]
fn a_frame_that_ends_in_its_tags_is_not_ip() {
    for stack in stacks() {
        let frame = Segment { tags: stack.clone(), ..syn(&[]) }.bytes();
        for len in 0..14 + stack.len() * 4 {
            assert_eq!(World::new().run(OUTSIDE, &frame[..len]).reason(), Reason::PassNotIp);
        }
    }
}

/// A driver without headroom for the tags that the other side needs.
#[test]
fn a_frame_without_room_for_tags_is_dropped() {
    use seawall_fastpath::native::Buffer;
    let world = World::new();
    let session = Session::established();
    world.session(&session);
    world.tables.memory.next_hops()[HOP_IN as usize].set_tags(tags(&stacks()[2]));
    let mut frame = session.client_segment().bytes();
    let len = frame.len();
    let mut buffer = Buffer::new(&mut frame, len);
    let verdict = seawall_fastpath::process(&mut buffer, OUTSIDE, &world.tables);
    assert_eq!(verdict.reason, Reason::ResizeFailed);
}
