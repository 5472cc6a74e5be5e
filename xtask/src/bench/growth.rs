//! `forward` and `syn-flood` with more and more sessions in the array, and what those take: time to
//! make, memory, and time to end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_control::api::Client;
use seawall_lab::TopologySpec;
use seawall_lab::daemon::{Daemon, DaemonSpec};
use seawall_lab::flood::Kind;

use super::Settings;
use super::flood::flooded;
use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::system::System;
use super::window;

/// How many sessions, and what the notes call it.
const SIZES: [(u32, &str); 4] =
    [(1_000, "1k"), (100_000, "100k"), (1_000_000, "1m"), (4_000_000, "4m")];
/// Those of them that `--quick` tries.
const QUICK_SIZES: usize = 2;
/// The size for which the project has promised something.
const PROMISED: u32 = 1_000_000;
/// Local addresses: 60,536 sessions with the one real server each.
const LOCAL_ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 168, 7, 100), Ipv4Addr::new(192, 168, 7, 199)];
/// How long all sessions may take to end.
const END_MAX: Duration = Duration::from_secs(300);

/// How often it is looked at how many have.
const LOOK: Duration = Duration::from_millis(10);

/// What it is like with so many sessions.
struct Stage {
    sessions: f64,
    name: &'static str,
    /// Seconds until the daemon was ready, with room for them.
    start_up: f64,
    opened_per_s: f64,
    memory: Memory,
    /// Nanoseconds of the balancer's processor for each segment forwarded.
    forward_ns: f64,
    /// The same for each SYN answered.
    syn_ns: f64,
    /// Seconds until all but a hundredth had ended.
    end: f64,
    /// Microseconds of the daemon for each.
    end_us: f64,
}

/// Bytes in use.
struct Memory {
    /// Of BPF maps.
    kernel: f64,
    /// Of the daemon alone.
    user: f64,
}

/// A run of every size. The figure is the cost of a forwarded segment at a million sessions over
/// that at a thousand.
pub(crate) fn measure(settings: &Settings, _: System) -> Result<Sample> {
    let count = if settings.quick { QUICK_SIZES } else { SIZES.len() };
    let stage = |&(sessions, name)| Stage::run(settings, sessions, name).context(name);
    let stages: Vec<Stage> = SIZES[..count].iter().map(stage).collect::<Result<_>>()?;
    let is_promised = |stage: &&Stage| stage.sessions <= f64::from(PROMISED);
    let (first, promised) = (&stages[0], stages.iter().rfind(is_promised).unwrap_or(&stages[0]));
    let more = promised.sessions - first.sessions;
    let mut sample = Sample::new(promised.forward_ns / first.forward_ns)
        .note("syn_cost_times", promised.syn_ns / first.syn_ns)
        .note("bytes_a_session", (promised.memory.total() - first.memory.total()) / more)
        .note("bytes_a_session_user_space", (promised.memory.user - first.memory.user) / more);
    for stage in &stages {
        for (figure, value) in [
            ("start_up_s", stage.start_up),
            ("opened_per_s", stage.opened_per_s),
            ("forward_ns", stage.forward_ns),
            ("syn_ns", stage.syn_ns),
            ("end_s", stage.end),
            ("end_us_each", stage.end_us),
        ] {
            sample = sample.note(&format!("at_{}_{figure}", stage.name), value);
        }
    }
    Ok(sample)
}

impl Stage {
    fn run(settings: &Settings, sessions: u32, name: &'static str) -> Result<Self> {
        let room = sessions + sessions / 50 + 1_024;
        let spec = TopologySpec { real_servers: 1, ..TopologySpec::default() };
        let mut start_up = Duration::ZERO;
        let rig = Rig::build(&spec, Placement::Apart, |topology| {
            let spec = DaemonSpec {
                max_sessions: room,
                local_addresses: LOCAL_ADDRESSES,
                ..DaemonSpec::new(&settings.daemon)
            };
            let started = Instant::now();
            let daemon = Daemon::start(topology, &spec)?;
            start_up = started.elapsed();
            Ok(daemon.into())
        })?;
        let connections = rig.connections(System::Seawall.target(&rig.topology), room)?;
        let started = Instant::now();
        let kept = connections.keep(sessions)?;
        let opened_per_s = f64::from(kept) / started.elapsed().as_secs_f64();
        ensure!(kept >= sessions - sessions / 100, "only {kept} of {sessions} sessions were made");
        let memory = Memory::of(rig.running.pids[0])?;
        let forward = window::measure(
            settings,
            &rig,
            || rig.running.counters(["forward_in", "forward_out"]),
            || Ok(connections.repeat()?),
            |works| {
                works
                    .into_iter()
                    .try_fold(0, |sent, work| work.stop().map(|()| sent))
                    .map_err(Into::into)
            },
        )?;
        ensure!(forward.counts > 0, "nothing was forwarded");
        let flood = flooded(settings, &rig, System::Seawall, &[Kind::Syn])?;
        let nanos = |spent: f64, count: u64| spent / count.max(1) as f64 * 1e9;
        let (end, end_us) = end(&rig)?;
        Ok(Self {
            sessions: sessions.into(),
            name,
            start_up: start_up.as_secs_f64(),
            opened_per_s,
            memory,
            forward_ns: nanos(forward.spent.balancer, forward.counts),
            syn_ns: nanos(flood.spent.balancer, flood.counts.answered),
            end,
            end_us,
        })
    }
}

impl window::Counts for u64 {
    fn since(&self, earlier: &Self) -> Self {
        self - earlier
    }
}

/// Takes the real server away, with which its sessions end (`expire_nodest_conn`); gives the seconds
/// until 99 of 100 had, and the microseconds of the daemon for each.
fn end(rig: &Rig) -> Result<(f64, f64)> {
    let daemon = rig.running.daemon.as_ref().context("no daemon")?;
    let client = Client::new(daemon.socket());
    let live: u64 = client.stats()?.services.iter().map(|it| it.totals.active_connections).sum();
    let ended = || rig.running.counters(["conn_expired_nodest", "sessions_expired"]);
    let config = std::fs::read_to_string(daemon.config())?;
    let without = config.split("\n[[service.real_server]]").next().unwrap_or_default();
    std::fs::write(daemon.config(), format!("{without}\n[policy]\nexpire_nodest_conn = true\n"))?;
    let (before, usage, started) = (ended()?, rig.usage()?, Instant::now());
    client.reload()?;
    let gone = loop {
        let gone = ended()? - before;
        if gone > 0 && gone >= live - live / 100 {
            break gone;
        }
        ensure!(started.elapsed() < END_MAX, "only {gone} of {live} sessions have ended");
        std::thread::sleep(LOOK);
    };
    let seconds = started.elapsed().as_secs_f64();
    let spent = rig.usage()?.since(&usage).process;
    Ok((seconds, spent / gone as f64 * 1e6))
}

impl Memory {
    /// Of a daemon: its own pages, and what the kernel says of each of its maps, once.
    fn of(pid: u32) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(process.join("status"))?;
        let user = field(&status, "RssAnon:").context("RssAnon")? * 1024;
        let mut maps = BTreeMap::new();
        for entry in std::fs::read_dir(process.join("fdinfo"))? {
            if let Some((map, bytes)) = map_memory(&entry?.path()) {
                maps.insert(map, bytes);
            }
        }
        ensure!(!maps.is_empty(), "the daemon has no maps");
        Ok(Self { kernel: maps.values().sum::<u64>() as f64, user: user as f64 })
    }

    fn total(&self) -> f64 {
        self.kernel + self.user
    }
}

/// A map's number and bytes, if that is what the descriptor is of.
fn map_memory(fdinfo: &Path) -> Option<(u64, u64)> {
    // A descriptor may have been closed by now.
    let text = std::fs::read_to_string(fdinfo).ok()?;
    Some((field(&text, "map_id:")?, field(&text, "memlock:")?))
}

/// The number behind a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_proc_are_read() {
        let text = "map_type:\t2\nmemlock:\t268435456\nmap_id:\t17\n";
        assert_eq!(field(text, "memlock:"), Some(268_435_456));
        assert_eq!(field(text, "map_id:"), Some(17));
        assert_eq!(field("RssAnon:\t    5120 kB\n", "RssAnon:"), Some(5_120));
        assert_eq!(field(text, "prog_id:"), None);
    }
}
