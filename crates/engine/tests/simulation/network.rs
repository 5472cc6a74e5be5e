//! Links that lose, delay, reorder and repeat frames, all from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::support::random::Random;

/// Who a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum To {
    /// The balancer, on this interface.
    Balancer(u32),
    Client,
    Server(usize),
}

/// How bad the links are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Frames lost, in a thousand.
    pub(crate) loss: u64,
    /// Frames that arrive twice, in a thousand.
    pub(crate) repeat: u64,
    /// Frames held back so that others overtake them, in a thousand.
    pub(crate) reorder: u64,
    /// Least delay, in milliseconds.
    pub(crate) delay: u64,
    /// Delay beyond that, at most.
    pub(crate) jitter: u64,
}

impl Weather {
    /// Whether frames may overtake one another.
    pub(crate) const fn reorders(&self) -> bool {
        self.reorder > 0 || self.jitter > 0
    }
}

/// Frames held back arrive this much later at most, in milliseconds.
const HELD: u64 = 150;

/// A frame on its way: when it arrives, its number, whom it is for. The earliest is the greatest.
type Flying = Reverse<(u64, u64, To, Vec<u8>)>;

/// Frames on their way, by the time they arrive at.
pub(crate) struct Network {
    weather: Weather,
    random: Random,
    flying: BinaryHeap<Flying>,
    sent: u64,
}

impl Network {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        Self { weather, random: Random(seed), flying: BinaryHeap::new(), sent: 0 }
    }

    fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.random.u64() % 1000 < in_a_thousand
    }

    /// Sends a frame, whatever becomes of it.
    pub(crate) fn send(&mut self, now: u64, to: To, frame: Vec<u8>) {
        if self.chance(self.weather.loss) {
            return;
        }
        if self.chance(self.weather.repeat) {
            self.fly(now, to, frame.clone());
        }
        self.fly(now, to, frame);
    }

    fn fly(&mut self, now: u64, to: To, frame: Vec<u8>) {
        let jitter = self.random.u64() % (self.weather.jitter + 1);
        let held = if self.chance(self.weather.reorder) { self.random.u64() % HELD } else { 0 };
        self.sent += 1;
        let at = now + self.weather.delay + jitter + held;
        self.flying.push(Reverse((at, self.sent, to, frame)));
    }

    /// The next frame that has arrived by `now`.
    pub(crate) fn arrived(&mut self, now: u64) -> Option<(To, Vec<u8>)> {
        if self.next_arrival() > now {
            return None;
        }
        self.flying.pop().map(|Reverse((_, _, to, frame))| (to, frame))
    }

    /// When the next frame arrives.
    pub(crate) fn next_arrival(&self) -> u64 {
        self.flying.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }
}
