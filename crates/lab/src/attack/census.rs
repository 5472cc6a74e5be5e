//! What was counted, by whom, at one moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use seawall_fastpath::Reason;

use super::{Error, Stage};
use crate::tap::{received, syns_sent};

/// How long the network may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing may move for so long: a poll of a veth's queue takes less.
const REST: Duration = Duration::from_millis(60);
/// The attacker's interface on the balancer.
const ATTACKED: &str = "eth2";

/// Every number at one moment, or how far they rose between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    /// The daemon's counters by name.
    counters: BTreeMap<String, u64>,
    /// Frames that the kernel has run the balancer's XDP program for, by interface.
    received: BTreeMap<String, u64>,
    /// SYNs that the client's kernel has sent.
    pub(super) syns: u64,
    /// Memory of the daemon that is in use (proc(5): VmRSS), in bytes.
    pub(super) memory: u64,
}

impl Census {
    /// Waits until nothing moves any more, and counts.
    pub(super) fn take(stage: &mut Stage) -> Result<Self, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Self::take_now(stage)?;
        loop {
            std::thread::sleep(REST);
            let now = Self::take_now(stage)?;
            let at_rest = now.seen() == last.seen() && now.received == last.received;
            if at_rest {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(Error::Unexpected("the network does not come to rest".to_owned()));
            }
            last = now;
        }
    }

    fn take_now(stage: &mut Stage) -> Result<Self, Error> {
        let pid = stage.pid()?;
        let counters = stage.api()?.stats()?.counters;
        let received = received(&stage.topology.balancer.namespace)?;
        let syns = syns_sent(&stage.topology.client.namespace)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        let memory = rss.ok_or_else(|| Error::Unexpected("no VmRSS of the daemon".to_owned()))?;
        let received = received.into_iter().collect();
        Ok(Self { counters, received, syns, memory: memory << 10 })
    }

    /// How far everything rose since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let rise = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let then = |name: &String| then.get(name).copied().unwrap_or(0);
            now.iter()
                .map(|(name, value)| (name.clone(), value.saturating_sub(then(name))))
                .collect()
        };
        Self {
            counters: rise(&self.counters, &earlier.counters),
            received: rise(&self.received, &earlier.received),
            syns: self.syns - earlier.syns,
            memory: self.memory.saturating_sub(earlier.memory),
        }
    }

    /// A counter of the daemon's.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// The daemon's counters that are not zero.
    pub(super) fn risen(&self) -> BTreeMap<&str, u64> {
        let all = self.counters.iter().map(|(name, value)| (name.as_str(), *value));
        all.filter(|(_, value)| *value > 0).collect()
    }

    /// Frames over all reasons: what XDP says that it has seen.
    pub(super) fn seen(&self) -> u64 {
        Reason::ALL.iter().map(|reason| self.count(reason.name())).sum()
    }

    /// Frames over all interfaces: what the kernel says that it has shown to XDP.
    pub(super) fn shown(&self) -> u64 {
        self.received.values().sum()
    }

    /// Frames that came in from the attacker.
    pub(super) fn arrived(&self) -> u64 {
        self.received.get(ATTACKED).copied().unwrap_or(0)
    }
}
