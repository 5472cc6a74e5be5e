//! The XDP program: loaded, sized, attached.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpError, XdpLink, XdpLinkId, XdpMode};
use aya::programs::{ProgramError, Xdp as Program};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use seawall_fastpath::Reason;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Bucket, Filter, Header, InterfaceEntry, LEDGER_RECORDS, LedgerRecord,
    MAX_ADDRESSES, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_SERVICES, NextHop, ServiceEntry, ServiceKey,
    Settings, Slot, Template, VERSION, bucket_count, name, program,
};

use crate::pins::Pins;
use crate::state::failed;
use crate::tables::Plain;
use crate::{Error, MappedArray, Owned, Ring, State};

/// The program and its maps as built by `cargo xtask bpf`.
static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/seawall.bpf.o"));

/// Slots are numbered in 31 bits and slot 0 is never used.
const MAX_SESSIONS: u32 = (1 << 31) - 2;
const MAX_TEMPLATES: u32 = 1 << 24;
const RING_BYTES: std::ops::RangeInclusive<u32> = 4096..=1 << 30;
/// Lines of the verifier's log that an error keeps; the reason stands at its end.
const LOG_LINES: usize = 24;

/// How much the maps hold. All of it is allocated when they are created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sessions at a time, 1 to 2^31 - 2.
    pub sessions: u32,
    /// Persistence templates at a time, 1 to 2^24.
    pub templates: u32,
    /// Bytes of the ring of proven peers: a power of two, 4 KiB to 1 GiB.
    pub proven_ring_bytes: u32,
    /// Bytes of the ring of peers that have proved nothing: likewise.
    pub unproven_ring_bytes: u32,
}

/// How the program runs on an interface.
#[derive(Debug)]
pub enum Mode {
    /// As it was: the program took the place of the one before it on its link.
    Replaced,
    /// In the driver.
    Native,
    /// In the kernel's stack, several times slower, because the driver refused.
    Generic {
        /// The driver's answer.
        native_refused: io::Error,
    },
}

/// How a link is held.
enum Held {
    /// By the program, as long as this process lives.
    Here(XdpLinkId),
    /// By its pin.
    Pinned,
}

/// What XDP hands up.
pub struct Rings {
    /// Frames of proven peers.
    pub proven: Ring,
    /// Frames of peers that have proved nothing.
    pub unproven: Ring,
}

/// The loaded program and its maps. With a state directory they stay when this is dropped, and XDP
/// goes on; [`Xdp::end`] takes all away. Without, dropping it detaches the program from every
/// interface, and the kernel frees program and maps when the last mapping and ring are gone too.
pub struct Xdp {
    /// Keeps the program, and with it the links.
    pub(crate) ebpf: Ebpf,
    links: BTreeMap<u32, Held>,
    state: Option<State>,
    /// This program's number.
    generation: u32,
    adopted: bool,
    header: MapData,
    ledger: MapData,
    owned: Option<Owned>,
    rings: Option<Rings>,
    /// What the attached program hands frames on to; emptied by the kernel when it is closed.
    _programs: ProgramArray<MapData>,
    slots: MapData,
    index: MapData,
    filter: MapData,
    next_hops: MapData,
    templates: MapData,
    settings: MapData,
    pub(crate) services: HashMap<MapData, Plain<ServiceKey>, Plain<ServiceEntry>>,
    pub(crate) addresses: HashMap<MapData, Plain<AddressKey>, Plain<AddressEntry>>,
    pub(crate) interfaces: HashMap<MapData, u32, Plain<InterfaceEntry>>,
    pub(crate) counters: PerCpuArray<MapData, u64>,
    verification: Duration,
    verified_instructions: u32,
    jitted: bool,
}

impl Limits {
    /// Bytes of kernel memory that the maps take, whatever happens. Left out are the per-CPU
    /// arrays (32 KiB and a few counters a CPU) and the allocators' own overhead.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let array = |entries: u64, size: usize| entries * size as u64;
        // `struct htab_elem` is 48 bytes, a bucket 16 (`kernel/bpf/hashtab.c`).
        let hash = |entries: u32, key: usize, value: usize| {
            let element = 48 + key.next_multiple_of(8) + value.next_multiple_of(8);
            array(entries.into(), element) + array(entries.next_power_of_two().into(), 16)
        };
        array(u64::from(self.sessions) + 1, size_of::<Slot>())
            + array(u64::from(bucket_count(self.sessions)) + 1, size_of::<Bucket>())
            + array(filter_words(self.sessions).into(), size_of::<Filter>())
            + array(MAX_NEXT_HOPS.into(), size_of::<NextHop>())
            + array(self.templates.into(), size_of::<Template>())
            + array(1, size_of::<Settings>())
            + array(1, size_of::<Header>())
            + array(LEDGER_RECORDS.into(), size_of::<LedgerRecord>())
            + hash(MAX_SERVICES, size_of::<ServiceKey>(), size_of::<ServiceEntry>())
            + hash(MAX_ADDRESSES, size_of::<AddressKey>(), size_of::<AddressEntry>())
            + hash(MAX_ADDRESSES, size_of::<AddressKey>(), size_of::<u64>())
            + hash(MAX_INTERFACES, size_of::<u32>(), size_of::<InterfaceEntry>())
            + u64::from(self.proven_ring_bytes)
            + u64::from(self.unproven_ring_bytes)
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_SESSIONS).contains(&self.sessions) {
            return Err(Error::Limit {
                what: "the number of sessions",
                value: self.sessions.into(),
                expected: "1 to 2147483646",
            });
        }
        if !(1..=MAX_TEMPLATES).contains(&self.templates) {
            return Err(Error::Limit {
                what: "the number of persistence templates",
                value: self.templates.into(),
                expected: "1 to 16777216",
            });
        }
        for (what, bytes) in [
            ("the ring of proven peers", self.proven_ring_bytes),
            ("the ring of unproven peers", self.unproven_ring_bytes),
        ] {
            if !RING_BYTES.contains(&bytes) || !bytes.is_power_of_two() {
                let expected = "a power of two from 4096 to 1073741824 bytes";
                return Err(Error::Limit { what, value: bytes.into(), expected });
            }
        }
        Ok(())
    }
}

impl Xdp {
    /// Creates the maps and has the kernel verify the program. Nothing is attached yet, and nothing is
    /// left when the process ends.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], [`Error::Maps`] for want of memory or privileges, [`Error::Verifier`],
    /// [`Error::Load`], and [`Error::Object`] if the embedded object is not of this build.
    pub fn load(limits: &Limits) -> Result<Self, Error> {
        Self::load_with(limits, None, 0)
    }

    /// The same with all maps pinned in `state`, or those that are there: then [`Xdp::adopted`]. The
    /// counters go on if `names` stands for the same ones.
    ///
    /// # Errors
    ///
    /// As [`Xdp::load`], and [`Error::StateMismatch`] when what is there has another layout or other
    /// limits; then it is left as it was.
    pub fn open(limits: &Limits, state: State, names: u64) -> Result<Self, Error> {
        Self::load_with(limits, Some(state), names)
    }

    fn load_with(limits: &Limits, state: Option<State>, names: u64) -> Result<Self, Error> {
        limits.check()?;
        let pins = Pins::prepare(limits, state.as_ref(), names)?;
        let mut loader = EbpfLoader::new();
        for (name, path) in &pins.paths {
            loader.map_pin_path(name, path.clone());
        }
        let mut ebpf = loader
            .btf(None)
            .map_max_entries(name::SLOTS, limits.sessions + 1)
            .map_max_entries(name::INDEX, bucket_count(limits.sessions) + 1)
            .map_max_entries(name::FILTER, filter_words(limits.sessions))
            .map_max_entries(name::TEMPLATES, limits.templates)
            .map_max_entries(name::PROVEN, limits.proven_ring_bytes)
            .map_max_entries(name::UNPROVEN, limits.unproven_ring_bytes)
            .load(OBJECT)
            .map_err(|error| not_created(error, limits))?;
        let mut programs: ProgramArray<_> = take(&mut ebpf, name::PROGRAMS)?;
        let mut verification = Duration::ZERO;
        let mut verified_instructions = 0;
        for (name, place) in [
            (name::PROGRAM_IPV6, Some(program::IPV6)),
            (name::DETOUR, Some(program::DETOUR)),
            (name::DETOUR_IPV6, Some(program::DETOUR_IPV6)),
            (name::PROGRAM, None),
        ] {
            let program = self::program(&mut ebpf, name)?;
            let start = Instant::now();
            program.load().map_err(refused)?;
            verification = verification.max(start.elapsed());
            verified_instructions = verified_instructions.max(verified(program));
            let Some(place) = place else { continue };
            let handed_on = program.fd().map_err(|source| Error::Load(Box::new(source)))?;
            programs.set(place, handed_on, 0).map_err(|error| Error::Object {
                what: format!("map {}: {error}", name::PROGRAMS),
            })?;
        }
        let program = program(&mut ebpf, name::PROGRAM)?;
        let jitted = program.info().is_ok_and(|info| info.size_jitted() > 0);
        let counters: PerCpuArray<_, _> = take(&mut ebpf, name::COUNTERS)?;
        if (counters.len() as usize) < Reason::ALL.len() {
            let what = format!("{} counters for {} reasons", counters.len(), Reason::ALL.len());
            return Err(Error::Object { what });
        }
        let Pins { adopted, generation, header, ledger, owned, .. } = pins;
        Ok(Self {
            generation,
            adopted,
            header,
            ledger,
            owned: Some(Owned::new(owned)?),
            state,
            rings: Some(Rings {
                proven: Ring::new(take::<RingBuf<_>>(&mut ebpf, name::PROVEN)?),
                unproven: Ring::new(take::<RingBuf<_>>(&mut ebpf, name::UNPROVEN)?),
            }),
            _programs: programs,
            slots: take_array(&mut ebpf, name::SLOTS)?,
            index: take_array(&mut ebpf, name::INDEX)?,
            filter: take_array(&mut ebpf, name::FILTER)?,
            next_hops: take_array(&mut ebpf, name::NEXT_HOPS)?,
            templates: take_array(&mut ebpf, name::TEMPLATES)?,
            settings: take_array(&mut ebpf, name::SETTINGS)?,
            services: take(&mut ebpf, name::SERVICES)?,
            addresses: take(&mut ebpf, name::ADDRESSES)?,
            interfaces: take(&mut ebpf, name::INTERFACES)?,
            counters,
            links: BTreeMap::new(),
            ebpf,
            verification,
            verified_instructions,
            jitted,
        })
    }

    /// Attaches the program to an interface (an index in the calling thread's namespace) by a
    /// BPF link: in the driver, or, if that refuses, in the kernel's stack. A link that is pinned in
    /// the state directory gets the program in place of the one before, from one frame to the next.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`]: no such interface, another program there, or refused in both modes.
    pub fn attach(&mut self, interface: u32) -> Result<Mode, Error> {
        if self.replace(interface)? {
            return Ok(Mode::Replaced);
        }
        let program = program(&mut self.ebpf, name::PROGRAM)?;
        let (link, mode) = match program.attach_to_if_index(interface, XdpMode::Driver) {
            Ok(link) => (link, Mode::Native),
            Err(error) => {
                let native_refused = into_io(error);
                if !is_for_the_driver(&native_refused) {
                    return Err(Error::Attach { interface, reason: native_refused });
                }
                let link = program
                    .attach_to_if_index(interface, XdpMode::Skb)
                    .map_err(|error| Error::Attach { interface, reason: into_io(error) })?;
                (link, Mode::Generic { native_refused })
            }
        };
        self.hold(interface, link)?;
        Ok(mode)
    }

    /// Puts the program on the link that is pinned for an interface, if there is one that lives.
    fn replace(&mut self, interface: u32) -> Result<bool, Error> {
        let Some(state) = &self.state else { return Ok(false) };
        let Ok(pinned) = PinnedLink::from_pin(state.link(interface)) else { return Ok(false) };
        let Ok(link) = XdpLink::try_from(FdLink::from(pinned)) else { return Ok(false) };
        let program = program(&mut self.ebpf, name::PROGRAM)?;
        let Ok(link) = program.attach_to_link(link) else {
            // Its interface is gone, and another has its number.
            state.detach(interface)?;
            return Ok(false);
        };
        program.take_link(link).map_err(|source| Error::Load(Box::new(source)))?;
        self.links.insert(interface, Held::Pinned);
        Ok(true)
    }

    /// Keeps a new link: by a pin, or for as long as this lives.
    fn hold(&mut self, interface: u32, link: XdpLinkId) -> Result<(), Error> {
        let Some(state) = &self.state else {
            self.links.insert(interface, Held::Here(link));
            return Ok(());
        };
        let program = program(&mut self.ebpf, name::PROGRAM)?;
        let link = program.take_link(link).map_err(|source| Error::Load(Box::new(source)))?;
        let path = state.link(interface);
        let pin = |source| failed("pin a link at", &path, source);
        let link = FdLink::try_from(link).map_err(|error| pin(io::Error::other(error)))?;
        link.pin(&path).map_err(|error| pin(io::Error::other(error)))?;
        self.links.insert(interface, Held::Pinned);
        Ok(())
    }

    /// Whether the maps are those that a daemon has left.
    #[must_use]
    pub const fn adopted(&self) -> bool {
        self.adopted
    }

    /// The start is complete: what is there can be taken over from now on. Links of other interfaces
    /// are detached, and so are tail-call arrays older than those of the program before this one,
    /// which may still run somewhere.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when a pin cannot be removed.
    pub fn complete(&mut self) -> Result<(), Error> {
        let Some(state) = &self.state else { return Ok(()) };
        for interface in state.links()? {
            if !self.links.contains_key(&interface) {
                state.detach(interface)?;
            }
        }
        state.forget_programs(self.generation.saturating_sub(1))?;
        if let Some(header) = self.header()?.first() {
            header.version.publish(VERSION);
        }
        state.stay();
        Ok(())
    }

    /// Detaches the program from every interface and removes all pins.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when a pin cannot be removed.
    pub fn end(self) -> Result<(), Error> {
        let Self { state, ebpf, .. } = self;
        let ended = state.map_or(Ok(()), State::remove);
        drop(ebpf);
        ended
    }

    /// The addresses that the host has from us, once.
    pub fn take_owned(&mut self) -> Option<Owned> {
        self.owned.take()
    }

    /// What the next daemon is told beside the tables: an array of one.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn header(&self) -> Result<MappedArray<Header>, Error> {
        MappedArray::new(name::HEADER, &self.header)
    }

    /// The numbers of services and real servers.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn ledger(&self) -> Result<MappedArray<LedgerRecord>, Error> {
        MappedArray::new(name::LEDGER, &self.ledger)
    }

    /// Detaches the program from an interface; nothing if it is not attached there.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] if the kernel refuses, which for a link it does not, and [`Error::State`]
    /// likewise for its pin.
    pub fn detach(&mut self, interface: u32) -> Result<(), Error> {
        match self.links.remove(&interface) {
            Some(Held::Here(link)) => program(&mut self.ebpf, name::PROGRAM)?
                .detach(link)
                .map_err(|source| Error::Load(Box::new(source))),
            Some(Held::Pinned) => {
                self.state.as_ref().map_or(Ok(()), |state| state.detach(interface))
            }
            None => Ok(()),
        }
    }

    /// Interfaces that the program is attached to.
    pub fn attached(&self) -> impl Iterator<Item = u32> {
        self.links.keys().copied()
    }

    /// How long the kernel took to verify and compile the slowest of the programs.
    #[must_use]
    pub fn verification(&self) -> Duration {
        self.verification
    }

    /// How many instructions the kernel walked to verify the largest of the programs; it gives up at
    /// a million. 0 where it does not tell.
    #[must_use]
    pub fn verified_instructions(&self) -> u32 {
        self.verified_instructions
    }

    /// Whether the kernel compiled the program; if not it is interpreted, many times slower
    /// (`net.core.bpf_jit_enable`, which namespaces hide).
    #[must_use]
    pub fn is_jitted(&self) -> bool {
        self.jitted
    }

    /// The rings, once: each has one reader.
    pub fn take_rings(&mut self) -> Option<Rings> {
        self.rings.take()
    }

    /// The sessions; slot 0 is never used.
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`] for want of address space, [`Error::Object`] on a mismatch of builds; so
    /// for all six arrays.
    pub fn slots(&self) -> Result<MappedArray<Slot>, Error> {
        MappedArray::new(name::SLOTS, &self.slots)
    }

    /// The session index; the last bucket is the stash.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn index(&self) -> Result<MappedArray<Bucket>, Error> {
        MappedArray::new(name::INDEX, &self.index)
    }

    /// The filter of the session index.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn filter(&self) -> Result<MappedArray<Filter>, Error> {
        MappedArray::new(name::FILTER, &self.filter)
    }

    /// The next hops; entry 0 is never valid.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn next_hops(&self) -> Result<MappedArray<NextHop>, Error> {
        MappedArray::new(name::NEXT_HOPS, &self.next_hops)
    }

    /// The persistence templates.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn templates(&self) -> Result<MappedArray<Template>, Error> {
        MappedArray::new(name::TEMPLATES, &self.templates)
    }

    /// The settings: an array of one.
    ///
    /// # Errors
    ///
    /// As [`slots`](Self::slots).
    pub fn settings(&self) -> Result<MappedArray<Settings>, Error> {
        MappedArray::new(name::SETTINGS, &self.settings)
    }
}

/// Words of the filter of an index for so many sessions.
pub(crate) const fn filter_words(sessions: u32) -> u32 {
    Filter::words(bucket_count(sessions) + 1)
}

pub(crate) fn program<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut Program, Error> {
    let mismatch = |what: String| Error::Object { what };
    ebpf.program_mut(name)
        .ok_or_else(|| mismatch(format!("it has no program {name}")))?
        .try_into()
        .map_err(|_| mismatch(format!("{name} is not an XDP program")))
}

fn verified(program: &Program) -> u32 {
    program.info().ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0)
}

fn take_map(ebpf: &mut Ebpf, map: &'static str) -> Result<Map, Error> {
    ebpf.take_map(map).ok_or_else(|| Error::Object { what: format!("it has no map {map}") })
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, map: &'static str) -> Result<T, Error> {
    T::try_from(take_map(ebpf, map)?)
        .map_err(|error| Error::Object { what: format!("map {map}: {error}") })
}

fn take_array(ebpf: &mut Ebpf, map: &'static str) -> Result<MapData, Error> {
    match take_map(ebpf, map)? {
        Map::Array(data) => Ok(data),
        _ => Err(Error::Object { what: format!("map {map} is not an array") }),
    }
}

fn not_created(error: EbpfError, limits: &Limits) -> Error {
    match error {
        EbpfError::MapError(source) => Error::Maps {
            sessions: limits.sessions,
            mebibytes: limits.memory().div_ceil(1 << 20),
            source: Box::new(source),
        },
        other => Error::Object { what: chain(&other) },
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn refused(error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.trim_end().lines().collect();
            let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            Error::Verifier { log, source: io_error }
        }
        other => Error::Load(Box::new(other)),
    }
}

fn into_io(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(error) => error.io_error,
        // Where no link can be made aya tries netlink, which fails alike on kernels this new.
        ProgramError::XdpError(XdpError::NetlinkError(error)) => match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::other(error),
        },
        other => io::Error::other(other),
    }
}

/// Whether generic mode might do what native mode did not.
fn is_for_the_driver(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EEXIST | libc::ENODEV | libc::EPERM | libc::EACCES)
    )
}

#[cfg(test)]
mod tests;
