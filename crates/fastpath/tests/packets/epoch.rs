//! Cookies of boxes that share their keys, with clocks that differ (DESIGN, "Cookie").

use seawall_fastpath::Reason;
use seawall_fastpath::cookie::{EPOCH_MS, SKEW_MS};
use seawall_fastpath::native::Memory;
use seawall_fastpath::siphash::Key;

use super::accept::ack_of;
use super::syn::{layouts, syn};
use crate::support::world::{START_MS, World};

/// Around every place in the ring of keys, and where the number wraps.
const EPOCHS: [u32; 8] = [0, 1, 2, 3, 27_000_000, u32::MAX - 2, u32::MAX - 1, u32::MAX];

/// A box in epoch `number`, which ends in `left` milliseconds.
fn peer(number: u32, left: u64) -> World {
    let world = World::new();
    let settings = world.tables.memory.settings();
    for (at, key) in settings.cookie_keys.iter().enumerate() {
        // What should not be used does not work.
        key.set(Key(0xdead, at as u64));
    }
    for number in [number.wrapping_sub(1), number, number.wrapping_add(1)] {
        let key = Key(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15), 0x77);
        settings.cookie_keys[number as usize % settings.cookie_keys.len()].set(key);
    }
    settings.epoch_ends.store(START_MS + left);
    settings.epoch.store(number);
    world
}

/// What `world` says to the client that `by` has answered, with timestamps and without.
fn judged(world: &World, by: &World) -> Reason {
    let [plain, stamped] = [Vec::new(), layouts()[2].1.clone()].map(|options| {
        // Of another port each: an accepted ACK is noted with its tuple.
        let mut syn = syn(&options);
        syn.source.1 += options.len() as u16;
        world.client_sends(&ack_of(by, &syn)).reason()
    });
    assert_eq!(plain, stamped);
    plain
}

#[test]
fn a_peer_whose_clock_is_ahead_is_believed_when_an_epoch_is_about_to_end() {
    for number in EPOCHS {
        for (left, reason) in [
            (EPOCH_MS, Reason::BadAck),
            (SKEW_MS + 1, Reason::BadAck),
            (SKEW_MS, Reason::Accepted),
            (1, Reason::Accepted),
            (0, Reason::Accepted),
        ] {
            let ahead = peer(number.wrapping_add(1), EPOCH_MS);
            assert_eq!(judged(&peer(number, left), &ahead), reason, "{number}, {left} ms left");
        }
    }
}

/// The daemon is late to begin the next epoch; the packet path knows that it is time.
#[test]
fn an_epoch_may_end_late() {
    let late = peer(41, 0);
    late.wait(700);
    assert_eq!(judged(&late, &peer(42, EPOCH_MS)), Reason::Accepted);
}

#[test]
fn a_peer_whose_clock_is_behind_is_believed_until_an_epoch_is_about_to_end() {
    for number in EPOCHS {
        for (left, reason) in [
            (EPOCH_MS, Reason::Accepted),
            (EPOCH_MS - SKEW_MS, Reason::Accepted),
            (SKEW_MS + 1, Reason::Accepted),
            (SKEW_MS, Reason::BadAck),
        ] {
            let behind = peer(number.wrapping_sub(1), SKEW_MS);
            assert_eq!(judged(&peer(number, left), &behind), reason, "{number}, {left} ms left");
        }
    }
}

#[test]
fn one_epoch_is_accepted_throughout() {
    for number in EPOCHS {
        for left in [EPOCH_MS, SKEW_MS, 1, 0] {
            let same = peer(number, EPOCH_MS / 2);
            assert_eq!(judged(&peer(number, left), &same), Reason::Accepted, "{number}, {left}");
        }
    }
}

#[test]
fn two_epochs_apart_is_too_far() {
    for number in EPOCHS {
        for left in [EPOCH_MS, SKEW_MS, 0] {
            for other in [number.wrapping_add(2), number.wrapping_sub(2)] {
                let other = peer(other, EPOCH_MS);
                assert_eq!(judged(&peer(number, left), &other), Reason::BadAck, "{number}, {left}");
            }
        }
    }
}

/// Without a shared secret the other parity is always the past.
#[test]
fn keys_that_nobody_shares_have_no_next_epoch() {
    for number in EPOCHS {
        let alone = peer(number, 0);
        alone.tables.memory.settings().epoch_ends.store(u64::MAX);
        let ahead = peer(number.wrapping_add(1), EPOCH_MS);
        assert_eq!(judged(&alone, &ahead), Reason::BadAck, "{number}");
        let behind = peer(number.wrapping_sub(1), EPOCH_MS);
        assert_eq!(judged(&alone, &behind), Reason::Accepted, "{number}");
    }
}

/// A timestamp made by a peer is echoed to us, by a clock as far from ours as an epoch may be.
#[test]
fn timestamps_of_a_peer_may_be_skewed() {
    let with = |offset: u64| {
        let by = peer(41, EPOCH_MS);
        let settings = by.tables.memory.settings();
        let clock = settings.timestamp_offset.load();
        settings.timestamp_offset.store(clock.wrapping_add(offset));
        let ack = ack_of(&by, &syn(&layouts()[2].1));
        assert!(!ack.options.is_empty());
        peer(41, EPOCH_MS).client_sends(&ack).reason()
    };
    assert_eq!(with(SKEW_MS), Reason::Accepted);
    assert_eq!(with(SKEW_MS + 1), Reason::BadAck);
    assert_eq!(with(SKEW_MS.wrapping_neg()), Reason::Accepted);
}
