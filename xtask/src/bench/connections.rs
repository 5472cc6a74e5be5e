//! Whole connections between clients and a server that are XDP programs: what the balancer spends
//! on each, and how many it can take.

use anyhow::{Result, ensure};
use seawall_lab::TopologySpec;
use seawall_lab::connections::Tally;

use super::Settings;
use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::system::System;
use super::window::{self, Window};

impl window::Counts for [Tally; 2] {
    fn since(&self, earlier: &Self) -> Self {
        [self[0].since(&earlier[0]), self[1].since(&earlier[1])]
    }
}

/// One run, in which the balancer always has more connections to make.
pub(crate) fn measure(settings: &Settings, system: System) -> Result<Sample> {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let rig =
        Rig::build(&spec, Placement::Apart, |topology| system.start(topology, &settings.daemon))?;
    let connections = rig.connections(system.target(&rig.topology), 0)?;
    let Window { all, counts, spent, .. } = window::measure(
        settings,
        &rig,
        || Ok([connections.tally()?, connections.server_tally()?]),
        || Ok(connections.start()?),
        |work| work.stop().map(|()| 0).map_err(Into::into),
    )?;
    let [clients, servers] = all;
    ensure!(
        clients.strange + servers.strange == 0,
        "segments without timestamps: clients {clients:?}, server {servers:?}"
    );
    let finished = counts[0].finished as f64;
    ensure!(finished > 0.0, "no connection was made: clients {clients:?}, server {servers:?}");
    let micros = |seconds: f64| seconds / finished * 1e6;
    let begun = clients.begun as f64;
    Ok(Sample::new(micros(spent.balancer))
        .note("us_of_it_in_the_process", micros(spent.process))
        .note("per_s_of_receive_cpu", finished / spent.balancer)
        .note("per_s_of_wall", finished / spent.wall)
        .note("reset", clients.reset as f64)
        .note("not_finished_share", 1.0 - clients.finished as f64 / begun)
        .note("balancer_core_share", spent.balancer / spent.wall)
        .note("receive_core_busy", spent.processor / spent.wall))
}
