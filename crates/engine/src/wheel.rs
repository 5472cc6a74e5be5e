//! One timer a session: a hashed wheel of doubly linked lists, every operation constant-time.
//!
//! Deadlines are rounded up to [`TICK_MS`]. One further away than the wheel reaches comes due
//! when the wheel has turned once; the owner sees that it is early and arms it again, as it
//! must anyway after traffic.

/// Resolution, in milliseconds.
pub(crate) const TICK_MS: u64 = 16;
const BUCKETS: usize = 1 << 16;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    previous: u32,
    bucket: u32,
}

const FREE: Node = Node { next: NONE, previous: NONE, bucket: NONE };

/// The wheel. 12 bytes a session and 256 KiB.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Vec<u32>,
    occupied: Vec<u64>,
    nodes: Vec<Node>,
    tick: u64,
    armed: usize,
}

impl Wheel {
    /// Bytes that one timer takes.
    pub(crate) const BYTES_PER_TIMER: usize = size_of::<Node>();

    /// A wheel for timers 0 to `timers - 1`, at time `now`.
    pub(crate) fn new(timers: usize, now: u64) -> Self {
        Self {
            heads: vec![NONE; BUCKETS],
            occupied: vec![0; BUCKETS / 64],
            nodes: vec![FREE; timers],
            tick: now / TICK_MS,
            armed: 0,
        }
    }

    /// Arms `timer` for `deadline`; if it was armed, for that instead.
    pub(crate) fn arm(&mut self, timer: u32, deadline: u64) {
        self.cancel(timer);
        let tick = deadline.div_ceil(TICK_MS).clamp(self.tick + 1, self.tick + BUCKETS as u64 - 1);
        let bucket = tick as usize % BUCKETS;
        let head = std::mem::replace(&mut self.heads[bucket], timer);
        if let Some(next) = self.nodes.get_mut(head as usize) {
            next.previous = timer;
        }
        self.nodes[timer as usize] = Node { next: head, previous: NONE, bucket: bucket as u32 };
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.armed += 1;
    }

    /// Disarms `timer` if it is armed.
    pub(crate) fn cancel(&mut self, timer: u32) {
        let node = std::mem::replace(&mut self.nodes[timer as usize], FREE);
        if node.bucket == NONE {
            return;
        }
        self.armed -= 1;
        if let Some(next) = self.nodes.get_mut(node.next as usize) {
            next.previous = node.previous;
        }
        match self.nodes.get_mut(node.previous as usize) {
            Some(previous) => previous.next = node.next,
            None => {
                let bucket = node.bucket as usize;
                self.heads[bucket] = node.next;
                if node.next == NONE {
                    self.occupied[bucket / 64] &= !(1 << (bucket % 64));
                }
            }
        }
    }

    /// Disarms a timer that is due at `now` and gives it, until none is.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<u32> {
        let target = now / TICK_MS;
        loop {
            let timer = self.heads[self.tick as usize % BUCKETS];
            if timer != NONE {
                self.cancel(timer);
                return Some(timer);
            }
            if self.tick >= target {
                return None;
            }
            self.tick = match self.next_occupied() {
                Some(tick) if tick < target => tick,
                _ => target,
            };
        }
    }

    /// When the next timer is due, if any is armed.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        self.next_occupied().map(|tick| tick * TICK_MS)
    }

    /// The first tick after the current one, or the current one, whose bucket holds a timer.
    fn next_occupied(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let start = self.tick as usize % BUCKETS;
        let words = self.occupied.len();
        for step in 0..=words {
            let at = (start / 64 + step) % words;
            let mut word = self.occupied[at];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let bucket = at * 64 + word.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some(self.tick + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, TICK_MS, Wheel};

    /// A small generator, so that a failure repeats.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *state >> 33
    }

    #[test]
    fn fires_each_timer_once_and_on_time() {
        let (mut state, mut now) = (7, 1_000_000);
        let mut wheel = Wheel::new(100, now);
        let mut deadlines = [None; 100];
        for _ in 0..20_000 {
            let timer = (random(&mut state) % 100) as u32;
            match random(&mut state) % 4 {
                0 => {
                    wheel.cancel(timer);
                    deadlines[timer as usize] = None;
                }
                1 | 2 => {
                    let deadline = now + random(&mut state) % 900_000;
                    wheel.arm(timer, deadline);
                    deadlines[timer as usize] = Some(deadline.max(now + 1));
                }
                _ => now += random(&mut state) % 20_000,
            }
            while let Some(timer) = wheel.pop_due(now) {
                let deadline = deadlines[timer as usize].take().expect("fired, not armed");
                assert!(deadline <= now, "early: {deadline} at {now}");
            }
            for deadline in deadlines.into_iter().flatten() {
                assert!(deadline + 2 * TICK_MS > now, "late: {deadline} at {now}");
            }
            let next = deadlines.into_iter().flatten().min();
            assert_eq!(wheel.next_deadline().is_some(), next.is_some());
            if let (Some(at), Some(next)) = (wheel.next_deadline(), next) {
                assert!(at >= next.saturating_sub(TICK_MS) && at <= next + 2 * TICK_MS);
            }
        }
    }

    #[test]
    fn a_far_deadline_comes_due_after_one_turn() {
        let mut wheel = Wheel::new(1, 0);
        wheel.arm(0, u64::MAX / 2);
        let turn = BUCKETS as u64 * TICK_MS;
        assert_eq!(wheel.pop_due(turn - 2 * TICK_MS), None);
        assert_eq!(wheel.pop_due(turn), Some(0));
        assert_eq!((wheel.pop_due(2 * turn), wheel.next_deadline()), (None, None));
    }
}
