//! `cargo xtask bench`: Seawall, its peers and the limits, in the same run on the same machine.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use seawall_lab::cpu;
use serde_json::json;

mod bulk;
mod chart;
mod connections;
mod flood;
mod forward;
mod growth;
mod machine;
mod outcome;
mod requests;
mod rig;
mod scenario;
mod series;
mod system;
mod window;

use outcome::Outcome;
use scenario::{SCENARIOS, Scenario};
use system::System;

/// What a load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// Rounds, in each of which every system runs once, one after the other.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;
/// How long each run is measured.
const WINDOW: Duration = Duration::from_millis(1500);
const QUICK_WINDOW: Duration = Duration::from_millis(500);
/// Where charts and figures go in the tree.
const DIRECTORY: &str = "docs/benchmarks";

/// Measures Seawall against its peers and against what the machine can do.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Scenarios to run; all if none is named.
    scenarios: Vec<String>,
    /// List the scenarios and run none.
    #[arg(long)]
    list: bool,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter runs, and nothing written to docs/benchmarks: to see that it works.
    #[arg(long)]
    quick: bool,
}

/// How each run is made.
struct Settings {
    /// The daemon's binary.
    daemon: PathBuf,
    /// How long is measured.
    window: Duration,
    rounds: usize,
    /// It is only to be seen that everything works.
    quick: bool,
    /// See [`Settings::capacity`].
    capacity: OnceCell<f64>,
}

impl Settings {
    /// SYNs a second that Seawall answers on one processor, measured when it is asked for first.
    fn capacity(&self) -> Result<f64> {
        if let Some(capacity) = self.capacity.get() {
            return Ok(*capacity);
        }
        let capacity = flood::capacity(self).context("the capacity of syn-flood")?;
        Ok(*self.capacity.get_or_init(|| capacity))
    }
}

/// Runs what `args` ask for.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let name = "cargo xtask bench";
    let options = match Options::try_parse_from([name].iter().chain(args)) {
        Ok(options) => options,
        Err(said) => said.exit(),
    };
    if options.list {
        for scenario in &SCENARIOS {
            println!("{:<16} {} ({})", scenario.name, scenario.about, scenario.unit);
        }
        return Ok(());
    }
    let chosen = choose(&options.scenarios)?;
    seawall_datapath::requirements::check().context("benches need root")?;
    ensure!(machine::processors() >= 2, "two processors are needed: the load has one of its own");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the tree")?;
    let (window, rounds) =
        if options.quick { (QUICK_WINDOW, QUICK_ROUNDS) } else { (WINDOW, ROUNDS) };
    let daemon = build_daemon(root)?;
    let quick = options.quick;
    let settings = Settings { daemon, window, rounds, quick, capacity: OnceCell::new() };
    // Before there are threads: they and the processes that they start inherit it.
    cpu::pin(std::process::id(), rig::OTHERS_CPU)?;
    println!("{}", machine::describe()?);
    let mut outcomes = Vec::new();
    for scenario in chosen {
        let outcome = measure(scenario, &settings).with_context(|| scenario.name)?;
        println!("\n{}", outcome.table());
        if !options.quick {
            let directory = root.join(DIRECTORY);
            std::fs::create_dir_all(&directory)?;
            chart::draw(&outcome, &directory.join(format!("{}.svg", outcome.name)))?;
            write(
                &directory.join(format!("{}.json", outcome.name)),
                &report(&settings, std::slice::from_ref(&outcome))?,
            )?;
        }
        outcomes.push(outcome);
    }
    if let Some(file) = &options.json {
        write(file, &report(&settings, &outcomes)?)?;
    }
    Ok(())
}

/// The scenarios of those names, in their own order.
fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if let Some(name) = names.iter().find(|name| SCENARIOS.iter().all(|s| s.name != **name)) {
        bail!("no scenario is named `{name}`; expected one of those that --list shows");
    }
    let is_chosen = |s: &&Scenario| names.is_empty() || names.iter().any(|name| name == s.name);
    Ok(SCENARIOS.iter().filter(is_chosen).collect())
}

/// Runs every system once a round.
fn measure(scenario: &Scenario, settings: &Settings) -> Result<Outcome> {
    let mut outcome = Outcome::new(scenario.name, scenario.unit, scenario.musts);
    let (here, absent): (Vec<System>, Vec<System>) =
        scenario.systems.iter().partition(|system| system.needs().is_none_or(machine::has));
    for system in absent {
        let program = system.needs().unwrap_or_default();
        eprintln!("{}: {} left out: no `{program}` here", scenario.name, system.name());
    }
    let rounds = settings.rounds.min(scenario.most_rounds);
    for round in 1..=rounds {
        for &system in &here {
            let sample = (scenario.measure)(settings, system)
                .with_context(|| format!("{} in round {round}", system.name()))?;
            eprintln!(
                "{}, round {round} of {}: {} {} {}",
                scenario.name,
                rounds,
                system.name(),
                outcome::short(sample.value),
                scenario.unit,
            );
            outcome.push(system.name(), sample);
        }
    }
    Ok(outcome)
}

fn report(settings: &Settings, outcomes: &[Outcome]) -> Result<String> {
    let scenarios: Vec<_> = outcomes.iter().map(Outcome::json).collect();
    let method = json!({
        "rounds": settings.rounds,
        "window_s": settings.window.as_secs_f64(),
        "figures": "medians over the rounds; ratios are medians of the ratios of each round",
    });
    let machine = machine::describe()?;
    let report = json!({ "machine": machine, "method": method, "scenarios": scenarios });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn build_daemon(root: &Path) -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--locked", "--package", "seawall"])
        .current_dir(root)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "the daemon does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    Ok(target.join("release/seawall"))
}

#[cfg(test)]
mod tests {
    use super::{SCENARIOS, choose};

    #[test]
    fn scenarios_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), SCENARIOS.len());
        let names = ["syn-flood".to_owned()];
        assert_eq!(choose(&names).unwrap()[0].name, "syn-flood");
        let error = choose(&["syn".to_owned()]).err().unwrap();
        assert!(error.to_string().contains("`syn`"), "{error}");
    }
}
