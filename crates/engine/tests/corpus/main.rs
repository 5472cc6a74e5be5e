//! What the fuzzers found worth keeping (`fuzz/corpus`), run again without libFuzzer, so that it is
//! checked wherever the tests are. `SEAWALL_INPUT=FILE` runs one file through each target's body.

#[path = "../../../../fuzz/src/bodies/mod.rs"]
mod bodies;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

/// Every input of a target, in one order.
fn inputs(target: &str) -> Vec<PathBuf> {
    if let Some(input) = std::env::var_os("SEAWALL_INPUT") {
        return vec![input.into()];
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let listed = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

fn run(target: &str, body: fn(&[u8])) {
    for input in inputs(target) {
        let bytes = std::fs::read(&input).expect("a readable file");
        if let Err(panic) = std::panic::catch_unwind(|| body(&bytes)) {
            let path = input.display();
            eprintln!(
                "\nSEAWALL_INPUT={path} cargo test -p seawall-engine --test corpus {target}\n"
            );
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn wire() {
    run("wire", bodies::wire);
}

#[test]
fn fastpath() {
    run("fastpath", bodies::fastpath);
}

#[test]
fn engine() {
    run("engine", bodies::engine);
}
