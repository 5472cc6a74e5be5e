//! The phases of the demo: each measures, and says which of its promises were kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use seawall_control::report::StatsReport;
use seawall_lab::flood::{FloodSpec, Kind};
use seawall_lab::http::{self, Payload, Timeouts};
use seawall_lab::load::{Limit, Load, LoadSpec, Snapshot};

use super::screen::{Screen, latency, number};
use super::stage::{PATTERN, PROXIED, Stage, UNPROXIED};

/// How often the live line is written.
const TICK: Duration = Duration::from_millis(250);
/// How long a request may take in the demo.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(2), total: Duration::from_secs(4) };
/// Of a flood, what must have reached the balancer: the queue of a veth in front of it overflows
/// when the machine is busy, and what is lost there was never seen.
const ARRIVES: f64 = 0.95;
/// A large transfer, in bytes.
const LARGE: u64 = 64 << 20;

/// Requests of one phase, and what went on beside them.
pub(super) struct Requests {
    pub(super) name: &'static str,
    pub(super) snapshot: Snapshot,
    /// Packets a second that the attacker sent.
    pub(super) flood_rate: f64,
    /// SYN/ACKs a second that the attacker got.
    pub(super) answer_rate: f64,
    /// Percent of a core: the daemon, softirqs.
    pub(super) cpu: (f64, f64),
    /// Successful requests a second, in intervals of [`TICK`].
    pub(super) course: Vec<f64>,
}

/// A flood that the balancer drops.
pub(super) struct Dropped {
    pub(super) name: &'static str,
    pub(super) counter: &'static str,
    pub(super) sent: u64,
    pub(super) counted: u64,
}

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Results {
    pub(super) requests: Vec<Requests>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) transfers: Vec<(&'static str, f64)>,
    pub(super) promises: Vec<(bool, String)>,
}

impl Results {
    fn promise(&mut self, screen: &Screen, kept: bool, text: String) {
        screen.verdict(kept, &text);
        self.promises.push((kept, text));
    }

    /// Whether every promise was kept.
    pub(super) fn all_kept(&self) -> bool {
        self.promises.iter().all(|(kept, _)| *kept)
    }
}

/// What the phases share.
pub(super) struct Show<'a> {
    pub(super) stage: &'a mut Stage,
    pub(super) screen: &'a Screen,
    pub(super) duration: Duration,
    pub(super) flood_rate: u32,
}

impl Show<'_> {
    /// Phases 1 to 5.
    pub(super) fn run(&mut self) -> Result<Results> {
        let mut results = Results::default();
        self.screen.heading("1  Requests through the VIP, spread over the servers by weight");
        self.spread(&mut results)?;
        self.screen.heading("2  A SYN flood from random sources, SYN proxy off");
        self.under_flood(&mut results, false)?;
        self.screen.heading("3  The same flood, SYN proxy on");
        self.under_flood(&mut results, true)?;
        self.screen.heading("4  ACK, RST, FIN, UDP and fragment floods");
        self.dropped(&mut results)?;
        self.screen.heading("5  A large download and upload, compared byte for byte");
        self.transfers(&mut results)?;
        Ok(results)
    }

    fn spread(&mut self, results: &mut Results) -> Result<()> {
        let requests = self.requests("no flood", true, None)?;
        let total: u64 = requests.snapshot.servers.values().sum();
        let weights: u64 = (1..=requests.snapshot.servers.len() as u64).sum();
        let mut fair = !requests.snapshot.servers.is_empty();
        for (at, (server, count)) in requests.snapshot.servers.iter().enumerate() {
            let share = *count as f64 / total.max(1) as f64;
            let weight = server.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(at + 1);
            let wanted = weight as f64 / weights as f64;
            fair &= (share - wanted).abs() < 0.01;
            self.screen.line(&format!(
                "{server}: {count} requests, {:.1} %, weight {weight}",
                share * 100.0
            ));
        }
        let failed = requests.snapshot.failed();
        results.promise(
            self.screen,
            failed == 0 && total > 0,
            format!(
                "{} requests a second, none failed, p50 {}, p99 {}",
                number(requests.snapshot.rate()),
                latency(requests.snapshot.p50()),
                latency(requests.snapshot.p99())
            ),
        );
        results.promise(self.screen, fair, "shares follow the weights within 1 %".to_owned());
        results.requests.push(requests);
        Ok(())
    }

    fn under_flood(&mut self, results: &mut Results, proxied: bool) -> Result<()> {
        let target = if proxied { PROXIED } else { UNPROXIED };
        let std::net::IpAddr::V4(address) = target.ip() else { return Ok(()) };
        let spec =
            FloodSpec { kind: Kind::Syn, target: (address, target.port()), rate: self.flood_rate };
        let name = if proxied { "flood, proxy on" } else { "flood, proxy off" };
        let requests = self.requests(name, proxied, Some(spec))?;
        let snapshot = &requests.snapshot;
        let all = snapshot.succeeded() + snapshot.failed();
        self.screen.line(&format!(
            "flood {} SYNs/s, {} SYN/ACKs/s back; daemon {:.0} % and softirq {:.0} % of a core",
            number(requests.flood_rate),
            number(requests.answer_rate),
            requests.cpu.0,
            requests.cpu.1
        ));
        let text = format!(
            "{} of {} requests succeeded, p50 {}, p99 {}",
            number(snapshot.succeeded() as f64),
            number(all as f64),
            latency(snapshot.p50()),
            latency(snapshot.p99())
        );
        if proxied {
            results.promise(self.screen, snapshot.failed() == 0 && all > 0, text);
            let answered = requests.answer_rate / requests.flood_rate.max(1.0);
            results.promise(
                self.screen,
                answered >= ARRIVES,
                format!("{:.1} % of the flood answered with cookies", 100.0 * answered),
            );
        } else {
            self.screen.line(&text);
        }
        results.requests.push(requests);
        Ok(())
    }

    /// Requests for the duration, beside a flood if one is given.
    fn requests(
        &mut self,
        name: &'static str,
        proxied: bool,
        flood: Option<FloodSpec>,
    ) -> Result<Requests> {
        let target = if proxied { PROXIED } else { UNPROXIED };
        let (answers, cpu) = (self.stage.answers()?, self.stage.cpu()?);
        let flood = flood.map(|spec| self.stage.flood(spec)).transpose()?;
        let started = Instant::now();
        let spec =
            LoadSpec { timeouts: TIMEOUTS, ..LoadSpec::new(target, Limit::Time(self.duration)) };
        let load = Load::start(&self.stage.topology.client.namespace, spec)?;
        let mut last = load.snapshot();
        let mut course = Vec::new();
        self.screen.live_head(["time", "requests/s", "ok", "failed", "p50", "p99"]);
        while !load.is_finished() {
            std::thread::sleep(TICK);
            let now = load.snapshot();
            let recent = now.since(&last);
            course.push(recent.rate());
            let elapsed = started.elapsed();
            self.screen.live_row(
                elapsed.as_secs_f64() / self.duration.as_secs_f64(),
                [
                    &format!("{:.1} s", elapsed.as_secs_f64()),
                    &number(recent.rate()),
                    &number(now.succeeded() as f64),
                    &number(now.failed() as f64),
                    &latency(recent.p50()),
                    &latency(recent.p99()),
                ],
            );
            last = now;
        }
        let elapsed = started.elapsed();
        let sent = flood.map(|flood| flood.stop()).transpose()?.unwrap_or(0);
        // The last answers are on their way back.
        std::thread::sleep(TICK);
        let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
        Ok(Requests {
            name,
            snapshot: load.finish(),
            flood_rate: per_second(sent),
            answer_rate: per_second(self.stage.answers()? - answers),
            cpu: self.stage.cpu()?.since(cpu, elapsed),
            course,
        })
    }

    fn dropped(&mut self, results: &mut Results) -> Result<()> {
        let std::net::IpAddr::V4(address) = PROXIED.ip() else { return Ok(()) };
        for (kind, name, counter) in [
            (Kind::Ack, "ACK", "synproxy_bad_ack"),
            (Kind::Rst, "RST", "defence_tcp_drop"),
            (Kind::Fin, "FIN", "synproxy_bad_ack"),
            (Kind::Udp, "UDP", "defence_udp_drop"),
            (Kind::Fragment, "fragment", "defence_ip_frag_drop"),
        ] {
            let before = count(&self.stage.stats()?, counter);
            let spec = FloodSpec { kind, target: (address, PROXIED.port()), rate: self.flood_rate };
            let started = Instant::now();
            let flood = self.stage.flood(spec)?;
            std::thread::sleep(self.duration / 5);
            let sent = flood.stop()?;
            let elapsed = started.elapsed();
            std::thread::sleep(TICK);
            let counted = count(&self.stage.stats()?, counter) - before;
            // A random ACK passes for a cookie once in 2^23: then it is counted elsewhere.
            let kept = sent > 0 && counted <= sent && counted as f64 >= sent as f64 * ARRIVES;
            let rate = number(sent as f64 / elapsed.as_secs_f64());
            results.promise(
                self.screen,
                kept,
                format!(
                    "{name}: {} sent at {rate}/s, {} dropped under {counter}",
                    number(sent as f64),
                    number(counted as f64)
                ),
            );
            results.dropped.push(Dropped { name, counter, sent, counted });
        }
        Ok(())
    }

    fn transfers(&mut self, results: &mut Results) -> Result<()> {
        let payload = Payload { length: LARGE, seed: PATTERN };
        let timeouts = Timeouts { total: Duration::from_secs(60), ..TIMEOUTS };
        let client = &self.stage.topology.client.namespace;
        for (name, result) in [
            ("download", client.run(|| http::download(PROXIED, payload, &timeouts))),
            ("upload", client.run(|| http::upload(PROXIED, payload, &timeouts))),
        ] {
            match result {
                Ok(transfer) => {
                    let rate = transfer.length as f64 / transfer.elapsed.as_secs_f64() / 1e6;
                    let sum = transfer.sha256.get(..16).unwrap_or_default();
                    let text = format!(
                        "{name}: {} MiB at {} MB/s, SHA-256 {sum}… on both ends",
                        LARGE >> 20,
                        number(rate)
                    );
                    results.promise(self.screen, true, text);
                    results.transfers.push((name, rate));
                }
                Err(error) => results.promise(self.screen, false, format!("{name}: {error}")),
            }
        }
        let stats = self.stage.stats()?;
        let syns = count(&stats, "synproxy_syn_cnt");
        let answered: u64 = [
            "synproxy_cookie_sent",
            "synproxy_no_dest",
            "synproxy_syn_malformed",
            "synproxy_syn_heartbeat",
            "synproxy_syn_resize_failed",
        ]
        .iter()
        .map(|name| count(&stats, name))
        .sum();
        let sessions: u64 = stats
            .services
            .iter()
            .find(|service| service.synproxy)
            .map(|service| service.totals.connections)
            .context("the proxied service")?;
        let accepted = count(&stats, "synproxy_ok_ack");
        results.promise(
            self.screen,
            syns == answered && accepted == sessions,
            format!(
                "the counters add up: {} SYNs = cookies + drops, {} accepted ACKs = sessions",
                number(syns as f64),
                number(accepted as f64)
            ),
        );
        Ok(())
    }
}

fn count(stats: &StatsReport, name: &str) -> u64 {
    stats.counters.get(name).copied().unwrap_or(0)
}
