//! Selective acknowledgments: one to four blocks at every alignment, both ways.

use seawall_engine::Forwarding;

use crate::conversation::{Conversation, Offer};
use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, Opt};

in_each_family! {
    blocks_are_translated_wherever_they_lie,
    blocks_of_odd_lengths_do_no_harm,
}

/// Options with `count` blocks, `shift` bytes of padding in front, as full as they get.
fn layout(blocks: &[(u32, u32)], shift: usize, timestamps: Option<(u32, u32)>) -> Vec<Opt> {
    let mut options = vec![Opt::Nop; shift];
    options.extend(timestamps.map(|(value, echo)| Opt::Timestamps(value, echo)));
    options.push(Opt::Sack(blocks.to_vec()));
    options
}

fn bytes(options: &[Opt]) -> usize {
    options.iter().map(|option| option.bytes().len()).sum()
}

fn blocks(from: u32, count: u32) -> Vec<(u32, u32)> {
    (0..count)
        .map(|at| {
            let left = from.wrapping_add(1 + at * 3_001);
            (left, left.wrapping_add(1_999))
        })
        .collect()
}

fn blocks_are_translated_wherever_they_lie(family: Family) {
    for forwarding in [Forwarding::Nat, Forwarding::FullNat] {
        for clocks in [true, false] {
            let clock = |offer: Offer| Offer { clock: offer.clock.filter(|_| clocks), ..offer };
            let setup = Setup { forwarding, ..Setup::of(family) };
            let (client, server) = (clock(Offer::CLIENT), clock(Offer::SERVER));
            // The real server's numbers wrap between the blocks.
            let server = Offer { isn: 0xffff_f000, ..server };
            let mut talk = Conversation::open(&setup, client, server);
            for count in 1..=4 {
                for shift in 0..=3 {
                    let timestamps = |clock: Option<u32>, heard| clock.map(|value| (value, heard));
                    let mut said = talk.client_segment(ACK, b"data too");
                    said.options = layout(
                        &blocks(talk.client.expects, count),
                        shift,
                        timestamps(talk.client.clock, talk.client.heard),
                    );
                    if bytes(&said.options) > 40 {
                        continue;
                    }
                    talk.client_sends(&said);
                    let mut said = talk.server_segment(ACK, b"and back");
                    said.options = layout(
                        &blocks(talk.server.expects, count),
                        shift,
                        timestamps(talk.server.clock, talk.server.heard),
                    );
                    talk.server_sends(&said);
                }
            }
            talk.close(family);
        }
    }
}

/// Half a block, none, or five say nothing; the segment goes on with right checksums.
fn blocks_of_odd_lengths_do_no_harm(family: Family) {
    let plain = |offer: Offer| Offer { clock: None, ..offer };
    for len in [0, 1, 2, 3, 5, 7, 9, 12, 15, 17, 31, 33, 38] {
        let mut talk =
            Conversation::open(&Setup::of(family), plain(Offer::CLIENT), plain(Offer::SERVER));
        let mut said = talk.client_segment(ACK, b"x");
        said.options = vec![Opt::Other(5, vec![0x5a; len])];
        talk.stage.client(&said);
        let heard = talk.stage.one_to_server();
        assert_eq!(heard.payload, b"x", "a length of {len}");
        assert_eq!(bytes(&heard.options), len + 2);
    }
}
