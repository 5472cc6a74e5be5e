//! Which real server a new connection goes to. One file a scheduler.

mod rr;
mod wrr;

/// A real server as schedulers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its weight; 0 takes no new connections.
    pub weight: u32,
    /// It must not be chosen now.
    pub excluded: bool,
}

impl Candidate {
    fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.excluded
    }
}

/// Chooses real servers for one service. The candidates of a service keep their places.
pub trait Scheduler: core::fmt::Debug + Send {
    /// The place of the next real server, or `None` if none takes connections.
    fn schedule(&mut self, candidates: &[Candidate]) -> Option<usize>;
}

/// The schedulers, by IPVS's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `rr`: round robin.
    RoundRobin,
    /// `wrr`: weighted round robin.
    WeightedRoundRobin,
}

impl Kind {
    /// The name that `ipvsadm -s` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
        }
    }

    /// A scheduler of this kind, at its start.
    #[must_use]
    pub fn build(self) -> Box<dyn Scheduler> {
        match self {
            Self::RoundRobin => Box::new(rr::RoundRobin::default()),
            Self::WeightedRoundRobin => Box::new(wrr::WeightedRoundRobin::default()),
        }
    }
}
