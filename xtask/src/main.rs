//! Tasks that `cargo build` does not do: `cargo xtask bpf`.

use std::process::ExitCode;

mod bpf;
#[path = "../../bpf/source_hash.rs"]
mod source_hash;
mod toolchain;

const USAGE: &str = "\
usage: cargo xtask bpf [--check]

  bpf          build the BPF objects, and record what from and with what
  bpf --check  build them and compare with the ones in the tree, if the compiler and the linker
               are the recorded ones";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["bpf"] => bpf::update(),
        ["bpf", "--check"] => bpf::check(),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
