//! Two ends of a veth pair: the injector at one, a packet socket that listens at the other.

use std::os::fd::OwnedFd;

use super::{BATCH_FRAMES, InjectCounters, Injector, MAX_FRAME, packet_socket};
use crate::Error;
use crate::netlink::{Netlink, VethSpec};
use crate::testing::in_namespace;

/// An EtherType for local experiments (IEEE 802, `ETH_P_802_EX1`), which no stack answers.
const EXPERIMENT: u16 = 0x88b5;

fn frame(number: u16, len: usize) -> Vec<u8> {
    let mut frame = vec![0x55; len];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&EXPERIMENT.to_be_bytes());
    frame[14..16].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A pair that is up, as the indexes of its ends.
fn pair(netlink: &mut Netlink, name: &str, peer_name: &str) -> (u32, u32) {
    let spec = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None };
    netlink.add_veth(&spec).unwrap();
    [name, peer_name]
        .map(|name| {
            let index = netlink.link(name).unwrap().unwrap().index;
            netlink.set_up(index).unwrap();
            index
        })
        .into()
}

/// What has arrived. On a veth that is by the time the sender has been told, but for softirqs
/// that went to the kernel's threads.
fn received(socket: &OwnedFd, expected: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut patience = 200;
    while patience > 0 {
        let mut buffer = vec![0; MAX_FRAME];
        match rustix::io::read(socket, &mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                frames.push(buffer);
            }
            Err(_) if frames.len() >= expected => break,
            Err(_) => {
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
    frames
}

#[test]
fn frames_arrive_whole_in_order_and_on_their_interface() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (a, a_peer) = pair(&mut netlink, "a", "a-peer");
        let (b, b_peer) = pair(&mut netlink, "b", "b-peer");
        let listeners = [a_peer, b_peer].map(|peer| packet_socket(peer, EXPERIMENT).unwrap());
        let mut injector = Injector::open(&[a, b]).unwrap();
        let mut expected = [Vec::new(), Vec::new()];
        for number in 0..150 {
            let frame = frame(number, 60 + usize::from(number) * 9);
            let to = usize::from(number % 3 == 0);
            injector.send([a, b][to], &frame);
            expected[to].push(frame);
        }
        assert_eq!(injector.counters(), InjectCounters::default());
        injector.flush();
        injector.flush();
        assert_eq!(injector.counters(), InjectCounters { sent: 150, ..Default::default() });
        for (listener, expected) in listeners.iter().zip(expected) {
            assert_eq!(received(listener, expected.len()), expected);
        }
    });
}

#[test]
fn a_full_batch_is_sent_at_once_and_counts_add_up() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, far) = pair(&mut netlink, "near", "far");
        let listener = packet_socket(far, EXPERIMENT).unwrap();
        let mut injector = Injector::open(&[near]).unwrap();
        for number in 0..=BATCH_FRAMES {
            injector.send(near, &frame(number as u16, 60));
        }
        let InjectCounters { sent, dropped, failed, refused } = injector.counters();
        assert_eq!((sent + dropped, failed, refused), (BATCH_FRAMES as u64, 0, 0));
        assert_eq!(received(&listener, sent as usize).len() as u64, sent);
        injector.flush();
        assert_eq!(injector.counters().sent, sent + 1);
    });
}

#[test]
fn nothing_that_arrives_is_kept_for_the_injector() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, far) = pair(&mut netlink, "near", "far");
        let injector = Injector::open(&[near]).unwrap();
        let listener = packet_socket(near, EXPERIMENT).unwrap();
        let mut other = Injector::open(&[far]).unwrap();
        other.send(far, &frame(1, 60));
        other.flush();
        assert_eq!(received(&listener, 1).len(), 1);
        assert_eq!(received(&injector.ports[0].socket, 0), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn what_cannot_be_sent_is_counted_and_holds_up_nothing() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, far) = pair(&mut netlink, "near", "far");
        let (gone, _) = pair(&mut netlink, "gone", "gone-peer");
        let listener = packet_socket(far, EXPERIMENT).unwrap();
        assert!(matches!(Injector::open(&[0x7fff_ffff]), Err(Error::PacketSocket { .. })));
        let mut injector = Injector::open(&[near, gone]).unwrap();
        let lengths = |injector: &mut Injector| {
            injector.send(near, &frame(1, 60));
            injector.send(near, &frame(2, 3000));
            injector.send(near, &frame(3, 60));
        };

        // Longer than the interface's MTU: the kernel's refusal of one frame.
        lengths(&mut injector);
        injector.flush();
        let expected = InjectCounters { sent: 2, failed: 1, ..Default::default() };
        assert_eq!(injector.counters(), expected);
        assert_eq!(received(&listener, 2), [frame(1, 60), frame(3, 60)]);

        // Not even offered.
        injector.send(near, &frame(4, MAX_FRAME + 1));
        injector.send(near, &[0; 13]);
        injector.send(far, &frame(5, 60));
        injector.flush();
        let expected = InjectCounters { refused: 3, ..expected };
        assert_eq!(injector.counters(), expected);

        // An interface that is gone, between two that work.
        netlink.delete_link(gone).unwrap();
        injector.send(gone, &frame(6, 60));
        injector.send(near, &frame(7, 60));
        injector.flush();
        let expected = InjectCounters { sent: 3, failed: 2, ..expected };
        assert_eq!(injector.counters(), expected);
        assert_eq!(received(&listener, 1), [frame(7, 60)]);
    });
}
