//! Packets that the engine sends on and that are larger than the link towards the other side: their
//! sender is told what fits, as the packet path tells it (SPEC C1).

use seawall_engine::{Counter, Interface, Introduction};
use seawall_fastpath::Transport;
use seawall_wire::ethernet::{MacAddr, Tags};

use crate::support::balancer::{Balancer, CLIENT_MAC, Framed, OUTSIDE, Setup, interface_mac};
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, IP, PSH, Segment, ones_sum};
use crate::support::stage::{CLIENT_PORT, Stage, all_options, answer, data, syn_ack};

in_each_family! {
    early_data,
    what_a_client_says_before_its_real_server_knows_who_it_is,
    what_a_real_server_says_before_it_knows_who_its_client_is,
    a_first_datagram_and_one_that_is_scheduled_alone,
    what_may_be_cut_in_pieces_is_not_answered,
}

const MTU: u32 = 1_400;

fn narrow(balancer: &mut Balancer, interface: u32) {
    let mac = MacAddr(interface_mac(interface));
    let narrow = Interface { mac, mtu: MTU, device: interface, tags: Tags::NONE };
    balancer.engine.set_interface(interface, narrow);
}

/// The MTU and the quoted packet of the error that is the one frame of these.
#[track_caller]
fn error(family: Family, frames: &[Framed]) -> (u32, Vec<u8>) {
    let [(interface, frame)] = frames else { panic!("{frames:02x?}") };
    let (protocol, header, kind) = match family {
        Family::V4 => (frame[IP + 9], 20, [3, 4]),
        Family::V6 => (frame[IP + 6], 40, [2, 0]),
    };
    let message = &frame[IP + header..];
    assert!(family == Family::V6 || ones_sum(&[message]) == 0xffff, "{frame:02x?}");
    assert_eq!((protocol, message[..2].to_vec()), (if header == 20 { 1 } else { 58 }, kind.into()));
    if *interface == OUTSIDE {
        assert_eq!(frame[..6], CLIENT_MAC);
    }
    assert_eq!(frame[6..12], interface_mac(*interface));
    (u32::from_be_bytes(message[4..8].try_into().unwrap()), message[8..].to_vec())
}

/// That the error is about the packet in `frame`.
#[track_caller]
fn tells(family: Family, frames: &[Framed], frame: &[u8]) {
    let (mtu, quoted) = error(family, frames);
    assert_eq!((mtu, &quoted[..]), (MTU, &frame[IP..IP + quoted.len()]));
}

/// A segment of 1,500 bytes.
fn large(family: Family, like: &Segment) -> Segment {
    let options: usize = like.options.iter().map(|option| option.bytes().len()).sum();
    let payload = vec![7; 1_500 + 14 - family.headers() - options];
    Segment { flags: ACK | PSH, payload, ..like.clone() }
}

fn early_data(family: Family) {
    let mut stage = Stage::new(&Setup::of(family));
    narrow(&mut stage.balancer, 2);
    let (first, syn) = stage.open(CLIENT_PORT, all_options());
    let large = large(family, &first);
    stage.client(&large);
    stage.client(&data(&first, large.payload.len() as u32, b"more"));
    stage.round();
    stage.server(&syn_ack(&syn, all_options()));
    let frames = stage.balancer.round();
    let (errors, rest): (Vec<_>, Vec<_>) = frames.into_iter().partition(|it| it.0 == OUTSIDE);
    tells(family, &errors, &large.bytes());
    stage.take(rest);
    assert_eq!(stage.to_servers.len(), 2, "the rest goes on");
    assert_eq!(stage.balancer.engine.counter(Counter::TooBig), 1);
    assert_eq!(stage.balancer.engine.counter(Counter::PassOnFailed), 0);
}

fn what_a_client_says_before_its_real_server_knows_who_it_is(family: Family) {
    for synproxy in [true, false] {
        let introduction = Introduction::Toa;
        let setup = Setup { introduction, synproxy, servers: 1, ..Setup::of(family) };
        let mut stage = Stage::new(&setup);
        narrow(&mut stage.balancer, 2);
        let first = if synproxy {
            let (first, syn) = stage.open(CLIENT_PORT, all_options());
            stage.server(&syn_ack(&syn, all_options()));
            first
        } else {
            let syn = stage.client_says(CLIENT_PORT, crate::support::packet::SYN, 7, 0);
            stage.client(&syn);
            stage.round();
            let syn = stage.one_to_server();
            stage.server(&syn_ack(&syn, Vec::new()));
            stage.round();
            let accept = stage.one_to_client();
            stage.client_says(CLIENT_PORT, ACK, 8, accept.seq.wrapping_add(1))
        };
        stage.round();
        stage.to_servers.clear();
        let large = large(family, &first);
        stage.client(&large);
        let frames = stage.balancer.round();
        tells(family, &frames, &large.bytes());
        // One that fits goes, with room for the option made by an ACK before it.
        let fits = Segment { payload: vec![7; large.payload.len() - 100], ..large };
        stage.client(&fits);
        stage.round();
        assert_eq!(stage.to_servers.len(), 2);
    }
}

fn what_a_real_server_says_before_it_knows_who_its_client_is(family: Family) {
    let introduction = Introduction::Toa;
    let mut stage = Stage::new(&Setup { introduction, ..Setup::of(family) });
    narrow(&mut stage.balancer, OUTSIDE);
    let (_, syn, _) = stage.establish(CLIENT_PORT);
    let says = answer(&syn, ACK, crate::support::stage::SERVER_ISN + 1, syn.seq.wrapping_add(1));
    let large = large(family, &says);
    stage.server(&large);
    let frames = stage.balancer.round();
    tells(family, &frames, &large.bytes());
}

fn a_first_datagram_and_one_that_is_scheduled_alone(family: Family) {
    for one_packet in [false, true] {
        let transport = Transport::Udp;
        let setup = Setup { transport, one_packet, synproxy: false, ..Setup::of(family) };
        let mut stage = Stage::new(&setup);
        narrow(&mut stage.balancer, 2);
        let says = stage.client_says(CLIENT_PORT, 0, 0, 0);
        let datagram = Segment { payload: vec![7; 1_440], ..says }.datagram();
        for _ in 0..2 {
            let sent: Vec<_> = stage.balancer.receive(OUTSIDE, &datagram).into_iter().collect();
            let frames = [sent, stage.balancer.round()].concat();
            tells(family, &frames, &datagram);
        }
        let told = stage.balancer.engine.counter(Counter::TooBig);
        assert_eq!(
            told,
            if one_packet { 2 } else { 1 },
            "the second of a flow is the packet path's"
        );
    }
}

fn what_may_be_cut_in_pieces_is_not_answered(family: Family) {
    if family == Family::V6 {
        return;
    }
    let setup = Setup { transport: Transport::Udp, synproxy: false, ..Setup::of(family) };
    let mut stage = Stage::new(&setup);
    narrow(&mut stage.balancer, 2);
    let says = stage.client_says(CLIENT_PORT, 0, 0, 0);
    let mut datagram = Segment { payload: vec![7; 1_440], ..says }.datagram();
    datagram[IP + 6] &= !0x40;
    crate::support::packet::seal_ip(&mut datagram);
    assert_eq!(stage.balancer.receive(OUTSIDE, &datagram), None);
    assert_eq!(stage.balancer.round(), []);
    assert_eq!(stage.balancer.engine.counter(Counter::PassOnFailed), 1);
}
