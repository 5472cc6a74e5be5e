//! Instructions of native code, counted by callgrind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The target that does the work.
const TARGET: &str = "instructions";
/// The function inside of which callgrind counts.
const MEASURED: &str = "*instructions*measured*";
/// Has glibc copy and clear memory as on any x86-64 processor, whatever this one can do better: an
/// instruction that clears a page counts as one a byte.
const PLAIN_MEMORY: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load");

/// The compiler's version, one line.
pub(crate) fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = finished(Command::new(rustc).arg("--version"), "rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// Every case and what it costs each time.
pub(crate) fn count(root: &Path) -> Result<Vec<(String, u64)>> {
    let executable = build(root)?;
    let cases = String::from_utf8(finished(&mut Command::new(&executable), TARGET)?.stdout)?;
    cases.lines().map(|case| Ok((case.to_owned(), one(&executable, case)?))).collect()
}

fn build(root: &Path) -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--release", "--locked", "--package", "seawall-engine"])
        .args(["--bench", TARGET, "--message-format", "json"])
        .current_dir(root);
    let output = finished(&mut command, "cargo")?;
    let said = String::from_utf8(output.stdout)?;
    let path = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(
        |message| {
            let is_ours = message["target"]["name"] == TARGET;
            message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
        },
    );
    path.with_context(|| format!("cargo does not say where it has put {TARGET}"))
}

/// Instructions of a case, once.
fn one(executable: &Path, case: &str) -> Result<u64> {
    let counts = tempfile::NamedTempFile::with_prefix("seawall-callgrind-")?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", &format!("--toggle-collect={MEASURED}")])
        .arg(format!("--callgrind-out-file={}", counts.path().display()))
        .arg(executable)
        .arg(case)
        .env(PLAIN_MEMORY.0, PLAIN_MEMORY.1);
    let output = finished(&mut command, "valgrind (Debian's package of that name)")?;
    let repeats: u64 = String::from_utf8(output.stdout)?.trim().parse().context(TARGET)?;
    let total = total(&std::fs::read_to_string(counts.path())?);
    let total = total.context("callgrind has counted nothing")?;
    Ok(total.div_ceil(repeats))
}

/// The total of a file that callgrind has written; `None` if it says none, or 0: the function to
/// count was not found.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok().filter(|total| *total > 0)
}

fn finished(command: &mut Command, name: &str) -> Result<Output> {
    let output = command.output().with_context(|| name.to_owned())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_of_callgrind_is_read() {
        assert_eq!(total("events: Ir\nfn=(0)\n\ntotals: 542236\n"), Some(542_236));
        assert_eq!(total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
