//! Real servers that somebody marks up or down while the daemon runs.

use anyhow::{Context, Result};
use seawall_control::report::{Health, HealthReport, ServerName};
use seawall_datapath::clock;
use seawall_engine as engine;

use super::Worker;

impl Worker {
    /// Marks a real server. What XDP must hear of it, it hears in this round.
    ///
    /// # Errors
    /// That there is no such service or real server, and which there are.
    pub(super) fn set_health(&mut self, name: &ServerName, health: Health) -> Result<HealthReport> {
        let all = &self.config.services;
        let found = all
            .iter()
            .position(|it| (it.address, it.protocol) == (name.service, name.protocol))
            .with_context(|| {
                let known = all.iter().map(|it| format!("{}/{}", it.address, it.protocol));
                none(&format!("service {}/{}", name.service, name.protocol), known)
            })?;
        let servers = &all[found].real_servers;
        let server =
            servers.iter().position(|it| it.address == name.server).with_context(|| {
                let known = servers.iter().map(|it| it.address.to_string());
                none(&format!("real server {} in service {}", name.server, name.service), known)
            })?;
        let placed = &self.placed[found];
        let (service, server) = (placed.service, placed.servers[server]);
        let health = match health {
            Health::Up => engine::Health::Up,
            Health::Down => engine::Health::Down,
        };
        let changed = self.engine.health(service, server) != Some(health);
        if changed {
            self.engine.set_health(service, server, health);
            self.engine.settle_server(clock::monotonic_ms(), service, server);
        }
        Ok(HealthReport { changed })
    }
}

/// That there is no `what`, and what there is, as far as a line holds it.
fn none(what: &str, known: impl Iterator<Item = String>) -> String {
    let known: Vec<_> = known.take(8).collect();
    match known.as_slice() {
        [] => format!("there is no {what}; there is none at all"),
        known => format!("there is no {what}; expected one of: {}", known.join(", ")),
    }
}
