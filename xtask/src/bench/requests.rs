//! Whole connections between Linux's own stacks: what the balancer spends on each, how long they
//! take, and how many fail.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_lab::daemon::SERVER_PORT;
use seawall_lab::flood::Kind;
use seawall_lab::http::{HttpServer, ServerSpec};
use seawall_lab::load::{Limit, Load, LoadSpec, Snapshot};
use seawall_lab::tap::counted;
use seawall_lab::{ProcessGuard, TopologySpec};
use tempfile::TempDir;

use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::series::Series;
use super::system::System;
use super::{Settings, WARM_UP};

/// Requests under way at once: few enough for the servers' processor.
const CALM_CLIENTS: usize = 4;
/// What such a client waits between two requests.
const CALM_PAUSE: Duration = Duration::from_millis(2);
/// A load goes on by itself for no longer.
const LOAD_MAX: Duration = Duration::from_secs(600);
/// Shares of the capacity that floods have, in percent.
const SHARES: [u32; 4] = [0, 25, 50, 75];
/// How much longer than others the runs at each share are: percentiles want many requests.
const ATTACK_WINDOWS: u32 = 4;
/// How long wrk runs.
const HTTP: Duration = Duration::from_secs(60);
const QUICK_HTTP: Duration = Duration::from_secs(3);
/// Parts of that which are told apart: 10 s each.
const PERIODS: u32 = 6;
/// Connections that wrk keeps under way.
const WRK_CONNECTIONS: u32 = 64;
/// How much longer than it was told to wrk may take to end.
const WRK_ENDS: Duration = Duration::from_secs(20);

/// Latency of requests while the balancer is flooded; the figure is the 99th percentile under half
/// of what Seawall can answer on one processor.
pub(crate) fn under_attack(settings: &Settings, system: System) -> Result<Sample> {
    let capacity = settings.capacity()?;
    let spec = TopologySpec { real_servers: 1, ..TopologySpec::default() };
    let rig =
        Rig::build(&spec, Placement::Apart, |topology| system.start(topology, &settings.daemon))?;
    let _passes = rig.open()?;
    let attacker = rig.attacker()?;
    let host = rig.topology.attacker.as_ref().context("no attacker")?;
    let _server = serve(&rig)?;
    let target = system.target(&rig.topology);
    let window = settings.window * ATTACK_WINDOWS;
    let mut sample = Sample::new(0.0).note("capacity_per_s", capacity);
    for share in SHARES {
        let rate = (capacity * f64::from(share) / 100.0) as u32;
        let templates = [Kind::Syn.template(attacker.link(), target)];
        let flood = (share > 0).then(|| attacker.send(host, &templates, rate)).transpose()?;
        let spec = LoadSpec {
            threads: CALM_CLIENTS,
            pause: CALM_PAUSE,
            ..LoadSpec::new(target, Limit::Time(LOAD_MAX))
        };
        let load = Load::start(&rig.topology.client.namespace, spec)?;
        sleep(WARM_UP);
        let before = load.snapshot();
        sleep(window);
        let made = load.snapshot().since(&before);
        load.stop();
        load.finish();
        drop(flood);
        if share == 50 {
            sample.value = millis(window, made.p99());
        }
        sample = sample
            .note(&format!("at_{share:02}_p50_ms"), millis(window, made.p50()))
            .note(&format!("at_{share:02}_p99_ms"), millis(window, made.p99()))
            .note(&format!("at_{share:02}_succeeded_share"), succeeded(&made))
            .note(&format!("at_{share:02}_per_s"), made.rate());
    }
    Ok(sample)
}

/// What wrk makes of nginx, a connection a request. How even that was over the time is told by the
/// connections that nginx has accepted, period by period.
pub(crate) fn real_http(settings: &Settings, system: System) -> Result<Sample> {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let rig =
        Rig::build(&spec, Placement::Apart, |topology| system.start(topology, &settings.daemon))?;
    let _passes = rig.open()?;
    let server = &rig.topology.servers[0];
    let _nginx = nginx(&rig, SocketAddr::new(server.address(), SERVER_PORT))?;
    let target = system.target(&rig.topology);
    let time = if settings.quick { QUICK_HTTP } else { HTTP };
    let mut command = Command::new("wrk");
    command
        .args(["--latency", "-t1", "-c", &WRK_CONNECTIONS.to_string()])
        .args(["-d", &time.as_secs().to_string(), "-H", "Connection: close"])
        .arg(format!("http://{target}/"))
        .stdout(Stdio::piped());
    let usage = rig.usage()?;
    let mut wrk = rig.topology.client.namespace.spawn_process(command).context("wrk")?;
    let accepted = || counted(&server.namespace, "snmp", "Tcp:", "PassiveOpens");
    let mut last = accepted()?;
    let mut periods = Series::default();
    for _ in 0..PERIODS {
        sleep(time / PERIODS);
        let now = accepted()?;
        periods.push((now - last) as f64);
        last = now;
    }
    let ended = wrk.wait_for(WRK_ENDS)?;
    ensure!(ended.is_some_and(|status| status.success()), "wrk does not end well: {ended:?}");
    let mut output = Vec::new();
    wrk.child().stdout.take().context("wrk has no output")?.read_to_end(&mut output)?;
    let spent = rig.usage()?.since(&usage);
    let text = String::from_utf8_lossy(&output);
    let made = Wrk::parse(&text).with_context(|| format!("wrk said: {text}"))?;
    Ok(Sample::new(made.per_second)
        .note("socket_errors", made.errors)
        .note("flatness", periods.flatness().unwrap_or(0.0))
        .note("p99_ms", made.p99_ms)
        .note("balancer_us_each", spent.balancer / made.requests * 1e6))
}

/// The lab's web server on the first real server.
fn serve(rig: &Rig) -> Result<HttpServer> {
    let host = &rig.topology.servers[0];
    let address = SocketAddr::new(host.address(), SERVER_PORT);
    Ok(HttpServer::start(&host.namespace, address, ServerSpec::new("server"))?)
}

/// nginx with one worker on the first real server, serving one small file.
fn nginx(rig: &Rig, address: SocketAddr) -> Result<(TempDir, ProcessGuard)> {
    let directory = TempDir::with_prefix("seawall-nginx-")?;
    let file = directory.path().join("nginx.conf");
    let mut config = std::fs::File::create(&file)?;
    let at = directory.path().display();
    write!(
        config,
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  server {{\n    listen {address} backlog=4096;\n    \
         location / {{ return 200 \"seawall bench\\n\"; }}\n  }}\n}}\n",
    )?;
    let host = &rig.topology.servers[0].namespace;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = host.spawn_process(command).context("nginx")?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while host.run(|| std::net::TcpStream::connect(address)).is_err() {
        let ended = process.wait_for(Duration::from_millis(20))?;
        ensure!(ended.is_none() && Instant::now() < deadline, "nginx does not listen");
    }
    Ok((directory, process))
}

/// A latency in milliseconds; where nothing succeeded, all of the window has not been enough.
fn millis(window: Duration, latency: Option<Duration>) -> f64 {
    latency.unwrap_or(window).as_secs_f64() * 1e3
}

/// The part of the requests that succeeded.
fn succeeded(made: &Snapshot) -> f64 {
    made.succeeded() as f64 / (made.succeeded() + made.failed()).max(1) as f64
}

/// What wrk reports.
#[derive(Debug, PartialEq)]
struct Wrk {
    requests: f64,
    per_second: f64,
    /// Of connecting, reading and writing, timeouts, and answers other than 2xx and 3xx.
    errors: f64,
    p99_ms: f64,
}

impl Wrk {
    fn parse(text: &str) -> Option<Self> {
        let line = |word: &str| text.lines().map(str::trim).find(|line| line.starts_with(word));
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0;
        let numbers = |line: &str| -> f64 {
            let words = line.split([' ', ',']);
            words.filter_map(|word| word.parse::<f64>().ok()).sum()
        };
        let errors = line("Socket errors").map_or(0.0, numbers);
        let refused = line("Non-2xx").map_or(0.0, numbers);
        Some(Self {
            requests: requests.parse().ok()?,
            per_second: line("Requests/sec")?.split_whitespace().nth(1)?.parse().ok()?,
            errors: errors + refused,
            p99_ms: milliseconds(line("99%")?.split_whitespace().nth(1)?)?,
        })
    }
}

/// A duration as wrk writes it: `1.50ms`, `830.00us`, `2.10s`.
fn milliseconds(text: &str) -> Option<f64> {
    // `ms` before `s`: both end in it.
    for (unit, in_a_millisecond) in [("us", 1e3), ("ms", 1.0), ("s", 1e-3)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number / in_a_millisecond);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Wrk;

    #[test]
    fn wrk_is_understood() {
        let text = "\
Running 2s test @ http://10.0.0.254:80/
  1 threads and 64 connections
  Latency Distribution
     50%    1.20ms
     99%  830.00us
  12042 requests in 2.00s, 1.90MB read
  Socket errors: connect 0, read 3, write 0, timeout 2
  Non-2xx or 3xx responses: 4
Requests/sec:   6021.50
Transfer/sec:      0.95MB
";
        let wrk = Wrk { requests: 12042.0, per_second: 6021.5, errors: 9.0, p99_ms: 0.83 };
        assert_eq!(Wrk::parse(text), Some(wrk));
        assert_eq!(Wrk::parse("unable to connect"), None);
    }
}
