//! Floods: frames answered or refused for a second of the balancer's processor time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use seawall_lab::TopologySpec;
use seawall_lab::flood::Kind;
use seawall_lab::frame::Template;

use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::system::{Counts, System};
use super::{Settings, WARM_UP};

/// How long what is under way may take to arrive.
const SETTLE: Duration = Duration::from_millis(100);

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
    let done = |run: &Run| match deed {
        Deed::Answered => run.counts.answered,
        Deed::Refused => run.counts.arrived - run.counts.let_through.min(run.counts.arrived),
    } as f64;
    Ok(Sample::new(done(&apart) / apart.spent.balancer)
        .note("one_core_with_generator_per_s", done(&together) / together.spent.others)
        .note("one_core_per_s_of_wall", done(&together) / together.spent.wall)
        .note("per_s_of_wall", done(&apart) / apart.spent.wall)
        .note("generator_per_s", apart.sent as f64 / apart.sending)
        .note("lost_to_full_queue_share", 1.0 - apart.all.arrived as f64 / apart.sent as f64)
        .note("frames_unaccounted_for", apart.unaccounted())
        .note("frames_let_through", apart.all.let_through as f64)
        .note("ns_each", apart.spent.balancer / done(&apart).max(1.0) * 1e9)
        .note("receive_core_busy", apart.spent.processor / apart.spent.wall))
}

/// SYNs a second that Seawall answers on a processor of its own.
pub(crate) fn capacity(settings: &Settings) -> Result<f64> {
    let run = run(settings, System::Seawall, &[Kind::Syn], Placement::Apart)?;
    Ok(run.counts.answered as f64 / run.spent.wall)
}

struct Run {
    /// From before the flood until after it.
    all: Counts,
    /// Of the window, like what was spent.
    counts: Counts,
    spent: super::rig::Spent,
    sent: u64,
    /// Seconds from the start of the flood to its end.
    sending: f64,
}

impl Run {
    /// Frames that arrived from the first to the last and that the system says nothing about; 0
    /// for one that counts nothing refused.
    fn unaccounted(&self) -> f64 {
        let Counts { arrived, answered, let_through, refused } = self.all;
        let told = refused.map_or(arrived, |refused| answered + let_through + refused);
        arrived as f64 - told as f64
    }
}

fn run(settings: &Settings, system: System, kinds: &[Kind], placement: Placement) -> Result<Run> {
    let spec = TopologySpec { real_servers: 1, ..TopologySpec::default() };
    let rig = Rig::build(&spec, placement, |topology| system.start(topology, &settings.daemon))?;
    let attacker = rig.attacker()?;
    let host = rig.topology.attacker.as_ref().context("no attacker")?;
    let target = system.target(&rig.topology);
    let templates: Vec<Template> =
        kinds.iter().map(|kind| kind.template(attacker.link(), target)).collect();
    let count = || Counts::take(system, &rig.running, &rig.topology);
    let before = count()?;
    let started = Instant::now();
    let flood = attacker.send(host, &templates, 0)?;
    sleep(WARM_UP);
    let (counts, usage) = (count()?, rig.usage()?);
    sleep(settings.window);
    let spent = rig.usage()?.since(&usage);
    let counts = count()?.since(&counts);
    let sending = started.elapsed().as_secs_f64();
    let sent = flood.stop()?;
    sleep(SETTLE);
    Ok(Run { all: count()?.since(&before), counts, spent, sent, sending })
}
