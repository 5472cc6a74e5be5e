//! Every scheduler against what the kernel's IPVS did, Linux 6.1, after the same events: the
//! recordings in `tests/schedulers`, which `crates/lab/tests/schedulers.rs` makes and compares with
//! the kernel. Counts must be the kernel's too, or the schedulers would go by other ones than it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use seawall_fastpath::{Direction, Event, TcpState};

use super::lblcr::LocalityReplicated;
use super::{Arrival, Candidate, Flags, Kind, Scheduler, lblcr};
use crate::accounts::is_active;

/// Recordings by name.
macro_rules! recordings {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../tests/schedulers/", $name, ".txt"))),)*]
    };
}

const RECORDINGS: &[(&str, &str)] = recordings! {
    "rr" "wrr" "wrr-divisor" "wrr-changes" "wrr-tail" "lc" "wlc" "lblc" "lblcr" "dh" "sh" "sh-port"
    "sh-fallback" "sh-port-fallback" "sh-ipv6" "sed" "nq" "fo" "ovf" "mh" "mh-port" "mh-fallback"
    "mh-port-fallback" "mh-ipv6" "wrr-steps" "wrr-steps-many" "wrr-parity" "wrr-recovers" "wrr-recovers-apart" "wrr-recovers-high" "lc-reset" "lblcr-ties" "lblcr-tie-leaves" "lblcr-overload-leaves" "rr-overload"
    "wrr-overload" "wrr-overload-first" "wlc-overload" "fo-overload" "nq-overload" "sh-overload"
    "mh-overload" "lblcr-overload" "lblc-overload"
};

#[test]
fn choices_are_the_kernels() {
    for (name, recording) in RECORDINGS {
        let mut replay = Replay::default();
        for (number, line) in recording.lines().enumerate() {
            let (event, outcome) = line.split_once(" -> ").unwrap_or((line, ""));
            let words: Vec<_> = event.split(' ').collect();
            let got = replay.event(&words).unwrap_or_default();
            assert_eq!(got, outcome, "{name}.txt:{}: {line}", number + 1);
        }
        assert!(replay.arrivals >= 30, "{name}: {}", replay.arrivals);
    }
}

#[test]
fn every_recording_is_replayed_and_every_scheduler_recorded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedulers");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), RECORDINGS.len());
    for kind in Kind::ALL {
        assert!(RECORDINGS.iter().any(|(name, _)| *name == kind.name()), "{}", kind.name());
        assert_eq!(Kind::named(kind.name()), Some(*kind));
    }
}

/// A service, and the kernel's count of its connections.
#[derive(Default)]
struct Replay {
    kind: Option<Kind>,
    flags: Flags,
    /// In the order in which they are walked: the one added last comes first.
    candidates: Vec<Candidate>,
    /// The upper thresholds of the candidates: with so many connections one takes no more, until it
    /// has fewer than three quarters (`ip_vs_conn.c`, `ip_vs_unbind_dest`).
    uppers: Vec<u32>,
    scheduler: Option<Box<dyn Scheduler>>,
    /// In its place for `lblcr`, whose expiration changes.
    replicated: Option<LocalityReplicated>,
    /// Each connection's state and the place of its server.
    connections: HashMap<[SocketAddr; 2], (TcpState, usize)>,
    now: u64,
    arrivals: u32,
}

impl Replay {
    fn event(&mut self, words: &[&str]) -> Option<String> {
        match *words {
            ["#", ..] => {}
            ["service", _, kind, ref flags @ ..] => {
                self.kind = Some(Kind::named(kind).unwrap());
                let has =
                    |end| flags.iter().any(|flags| flags.split(',').any(|f| f.ends_with(end)));
                self.flags = Flags { fallback: has("-fallback"), port: has("-port") };
            }
            ["server", address, weight, ref upper @ ..] => {
                let address: SocketAddr = address.parse().unwrap();
                let candidate = Candidate::new(address.into(), weight.parse().unwrap());
                self.candidates.insert(0, candidate);
                let upper = upper.first().map_or(u32::MAX, |upper| upper.parse().unwrap());
                self.uppers.insert(0, upper);
            }
            ["weight", address, weight] => {
                let address: SocketAddr = address.parse().unwrap();
                let changed = self.candidates.iter_mut().find(|c| c.address == address.into());
                changed.unwrap().set_weight(weight.parse().unwrap());
                if let Some(scheduler) = &mut self.scheduler {
                    scheduler.weights_changed(&self.candidates);
                }
            }
            ["expiration", "lblcr_expiration", seconds] => {
                let seconds: u64 = seconds.parse().unwrap();
                self.replicated.as_mut().unwrap().expiration = 1_000 * seconds;
            }
            ["timeout"] => {}
            ["expire"] => self.expire(),
            ["wait", milliseconds] => self.now += milliseconds.parse::<u64>().unwrap(),
            ["syn", client, vip] => return Some(self.arrival([client, vip])),
            ["ack", client, vip] => self.segment([client, vip], Event::Ack),
            ["fin", client, vip] => self.segment([client, vip], Event::Fin),
            ["rst", client, vip] => self.segment([client, vip], Event::Rst),
            _ => panic!("no event: {words:?}"),
        }
        None
    }

    fn segment(&mut self, ends: [&str; 2], event: Event) {
        let ends = ends.map(|end| end.parse().unwrap());
        let Some((state, place)) = self.connections.get_mut(&ends) else { return };
        let candidate = &mut self.candidates[*place];
        let was_active = is_active(*state);
        *state = state.next(Direction::Inbound, event);
        match (was_active, is_active(*state)) {
            (true, false) => {
                candidate.active -= 1;
                candidate.inactive += 1;
            }
            (true, true) | (false, false) => {}
            (false, true) => panic!("{ends:?} is active again"),
        }
    }

    /// Every connection that is not active ends.
    fn expire(&mut self) {
        self.connections.retain(|_, (state, _)| is_active(*state));
        for (candidate, upper) in self.candidates.iter_mut().zip(&self.uppers) {
            if candidate.inactive > 0 && candidate.active * 4 < upper * 3 {
                candidate.overloaded = false;
            }
            candidate.inactive = 0;
        }
    }

    fn arrival(&mut self, ends: [&str; 2]) -> String {
        self.arrivals += 1;
        let ends: [SocketAddr; 2] = ends.map(|end| end.parse().unwrap());
        let [client, vip] = ends.map(Into::into);
        let (kind, flags) = (self.kind.unwrap(), self.flags);
        let candidates = &mut self.candidates;
        let scheduler: &mut dyn Scheduler = if kind == Kind::LocalityReplicated {
            self.replicated.get_or_insert_with(|| lblcr::build(flags, candidates))
        } else {
            self.scheduler.get_or_insert_with(|| kind.build(flags, candidates)).as_mut()
        };
        let Some(place) = scheduler.schedule(candidates, &Arrival { client, vip, now: self.now })
        else {
            return "none".to_owned();
        };
        let candidate = &mut candidates[place];
        candidate.active += 1;
        candidate.overloaded = candidate.active + candidate.inactive >= self.uppers[place];
        let state = TcpState::None.next(Direction::Inbound, Event::Syn);
        self.connections.insert(ends, (state, place));
        let server: IpAddr = candidate.address.address.into();
        format!("{server} {} {}", candidate.active, candidate.inactive)
    }
}
