//! The packet path twice: natively and in the kernel, over tables with the same content.

use seawall_datapath::program_test::{Action as XdpAction, TestRun};
use seawall_datapath::{Limits, Rings, SharedMemory, Xdp, clock};
use seawall_fastpath::cell::Cell32;
use seawall_fastpath::layout::{Bucket, Ends, Filter, Flow, RecordKind, Settings, Slot, flag};
use seawall_fastpath::native::{Memory, Record};
use seawall_fastpath::{Action, Reason, Ring, Tuple, cookie};

use crate::support::packet::{Layout, Opt, Segment, read_options};
use crate::support::world::{Ran, World, endpoint};

/// As many as [`World`] has room for, so that both have the same index.
pub(crate) const SESSIONS: u32 = 1024;
/// Next hops that are copied: all that the tests fill.
const NEXT_HOPS: usize = 8;
/// How far apart, in milliseconds, one instant may look to clock_gettime(2) and to the clock that
/// BPF programs read, which forgoes locks for a little accuracy (`ktime_get_mono_fast_ns`).
const CLOCK_ERROR_MS: u64 = 1;

/// Both, in step.
pub(crate) struct Pair {
    /// The native tables.
    pub(crate) world: World,
    /// The in-kernel program.
    pub(crate) xdp: Xdp,
    shared: SharedMemory,
    rings: Rings,
    slots_in_use: Vec<u32>,
    handled: Vec<u64>,
    /// Kinds of records that went up.
    pub(crate) kinds: Vec<RecordKind>,
}

/// What a slot holds, to compare.
#[derive(Clone, PartialEq, Debug)]
struct Seen {
    word: u64,
    cells: [u32; 12],
    ends: Ends,
    inbound: [u64; 12],
    outbound: [u64; 12],
}

impl Pair {
    /// Loads the program and gives it what is in `world`. `slots_in_use` are those that segments
    /// may lead to.
    pub(crate) fn new(world: World, slots_in_use: Vec<u32>) -> Self {
        let limits = Limits {
            sessions: SESSIONS,
            templates: 1,
            proven_ring_bytes: 1 << 20,
            unproven_ring_bytes: 1 << 20,
        };
        let mut xdp = Xdp::load(&limits).unwrap();
        for (key, entry) in world.tables.services.borrow().iter() {
            xdp.set_service(key, entry).unwrap();
        }
        for (key, entry) in world.tables.addresses.borrow().iter() {
            xdp.set_address(key, entry).unwrap();
        }
        for (interface, entry) in world.tables.interfaces.borrow().iter() {
            xdp.set_interface(*interface, *entry).unwrap();
        }
        let shared = SharedMemory::new(&xdp).unwrap();
        let rings = xdp.take_rings().unwrap();
        let handled = vec![0; Reason::ALL.len()];
        let kinds = Vec::new();
        let pair = Self { world, xdp, shared, rings, slots_in_use, handled, kinds };
        pair.copy_memory();
        pair
    }

    /// Makes the kernel's arrays the same as the native ones.
    pub(crate) fn copy_memory(&self) {
        let (from, to) = (&self.world.tables.memory, &self.shared);
        copy_settings(from.settings(), to.settings());
        for (from, to) in from.next_hops().iter().zip(to.next_hops()).take(NEXT_HOPS) {
            to.set_destination(from.destination());
            to.set_source(from.source());
            to.set_tags(from.tags());
            to.interface.store(from.interface.load());
            to.mtu.store(from.mtu.load());
        }
        for (from, to) in from.slots().iter().zip(to.slots()) {
            copy_slot(from, to);
        }
        assert_eq!(from.index().len(), to.index().len());
        for bucket in 0..from.index().len() as u32 {
            let word = Filter::word(bucket) as usize;
            to.filter()[word].set_marks(bucket, from.filter()[word].marks(bucket));
        }
        for (from, to) in from.index().iter().zip(to.index()) {
            for (from, to) in from.entries.iter().zip(&to.entries) {
                to.store(from.load());
            }
        }
    }

    /// How often each reason was given.
    pub(crate) fn handled(&self) -> &[u64] {
        &self.handled
    }

    /// Runs both on `frame` and says what differs, if anything.
    pub(crate) fn run(&mut self, ingress: u32, frame: &[u8]) -> Result<Ran, String> {
        let earliest = clock::monotonic_ms();
        let kernel = self.xdp.test_run(frame, ingress).map_err(|error| error.to_string())?;
        let latest = clock::monotonic_ms();
        let records = self.records()?;
        let now = self.kernels_now(&kernel, &records, earliest).unwrap_or(latest);
        if !(earliest - CLOCK_ERROR_MS..=latest + CLOCK_ERROR_MS).contains(&now) {
            return Err(format!("the kernel's clock said {now}, ours {earliest} to {latest}"));
        }
        self.world.tables.set_now(now);
        let native = self.world.run(ingress, frame);
        self.read_the_clock_before(earliest, now);
        let expected = match native.verdict.action {
            Action::Pass => XdpAction::Pass,
            Action::Drop | Action::Punt => XdpAction::Drop,
            Action::Send { interface } if interface == ingress => XdpAction::Tx,
            Action::Send { .. } => XdpAction::Redirect,
        };
        let counters = self.xdp.counters().map_err(|error| error.to_string())?;
        let counted = Reason::ALL.iter().map(|reason| self.world.tables.counter(*reason));
        let counted: Vec<u64> = counted.collect();
        if counters != counted {
            let of = |totals: &[u64]| -> Vec<Reason> {
                let grown = totals.iter().zip(&self.handled).map(|(now, before)| now != before);
                Reason::ALL.iter().zip(grown).filter(|it| it.1).map(|it| *it.0).collect()
            };
            return Err(differ("reasons", &of(&counted), &of(&counters)));
        }
        self.handled = counters;
        same("actions", &expected, &kernel.action)?;
        same("frames", &native.bytes, &kernel.frame)?;
        same("records", &self.world.records(), &records)?;
        for record in &records {
            let kind = RecordKind::from_bits(record.header.kind).ok_or("a record of no kind")?;
            if !self.kinds.contains(&kind) {
                self.kinds.push(kind);
            }
        }
        for slot in &self.slots_in_use {
            let native = Seen::new(self.world.slot(*slot));
            same(&format!("slots {slot}"), &native, &Seen::new(self.kernel_slot(*slot)))?;
        }
        Ok(native)
    }

    /// Compares what no frame may change.
    pub(crate) fn check_the_rest(&self) -> Result<(), String> {
        let (native, kernel) = (&self.world.tables.memory, &self.shared);
        for at in 0..=SESSIONS {
            let native = Seen::new(self.world.slot(at));
            same(&format!("slots {at}"), &native, &Seen::new(self.kernel_slot(at)))?;
        }
        let entries = |it: &Bucket| it.entries.each_ref().map(|entry| entry.load());
        for (native, kernel) in native.index().iter().zip(kernel.index()) {
            same("buckets", &entries(native), &entries(kernel))?;
        }
        same("malformed", &0, &(self.rings.proven.malformed() + self.rings.unproven.malformed()))
    }

    fn kernel_slot(&self, at: u32) -> &Slot {
        &self.shared.slots()[at as usize]
    }

    fn records(&mut self) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        for (name, ring) in
            [(Ring::Proven, &mut self.rings.proven), (Ring::Unproven, &mut self.rings.unproven)]
        {
            ring.for_each(usize::MAX, |header, frame| {
                records.push(Record { ring: name, header: *header, frame: frame.to_vec() });
            });
        }
        if records.len() > 1 {
            return Err(format!("one frame gave {} records", records.len()));
        }
        Ok(records)
    }

    /// A SYN to a session whose answers go past us is noted by one program and sent on by the next, each
    /// of which reads the clock: once in hundreds of them a millisecond has passed in between.
    fn read_the_clock_before(&self, earliest: u64, now: u64) {
        for slot in &self.slots_in_use {
            let (kernel, native) = (self.kernel_slot(*slot), self.world.slot(*slot));
            let [noted, ours] = [kernel, native].map(|it| &it.inbound.syn_forwarded);
            let before = earliest - CLOCK_ERROR_MS..=now;
            if native.state().flags & flag::ONE_WAY != 0
                && ours.load() == now
                && before.contains(&noted.load())
            {
                ours.store(noted.load());
            }
        }
    }

    /// The time that the kernel's run went by, if it left a trace of it; if not, it matters to
    /// nothing that is compared.
    fn kernels_now(&self, run: &TestRun, records: &[Record], earliest: u64) -> Option<u64> {
        if let Some(record) = records.first() {
            return Some(record.header.time);
        }
        for slot in &self.slots_in_use {
            let (kernel, native) = (self.kernel_slot(*slot), self.world.slot(*slot));
            for (kernel, native) in
                [(&kernel.inbound, &native.inbound), (&kernel.outbound, &native.outbound)]
            {
                if kernel.packets.load() != native.packets.load() {
                    return Some(kernel.last_seen.load());
                }
                if kernel.syn_forwarded.load() != native.syn_forwarded.load() {
                    return Some(kernel.syn_forwarded.load());
                }
            }
        }
        if run.action != XdpAction::Tx {
            return None;
        }
        // Neither a record nor a session: a SYN/ACK, whose TSval is the clock; or an ICMP error.
        let frame = &run.frame;
        let Layout { tcp, .. } = Layout::find(frame)?;
        if frame.get(tcp + 13)? & 0x12 != 0x12 {
            return None;
        }
        let value = read_options(frame.get(tcp + 20..)?)?.iter().find_map(|option| {
            if let Opt::Timestamps(value, _) = option { Some(*value) } else { None }
        })?;
        let answer = Segment::read(frame);
        let tuple =
            Tuple { source: endpoint(answer.destination), destination: endpoint(answer.source) };
        let expected = cookie::clock(self.shared.settings(), &tuple, earliest);
        Some(earliest.wrapping_add_signed(i64::from(value.wrapping_sub(expected) as i32)))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, native: &T, kernel: &T) -> Result<(), String> {
    if native == kernel { Ok(()) } else { Err(differ(what, native, kernel)) }
}

fn differ<T: std::fmt::Debug>(what: &str, native: &T, kernel: &T) -> String {
    format!("{what} differ:\n native {native:02x?}\n kernel {kernel:02x?}")
}

fn cells(slot: &Slot) -> [&Cell32; 12] {
    [
        &slot.generation,
        &slot.f,
        &slot.ts_in,
        &slot.ts_out,
        &slot.scales,
        &slot.next_hop_in,
        &slot.next_hop_out,
        &slot.service,
        &slot.real_server,
        &slot.cookie,
        &slot.prior_cookie,
        &slot.client_isn,
    ]
}

impl Seen {
    fn new(slot: &Slot) -> Self {
        let flow = |flow: &Flow| {
            [
                flow.packets.load(),
                flow.bytes.load(),
                flow.last_seen.load(),
                flow.syn_forwarded.load(),
                flow.ack.load().into(),
                flow.window.load().into(),
                flow.repeated.load().into(),
                flow.repeats.load().into(),
                flow.data.load().into(),
                flow.answered.load().into(),
                flow.punted.load().into(),
                flow.syn_seq.load().into(),
            ]
        };
        Self {
            word: slot.word.load(),
            cells: cells(slot).map(Cell32::load),
            ends: slot.ends(),
            inbound: flow(&slot.inbound),
            outbound: flow(&slot.outbound),
        }
    }
}

fn copy_slot(from: &Slot, to: &Slot) {
    to.set_ends(&from.ends());
    to.word.store(from.word.load());
    for (from, to) in cells(from).into_iter().zip(cells(to)) {
        to.store(from.load());
    }
    for (from, to) in [(&from.inbound, &to.inbound), (&from.outbound, &to.outbound)] {
        to.packets.store(from.packets.load());
        to.bytes.store(from.bytes.load());
        to.last_seen.store(from.last_seen.load());
        to.syn_forwarded.store(from.syn_forwarded.load());
        to.ack.store(from.ack.load());
        to.window.store(from.window.load());
        to.repeated.store(from.repeated.load());
        to.repeats.store(from.repeats.load());
        to.data.store(from.data.load());
        to.answered.store(from.answered.load());
        to.punted.store(from.punted.load());
        to.syn_seq.store(from.syn_seq.load());
    }
}

fn copy_settings(from: &Settings, to: &Settings) {
    for (from, to) in [
        (&from.epoch, &to.epoch),
        (&from.switches, &to.switches),
        (&from.bucket_mask, &to.bucket_mask),
        (&from.stashed, &to.stashed),
        (&from.init_mss, &to.init_mss),
        (&from.window_scale, &to.window_scale),
        (&from.early_data, &to.early_data),
        (&from.ttl, &to.ttl),
        (&from.ack_storm_threshold, &to.ack_storm_threshold),
        (&from.ident, &to.ident),
    ] {
        to.store(from.load());
    }
    to.heartbeat.store(from.heartbeat.load());
    to.timestamp_offset.store(from.timestamp_offset.load());
    to.epoch_ends.store(from.epoch_ends.load());
    to.index_key.set(from.index_key.get());
    to.timestamp_key.set(from.timestamp_key.get());
    for (from, to) in from.cookie_keys.iter().zip(&to.cookie_keys) {
        to.set(from.get());
    }
}
