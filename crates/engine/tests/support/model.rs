//! All that can be seen of an engine, to tell whether another has become it.

use seawall_engine::{Gateway, Rates, ServiceReport, SessionReport};
use seawall_fastpath::layout::ServiceEntry;
use seawall_fastpath::native::Memory;

use super::balancer::Balancer;

/// Options that real servers have refused are learned anew.
const LEARNED: u32 =
    ServiceEntry::NO_SACK | ServiceEntry::NO_WINDOW_SCALE | ServiceEntry::NO_TIMESTAMP;

#[derive(PartialEq, Debug)]
pub(crate) struct Model {
    /// Without rates, which begin anew.
    services: Vec<ServiceReport>,
    sessions: Vec<(u32, SessionReport)>,
    /// What the packet path is told of services.
    flags: Vec<u32>,
    gateways: Vec<(Gateway, bool)>,
    /// Flags, deadline, timeout and real server.
    templates: Vec<(u32, u64, u32, u32)>,
    marks: Vec<u8>,
    stashed: u32,
}

impl Model {
    pub(crate) fn of(balancer: &Balancer) -> Self {
        let (engine, memory) = (&balancer.engine, &balancer.memory);
        let mut services = engine.services();
        for report in &mut services {
            report.rates = Rates::default();
            report.servers.iter_mut().for_each(|server| server.rates = Rates::default());
        }
        let entries = (0..services.len() as u32).filter_map(|number| engine.service_entry(number));
        let mut gateways: Vec<_> = engine.gateways().collect();
        gateways.sort_unstable_by_key(|(gateway, _)| (gateway.interface, gateway.address.0));
        let words = (0..).zip(memory.filter());
        Self {
            sessions: engine.sessions(balancer.now(), 0, usize::MAX),
            flags: entries.map(|entry| entry.flags & !LEARNED).collect(),
            services,
            gateways,
            templates: { memory.templates().iter() }
                .map(|it| {
                    (it.flags.load(), it.deadline.load(), it.timeout.load(), it.server.load())
                })
                .collect(),
            marks: { words }
                .flat_map(|(word, filter)| (0..8).map(move |at| filter.marks(word * 8 + at)))
                .collect(),
            stashed: memory.settings().stashed.load(),
        }
    }
}
