//! `seawall attack`: the lab's attack suite against the real daemon, one line an attack.

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use seawall_datapath::requirements;
use seawall_lab::Topology;
use seawall_lab::attack::{Attack, Family, Force, Report, Stage, all};

use crate::interrupt;

/// What the suite can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// Attacks to make; all if none is named.
    names: Vec<String>,
    /// List the attacks and make none.
    #[arg(long)]
    list: bool,
    /// Seconds that each attack lasts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Packets a second of the floods; 0 sends as many as the machine can.
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
}

/// Makes the attacks; fails if one of them did any harm.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut attacks: Vec<_> = Family::ALL.into_iter().flat_map(all).collect();
    // What waits for minutes comes last.
    attacks.sort_by_key(|attack| attack.waits);
    if options.list {
        for attack in &attacks {
            println!("{:<20} {}", attack.title(), attack.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&attacks, &options.names)?;
    requirements::check().context("the attacks need root")?;
    let topology = Topology::build(&Stage::spec()).context("building the network")?;
    let mut stage = Stage::new(topology, &std::env::current_exe()?)?;
    interrupt::remove(stage.directory().to_owned())?;
    let force = Force { duration: Duration::from_secs(options.seconds), rate: options.rate };
    let started = Instant::now();
    let screen = Screen { live: stdout().is_terminal() };
    screen.head();
    let mut failed = 0;
    for attack in &chosen {
        screen.begin(attack);
        let report = attack.run(&mut stage, force).with_context(|| attack.title())?;
        screen.end(attack, &report);
        failed += usize::from(!report.faults.is_empty());
    }
    let (made, seconds) = (chosen.len(), started.elapsed().as_secs_f64());
    println!("\n{} of {made} attacks did no harm, in {seconds:.0} s", made - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The attacks of those names, in the order of the suite.
fn choose(attacks: &[Attack], names: &[String]) -> Result<Vec<Attack>> {
    if let Some(name) = names.iter().find(|name| attacks.iter().all(|a| a.title() != **name)) {
        bail!("no attack is named `{name}`; expected one of those that --list shows");
    }
    let is_chosen = |attack: &&Attack| names.is_empty() || names.contains(&attack.title());
    Ok(attacks.iter().filter(is_chosen).copied().collect())
}

/// The table: on a terminal, the attack under way has a line of its own.
struct Screen {
    live: bool,
}

impl Screen {
    fn head(&self) {
        println!(
            "{:<6} {:<20} {:>11} {:>11} {:>9} {:>9} {:>9}  counted",
            "", "attack", "sent", "arrived", "requests", "p99", "memory"
        );
    }

    fn begin(&self, attack: &Attack) {
        if self.live {
            print!("{:<6} {:<20} {}", "...", attack.title(), attack.about);
            // A terminal that is gone does not end the attacks.
            let _ = stdout().flush();
        }
    }

    fn end(&self, attack: &Attack, report: &Report) {
        let (word, colour) = if report.faults.is_empty() { ("ok", 32) } else { ("FAIL", 31) };
        if self.live {
            print!("\r\x1b[2K\x1b[{colour}m{word:<6}\x1b[0m");
        } else {
            print!("{word:<6}");
        }
        let counted = report.counted.iter().map(|one| format!("{} {}", one.name, one.value));
        let p99 = report.p99.map_or_else(
            || "-".to_owned(),
            |latency| format!("{:.1} ms", latency.as_secs_f64() * 1e3),
        );
        println!(
            " {:<20} {:>11} {:>11} {:>9} {p99:>9} {:>5} KiB  {}",
            attack.title(),
            report.sent,
            report.arrived,
            report.requests,
            report.growth >> 10,
            counted.collect::<Vec<_>>().join(", ")
        );
        for fault in &report.faults {
            println!("       {fault}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, all, choose};

    #[test]
    fn an_unknown_name_is_refused() {
        let attacks = all(Family::V4);
        let error = choose(&attacks, &["sny".to_owned()]).err().unwrap();
        assert!(error.to_string().contains("`sny`"), "{error}");
        assert_eq!(choose(&attacks, &["syn".to_owned()]).unwrap().len(), 1);
        assert_eq!(choose(&attacks, &[]).unwrap().len(), attacks.len());
    }
}
