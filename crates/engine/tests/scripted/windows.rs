//! Windows that open, close and open again through rescaling; every pair of shifts.

use crate::conversation::{Conversation, Offer, scale_of};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::ACK;
use seawall_fastpath::layout::NO_SCALE;

in_each_family! {
    every_pair_of_shifts,
    a_window_closes_and_opens_again,
    a_shift_above_14_is_14,
}

const SHIFTS: [Option<u8>; 6] = [None, Some(0), Some(1), Some(7), Some(9), Some(14)];
const WINDOWS: [u16; 9] = [0, 1, 2, 127, 128, 129, 0x7fff, 0x8000, 0xffff];

/// Scale 0 is not "no scaling" (PEERS, b: LVS cannot tell them apart). Each side reads the other's
/// window by the shift that it was told, and one that is open never looks shut.
fn every_pair_of_shifts(family: Family) {
    for ours in [NO_SCALE, 0, 3, 7, 14] {
        for client in SHIFTS {
            for server in SHIFTS {
                let mut setup = Setup::of(family);
                setup.config.window_scale = ours;
                let client = Offer { scale: client, ..Offer::CLIENT };
                let server = Offer { scale: server, ..Offer::SERVER };
                let mut talk = Conversation::open(&setup, client, server);
                let scaled = client.scale.is_some() && ours != NO_SCALE;
                assert_eq!(scale_of(&talk.cookie), scaled.then_some(ours));
                assert_eq!(scale_of(&talk.syn), client.scale.filter(|_| scaled), "as offered");
                for window in WINDOWS {
                    talk.client.window = window;
                    talk.client_says(ACK, b"");
                    talk.server.window = window;
                    talk.server_says(ACK, b"");
                }
                talk.close(family);
            }
        }
    }
}

/// Shut, probed, and open again by an update that carries nothing else, both ways.
fn a_window_closes_and_opens_again(family: Family) {
    for (client, server) in [(0, 14), (14, 0), (7, 7), (9, 2)] {
        let client = Offer { scale: Some(client), ..Offer::CLIENT };
        let server = Offer { scale: Some(server), ..Offer::SERVER };
        let mut talk = Conversation::open(&Setup::of(family), client, server);
        talk.client_says(ACK, &[1; 100]);
        talk.server.window = 0;
        assert_eq!(talk.server_says(ACK, b"").window, 0);
        // A probe of one byte that is not taken: the same ACK again.
        for _ in 0..3 {
            let probe = talk.client_segment(ACK, b"x");
            let expects = talk.server.expects;
            talk.client_sends(&probe);
            talk.server.expects = expects;
            talk.client.next = probe.seq;
            assert_eq!(talk.server_says(ACK, b"").window, 0);
        }
        talk.server.window = 1;
        assert!(talk.server_says(ACK, b"").window > 0);
        talk.client_says(ACK, b"x");

        talk.server_says(ACK, &[2; 100]);
        talk.client.window = 0;
        assert_eq!(talk.client_says(ACK, b"").window, 0);
        talk.client.window = 1;
        assert!(talk.client_says(ACK, b"").window > 0);
        talk.server_says(ACK, &[3; 100]);
        talk.client_says(ACK, b"");
        talk.close(family);
    }
}

/// RFC 7323, section 2.3: a shift above 14 is read as 14, so the real server must be told 14.
fn a_shift_above_14_is_14(family: Family) {
    for shift in [15, 16, 63, 255] {
        let offer = Offer { scale: Some(shift), ..Offer::CLIENT };
        let talk = Conversation::begin(&Setup::of(family), offer);
        assert_eq!(scale_of(&talk.cookie), Some(7));
        assert_eq!(scale_of(&talk.syn), Some(14));
    }
}
