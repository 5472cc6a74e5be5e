//! The recordings of `crates/engine/tests/schedulers` and `crates/engine/tests/persistence` against
//! the kernel's own IPVS, Linux 6.1 in user-mode Linux, driven by the stock ipvsadm: each choice and
//! each count is what it was when the recording was made.
//!
//! A recording is a script of events with what the kernel made of them behind `->`: after a `syn`
//! the real server that it chose, and that one's active and inactive connections and, of
//! `persistence`, its templates. To make or renew
//! recordings write the events (`Recorder::event` has them all) and run this test with
//! `SEAWALL_RECORD=1`.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seawall_lab::uml::{IPVS, Uml};
use seawall_lab::{Namespace, require};
use socket2::{Domain, Protocol, Socket, Type};

const SCHEDULERS: &str = "schedulers";
const PERSISTENCE: &str = "persistence";
/// Before a line of a recording, in what user-mode Linux prints.
const MARK: &str = "recorded ";
const LIMIT: Duration = Duration::from_secs(300);
/// `IPPROTO_RAW`: packets come with their IP headers.
const RAW: i32 = 255;
/// How long closed connections last where a script says `timeout`, in seconds.
const FIN_TIMEOUT: &str = "2";
/// After so long they are gone.
const EXPIRED: Duration = Duration::from_millis(3_500);
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// An interface that takes everything and sends nothing, so that no answer changes a count.
const NETWORK: &str = "link add nowhere type dummy\nlink set nowhere up arp off\n\
    addr add 192.168.7.254/24 dev nowhere\nroute add default dev nowhere\n\
    addr add 2001:db8:7::fffe/64 dev nowhere nodad\nroute add ::/0 dev nowhere\n";

/// Those of one of the folders.
fn scripts(folder: &str) -> Vec<PathBuf> {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests");
    let files =
        std::fs::read_dir(Path::new(tests).join(folder)).unwrap().map(|file| file.unwrap().path());
    let mut scripts: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|name| name == "txt")).collect();
    scripts.sort();
    scripts
}

#[test]
fn recordings_are_what_linux_6_1_does() {
    compare_all(SCHEDULERS, "in_user_mode_linux");
}

#[test]
fn recordings_of_persistence_are_what_linux_6_1_does() {
    compare_all(PERSISTENCE, "persistence_in_user_mode_linux");
}

/// Runs the scripts of `folder`, by the test `inside`.
fn compare_all(folder: &str, inside: &str) {
    let uml = match Uml::find() {
        Ok(uml) => uml.with(&IPVS),
        Err(missing) => return require::missing(missing),
    };
    if Command::new("ipvsadm").arg("--version").output().is_err() {
        return require::missing("there is no ipvsadm (apt-get install ipvsadm)");
    }
    if require::root(Namespace::new("probe")).is_none() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let arguments = [inside, "--exact", "--ignored", "--nocapture"];
    let outcome = uml.run(&program, &arguments, LIMIT).unwrap();
    assert_eq!(outcome.status, Some(0), "{}", outcome.output);
    for path in scripts(folder) {
        let mark = format!("{MARK}{}: ", path.file_stem().unwrap().display());
        let lines = outcome.output.lines().filter_map(|line| line.trim_end().strip_prefix(&mark));
        let recording: String = lines.map(|line| format!("{line}\n")).collect();
        if std::env::var_os("SEAWALL_RECORD").is_some() {
            std::fs::write(&path, recording).unwrap();
        } else {
            compare(&path, &std::fs::read_to_string(&path).unwrap(), &recording);
        }
    }
}

#[track_caller]
fn compare(path: &Path, recorded: &str, now: &str) {
    for (number, (recorded, now)) in recorded.lines().zip(now.lines()).enumerate() {
        assert_eq!(recorded, now, "{}:{}", path.display(), number + 1);
    }
    assert_eq!(recorded.len(), now.len(), "{}", path.display());
}

#[test]
#[ignore = "runs in user-mode Linux, started by `recordings_are_what_linux_6_1_does`"]
fn in_user_mode_linux() {
    record(SCHEDULERS);
}

#[test]
#[ignore = "runs in user-mode Linux, started by `recordings_of_persistence_are_what_linux_6_1_does`"]
fn persistence_in_user_mode_linux() {
    record(PERSISTENCE);
}

fn record(folder: &str) {
    // The kernel's messages would land in the middle of lines.
    std::fs::write("/proc/sys/kernel/printk", "1").unwrap();
    // The test's name stands on this line.
    println!();
    for path in scripts(folder) {
        let name = path.file_stem().unwrap().display();
        let script = std::fs::read_to_string(&path).unwrap();
        // One for each, so that no connection of another is met.
        let namespace = Namespace::new("recorder").unwrap();
        let templates = folder == PERSISTENCE;
        let recording =
            namespace.run(|| Recorder { templates, ..Recorder::default() }.run(&script));
        for line in recording.lines() {
            println!("{MARK}{name}: {line}");
        }
    }
}

/// Where a script has come to.
#[derive(Default)]
struct Recorder {
    /// The service as ipvsadm takes it: `-t VIP:PORT` or `-f MARK`.
    service: [String; 2],
    mark: u32,
    /// Templates are recorded too.
    templates: bool,
    recording: String,
}

/// `ActiveConn` and `InActConn` of a real server.
type Counts = (IpAddr, u32, u32);

impl Recorder {
    fn run(mut self, script: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(NETWORK.as_bytes()).unwrap();
        tool("ip", ["-batch", file.path().to_str().unwrap()].into_iter());
        for line in script.lines() {
            let event = line.split(" -> ").next().unwrap_or_default();
            self.recording.push_str(event);
            if !event.starts_with('#') {
                let words: Vec<_> = event.split(' ').collect();
                self.event(&words);
            }
            self.recording.push('\n');
        }
        self.recording
    }

    fn event(&mut self, words: &[&str]) {
        match *words {
            ["service", address, scheduler, ref flags @ ..] => {
                self.mark = address.parse().unwrap_or(0);
                let kind = if self.mark == 0 { "-t" } else { "-f" };
                self.service = [kind.to_owned(), address.to_owned()];
                self.ipvsadm("-A", &["-s", scheduler]);
                for flag in flags {
                    self.ipvsadm("-E", &["-s", scheduler, "-b", flag]);
                }
            }
            ["persistent-service", address, scheduler, seconds, ref mask @ ..] => {
                self.mark = 0;
                self.service = ["-t".to_owned(), address.to_owned()];
                let mask: Vec<_> = mask.iter().flat_map(|mask| ["-M", mask]).collect();
                self.ipvsadm("-A", &[&["-s", scheduler, "-p", seconds], &mask[..]].concat());
            }
            ["thresholds", address, weight, upper, lower] => {
                let thresholds = ["-x", upper, "-y", lower];
                let server = ["-r", address, "-g", "-w", weight];
                self.ipvsadm("-e", &[&server[..], &thresholds].concat());
            }
            ["remove", address] => self.ipvsadm("-d", &["-r", address]),
            ["quiescent", on] => {
                std::fs::write("/proc/sys/net/ipv4/vs/expire_quiescent_template", on).unwrap();
            }
            ["server", address, weight, upper, lower] => {
                let thresholds = ["-x", upper, "-y", lower];
                let server = ["-r", address, "-g", "-w", weight];
                self.ipvsadm("-a", &[&server[..], &thresholds].concat());
            }
            ["server", address, weight] => self.ipvsadm("-a", &["-r", address, "-g", "-w", weight]),
            ["server", address, weight, upper] => {
                self.ipvsadm("-a", &["-r", address, "-g", "-w", weight, "-x", upper]);
            }
            ["weight", address, weight] => self.ipvsadm("-e", &["-r", address, "-g", "-w", weight]),
            ["expiration", name, seconds] => {
                std::fs::write(format!("/proc/sys/net/ipv4/vs/{name}"), seconds).unwrap();
            }
            ["timeout"] => tool("ipvsadm", ["--set", "0", FIN_TIMEOUT, "0"].into_iter()),
            ["expire"] => std::thread::sleep(EXPIRED),
            ["wait", milliseconds] => {
                std::thread::sleep(Duration::from_millis(milliseconds.parse().unwrap()));
            }
            ["syn", client, vip] => {
                let before = counts();
                self.send(client, vip, SYN);
                let after = counts();
                let chosen = before.iter().zip(&after).find(|(before, after)| before != after);
                match chosen {
                    Some((_, (address, active, inactive))) => {
                        self.recording.push_str(&format!(" -> {address} {active} {inactive}"));
                        if self.templates {
                            self.recording.push_str(&format!(" {}", templates(*address)));
                        }
                    }
                    None => self.recording.push_str(" -> none"),
                }
            }
            ["ack", client, vip] => self.send(client, vip, ACK),
            ["fin", client, vip] => self.send(client, vip, FIN | ACK),
            ["rst", client, vip] => self.send(client, vip, RST),
            _ => panic!("no event: {words:?}"),
        }
    }

    fn ipvsadm(&self, command: &str, arguments: &[&str]) {
        let service = self.service.iter().map(String::as_str);
        let six = if self.mark != 0 && arguments.iter().any(|word| word.contains('[')) {
            Some("-6")
        } else {
            None
        };
        let words = [command].into_iter().chain(service).chain(six);
        tool("ipvsadm", words.chain(arguments.iter().copied()));
    }

    /// Sends a segment that IPVS sees as if it came from the client, before this returns.
    fn send(&self, client: &str, vip: &str, flags: u8) {
        let (client, vip): (SocketAddr, SocketAddr) =
            (client.parse().unwrap(), vip.parse().unwrap());
        let domain = if vip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))).unwrap();
        socket.set_mark(self.mark).unwrap();
        let to = SocketAddr::new(vip.ip(), 0);
        match socket.send_to(&packet(client, vip, flags), &to.into()) {
            Ok(_) => {}
            // What IPVS drops, the sender hears of.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A segment without payload or options; IPVS looks at no TCP checksum here.
fn packet(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel fills in the checksum.
            let header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
            [&header[..], &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &from.octets(), &to.octets()].concat()
        }
        mixed => panic!("{mixed:?}"),
    };
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

/// Of every real server, in the kernel's order.
fn counts() -> Vec<Counts> {
    let table = std::fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap();
    let servers = table.lines().filter_map(|line| line.trim().strip_prefix("-> "));
    let rows = servers.map(|row| row.split_whitespace().collect::<Vec<_>>());
    let counts = rows.filter(|row| row[0] != "RemoteAddress:Port").map(|row| {
        let (address, _) = row[0].rsplit_once(':').unwrap();
        let address = match address.strip_prefix('[') {
            Some(v6) => v6.trim_end_matches(']').parse().unwrap(),
            None => IpAddr::from(u32::from_str_radix(address, 16).unwrap().to_be_bytes()),
        };
        (address, row[3].parse().unwrap(), row[4].parse().unwrap())
    });
    counts.collect()
}

/// How many templates name a real server: those connections whose client has no port.
fn templates(server: IpAddr) -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/ip_vs_conn").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let address = |text: &str| match u32::from_str_radix(text, 16) {
        Ok(v4) => IpAddr::from(v4.to_be_bytes()),
        Err(_) => text.parse().unwrap(),
    };
    rows.filter(|row| row[2] == "0000" && address(row[5]) == server).count()
}

fn tool<'a>(name: &str, arguments: impl Iterator<Item = &'a str>) {
    let arguments: Vec<_> = arguments.collect();
    let output = Command::new(name).args(&arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
}
