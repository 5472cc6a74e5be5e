//! Builds the BPF objects: the same bytes from any directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::source_hash::{RECORD, recorded, source_hash};
use crate::toolchain::{TARGET, Toolchain};

/// The programs of the crate in `bpf`, and where their objects lie in the tree.
const OBJECTS: [(&str, &str); 2] = [("seawall", "bpf/seawall.bpf.o"), ("lab", "bpf/lab.bpf.o")];

/// Builds the objects and records what they were built from and with.
pub(crate) fn update() -> Result<()> {
    let root = root()?;
    let tools = Toolchain::find()?;
    build(&root, &tools)?;
    for (program, object) in OBJECTS {
        fs::copy(built(&root, program), root.join(object)).with_context(|| object.to_owned())?;
    }
    let record = format!(
        "# What the objects in this folder were built from and with. Written by `cargo xtask bpf`.\n\
         sources = \"{}\"\nrustc = \"{}\"\nlinker = \"{}\"\n",
        source_hash(&root)?,
        tools.rustc_version,
        tools.linker_version,
    );
    fs::write(root.join(RECORD), record).context(RECORD)
}

/// Builds the objects and fails if they are not the ones in the tree. With other tools than the
/// recorded ones, which may well make other code, it only says so.
pub(crate) fn check() -> Result<()> {
    let root = root()?;
    let record = fs::read_to_string(root.join(RECORD)).context(RECORD)?;
    if recorded(&record, "sources") != Some(source_hash(&root)?.as_str()) {
        bail!("the sources of the BPF objects have changed: run `cargo xtask bpf`");
    }
    let tools = match Toolchain::find() {
        Ok(tools) => tools,
        Err(missing) => {
            println!("BPF objects not compared: {missing:#}");
            return Ok(());
        }
    };
    for (tool, here) in [("rustc", &tools.rustc_version), ("linker", &tools.linker_version)] {
        let there = recorded(&record, tool).unwrap_or("unknown");
        if there != here {
            println!("BPF objects not compared: built with {there}, this is {here}");
            return Ok(());
        }
    }
    build(&root, &tools)?;
    for (program, object) in OBJECTS {
        if fs::read(built(&root, program))? != fs::read(root.join(object))? {
            bail!("{object} is not what its sources give: run `cargo xtask bpf`");
        }
    }
    Ok(())
}

fn build(root: &Path, tools: &Toolchain) -> Result<()> {
    let flags = [
        // The first with 32-bit atomics.
        "-Ctarget-cpu=v3".to_owned(),
        "-Clinker=bpf-linker".to_owned(),
        // Linux 6.1 accepts the back edge of a loop only as a jump; placed anew, the blocks of a
        // loop may end up so that it falls through.
        "-Clink-arg=--llvm-args=-disable-block-placement".to_owned(),
        format!("--remap-path-prefix={}=/seawall", text(root)?),
        format!("--remap-path-prefix={}=/cargo", text(&cargo_home()?)?),
    ];
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--locked", "--release", "--bins", "--target", TARGET])
        .arg("--target-dir")
        .arg(root.join("bpf/target"))
        .current_dir(root.join("bpf"))
        .env("RUSTC", &tools.rustc)
        // aya-ebpf needs inline assembly for BPF, which is unstable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the BPF crate does not build");
    }
    Ok(())
}

fn built(root: &Path, program: &str) -> PathBuf {
    root.join("bpf/target").join(TARGET).join("release").join(program)
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().context("the workspace's root")
}

fn cargo_home() -> Result<PathBuf> {
    match (env::var_os("CARGO_HOME"), env::home_dir()) {
        (Some(home), _) => Ok(home.into()),
        (None, Some(home)) => Ok(home.join(".cargo")),
        (None, None) => bail!("neither CARGO_HOME nor HOME is set"),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
