//! What `cargo xtask guard` counts instructions of: one case a run, the same work on any machine.
//!
//! Without an argument it lists the cases. With the name of one it does the work of it
//! [`REPEATS`] times, all of it inside of [`measured`], which callgrind is told to count alone, and
//! prints that number. The clock stands still but where a case turns it.

use std::hint::black_box;

use seawall_fastpath::native::{Buffer, Record};
use seawall_fastpath::{Reason, process};
use support::balancer::{Balancer, OUTSIDE, Setup};
use support::family::Family;
use support::packet::{ACK, FIN, PSH, Segment};
use support::stage::{CLIENT_ISN, SERVER_ISN, Stage, all_options, answer, data, syn_ack};

#[path = "../tests/support/mod.rs"]
mod support;

/// How often the work of a case is done; enough for its first time not to count.
const REPEATS: u16 = 256;
/// The client port of the first connection.
const FIRST_PORT: u16 = 20_000;

/// A case: does its work [`REPEATS`] times.
type Case = fn(Family);

const CASES: [(&str, Case); 6] = [
    ("syn-answered", syn_answered),
    ("ack-refused", ack_refused),
    ("forward-in", forward_in),
    ("forward-out", forward_out),
    ("engine-handshake", engine_handshake),
    ("engine-end", engine_end),
];

const FAMILIES: [(&str, Family); 2] = [("ipv4", Family::V4), ("ipv6", Family::V6)];

fn main() {
    let all = FAMILIES.iter().flat_map(|(family, of)| {
        CASES.iter().map(move |(name, case)| (format!("{family}-{name}"), *case, *of))
    });
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, case, family) in all {
        match &wanted {
            None => println!("{name}"),
            Some(wanted) if *wanted == name => {
                case(family);
                println!("{REPEATS}");
            }
            Some(_) => {}
        }
    }
}

/// Does the work. Callgrind counts from the call of this function to its end.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn stage(family: Family) -> Stage {
    Stage::new(&Setup { sessions: 4 * u32::from(REPEATS), ..Setup::of(family) })
}

/// Has XDP decide about frames that came in on an interface, as it would in the kernel.
fn measure_frames(balancer: &Balancer, interface: u32, frames: &[Vec<u8>], expected: Reason) {
    let mut copies: Vec<(Vec<u8>, usize)> =
        frames.iter().map(|frame| ([&frame[..], &[0; 256]].concat(), frame.len())).collect();
    measured(&mut || {
        for (bytes, len) in &mut copies {
            let mut buffer = Buffer::new(bytes, *len);
            let verdict = process(&mut buffer, interface, &balancer.tables);
            assert_eq!(black_box(verdict).reason, expected);
        }
    });
}

/// SYNs with all options, answered with cookies.
fn syn_answered(family: Family) {
    let stage = stage(family);
    let syn = |port| {
        let syn = stage.client_says(port, support::packet::SYN, CLIENT_ISN, 0);
        Segment { options: all_options(), ..syn }.bytes()
    };
    let frames: Vec<_> = (FIRST_PORT..FIRST_PORT + REPEATS).map(syn).collect();
    measure_frames(&stage.balancer, OUTSIDE, &frames, Reason::Cookie);
}

/// ACKs with made-up cookies.
fn ack_refused(family: Family) {
    let stage = stage(family);
    let ack = |port| stage.client_says(port, ACK, CLIENT_ISN, 0x1357_9bdf).bytes();
    let frames: Vec<_> = (FIRST_PORT..FIRST_PORT + REPEATS).map(ack).collect();
    measure_frames(&stage.balancer, OUTSIDE, &frames, Reason::BadAck);
}

/// Data of established sessions from their clients, with timestamps.
fn forward_in(family: Family) {
    let mut stage = stage(family);
    let sessions = establish(&mut stage);
    let frames: Vec<_> =
        sessions.iter().map(|session| data(&session.first, 0, &[b'.'; 16]).bytes()).collect();
    measure_frames(&stage.balancer, OUTSIDE, &frames, Reason::ForwardIn);
}

/// Data of established sessions from their real servers, with timestamps.
fn forward_out(family: Family) {
    let mut stage = stage(family);
    let inside = stage.inside();
    let sessions = establish(&mut stage);
    let frames: Vec<_> =
        sessions.iter().map(|session| session.server_says(PSH, 0).bytes()).collect();
    measure_frames(&stage.balancer, inside, &frames, Reason::ForwardOut);
}

/// The engine's part of opening sessions: from records of the clients' ACKs to SYNs, and from
/// records of the real servers' SYN/ACKs to established sessions and the ACKs that were kept.
fn engine_handshake(family: Family) {
    let mut stage = stage(family);
    for port in FIRST_PORT..FIRST_PORT + REPEATS {
        stage.accept(port, all_options());
    }
    let proofs = records(&stage);
    let syns = measure_engine(&mut stage, &proofs);
    assert_eq!(syns.len(), usize::from(REPEATS), "a SYN for each ACK");
    for syn in syns {
        stage.server(&syn_ack(&syn, all_options()));
    }
    let answers = records(&stage);
    let kept = measure_engine(&mut stage, &answers);
    assert_eq!(kept.len(), usize::from(REPEATS), "an ACK for each session");
}

/// The engine's part of ending them: from records of the changes of state to the last timer.
fn engine_end(family: Family) {
    let mut stage = stage(family);
    for session in establish(&mut stage) {
        stage.client(&Segment { flags: ACK | FIN, ..session.first.clone() });
        stage.server(&session.server_says(FIN, 1));
        let last = Segment { ack: session.first.ack.wrapping_add(1), ..session.first.clone() };
        stage.client(&data(&last, 1, &[]));
    }
    let changes = records(&stage);
    measure_engine(&mut stage, &changes);
    // Longer than any state of a session that has ended lasts.
    stage.balancer.set_now(stage.balancer.now() + 600_000);
    let now = stage.balancer.now();
    measured(&mut || stage.balancer.engine.handle_timeout(now));
    assert_eq!(stage.balancer.engine.session_count(), 0, "sessions left");
}

/// A session that is open.
struct Session {
    /// The client's ACK.
    first: Segment,
    /// The SYN that its real server has had.
    syn: Segment,
}

impl Session {
    /// Of the real server, which has had `received` bytes or flags of the client's after its SYN.
    fn server_says(&self, flags: u16, received: u32) -> Segment {
        let ack = self.syn.seq.wrapping_add(1 + received);
        let payload = if flags & FIN == 0 { vec![b'.'; 16] } else { Vec::new() };
        let clocks = support::packet::Opt::Timestamps(
            support::stage::SERVER_CLOCK,
            support::stage::clock_of(&self.syn).expect("timestamps").0,
        );
        let options = vec![support::packet::Opt::Nop, support::packet::Opt::Nop, clocks];
        let segment = answer(&self.syn, ACK | flags, SERVER_ISN.wrapping_add(1), ack);
        Segment { payload, options, ..segment }
    }
}

fn establish(stage: &mut Stage) -> Vec<Session> {
    let open = |port| {
        let (first, syn) = stage.open(port, all_options());
        stage.server(&syn_ack(&syn, all_options()));
        stage.round();
        stage.to_servers.clear();
        Session { first, syn }
    };
    (FIRST_PORT..FIRST_PORT + REPEATS).map(open).collect()
}

/// What waits for the engine.
fn records(stage: &Stage) -> Vec<Record> {
    stage.balancer.tables.records.borrow_mut().drain(..).collect()
}

/// Has the engine work on `records`; gives what it sends.
fn measure_engine(stage: &mut Stage, records: &[Record]) -> Vec<Segment> {
    let now = stage.balancer.now();
    let engine = &mut stage.balancer.engine;
    let mut sent = Vec::with_capacity(records.len() * 2);
    measured(&mut || {
        for record in records {
            engine.handle_record(now, &record.header, &record.frame);
        }
        engine.take_frames(|_, frame| sent.push(frame.to_vec()));
        engine.frames_sent();
    });
    sent.iter().map(|frame| Segment::read(frame)).collect()
}
