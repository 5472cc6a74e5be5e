//! An engine takes over the tables of another, which has died or handed them over (DESIGN,
//! "Adoption"), while the packet path goes on with them.
//!
//! What lies in the tables is taken as it is, in this order: what the ledger says of services and
//! real servers, as if a reload had removed them all, so that those of the new configuration come
//! back under their numbers and the others' sessions go the way of every removed server's; the
//! index's filter, made anew from the index; the slots, each held against the index; the index, each
//! entry held against the slots; the templates. When the configuration is back ([`Engine::settle`])
//! timers run, each from when its session was last seen, sessions find their templates, and rates
//! begin.
//!
//! What belongs to nobody is cleared and counted: a crash can leave a slot with one entry or none
//! while a session begins or ends, never one that is established. A handshake goes on: the slot keeps
//! what the accepted ACK said, or how far a PROXY header may have come, and the real server is asked
//! again. Lost with the old engine is early data, which clients send again, what schedulers remember,
//! which options real servers have refused, and rates, which are right again within seconds.
//!
//! No content of the tables makes it panic, and none makes it take more memory than the tables do.

mod handshakes;
mod index;
mod services;
mod slots;

use seawall_fastpath::layout::switch;
use seawall_fastpath::native::Memory;

use crate::change::publish;
use crate::counters::Counter;
use crate::desired::{Config, LocalPool};
use crate::engine::Engine;

/// What an engine found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Adoption {
    /// Sessions that go on, those in a handshake included.
    pub sessions: u32,
    /// Of those, sessions whose real server had not answered yet: it is asked again.
    pub handshakes: u32,
    /// Services that had a number.
    pub services: u32,
    /// Persistence templates.
    pub templates: u32,
    /// Slots that no two entries led to, or that told nonsense: freed.
    pub orphan_slots: u32,
    /// Entries that led to no such session: removed.
    pub orphan_entries: u32,
    /// Templates of a service or real server that nobody knows: freed.
    pub orphan_templates: u32,
}

impl<M: Memory> Engine<M> {
    /// An engine around `memory` as another has left it, at time `now` of the same clock. `config`
    /// says how it goes on; window scale and timestamp clock stay what cookies in flight promise.
    /// It has no service, and the packet path starts no connection, until the caller has gone on as
    /// the crate's documentation says.
    pub fn adopt(memory: M, config: Config, pools: Vec<LocalPool>, now: u64) -> (Self, Adoption) {
        let settings = memory.settings();
        let config = Config {
            window_scale: settings.window_scale.load() as u8,
            timestamp_offset: settings.timestamp_offset.load(),
            ..config
        };
        // Whether a service has port 0 is known when they are back.
        let any_port = settings.switches.load() & switch::ANY_PORT != 0;
        publish(settings, &config, any_port);
        settings.bucket_mask.store(memory.index().len() as u32 - 2);
        let mut engine = Self::empty(memory, config, pools, now);
        engine.adopting = true;
        let mut found = Adoption::default();
        engine.adopt_ledger();
        found.services = engine.services.len() as u32;
        engine.adopt_filter();
        engine.adopt_slots(now, &mut found);
        engine.adopt_index(&mut found);
        engine.adopt_ports();
        (found.templates, found.orphan_templates) = engine.adopt_templates(now);
        for _ in 0..found.orphan_templates {
            engine.count(Counter::OrphanTemplate);
        }
        engine.adopt_loads();
        (engine, found)
    }

    /// Takes over the next hops, once the interfaces are set.
    pub fn adopt_next_hops(&mut self) {
        self.next_hops.adopt(self.table.memory().next_hops());
    }

    /// Services and real servers are back: starts what goes by them.
    pub(crate) fn finish_adoption(&mut self, now: u64) {
        for place in 0..self.live.len() {
            let Some(index) = self.live.at(place) else { continue };
            self.control_again(index);
            self.start_timer(now, index);
        }
        self.settle_templates();
        self.check_loads();
        self.begin_estimates();
    }
}
