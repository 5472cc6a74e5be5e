//! Floods: frames answered or refused for a second of the balancer's processor time.

use anyhow::{Context, Result};
use seawall_lab::TopologySpec;
use seawall_lab::flood::Kind;
use seawall_lab::frame::Template;

use super::Settings;
use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::system::{Counts, System};
use super::window::{self, Window};

/// What of a flood counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SYNs answered.
    Answered,
    /// Frames not let through.
    Refused,
}

/// One run: first with the balancer on a processor of its own, then with everything on one.
pub(crate) fn measure(
    settings: &Settings,
    system: System,
    kinds: &[Kind],
    deed: Deed,
) -> Result<Sample> {
    let apart = run(settings, system, kinds, Placement::Apart)?;
    let together = run(settings, system, kinds, Placement::Together)?;
    let done = |run: &Window<Counts>| match deed {
        Deed::Answered => run.counts.answered,
        Deed::Refused => run.counts.arrived - run.counts.let_through.min(run.counts.arrived),
    } as f64;
    Ok(Sample::new(done(&apart) / apart.spent.balancer)
        .note("one_core_per_s_of_wall", done(&together) / together.spent.wall)
        .note("per_s_of_wall", done(&apart) / apart.spent.wall)
        .note("generator_per_s", apart.sent as f64 / apart.sending)
        .note("lost_to_full_queue_share", 1.0 - apart.all.arrived as f64 / apart.sent as f64)
        .note("frames_unaccounted_for", unaccounted(&apart))
        .note("frames_let_through", apart.all.let_through as f64)
        .note("ns_each", apart.spent.balancer / done(&apart).max(1.0) * 1e9)
        .note("receive_core_busy", apart.spent.processor / apart.spent.wall))
}

/// SYNs a second that Seawall answers on a processor of its own.
pub(crate) fn capacity(settings: &Settings) -> Result<f64> {
    let run = run(settings, System::Seawall, &[Kind::Syn], Placement::Apart)?;
    Ok(run.counts.answered as f64 / run.spent.wall)
}

/// Frames that arrived from the first to the last and that the system says nothing about; 0 for
/// one that counts nothing refused.
fn unaccounted(run: &Window<Counts>) -> f64 {
    let Counts { arrived, answered, let_through, refused } = run.all;
    let told = refused.map_or(arrived, |refused| answered + let_through + refused);
    arrived as f64 - told as f64
}

fn run(
    settings: &Settings,
    system: System,
    kinds: &[Kind],
    placement: Placement,
) -> Result<Window<Counts>> {
    let spec = TopologySpec { real_servers: 1, ..TopologySpec::default() };
    let rig = Rig::build(&spec, placement, |topology| system.start(topology, &settings.daemon))?;
    flooded(settings, &rig, system, kinds)
}

/// A window under a flood from the attacker, as much as it can send.
pub(crate) fn flooded(
    settings: &Settings,
    rig: &Rig,
    system: System,
    kinds: &[Kind],
) -> Result<Window<Counts>> {
    let attacker = rig.attacker()?;
    let host = rig.topology.attacker.as_ref().context("no attacker")?;
    let target = system.target(&rig.topology);
    let templates: Vec<Template> =
        kinds.iter().map(|kind| kind.template(attacker.link(), target)).collect();
    window::measure(
        settings,
        rig,
        || Counts::take(system, &rig.running, &rig.topology),
        || Ok(attacker.send(host, &templates, 0)?),
        |flood| Ok(flood.stop()?),
    )
}
