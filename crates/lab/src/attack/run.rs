//! One attack, and the judgement on it.

use std::time::Duration;

use seawall_fastpath::{Outcome, Reason};

use super::census::Census;
use super::frames::{Aim, reason};
use super::scene::{Claim, Deeds, Scene};
use super::stage::{Room, port};
use super::{Attack, Error, Force, Stage, Work};
use crate::load::{Limit, Load, LoadSpec};

/// Legitimate requests under way at once.
const CLIENTS: usize = 4;
/// What a legitimate client waits between two requests.
const PAUSE: Duration = Duration::from_millis(5);
/// Legitimate requests go on by themselves for no longer.
const LOAD_MAX: Duration = Duration::from_secs(600);
/// Bytes that the daemon may take for a session: the slot, its index entries, the engine's books.
const SESSION_BYTES: u64 = 2048;
/// Bytes that it may take otherwise: buffers of rings and reports, pages that it touches first.
const OTHER_BYTES: u64 = 4 << 20;
/// Frames that are nobody's attack: neighbour discovery and multicast membership.
const NOISE: u64 = 64;

/// One counter, and what it must have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The counter.
    pub name: String,
    /// How far it rose.
    pub value: u64,
    /// The least that is right.
    pub least: u64,
    /// The most that is right.
    pub most: u64,
}

impl Counted {
    /// Whether it is right.
    pub const fn holds(&self) -> bool {
        self.least <= self.value && self.value <= self.most
    }
}

/// What came of an attack.
#[derive(Clone, Debug)]
pub struct Report {
    /// Frames that the generator sent.
    pub sent: u64,
    /// Frames that arrived from it.
    pub arrived: u64,
    /// Legitimate requests that succeeded.
    pub requests: u64,
    /// Latency that 99 % of them did not exceed.
    pub p99: Option<Duration>,
    /// Bytes by which the daemon grew.
    pub growth: u64,
    /// Counters that the attack should have moved.
    pub counted: Vec<Counted>,
    /// Everything that is not as promised; empty when the attack came to nothing.
    pub faults: Vec<String>,
}

pub(super) fn run(attack: &Attack, stage: &mut Stage, force: Force) -> Result<Report, Error> {
    stage.prepare(attack.room)?;
    let before = Census::take(stage)?;
    let client = &stage.topology.client.namespace;
    let spec = LoadSpec {
        threads: CLIENTS,
        pause: PAUSE,
        ..LoadSpec::new(attack.family.vip(port::WEB), Limit::Time(LOAD_MAX))
    };
    let load = match attack.room {
        Room::Ample => Some(Load::start(client, spec)?),
        // New requests must fail there.
        Room::Scarce => None,
    };
    let scene = Scene { stage, family: attack.family, force };
    let deeds = match attack.work {
        Work::Frames(waves) => {
            let aim: Aim = scene.aim();
            scene.flood(waves(aim))
        }
        Work::Acts(act) => act(&scene),
    }?;
    let requests = load.map(|load| {
        load.stop();
        load.finish()
    });
    let after = Census::take(stage)?;
    let moved = after.since(&before);
    let mut report = judge(deeds, &moved);
    if let Some(requests) = requests {
        report.requests = requests.succeeded();
        report.p99 = requests.p99();
        if requests.failed() > 0 || requests.succeeded() == 0 {
            let example = requests.example.clone().unwrap_or_default();
            let (failed, succeeded) = (requests.failed(), requests.succeeded());
            let counters = moved.risen();
            report.faults.push(format!(
                "{failed} requests failed, {succeeded} not: {example}; counted meanwhile: {counters:?}"
            ));
        }
    }
    Ok(report)
}

/// What the numbers say.
fn judge(deeds: Deeds, moved: &Census) -> Report {
    let Deeds { sent, claims, mut faults } = deeds;
    let arrived = moved.arrived();
    let (seen, shown) = (moved.seen(), moved.shown());
    if seen != shown {
        faults.push(format!("the reasons count {seen} frames, XDP received {shown}"));
    }
    let lost = sent.saturating_sub(arrived);
    let counted: Vec<_> = claims.iter().map(|claim| count(claim, moved, lost)).collect();
    faults.extend(counted.iter().filter(|counted| !counted.holds()).map(|counted| {
        let Counted { name, value, least, most } = counted;
        format!("{name} counted {value} instead of {least} to {most}")
    }));
    let named = |reason: &Reason| {
        claims.iter().any(|claim| match claim {
            Claim::Flood { reason: name, .. } => *name == reason.name(),
            Claim::Among { reasons, .. } => reasons.contains(&reason.name()),
            Claim::Rose { counter, .. } => *counter == reason.name(),
        })
    };
    for reason in Reason::ALL {
        let value = moved.count(reason.name());
        let most = others(reason.name());
        if reason.outcome() == Outcome::Dropped && value > most && !named(reason) {
            faults.push(format!("{} counted {value}, which nothing explains", reason.name()));
        }
    }
    let bound = OTHER_BYTES + moved.count("sessions_opened") * SESSION_BYTES;
    if moved.memory > bound {
        faults.push(format!(
            "the daemon grew by {} KiB, more than {}",
            moved.memory >> 10,
            bound >> 10
        ));
    }
    let (requests, p99) = (0, None);
    Report { sent, arrived, requests, p99, growth: moved.memory, counted, faults }
}

/// The most that `reason` may count beside an attack.
fn others(reason: &str) -> u64 {
    match reason {
        reason::PASS_NOT_IP | reason::PASS_NOT_OURS => NOISE,
        _ => 0,
    }
}

/// A claim, with what legitimate clients add and what was lost in front of the balancer.
fn count(claim: &Claim, moved: &Census, lost: u64) -> Counted {
    match *claim {
        Claim::Flood { reason, sent, slack } => {
            // A cookie for every SYN that the clients' kernel has sent.
            let answered = if reason == reason::COOKIE { moved.syns } else { 0 };
            let least = (sent + answered).saturating_sub(lost + slack);
            let most = sent + answered + others(reason) + slack;
            Counted { name: reason.to_owned(), value: moved.count(reason), least, most }
        }
        Claim::Among { reasons, sent } => {
            let value = reasons.iter().map(|reason| moved.count(reason)).sum();
            let least = sent.saturating_sub(lost);
            Counted { name: reasons.join(" + "), value, least, most: u64::MAX }
        }
        Claim::Rose { counter, least, most } => {
            Counted { name: counter.to_owned(), value: moved.count(counter), least, most }
        }
    }
}
