//! What a daemon that has died or handed over has left is taken over (SPEC E).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use seawall_control::config::{Config, Place};
use seawall_datapath::{InjectCounters, MappedArray};
use seawall_engine::{Adoption, Desired, Health, ServiceSpec};
use seawall_fastpath::cell::Cell64;
use seawall_fastpath::layout::{AddressKey, Header, NO_SCALE, ServiceKey, Settings};

use super::keys::Keys;
use super::setup::Ways;
use super::{Worker, clock, setup};

/// What the next daemon must be told: what `config` and `keys` say has been promised otherwise to
/// clients whose cookies are on their way.
pub(super) fn check(config: &Config, keys: &Keys, settings: &Settings) -> Result<()> {
    let had = settings.window_scale.load();
    let wants = setup::window_scale(config);
    let number = |scale: u32| if scale == u32::from(NO_SCALE) { 0 } else { scale };
    let what = if had != u32::from(wants) {
        format!("[synproxy] wscale was {}", number(had))
    } else if !keys.made(settings) {
        "[synproxy] secret_file was another".to_owned()
    } else {
        return Ok(());
    };
    bail!(
        "cannot take over what a daemon has left in {dir}: {what}; put it back as it was, or run \
         `seawall stop --state {dir}`, which ends the sessions",
        dir = config.state.display()
    )
}

/// The cells of the injector's counters: the last of all.
fn cells(header: &Header) -> [&Cell64; 4] {
    let [.., a, b, c, d] = &header.counters;
    [a, b, c, d]
}

/// What the injector before ours has counted.
pub(super) fn injected(header: &Header) -> InjectCounters {
    let [sent, dropped, failed, refused] = cells(header).map(Cell64::load);
    InjectCounters { sent, dropped, failed, refused }
}

/// Writes down what the injector has counted.
pub(super) fn set_injected(header: &MappedArray<Header>, counters: InjectCounters) {
    let Some(header) = header.first() else { return };
    let InjectCounters { sent, dropped, failed, refused } = counters;
    for (cell, value) in cells(header).into_iter().zip([sent, dropped, failed, refused]) {
        cell.store(value);
    }
}

impl Worker {
    /// Gives the sessions that the engine has taken over their services and real servers back, and
    /// says what was found.
    pub(super) fn adopt_services(
        &mut self,
        desired: Desired,
        gateways: &Ways,
        found: &Adoption,
        begun: Instant,
    ) -> Result<()> {
        self.engine.adopt_next_hops();
        let keys: HashSet<ServiceKey> = desired.services.iter().map(ServiceSpec::key).collect();
        let mut placed = Vec::with_capacity(desired.services.len());
        let config = Arc::clone(&self.config);
        let specs = desired.services.into_iter().zip(gateways).zip(&config.services);
        for ((mut spec, ways), service) in specs {
            let place = Place::new(None, None, service);
            self.reach(&mut spec, ways, &place)?;
            placed.push(self.place(&spec, service, &place));
        }
        self.placed = placed;
        self.read_network()?;
        // Whoever is gone first: the packet path must not take anybody new for them.
        let services = &self.config.services;
        let vips = services.iter().map(|service| AddressKey(service.address.ip().into()));
        let pools = self.config.local_addresses.iter().flat_map(|pool| &pool.addresses);
        let locals =
            pools.flat_map(|range| range.value.iter()).map(|local| AddressKey(local.into()));
        let attached = self.interfaces.attached().map(|link| link.index).collect();
        self.xdp.retain(&keys, &vips.chain(locals).collect(), &attached)?;
        self.engine.settle(clock::monotonic_ms());
        self.handle_requests()?;
        println!(
            "adopted {} sessions ({} of them in a handshake) of {} services and {} persistence \
             templates in {} ms; {} broken slots, {} stray index entries and {} templates of nobody cleared",
            found.sessions,
            found.handshakes,
            found.services,
            found.templates,
            begun.elapsed().as_millis(),
            found.orphan_slots,
            found.orphan_entries,
            found.orphan_templates,
        );
        for service in self.engine.services() {
            let down = service.servers.iter().filter(|it| it.health == Health::Down);
            for server in down {
                let real = SocketAddr::from(server.spec.address);
                let vip = SocketAddr::from(service.spec.address);
                println!("note: real server {real} of service {vip} is still marked down");
            }
        }
        Ok(())
    }
}
