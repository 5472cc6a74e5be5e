//! Runs a program in user-mode Linux: `uml_run PROGRAM ARGUMENT…`.
use std::path::Path;
use std::time::Duration;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = args[1..].iter().map(String::as_str).collect();
    let uml = seawall_lab::uml::Uml::find().unwrap();
    let outcome = uml.run(Path::new(&args[0]), &rest, Duration::from_secs(120)).unwrap();
    println!("{}\nstatus {:?} in {:?}", outcome.output, outcome.status, outcome.elapsed);
}
