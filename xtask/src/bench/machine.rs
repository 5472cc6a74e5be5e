//! The machine that a figure comes from.

use anyhow::{Context, Result};

/// Processors that this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Whether a program of that name is in the `PATH`.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Processor, kernel and what else was running, in one line.
pub(crate) fn describe() -> Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| model.trim_start_matches(['\t', ' ', ':']));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or("unknown");
    Ok(format!("{count} × {model}, Linux {}, load average {load}", kernel.trim()))
}
