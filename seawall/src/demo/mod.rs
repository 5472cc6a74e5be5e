//! `seawall demo`: real connections through the real daemon while it is being flooded, in
//! namespaces of its own.

mod phases;
mod report;
mod screen;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use seawall_datapath::requirements;

use phases::Show;
use screen::Screen;
use stage::Stage;

/// What the demo can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds that each phase with requests lasts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    duration: u64,
    /// Packets a second of the floods; 0 sends as many as the machine can.
    #[arg(long, default_value_t = 300_000)]
    flood_rate: u32,
    /// Real servers, of weights 1, 2, 3 and so on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    servers: u16,
    /// Where to write the report.
    #[arg(long, default_value = "seawall-demo.html")]
    report: PathBuf,
}

/// Runs the demo; fails if a promise was not kept.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    requirements::check().context("the demo needs root")?;
    let screen = Screen::new();
    let started = Instant::now();
    screen.heading("Building the network and starting the daemon");
    let mut stage = Stage::build(usize::from(options.servers))?;
    screen.line(&format!(
        "client and attacker, balancer, {} real servers, in namespaces of their own",
        options.servers
    ));
    let mut results = Show {
        stage: &mut stage,
        screen: &screen,
        duration: Duration::from_secs(options.duration),
        flood_rate: options.flood_rate,
    }
    .run()?;
    let stopped = stage.stop()?;
    screen.heading("Summary");
    let text = "the daemon stopped in order and took everything along".to_owned();
    screen.verdict(stopped, &text);
    results.promises.push((stopped, text));
    std::fs::write(&options.report, report::page(&results)?)
        .with_context(|| format!("writing {}", options.report.display()))?;
    let kept = results.promises.iter().filter(|(kept, _)| *kept).count();
    screen.line(&format!(
        "{kept} of {} promises kept in {:.0} s; report in {}",
        results.promises.len(),
        started.elapsed().as_secs_f64(),
        options.report.display()
    ));
    Ok(if results.all_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
