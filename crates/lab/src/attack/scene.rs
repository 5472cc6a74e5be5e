//! Attacks that need more than frames from nowhere: real clients, or sessions to aim at.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::frames::{self, Aim, Wave, reason};
use super::peers::{Kept, Proof, connect, is_answered};
use super::stage::{FEW_PORTS, SESSIONS, Stage, port};
use super::{Error, Family, Force};
use crate::echo::Asker;
use crate::flood::SOURCES;
use crate::frame::{Order, Packet, Path, Place, Segment, Template, Values, flags};
use crate::topology::LOCAL_ADDRESSES;

/// Connections that must outlive an attack.
const KEPT: usize = 8;
/// Clients that connect and then do nothing, or little.
const IDLE: usize = 200;
/// Connections opened at a time towards the session limit: a process may have 1,024 descriptors.
const BATCH: usize = 400;
/// New clients that knock at the session limit.
const KNOCKS: usize = 8;
/// Until the engine has opened the sessions of clients that have just connected.
const SETTLE: Duration = Duration::from_millis(300);
/// Longer, and a server closes connections that wait for the attack to end.
const KEPT_MAX: Duration = Duration::from_secs(20);
/// Longer, and the real server that does not answer is given up (SYNs at 0, 1, 3 and 7 s).
const UNANSWERED_MAX: Duration = Duration::from_secs(8);
/// Frames that one client may punt for its session before it is established
/// (`fastpath::embryo::MAX_PUNTED`), once while it is an embryo and once after.
const PUNTED: u64 = 64;
/// A sweep over ports takes so many times the rate of other floods.
const SWEEP: u32 = 10;
/// The ports of clients (`net.ipv4.ip_local_port_range`).
const CLIENT_PORTS: Values = Values { first: 32_768, count: 28_232, order: Order::Rising };
/// The ports of local addresses (`port_min` and `port_max`).
const LOCAL_PORTS: Values = Values { first: 5000, count: 60_536, order: Order::Rising };
/// Two epochs: no cookie lives longer (DESIGN, "Cookie").
const COOKIE_LIFE: Duration = Duration::from_secs(128);
/// One ACK in 2^23 bears a valid cookie by chance; more than so many in a run do not happen.
pub(super) const BLIND: u64 = 4;

/// What must have been counted.
pub(super) enum Claim {
    /// Frames of the flood, by one reason: all that arrived, give or take `slack`.
    Flood { reason: &'static str, sent: u64, slack: u64 },
    /// Frames of the flood, by several reasons together, which may count others too.
    Among { reasons: &'static [&'static str], sent: u64 },
    /// Anything, by any counter.
    Rose { counter: &'static str, least: u64, most: u64 },
}

/// What was done, and what follows from it.
#[derive(Default)]
pub(super) struct Deeds {
    /// Frames that the generator sent.
    pub(super) sent: u64,
    pub(super) claims: Vec<Claim>,
    /// What went wrong on the way.
    pub(super) faults: Vec<String>,
}

/// What an attack has to work with.
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage,
    pub(super) family: Family,
    pub(super) force: Force,
}

impl Scene<'_> {
    pub(super) const fn aim(&self) -> Aim {
        Aim { link: self.stage.attacker.link(), family: self.family }
    }

    fn client(&self) -> &crate::Namespace {
        &self.stage.topology.client.namespace
    }

    /// Sends `templates`; how many of each.
    fn send(&self, templates: &[Template], force: Force) -> Result<Vec<u64>, Error> {
        let host = self.stage.topology.attacker.as_ref();
        let host = host.ok_or_else(|| Error::Unexpected("no attacker".to_owned()))?;
        let flood = self.stage.attacker.send(host, templates, force.rate)?;
        thread::sleep(force.duration);
        Ok(flood.stop_each()?)
    }

    /// Sends waves, each of which one reason must count.
    pub(super) fn flood(&self, waves: Vec<Wave>) -> Result<Deeds, Error> {
        let (templates, reasons): (Vec<_>, Vec<_>) =
            waves.into_iter().map(|wave| (wave.template, wave.reason)).unzip();
        let sent = self.send(&templates, self.force)?;
        let mut deeds = Deeds { sent: sent.iter().sum(), ..Deeds::default() };
        for (name, frames) in reasons.into_iter().zip(sent) {
            let same = deeds.claims.iter_mut().find_map(|claim| match claim {
                Claim::Flood { reason, sent, .. } if *reason == name => Some(sent),
                Claim::Flood { .. } | Claim::Among { .. } | Claim::Rose { .. } => None,
            });
            match same {
                Some(sent) => *sent += frames,
                None => {
                    let slack = if name == reason::BAD_ACK { BLIND } else { 0 };
                    deeds.claims.push(Claim::Flood { reason: name, sent: frames, slack });
                }
            }
        }
        Ok(deeds)
    }

    /// Sweeps over ports with templates that several reasons count, depending on what they hit.
    fn sweep(
        &self,
        templates: &[Template],
        reasons: &'static [&'static str],
    ) -> Result<Deeds, Error> {
        let Force { duration, rate } = self.force;
        let force = Force { duration: duration.min(KEPT_MAX), rate: rate.saturating_mul(SWEEP) };
        let sent = self.send(templates, force)?.iter().sum();
        let claims = vec![Claim::Among { reasons, sent }];
        Ok(Deeds { sent, claims, ..Deeds::default() })
    }

    /// Connects `count` clients, from all their addresses in turn; gives those that were not
    /// reset at once.
    fn connect(&self, target: SocketAddr, count: usize) -> Result<Vec<TcpStream>, Error> {
        let sources: Vec<_> = Stage::clients(self.family).collect();
        let sources = sources.into_iter().cycle().take(count);
        let connected = || sources.filter_map(|source| connect(source, target).transpose());
        self.client().run(|| connected().collect())
    }

    fn a_client(&self) -> std::net::IpAddr {
        Stage::clients(self.family).next().unwrap_or_else(|| self.stage.topology.client.address())
    }

    fn own_client(&self) -> std::net::IpAddr {
        let client = &self.stage.topology.client;
        match self.family {
            Family::V4 => client.address(),
            Family::V6 => client.address6(),
        }
    }
}

/// Cookies of others: other ports, other clients, another service.
pub(super) fn ack_replay(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let target = scene.family.vip(port::WEB);
    let (proof, stream) = Proof::record(scene.client(), scene.a_client(), target)?;
    let (link, path) = (scene.aim().link, proof.path);
    let own = u32::from(path.source.port());
    let (below, above) = (own - 1024, 0xffff - own);
    let (first, count) = if below > above { (1024, below) } else { (own + 1, above) };
    let ports = Values { first, count, order: Order::Rising };
    let destination = scene.family.vip(port::SLEEPY);
    let stranger =
        Path { source: SocketAddr::new(scene.aim().stranger().ip(), path.source.port()), ..path };
    let packets = [
        proof.along(link, path).vary(Place::SourcePort, ports),
        proof.along(link, stranger).vary(Place::Source, SOURCES),
        proof.along(link, Path { destination, ..path }),
    ];
    let waves = packets.map(|packet| Wave { template: packet.template(), reason: reason::BAD_ACK });
    let deeds = scene.flood(waves.into())?;
    drop(stream);
    Ok(deeds)
}

/// The right cookie, two epochs later.
pub(super) fn ack_replay_old(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let target = scene.family.vip(port::WEB);
    let (proof, stream) = Proof::record(scene.client(), scene.a_client(), target)?;
    let recorded = Instant::now();
    drop(stream);
    let template = proof.along(scene.aim().link, proof.path).template();
    thread::sleep((COOKIE_LIFE + Duration::from_secs(2)).saturating_sub(recorded.elapsed()));
    scene.flood(vec![Wave { template, reason: reason::BAD_ACK }])
}

/// Clients that complete the handshake and never send.
pub(super) fn idle(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let streams = scene.connect(scene.family.vip(port::SLEEPY), IDLE)?;
    thread::sleep(scene.force.duration);
    drop(streams);
    Ok(Deeds { claims: vec![at_least("sessions_established", IDLE as u64)], ..Deeds::default() })
}

/// The same against a service that waits for data: they get nothing.
pub(super) fn idle_defer(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let streams = scene.connect(scene.family.vip(port::DEFER), IDLE)?;
    thread::sleep(scene.force.duration);
    drop(streams);
    // The ACK, and the reset in the end.
    let claims = vec![exactly(reason::NULL_ACK, IDLE as u64), exactly(reason::TCP, IDLE as u64)];
    Ok(Deeds { claims, ..Deeds::default() })
}

/// Clients that send a byte now and then.
pub(super) fn slow(scene: &Scene<'_>) -> Result<Deeds, Error> {
    use std::io::Write;
    let mut streams = scene.connect(scene.family.vip(port::SLEEPY), IDLE)?;
    let pause = (scene.force.duration / 4).min(Duration::from_secs(1));
    let (end, mut faults) = (Instant::now() + scene.force.duration, Vec::new());
    while Instant::now() < end {
        let failed = streams.iter_mut().filter_map(|stream| stream.write_all(b"x").err());
        faults.extend(failed.map(|error| format!("a slow client: {error}")));
        thread::sleep(pause);
    }
    let claims = vec![at_least("sessions_established", IDLE as u64)];
    Ok(Deeds { claims, faults, ..Deeds::default() })
}

/// Real clients take every session there is.
pub(super) fn session_limit(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let (client, web) = (scene.client(), scene.family.vip(port::WEB));
    let mut kept = Kept::open(client, web, KEPT)?;
    let end = AtomicBool::new(false);
    let mut deeds = Deeds::default();
    let faults = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut faults = Vec::new();
            while !end.load(Ordering::Relaxed) {
                faults.extend(kept.ask());
                thread::sleep(Duration::from_millis(50));
            }
            faults
        });
        let result = fill_and_knock(scene, &mut deeds.faults);
        end.store(true, Ordering::Relaxed);
        let faults = asking.join().unwrap_or_else(|_| vec!["asking panicked".to_owned()]);
        result.map(|()| faults)
    })?;
    deeds.faults.extend(faults);
    let opened = (3 * BATCH + KEPT) as u64;
    deeds.claims.push(at_least("conn_exceeded", opened - u64::from(SESSIONS)));
    // The resets of clients that got no session.
    deeds.claims.push(at_least(reason::TCP, 0));
    Ok(deeds)
}

fn fill_and_knock(scene: &Scene<'_>, faults: &mut Vec<String>) -> Result<(), Error> {
    let mut full = Vec::new();
    for _ in 0..2 {
        let streams = scene.connect(scene.family.vip(port::SLEEPY), BATCH)?;
        thread::sleep(SETTLE);
        for stream in &streams {
            // A FIN instead of a reset: the session stays, in CLOSE_WAIT.
            socket2::SockRef::from(stream).set_linger(None)?;
        }
    }
    full.extend(scene.connect(scene.family.vip(port::SLEEPY), BATCH)?);
    thread::sleep(SETTLE.max(scene.force.duration / 2));
    let total = scene.stage.api()?.sessions(seawall_control::report::Page::default())?.total;
    if total > u64::from(SESSIONS) {
        faults.push(format!("{total} sessions of {SESSIONS}"));
    }
    let mut knocking = scene.connect(scene.family.vip(port::WEB), KNOCKS)?;
    let answered = knocking.iter_mut().filter_map(|stream| {
        is_answered(stream, SETTLE).then(|| "a new client was served at the limit".to_owned())
    });
    faults.extend(answered);
    Ok(())
}

/// Strangers take the share of the sessions that unconfirmed UDP may have, while flows that are
/// confirmed go on and TCP finds room.
pub(super) fn udp_service(scene: &Scene<'_>) -> Result<Deeds, Error> {
    const REASONS: &[&str] = &[reason::PUNT_DATAGRAM, reason::RING_FULL, reason::FORWARD_IN];
    let (client, web) = (scene.client(), scene.family.vip(port::WEB));
    let mut kept = Kept::open(client, web, KEPT)?;
    let service = scene.family.vip(port::DATAGRAMS);
    let askers = (0..KEPT).map(|_| Asker::open(client, service));
    let mut askers: Vec<_> = askers.collect::<Result<_, _>>()?;
    let mut ask = |faults: &mut Vec<String>| {
        let answers = askers.iter_mut().map(|asker| asker.ask(SETTLE * 4));
        faults.extend(answers.filter_map(Result::err).map(|e| format!("a kept UDP flow: {e}")));
    };
    let mut deeds = Deeds::default();
    // The second question confirms the flow.
    (0..2).for_each(|_| ask(&mut deeds.faults));
    let end = AtomicBool::new(false);
    let (sent, faults) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut faults = Vec::new();
            while !end.load(Ordering::Relaxed) {
                ask(&mut faults);
                faults.extend(kept.ask());
                match scene.connect(web, KNOCKS) {
                    Ok(mut new) => faults.extend(new.iter_mut().filter_map(|stream| {
                        let answered = is_answered(stream, SETTLE * 4);
                        (!answered).then(|| "a new connection was not served".to_owned())
                    })),
                    Err(error) => faults.push(format!("a new connection: {error}")),
                }
                thread::sleep(Duration::from_millis(50));
            }
            faults
        });
        let sent = scene.send(&[frames::datagrams(scene.aim())], scene.force);
        end.store(true, Ordering::Relaxed);
        let faults = asking.join().unwrap_or_else(|_| vec!["asking panicked".to_owned()]);
        sent.map(|sent| (sent.iter().sum(), faults))
    })?;
    deeds.faults.extend(faults);
    deeds.sent = sent;
    deeds.claims = vec![
        Claim::Among { reasons: REASONS, sent },
        at_least("conn_exceeded_udp", 1),
        // Resets of clients that have their answer, and answers to strangers whose session is over.
        at_least(reason::TCP, 0),
        at_least(reason::LOCAL, 0),
    ];
    Ok(deeds)
}

/// Real clients take every local port of a pool.
pub(super) fn ports(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let more = 36;
    let streams = scene.connect(scene.family.vip(port::FEW), FEW_PORTS as usize + more)?;
    thread::sleep(scene.force.duration.max(SETTLE));
    drop(streams);
    let more = more as u64;
    // Those that got none are reset; what they send before they know belongs to no session.
    let claims = vec![
        exactly("lport_exhausted", more),
        Claim::Rose { counter: reason::TCP, least: 0, most: more },
    ];
    Ok(Deeds { claims, ..Deeds::default() })
}

/// A client with a right cookie, whose real server does not answer, sends as much as it can.
pub(super) fn embryo(scene: &Scene<'_>) -> Result<Deeds, Error> {
    let target = scene.family.vip(port::HOLE);
    let (proof, stream) = Proof::record(scene.client(), scene.a_client(), target)?;
    let link = scene.aim().link;
    let data = Segment {
        flags: flags::ACK | flags::PSH,
        payload: b"GET / HTTP/1.1\r\n".to_vec(),
        ..proof.segment.clone()
    };
    let in_window = Values { first: data.seq, count: 10_000, order: Order::Random };
    let data = Packet::tcp(link, proof.path, &data);
    let duration = scene.force.duration.min(UNANSWERED_MAX);
    let force = Force { duration, ..scene.force };
    let templates = [
        proof.along(link, proof.path).template(),
        data.template(),
        data.vary(Place::Seq, in_window).template(),
    ];
    let sent = scene.send(&templates, force)?.iter().sum();
    drop(stream);
    let reason = reason::PUNT_LIMITED;
    let claims = vec![Claim::Flood { reason, sent, slack: PUNTED }];
    Ok(Deeds { sent, claims, ..Deeds::default() })
}

/// Resets over all ports with random numbers, from where the two ends of sessions are.
pub(super) fn rst_off_path(scene: &Scene<'_>) -> Result<Deeds, Error> {
    const REASONS: &[&str] =
        &[reason::TCP, reason::LOCAL, reason::FORWARD_IN, reason::FORWARD_OUT, "punt_client"];
    let web = scene.family.vip(port::WEB);
    let mut kept = Kept::open(scene.client(), web, KEPT)?;
    let link = scene.aim().link;
    let reset = |path, flags, place, ports| {
        let segment = Segment { flags, ..Segment::default() };
        let packet = Packet::tcp(link, path, &segment).vary(place, ports);
        packet.vary(Place::Seq, Values::ANY).vary(Place::Ack, Values::ANY).template()
    };
    let own = Path { source: SocketAddr::new(scene.own_client(), 0), destination: web };
    let mut templates = vec![
        reset(own, flags::RST, Place::SourcePort, CLIENT_PORTS),
        reset(own, flags::RST | flags::ACK, Place::SourcePort, Values::PORTS),
    ];
    for source in scene.stage.servers(scene.family) {
        for local in LOCAL_ADDRESSES {
            let destination = SocketAddr::new(scene.family.of(local), 0);
            let path = Path { source, destination };
            templates.push(reset(path, flags::RST, Place::DestinationPort, LOCAL_PORTS));
        }
    }
    let mut deeds = scene.sweep(&templates, REASONS)?;
    deeds.faults = kept.ask();
    Ok(deeds)
}

/// ICMP errors over all ports with random numbers, quoting what either side may have sent.
pub(super) fn icmp(scene: &Scene<'_>) -> Result<Deeds, Error> {
    const REASONS: &[&str] =
        &[reason::PASS_NOT_OURS, reason::ICMP_INVALID, reason::ICMP_IN, reason::ICMP_OUT];
    let web = scene.family.vip(port::WEB);
    let mut kept = Kept::open(scene.client(), web, KEPT)?;
    let aim = scene.aim();
    let mtu = match scene.family {
        Family::V4 => 576,
        Family::V6 => 1280,
    };
    let mut templates = Vec::new();
    let mut quote = |quoted: Path, place, ports| {
        let path = Path { source: aim.stranger(), destination: quoted.source };
        for packet in [
            Packet::port_unreachable(aim.link, path, quoted, 0),
            Packet::too_big(aim.link, path, quoted, 0, mtu),
        ] {
            let packet = packet.vary(Place::Source, SOURCES).vary(Place::QuotedSeq, Values::ANY);
            templates.push(packet.vary(place, ports).template());
        }
    };
    let client = SocketAddr::new(scene.own_client(), 0);
    quote(Path { source: web, destination: client }, Place::QuotedDestinationPort, CLIENT_PORTS);
    for server in scene.stage.servers(scene.family) {
        let local = SocketAddr::new(scene.family.of(LOCAL_ADDRESSES[0]), 0);
        quote(Path { source: local, destination: server }, Place::QuotedSourcePort, LOCAL_PORTS);
    }
    let mut deeds = scene.sweep(&templates, REASONS)?;
    // Some have met sessions.
    deeds.claims.push(at_least(reason::ICMP_INVALID, 1));
    deeds.faults = kept.ask();
    Ok(deeds)
}

const fn exactly(counter: &'static str, count: u64) -> Claim {
    Claim::Rose { counter, least: count, most: count }
}

const fn at_least(counter: &'static str, least: u64) -> Claim {
    Claim::Rose { counter, least, most: u64::MAX }
}
