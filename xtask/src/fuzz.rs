//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, from the corpus that is checked in.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// What can be fuzzed.
pub(crate) const TARGETS: [&str; 3] = ["wire", "fastpath", "engine"];
/// How long each takes if nobody says otherwise, in seconds.
pub(crate) const SECONDS: u32 = 60;
/// Longest input: some eighty things that happen.
const MAX_LEN: u32 = 1_200;
/// Seconds after which one input has hung.
const TIMEOUT: u32 = 30;

const NEEDED: &str = "cargo-fuzz is not installed; `cargo install cargo-fuzz` installs it";

/// Fuzzes each of `targets` for `seconds`. What is found anew goes to `fuzz/target/found/TARGET`,
/// so that the tree stays as it is.
pub(crate) fn run(targets: &[&str], seconds: u32) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the tree")?;
    let installed = Command::new("cargo").args(["fuzz", "--version"]).output();
    ensure!(installed.is_ok_and(|output| output.status.success()), NEEDED);
    for target in targets {
        let found = root.join("fuzz/target/found").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("{}", found.display()))?;
        let status = Command::new("cargo")
            // Coverage is an unstable flag of the compiler, here as in a nightly one.
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(root.join("fuzz"))
            .args(["fuzz", "run", "--sanitizer", "none", target])
            .arg(&found)
            .arg(root.join("fuzz/corpus").join(target))
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_LEN}"))
            .arg(format!("-timeout={TIMEOUT}"))
            .args(["-print_final_stats=1", "-verbosity=0"])
            .status()
            .context("cargo fuzz")?;
        if !status.success() {
            bail!(
                "`{target}` found something; fuzz/artifacts/{target} has the input, and \
                 `SEAWALL_INPUT=FILE cargo test -p seawall-engine --test corpus {target}` runs it"
            );
        }
    }
    Ok(())
}
