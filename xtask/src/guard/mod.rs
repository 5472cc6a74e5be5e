//! `cargo xtask guard`: counts that come out the same on a slow, a busy and a fast machine, held
//! against those in `xtask/guard.toml`.
//!
//! - **instructions**: what one frame, or one session, costs natively, counted by callgrind
//!   (`crates/engine/benches/instructions.rs`).
//! - **size** and **verified**: instructions of every XDP program as the kernel has it, and those
//!   that its verifier walked.
//!
//! A count that exceeds its baseline by more than [`TOLERANCE`] fails, and so does one without a
//! baseline, or a baseline that nothing has. Counts depend on the compiler, and the kernel's on the
//! kernel: with others than the recorded ones they are printed and not judged. So are times, always.

use std::path::Path;

use anyhow::{Context, Result, bail};
use seawall_datapath::requirements;

mod baseline;
mod native;
mod programs;
mod runs;

use baseline::{Baseline, Group, Judgement};

/// By which part of its baseline a count may exceed it.
const TOLERANCE: f64 = 0.05;
/// Where the baseline is.
const FILE: &str = "xtask/guard.toml";

/// What is to become of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// They are held against the baseline.
    Judge,
    /// They become the baseline.
    Accept,
}

/// Counts everything.
pub(crate) fn run(aim: Aim) -> Result<()> {
    requirements::check().context("the kernel verifies XDP programs for root only")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the tree")?;
    let measured = measure(root)?;
    for (frame, time) in runs::times()? {
        println!("time          {frame:<28} {time:>8} ns, not judged");
    }
    let file = root.join(FILE);
    if aim == Aim::Accept {
        return std::fs::write(&file, measured.text()).context(FILE);
    }
    let text = std::fs::read_to_string(&file).context(FILE)?;
    let baseline = Baseline::parse(&text).with_context(|| format!("{FILE} is not a baseline"))?;
    let mut failed = false;
    for group in Group::ALL {
        let same_tool = baseline.tool(group) == measured.tool(group);
        for line in baseline.judge(&measured, group, TOLERANCE) {
            println!("{line}");
            failed |= same_tool && line.judgement.fails();
        }
        if !same_tool {
            println!(
                "{} not judged: recorded with {}, this is {}",
                group.name(),
                baseline.tool(group),
                measured.tool(group)
            );
        }
    }
    if failed {
        bail!(
            "counts differ from {FILE} as marked. If what they pay for is worth it, \
             `cargo xtask guard --accept` makes them the baseline; commit it with the reason"
        );
    }
    Ok(())
}

fn measure(root: &Path) -> Result<Baseline> {
    let mut measured = Baseline::new(native::compiler()?, programs::kernel()?);
    for (case, instructions) in native::count(root)? {
        measured.set(Group::Instructions, case, instructions);
    }
    for program in programs::load(root)? {
        measured.set(Group::Size, program.name.clone(), program.size);
        measured.set(Group::Verified, program.name, program.verified);
    }
    Ok(measured)
}

impl Judgement {
    const fn fails(self) -> bool {
        match self {
            Self::Within | Self::Below => false,
            Self::Above | Self::Unknown | Self::Gone => true,
        }
    }
}
