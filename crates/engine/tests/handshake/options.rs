//! Options: what the real server gets, and what becomes of those it refuses (SPEC A7).

use seawall_engine::{Forwarding, Request};

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt, PSH, Segment};
use crate::support::stage::{
    CLIENT_CLOCK, CLIENT_PORT, SERVER_CLOCK, Stage, all_options, answer, clock_of, data, syn_ack,
};

in_each_family! {
    the_first_ack_echoes_the_real_servers_clock_exactly,
    refused_options_are_learned,
    windows_are_read_by_the_shift_that_was_offered,
}

fn server_options() -> Vec<Opt> {
    vec![
        Opt::Mss(1460),
        Opt::SackPermitted,
        Opt::Timestamps(SERVER_CLOCK, 0),
        Opt::Nop,
        Opt::Scale(9),
    ]
}

fn scale(segment: &Segment) -> Option<u8> {
    segment.options.iter().find_map(|option| match option {
        Opt::Scale(shift) => Some(*shift),
        _ => None,
    })
}

fn all_options_but(option: &Opt) -> Vec<Opt> {
    let kind = option.bytes()[0];
    all_options().into_iter().filter(|have| have.bytes()[0] != kind).collect()
}

/// DESIGN, "Splice arithmetic": Linux drops a handshake ACK whose TSecr it did not send.
fn the_first_ack_echoes_the_real_servers_clock_exactly(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        let mut stage = Stage::new(&Setup { forwarding, ..Setup::of(family) });
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        let (syn_value, syn_echo) = clock_of(&syn).expect("timestamps");
        assert_eq!(syn_echo, 0);
        if forwarding == Forwarding::Nat {
            assert_eq!(syn_value, CLIENT_CLOCK + 5);
        }
        // The SYN sent again repeats its clock: an ACK must not be older than the SYN.
        stage.pass(1_100);
        assert_eq!(clock_of(&stage.one_to_server()), Some((syn_value, 0)));
        stage.server(&syn_ack(&syn, server_options()));
        stage.round();
        let ack = stage.one_to_server();
        assert_eq!(clock_of(&ack), Some((syn_value, SERVER_CLOCK)), "{forwarding:?}");

        // From then on both clocks run on, each in its own time.
        let mut reply = answer(&ack, ACK | PSH, ack.ack, ack.seq);
        reply.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(SERVER_CLOCK + 7, syn_value)];
        reply.payload = b"hello".to_vec();
        stage.server(&reply);
        let heard = clock_of(&stage.one_to_client()).expect("timestamps");
        let ours = clock_of(&first).expect("timestamps").1;
        assert_eq!(heard, (ours + 7, CLIENT_CLOCK + 5));
        let mut next = data(&first, 0, b"x");
        next.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(CLIENT_CLOCK + 30, ours + 7)];
        stage.client(&next);
        let (value, echo) = clock_of(&stage.one_to_server()).expect("timestamps");
        assert_eq!((value, echo), (syn_value + 25, SERVER_CLOCK.wrapping_add(7)));
    }
}

/// What one real server refuses, no further client of the service is offered.
fn refused_options_are_learned(family: Family) {
    let lacking = |option: &Opt| {
        server_options().into_iter().filter(|have| have != option).collect::<Vec<_>>()
    };
    let clock = Opt::Timestamps(SERVER_CLOCK, 0);
    for option in [Opt::SackPermitted, Opt::Scale(9), clock] {
        let mut stage = Stage::new(&Setup::of(family));
        let (_, syn) = stage.open(CLIENT_PORT, all_options());
        assert!(scale(&syn).is_some() && clock_of(&syn).is_some());
        stage.server(&syn_ack(&syn, lacking(&option)));
        stage.round();
        assert_eq!(stage.balancer.requests, [Request::ServiceChanged(0)]);
        stage.to_servers.clear();
        let (_, syn) = stage.open(CLIENT_PORT + 1, all_options_but(&option));
        stage.server(&syn_ack(&syn, lacking(&option)));
        stage.round();
        assert_eq!(stage.balancer.requests.len(), 1, "learned once");

        let again = stage.client_says(CLIENT_PORT + 2, 2, 1, 0);
        stage.client(&Segment { options: all_options(), ..again });
        let cookie = stage.one_to_client();
        let has = |wanted: fn(&Opt) -> bool| cookie.options.iter().any(wanted);
        assert_eq!(has(|o| matches!(o, Opt::SackPermitted)), option != Opt::SackPermitted);
        assert_eq!(has(|o| matches!(o, Opt::Scale(_))), option != Opt::Scale(9));
        assert_eq!(
            has(|o| matches!(o, Opt::Timestamps(..))),
            !matches!(option, Opt::Timestamps(..))
        );
    }
}

/// The client reads windows by our shift (7), the real server by the client's (9).
fn windows_are_read_by_the_shift_that_was_offered(family: Family) {
    for (servers, expected) in
        [(Some(9), 5_000 << 2), (Some(7), 5_000), (Some(4), 5_000 >> 3), (None, 5_000 >> 7)]
    {
        let mut stage = Stage::new(&Setup::of(family));
        let (first, syn) = stage.open(CLIENT_PORT, all_options());
        assert_eq!(scale(&syn), Some(9), "the client's own");
        let mut options =
            vec![Opt::Mss(1460), Opt::SackPermitted, Opt::Timestamps(SERVER_CLOCK, 0)];
        options.extend(servers.map(Opt::Scale));
        stage.server(&syn_ack(&syn, options));
        stage.round();
        let ack = stage.one_to_server();
        let expanded = if servers.is_none() { u16::MAX } else { first.window };
        assert_eq!(ack.window, expanded, "RFC 7323: a server that scales not reads it plainly");
        stage.server(&answer(&ack, ACK, ack.ack, ack.seq));
        assert_eq!(stage.one_to_client().window, expected, "{servers:?}");
    }
}
