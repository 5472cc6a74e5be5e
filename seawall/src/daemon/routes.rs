//! Routes to real servers, as they change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use seawall_control::config::Config;
use seawall_datapath::clock;

use super::Worker;
use super::backend::Remote;
use super::setup::Way;

/// How often routes are looked up at most, in milliseconds.
const INTERVAL_MS: u64 = 500;

/// Whether routes to real servers may have changed.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) changed: bool,
    /// How often they may have.
    pub(super) count: Arc<AtomicU64>,
    /// A thread is looking them up.
    asked: bool,
    /// When they may be looked up next.
    next: u64,
}

impl Routes {
    /// Takes note that they may have changed.
    pub(super) fn note(&mut self) {
        self.changed = true;
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Worker {
    /// Has the routes looked up if they may have changed.
    pub(super) fn look_up_routes(&mut self, remote: &Remote) {
        let now = clock::monotonic_ms();
        if self.routes.changed && !self.routes.asked && now >= self.routes.next {
            let asked = remote.look_up_routes(Arc::clone(&self.config));
            self.routes.changed = !asked;
            (self.routes.asked, self.routes.next) = (asked, now + INTERVAL_MS);
        }
    }

    /// Sends by the routes that there are now, established sessions too. A real server that has
    /// none keeps the one it had. Without `gateways` they could not be looked up.
    pub(super) fn follow_routes(
        &mut self,
        config: &Arc<Config>,
        gateways: Option<&[Vec<Option<Way>>]>,
    ) {
        self.routes.asked = false;
        let Some(gateways) = gateways.filter(|_| Arc::ptr_eq(config, &self.config)) else {
            self.routes.changed = true;
            return;
        };
        let mut changed = false;
        for (placed, gateways) in self.placed.iter().zip(gateways) {
            for (server, way) in placed.servers.iter().zip(gateways) {
                let Some(way) = way else { continue };
                if let Some(hop) = self.engine.next_hop(way.gateway) {
                    changed |= self.engine.set_route(placed.service, *server, hop);
                }
                if let Some(source) = way.source {
                    changed |= self.engine.set_tunnel_source(placed.service, *server, source);
                }
            }
        }
        if changed {
            self.engine.settle(clock::monotonic_ms());
            // Neighbours of the kernel's that only now are next hops of ours.
            self.overrun = true;
        }
    }
}
