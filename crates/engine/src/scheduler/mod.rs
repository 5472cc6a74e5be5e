//! Which real server a new connection goes to: the schedulers of IPVS, one file each.
//!
//! Each chooses the server that Linux 6.1 chooses after the same events, which includes the order
//! in which it walks its servers: the kernel puts a new one at the head of its list
//! (`ip_vs_ctl.c`, `__ip_vs_update_dest`), so candidates are in the reverse order of their
//! addition, and of two that are equal the one added later is taken.
//!
//! A new one is a file with a function `build` and its line in `schedulers!`.

mod cache;
mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod load;
mod mh;
mod nq;
mod ovf;
#[cfg(test)]
mod recorded;
mod rr;
mod sed;
mod sh;
#[cfg(test)]
mod testing;
mod wlc;
mod wrr;

use seawall_fastpath::Endpoint;

/// A real server as schedulers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its address and port.
    pub address: Endpoint,
    /// Its weight; 0 takes no new connections.
    pub weight: u32,
    /// The weight that it was added with, or the last that was not 0.
    pub last_weight: u32,
    /// Sessions in SYN_SENT, SYN_RECV and ESTABLISHED (IPVS: `activeconns`).
    pub active: u32,
    /// Sessions in any other state (IPVS: `inactconns`).
    pub inactive: u32,
    /// It has as many sessions as it may (IPVS: `IP_VS_DEST_F_OVERLOAD`).
    pub overloaded: bool,
    /// It must not be chosen this time: it has been asked and did not answer.
    pub excluded: bool,
}

impl Candidate {
    /// A real server that was just added.
    #[must_use]
    pub const fn new(address: Endpoint, weight: u32) -> Self {
        Self {
            address,
            weight,
            last_weight: weight,
            active: 0,
            inactive: 0,
            overloaded: false,
            excluded: false,
        }
    }

    /// Changes its weight; [`Scheduler::weights_changed`] must follow.
    pub const fn set_weight(&mut self, weight: u32) {
        self.weight = weight;
        if weight != 0 {
            self.last_weight = weight;
        }
    }

    /// Whether it takes connections at all, its load aside.
    const fn is_open(&self) -> bool {
        self.weight > 0 && !self.excluded
    }

    const fn is_eligible(&self) -> bool {
        self.is_open() && !self.overloaded
    }
}

/// A connection that wants a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Whose it is.
    pub client: Endpoint,
    /// What it was sent to.
    pub vip: Endpoint,
    /// When, in milliseconds.
    pub now: u64,
}

/// Chooses real servers for one service. The candidates of a service keep their places, those
/// added later before those added earlier.
pub trait Scheduler: core::fmt::Debug + Send {
    /// The place of the next real server, or `None` if none takes this connection. Looks at each
    /// candidate a fixed number of times at most.
    fn schedule(&mut self, candidates: &[Candidate], arrival: &Arrival) -> Option<usize>;

    /// A weight has changed (IPVS: `upd_dest`).
    fn weights_changed(&mut self, candidates: &[Candidate]) {
        let _ = candidates;
    }
}

/// Flags of a scheduler (`ipvsadm --sched-flags`); those that have none ignore them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// `sh-fallback`, `mh-fallback`: what hashes to a server that takes nothing goes to another.
    pub fallback: bool,
    /// `sh-port`, `mh-port`: the client's port is hashed too.
    pub port: bool,
}

/// The schedulers: name, module and what it is called in full.
macro_rules! schedulers {
    ($($kind:ident = $name:literal in $module:ident, $doc:literal;)*) => {
        /// The schedulers, by IPVS's names.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`: ", $doc, ".")] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name that `ipvsadm -s` takes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// A scheduler of this kind as it is when `candidates` have been added one by one,
            /// the last of the slice first.
            #[must_use]
            pub fn build(self, flags: Flags, candidates: &[Candidate]) -> Box<dyn Scheduler> {
                match self {
                    $(Self::$kind => Box::new($module::build(flags, candidates)),)*
                }
            }
        }
    };
}

schedulers! {
    RoundRobin = "rr" in rr, "round robin";
    WeightedRoundRobin = "wrr" in wrr, "weighted round robin";
    LeastConnections = "lc" in lc, "least connections";
    WeightedLeastConnections = "wlc" in wlc, "weighted least connections";
    Locality = "lblc" in lblc, "locality-based least connections";
    LocalityReplicated = "lblcr" in lblcr, "locality-based least connections with replication";
    DestinationHashing = "dh" in dh, "destination hashing";
    SourceHashing = "sh" in sh, "source hashing";
    ShortestExpectedDelay = "sed" in sed, "shortest expected delay";
    NeverQueue = "nq" in nq, "never queue";
    Failover = "fo" in fo, "weighted failover";
    Overflow = "ovf" in ovf, "weighted overflow";
    Maglev = "mh" in mh, "Maglev hashing";
}

impl Kind {
    /// The one that `ipvsadm -s` takes by this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}
