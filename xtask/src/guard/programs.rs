//! The XDP programs as the kernel takes them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::Program;

/// Where the objects are in the tree.
const OBJECTS: &str = "bpf";
/// What their names end in.
const ENDING: &str = ".bpf.o";
/// Bytes of a BPF instruction.
const INSTRUCTION: u32 = 8;

/// One that the kernel has verified.
pub(crate) struct Verified {
    pub(crate) name: String,
    /// Instructions, after the kernel's rewriting.
    pub(crate) size: u64,
    /// Instructions that the kernel walked.
    pub(crate) verified: u64,
}

/// The kernel's release, as far as it says what the verifier does: `6.18`.
pub(crate) fn kernel() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    Ok(release.trim_end().split('.').take(2).collect::<Vec<_>>().join("."))
}

/// Has the kernel verify every program of every object in the tree.
pub(crate) fn load(root: &Path) -> Result<Vec<Verified>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(root.join(OBJECTS)).context(OBJECTS)? {
        let path = file?.path();
        if !path.to_str().is_some_and(|name| name.ends_with(ENDING)) {
            continue;
        }
        let mut ebpf = Ebpf::load_file(&path).with_context(|| path.display().to_string())?;
        for (name, program) in ebpf.programs_mut() {
            let Program::Xdp(program) = program else { bail!("{name} is not an XDP program") };
            program.load().with_context(|| name.to_owned())?;
            let info = program.info()?;
            let size = info.size_translated().context("the kernel does not tell sizes")?;
            let verified = info.verified_instruction_count();
            let verified = verified.context("the kernel does not tell what it has verified")?;
            all.push(Verified {
                name: name.to_owned(),
                size: u64::from(size / INSTRUCTION),
                verified: verified.into(),
            });
        }
    }
    Ok(all)
}
