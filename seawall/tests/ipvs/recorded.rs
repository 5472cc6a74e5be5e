//! Stock ipvsadm, driving Seawall as it drives the kernel's IPVS: the same commands, the same output,
//! the same exit status, line by line.
//!
//! `recorded/*.txt` are sessions with the kernel's IPVS, Linux 6.1 in user-mode Linux: `$` and
//! arguments, lines for standard input behind `<`, what ipvsadm said, and `=` with its exit status if
//! that is not 0. Where Seawall says something else, `~` and the reason follow, and behind `~` too
//! what Seawall says. To make or renew recordings write the commands and run this test with
//! `SEAWALL_RECORD=1`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seawall_lab::daemon::Daemon;
use seawall_lab::uml::{IPVS, Uml};
use seawall_lab::{Namespace, Topology, TopologySpec, require};

use crate::SEAWALL;
use crate::stage::{have, ipvsadm, preload};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipvs/recorded");
/// Before a line of a recording, in what user-mode Linux prints.
const MARK: &str = "recorded ";
const LIMIT: Duration = Duration::from_secs(300);

/// A command with what was said to it.
#[derive(Default)]
struct Exchange {
    /// Remarks before it.
    remarks: String,
    arguments: String,
    input: String,
    /// What the kernel's side said, with the exit status.
    said: String,
    /// What Seawall says instead: the reason and the lines.
    other: Option<(String, String)>,
}

/// Reads a recording.
fn read(text: &str) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut remarks = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            remarks.push_str(line);
            remarks.push('\n');
        } else if let Some(arguments) = line.strip_prefix("$ ") {
            let remarks = std::mem::take(&mut remarks);
            exchanges.push(Exchange {
                remarks,
                arguments: arguments.into(),
                ..Exchange::default()
            });
        } else {
            let last: &mut Exchange = exchanges.last_mut().expect("a command first");
            if let Some(input) = line.strip_prefix('<') {
                last.input.push_str(input.strip_prefix(' ').unwrap_or(input));
                last.input.push('\n');
            } else if let Some(other) = line.strip_prefix('~') {
                let other = other.strip_prefix(' ').unwrap_or(other);
                match &mut last.other {
                    None => last.other = Some((other.to_owned(), String::new())),
                    Some((_, lines)) => lines.push_str(&format!("{other}\n")),
                }
            } else {
                last.said.push_str(line);
                last.said.push('\n');
            }
        }
    }
    exchanges
}

impl Exchange {
    fn write(&self, text: &mut String) {
        text.push_str(&self.remarks);
        // Writing to a string does not fail; likewise below.
        let _ = writeln!(text, "$ {}", self.arguments);
        for line in self.input.lines() {
            text.push_str(format!("< {line}").trim_end());
            text.push('\n');
        }
        text.push_str(&self.said);
        if let Some((reason, lines)) = &self.other {
            let _ = writeln!(text, "~ {reason}");
            for line in lines.lines() {
                let _ = writeln!(text, "~ {line}");
            }
        }
    }
}

fn recordings() -> Vec<PathBuf> {
    let files = std::fs::read_dir(FOLDER).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[track_caller]
fn compare(path: &Path, recorded: &str, now: &str) {
    for (number, (recorded, now)) in recorded.lines().zip(now.lines()).enumerate() {
        assert_eq!(recorded, now, "{}:{}", path.display(), number + 1);
    }
    assert_eq!(recorded.len(), now.len(), "{}", path.display());
}

#[test]
fn recordings_are_what_linux_6_1_says() {
    let uml = match Uml::find() {
        Ok(uml) => uml.with(&IPVS),
        Err(missing) => return require::missing(missing),
    };
    if !have("ipvsadm") || require::root(Namespace::new("probe")).is_none() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let arguments = ["recorded::in_user_mode_linux", "--exact", "--ignored", "--nocapture"];
    let outcome = uml.run(&program, &arguments, LIMIT).unwrap();
    assert_eq!(outcome.status, Some(0), "{}", outcome.output);
    for path in recordings() {
        let mark = format!("{MARK}{}: ", path.file_stem().unwrap().display());
        let lines =
            outcome.output.lines().filter_map(|line| line.trim_end().strip_prefix(mark.trim_end()));
        let recording: String =
            lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
        if std::env::var_os("SEAWALL_RECORD").is_some() {
            std::fs::write(&path, recording).unwrap();
        } else {
            compare(&path, &std::fs::read_to_string(&path).unwrap(), &recording);
        }
    }
}

#[test]
#[ignore = "runs in user-mode Linux, started by `recordings_are_what_linux_6_1_says`"]
fn in_user_mode_linux() {
    // The kernel's messages would land in the middle of lines.
    std::fs::write("/proc/sys/kernel/printk", "1").unwrap();
    // The test's name stands on this line.
    println!();
    for path in recordings() {
        let name = path.file_stem().unwrap().display();
        let namespace = Namespace::new("recorder").unwrap();
        let mut text = String::new();
        namespace.run(|| {
            for exchange in read(&std::fs::read_to_string(&path).unwrap()) {
                let said = ipvsadm(&exchange.arguments, &exchange.input, |_| ());
                Exchange { said, ..exchange }.write(&mut text);
            }
        });
        for line in text.lines() {
            println!("{MARK}{name}: {}", line.trim_end());
        }
    }
}

#[test]
fn stock_ipvsadm_finds_no_difference() {
    if !have("ipvsadm") {
        return;
    }
    let Some(topology) = require::root(Topology::build(&TopologySpec::default())) else { return };
    let mut differences = String::new();
    for path in recordings() {
        let directory = tempfile::TempDir::with_prefix("seawall-").unwrap();
        let [api, socket] = ["api.sock", "ipvs.sock"].map(|name| directory.path().join(name));
        let config = format!(
            "interfaces = {:?}\nmax_sessions = 4096\nmanage_addresses = false\n\n[api]\nsocket = \
             {api:?}\n\n[ipvs]\nsocket = {socket:?}\n",
            topology.balancer_interfaces(),
        );
        let balancer = &topology.balancer.namespace;
        let mut daemon =
            Daemon::start_with(balancer, SEAWALL.as_ref(), &config, directory).unwrap();
        let before = differences.len();
        for exchange in read(&std::fs::read_to_string(&path).unwrap()) {
            let said = balancer.run(|| {
                ipvsadm(&exchange.arguments, &exchange.input, |command| preload(command, &socket))
            });
            let said: String = said.lines().map(|line| format!("{}\n", line.trim_end())).collect();
            if let Some((reason, lines)) = &exchange.other {
                assert_ne!(*lines, exchange.said, "{reason}");
            }
            let expected = exchange.other.as_ref().map_or(&exchange.said, |(_, lines)| lines);
            if said != *expected {
                let _ = writeln!(
                    differences,
                    "$ {}\n--- expected\n{expected}--- but\n{said}",
                    exchange.arguments
                );
            }
        }
        if differences.len() > before {
            let log = daemon.log().unwrap();
            let _ = writeln!(differences, "{}; the daemon:\n{log}", path.display());
        }
        assert!(daemon.wait_for(Duration::ZERO).unwrap().is_none());
        daemon.end().unwrap();
    }
    assert!(differences.is_empty(), "\n{differences}");
}
