//! The checked-in BPF objects were built from the sources in this tree.
//!
//! Needs no BPF toolchain: it compares the hash of the sources with the one recorded when the
//! objects were built. `cargo xtask bpf --check` compares the objects themselves.

use std::path::Path;

#[path = "../../../bpf/source_hash.rs"]
mod source_hash;

use source_hash::{RECORD, recorded, source_hash};

#[test]
fn the_objects_were_built_from_these_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let record = std::fs::read_to_string(root.join(RECORD)).expect(RECORD);
    let sources = source_hash(&root).expect("the sources of the BPF objects");
    assert_eq!(
        recorded(&record, "sources"),
        Some(sources.as_str()),
        "the sources of the BPF objects have changed: run `cargo xtask bpf` and commit the result"
    );
}
