//! How many sessions a real server may have (Linux, `net/netfilter/ipvs/ip_vs_conn.c`,
//! `ip_vs_bind_dest` and `ip_vs_unbind_dest`), and what that makes of a service: with the upper
//! threshold reached a real server takes no new sessions but those that a template brings, until it
//! has fewer than the lower one, or than three quarters of the upper one if there is none.

use seawall_fastpath::layout::ServiceEntry;
use seawall_fastpath::native::Memory;

use crate::accounts::{Server, Service};
use crate::desired::RealServerSpec;
use crate::engine::{Engine, Request};
use crate::scheduler::Kind;

impl Server {
    /// A session or template has come.
    pub(crate) const fn bound(&mut self) {
        let upper = self.spec.upper_threshold;
        if upper != 0 && self.connections() >= upper {
            self.overloaded = true;
        }
    }

    /// A session or template has gone.
    pub(crate) const fn unbound(&mut self) {
        let RealServerSpec { upper_threshold: upper, lower_threshold: lower, .. } = self.spec;
        let sessions = self.connections() as u64;
        if lower != 0 {
            if sessions < lower as u64 {
                self.overloaded = false;
            }
        } else if upper == 0 || sessions * 4 < upper as u64 * 3 {
            self.overloaded = false;
        }
    }

    /// Sets what is asked for of it, but for its address. A higher upper threshold frees it at once
    /// (`ip_vs_ctl.c`, `__ip_vs_update_dest`); a lower one counts when the next session comes.
    pub(crate) const fn set_spec(&mut self, spec: RealServerSpec) {
        let (old, new) = (self.spec.upper_threshold, spec.upper_threshold);
        if new == 0 || new > old {
            self.overloaded = false;
        }
        self.spec = RealServerSpec { address: self.spec.address, ..spec };
    }
}

impl Service {
    /// Bits of [`ServiceEntry`] that say whether it takes new sessions. A template may bring one where
    /// nobody else would get it.
    pub(crate) fn takes(&self, expire_quiescent: bool) -> u32 {
        let there = || self.servers.iter().filter(|server| !server.removed);
        // An address stays with a full one; only the scheduler knows which have one.
        let stays = self.spec.scheduler == Kind::Locality;
        let open = |server: &Server| server.weight() > 0 && (stays || !server.overloaded);
        let kept = |(number, server): (usize, &Server)| {
            server.persistent > 0 && self.keeps(number as u32, expire_quiescent)
        };
        let all = self.servers.iter().enumerate();
        if there().any(open) || self.spec.persistence.is_some() && { all }.any(kept) {
            ServiceEntry::USABLE
        } else if there().any(|server| server.weight() > 0) {
            ServiceEntry::OVERLOADED
        } else {
            0
        }
    }
}

impl<M: Memory> Engine<M> {
    /// Sessions or templates of a service have come or gone: the packet path must hear of it if it
    /// takes new sessions no longer, or again.
    pub(crate) fn load_changed(&mut self, service: u32) {
        let quiescent = self.config.expire_quiescent_template;
        let Some(found) = self.services.get_mut(service as usize) else { return };
        if !std::mem::take(&mut found.load_changed) {
            return;
        }
        let changed = found.takes(quiescent) != found.advertised;
        self.save_load(service);
        if changed {
            self.request(Request::ServiceChanged(service));
        }
    }
}
