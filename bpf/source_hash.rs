// What the checked-in BPF objects were built from. Included by path by `xtask`, which records it,
// and by the test in `crates/datapath` that compares it, which needs no BPF toolchain.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

/// The record beside the objects, from the workspace's root.
pub(crate) const RECORD: &str = "bpf/objects.toml";

/// Files, and folders of Rust sources, that the objects are built from.
const SOURCES: [&str; 11] = [
    "bpf/Cargo.lock",
    "bpf/Cargo.toml",
    "bpf/src",
    "crates/fastpath/Cargo.toml",
    "crates/fastpath/src",
    "crates/lab/src/connections_layout.rs",
    "crates/lab/src/flood_layout.rs",
    "crates/lab/src/link_layout.rs",
    "crates/wire/Cargo.toml",
    "crates/wire/src",
    "xtask/src/bpf.rs",
];

/// SHA-256, in hexadecimal, over the names and contents of all sources of the objects.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn source_hash(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(root, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let bytes = fs::read(root.join(&file))?;
        let name = file.to_string_lossy();
        for part in [name.as_bytes(), &bytes] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if root.join(path).is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(root.join(path))? {
        let entry = entry?;
        let path = path.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The value of `key` in the record.
pub(crate) fn recorded<'r>(record: &'r str, key: &str) -> Option<&'r str> {
    record.lines().find_map(|line| {
        let (name, value) = line.split_once(" = ")?;
        if name == key { value.strip_prefix('"')?.strip_suffix('"') } else { None }
    })
}
