//! Tasks that `cargo build` does not do: `cargo xtask bpf`, `cargo xtask fuzz`, `cargo xtask guard`
//! and `cargo xtask bench`.

use std::process::ExitCode;

mod bench;
mod bpf;
mod fuzz;
mod guard;
#[path = "../../bpf/source_hash.rs"]
mod source_hash;
mod toolchain;

const USAGE: &str = "\
usage: cargo xtask bpf [--check]
       cargo xtask fuzz [TARGET] [SECONDS]
       cargo xtask guard [--accept]
       cargo xtask bench [SCENARIO]... [--json FILE] [--quick] [--list]

  bpf          build the BPF objects, and record what from and with what
  bpf --check  build them and compare with the ones in the tree, if the compiler and the linker
               are the recorded ones
  fuzz         run a target (wire, fastpath, engine), or each of them, under libFuzzer for so many
               seconds (60); needs cargo-fuzz, and says so
  guard        count instructions, native ones (needs valgrind) and the kernel's (needs root), and
               fail where they exceed the baseline in the tree by more than a twentieth
  guard --accept
               make them the baseline
  bench        measure Seawall, its peers and the limits; needs root and two processors";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["bpf"] => bpf::update(),
        ["bpf", "--check"] => bpf::check(),
        ["fuzz"] => fuzz::run(&fuzz::TARGETS, fuzz::SECONDS),
        ["fuzz", rest @ ..] => match fuzz_args(rest) {
            Some((targets, seconds)) => fuzz::run(&targets, seconds),
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        },
        ["guard"] => guard::run(guard::Aim::Judge),
        ["guard", "--accept"] => guard::run(guard::Aim::Accept),
        ["bench", rest @ ..] => bench::run(rest),
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

/// The targets and the seconds in `args`, if that is what they are.
fn fuzz_args<'a>(args: &[&'a str]) -> Option<(Vec<&'a str>, u32)> {
    let is_target = |arg: &str| fuzz::TARGETS.contains(&arg);
    match args {
        [target] if is_target(target) => Some((vec![target], fuzz::SECONDS)),
        [seconds] => Some((fuzz::TARGETS.to_vec(), seconds.parse().ok()?)),
        [target, seconds] if is_target(target) => Some((vec![target], seconds.parse().ok()?)),
        _ => None,
    }
}
