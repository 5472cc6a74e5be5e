//! Clients and servers that remember nothing: every segment says what comes next.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, Queue};
use seawall_bpf::Packet;
use seawall_fastpath::cell::Cell64;
use seawall_wire::ethernet::{self, EtherType, MacAddr};

use crate::connections_layout::{
    ANSWER, CLIENT_ISN, DATA, Done, End, FIRST_CLIENT, FIRST_PORT, PORTS, Plan, REQUEST,
    SERVER_ISN, WAITING, number, stage,
};
use crate::random::below;
use crate::segment::{HEADERS, Seen, Segment, flag, is_segment, read};

#[map]
static LAB_PLAN: Array<Plan> = Array::with_max_entries(1, 0);
#[map]
static LAB_REQUESTS: Queue<End> = Queue::with_max_entries(WAITING, 0);
#[map]
static LAB_DONE: PerCpuArray<Done> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LAB_ENDS: Array<End> = Array::with_max_entries(1, 0);
#[map]
static LAB_NUMBERS: Array<Cell64> = Array::with_max_entries(2, 0);

/// The clock of either side, which stands still.
const CLOCK: u32 = 1;

/// See [`crate::connections_layout::program::CONNECT`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_connect(context: *mut xdp_md) -> u32 {
    sent(connect(&mut Packet::new(context, 0)))
}

/// See [`crate::connections_layout::program::REPEAT`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_repeat(context: *mut xdp_md) -> u32 {
    sent(repeat(&mut Packet::new(context, 0)))
}

/// See [`crate::connections_layout::program::CLIENT`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_client(context: *mut xdp_md) -> u32 {
    let mut frame = Packet::new(context, 0);
    match received(&mut frame) {
        Received::Answer(seen, plan, done) => answered(client(&mut frame, &seen, plan, done)),
        Received::Over(action) => action,
    }
}

/// See [`crate::connections_layout::program::SERVER`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn lab_server(context: *mut xdp_md) -> u32 {
    let mut frame = Packet::new(context, 0);
    match received(&mut frame) {
        Received::Answer(seen, plan, done) => answered(server(&mut frame, &seen, plan, done)),
        Received::Over(action) => action,
    }
}

#[inline(always)]
fn answered(answer: Option<()>) -> u32 {
    if answer.is_some() { xdp_action::XDP_TX } else { xdp_action::XDP_DROP }
}

#[inline(always)]
fn sent(frame: Option<()>) -> u32 {
    let Some(done) = frame.and_then(|()| done()) else { return xdp_action::XDP_DROP };
    done.sent = done.sent.wrapping_add(1);
    xdp_action::XDP_TX
}

/// What becomes of a frame that came in.
enum Received {
    /// It may want an answer.
    Answer(Seen, &'static Plan, &'static mut Done),
    Over(u32),
}

#[inline(always)]
fn received(frame: &mut Packet) -> Received {
    if !is_segment(frame) {
        return Received::Over(xdp_action::XDP_PASS);
    }
    let (Some(plan), Some(done)) = (LAB_PLAN.get(0), done()) else {
        return Received::Over(xdp_action::XDP_ABORTED);
    };
    done.received = done.received.wrapping_add(1);
    if plan.stage == stage::SINK {
        return Received::Over(xdp_action::XDP_DROP);
    }
    let Some(seen) = read(frame) else {
        done.strange = done.strange.wrapping_add(1);
        return Received::Over(xdp_action::XDP_DROP);
    };
    if seen.flags & flag::RST != 0 {
        done.reset = done.reset.wrapping_add(1);
        return Received::Over(xdp_action::XDP_DROP);
    }
    Received::Answer(seen, plan, done)
}

/// This CPU's counts.
#[inline(always)]
fn done() -> Option<&'static mut Done> {
    // SAFETY: only this CPU writes its element; all programs run with softirqs off, one at a time,
    // and each asks once.
    LAB_DONE.get_ptr_mut(0).map(|done| unsafe { &mut *done })
}

#[inline(always)]
fn connect(frame: &mut Packet) -> Option<()> {
    let plan = LAB_PLAN.get(0)?;
    let link = link(plan);
    if let Ok(Some(end)) = LAB_REQUESTS.pop() {
        let (flags, clocks) = (flag::PSH | flag::ACK, [CLOCK, CLOCK]);
        return Segment { link: &link, end: &end, flags, clocks }
            .write::<{ HEADERS + REQUEST }>(frame);
    }
    let begun = LAB_NUMBERS.get(number::BEGUN)?;
    if begun.load() >= plan.limit as u64 {
        return None;
    }
    let number = begun.fetch_add(1) as u32;
    let end = End {
        source: FIRST_CLIENT.wrapping_add(number / PORTS),
        destination: plan.target,
        ports: (FIRST_PORT + number % PORTS) << 16 | plan.target_port,
        seq: CLIENT_ISN,
        ack: 0,
    };
    Segment { link: &link, end: &end, flags: flag::SYN, clocks: [CLOCK, 0] }.write_syn(frame)
}

#[inline(always)]
fn repeat(frame: &mut Packet) -> Option<()> {
    let plan = LAB_PLAN.get(0)?;
    // SAFETY: takes nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    let end = LAB_ENDS.get(below(random, plan.ends))?;
    let (flags, clocks) = (flag::PSH | flag::ACK, [CLOCK, CLOCK]);
    Segment { link: &link(plan), end, flags, clocks }.write::<{ HEADERS + DATA }>(frame)
}

#[inline(always)]
fn link(plan: &Plan) -> ethernet::Header {
    let [a, b, c] = plan.link.map(u32::to_ne_bytes);
    ethernet::Header {
        destination: MacAddr([a[0], a[1], a[2], a[3], b[0], b[1]]),
        source: MacAddr([b[2], b[3], c[0], c[1], c[2], c[3]]),
        ethertype: EtherType::IPV4,
    }
}

#[inline(always)]
fn client(frame: &mut Packet, seen: &Seen, plan: &Plan, done: &mut Done) -> Option<()> {
    let Seen { link, answer, flags, .. } = seen;
    let says = |flags| Segment { link, end: answer, flags, clocks: [CLOCK, seen.clock] };
    if flags & flag::SYN != 0 {
        // One that takes nothing yet (nft's SYNPROXY) will say when it does.
        if seen.window != 0 && LAB_REQUESTS.push(answer, 0).is_err() {
            done.lost = done.lost.wrapping_add(1);
        }
        return says(flag::ACK).write::<HEADERS>(frame);
    }
    if flags & flag::FIN != 0 {
        done.finished = done.finished.wrapping_add(1);
        let fin = if seen.payload != 0 { flag::FIN } else { 0 };
        return says(fin | flag::ACK).write::<HEADERS>(frame);
    }
    if seen.payload != 0 {
        if plan.stage != stage::KEEP {
            return says(flag::FIN | flag::ACK).write::<HEADERS>(frame);
        }
        keep(answer, done);
        done.finished = done.finished.wrapping_add(1);
        return says(flag::ACK).write::<HEADERS>(frame);
    }
    if answer.seq == CLIENT_ISN + 1 && seen.window != 0 {
        return says(flag::PSH | flag::ACK).write::<{ HEADERS + REQUEST }>(frame);
    }
    None
}

#[inline(always)]
fn server(frame: &mut Packet, seen: &Seen, plan: &Plan, done: &mut Done) -> Option<()> {
    let Seen { link, answer, flags, .. } = seen;
    let clocks = [CLOCK, seen.clock];
    if flags & flag::SYN != 0 {
        let end = End { seq: SERVER_ISN, ..*answer };
        let flags = flag::SYN | flag::ACK;
        return Segment { link, end: &end, flags, clocks }.write_syn(frame);
    }
    let says = |flags| Segment { link, end: answer, flags, clocks };
    if flags & flag::FIN != 0 {
        done.finished = done.finished.wrapping_add(1);
        return says(flag::FIN | flag::ACK).write::<HEADERS>(frame);
    }
    if seen.payload != 0 {
        if plan.stage == stage::KEEP {
            keep(&End { seq: answer.seq.wrapping_add(ANSWER as u32), ..*answer }, done);
        }
        return says(flag::PSH | flag::ACK).write::<{ HEADERS + ANSWER }>(frame);
    }
    None
}

/// Notes an end for [`lab_repeat`].
#[inline(always)]
fn keep(end: &End, done: &mut Done) {
    let at = LAB_NUMBERS.get(number::KEPT).map(|kept| kept.fetch_add(1) as u32);
    match at.and_then(|at| LAB_ENDS.get_ptr_mut(at)) {
        // SAFETY: nobody else was given this element.
        Some(to) => unsafe { *to = *end },
        None => done.lost = done.lost.wrapping_add(1),
    }
}
