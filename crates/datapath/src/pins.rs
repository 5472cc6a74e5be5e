//! The maps of a state directory: made, or opened as they are and held against what they should be.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aya::maps::{MapData, MapError, MapType};
use seawall_fastpath::embryo::EMBRYOS;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Bucket, Filter, Header, InterfaceEntry, LEDGER_RECORDS, LedgerRecord,
    MAX_ADDRESSES, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_SERVICES, NextHop, ServiceEntry, ServiceKey,
    Settings, Slot, Template, bucket_count, name,
};

use crate::bpf_call::{Shape, create_map};
use crate::state::{Left, State, failed};
use crate::xdp::filter_words;
use crate::{Error, Limits, MappedArray};

/// `BPF_F_MMAPABLE` (`include/uapi/linux/bpf.h`).
const MMAPABLE: u32 = 1 << 10;

/// Where the loader finds or puts the maps, and those that it does not know.
pub(crate) struct Pins {
    /// By the name of the map.
    pub(crate) paths: Vec<(&'static str, PathBuf)>,
    /// Whether they were there.
    pub(crate) adopted: bool,
    /// The number of the program that is about to be loaded.
    pub(crate) generation: u32,
    pub(crate) header: MapData,
    pub(crate) ledger: MapData,
    pub(crate) owned: MapData,
}

/// A map as it must be: kind, bytes of key and value, entries, and the configuration that the latter
/// follow from.
struct Expected {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

impl Pins {
    /// Looks at what `state` holds; without one, or when it is empty, makes everything anew.
    pub(crate) fn prepare(
        limits: &Limits,
        state: Option<&State>,
        names: u64,
    ) -> Result<Self, Error> {
        let Some(state) = state else {
            return Ok(Self {
                paths: Vec::new(),
                adopted: false,
                generation: 0,
                header: header()?,
                ledger: ledger()?,
                owned: owned()?,
            });
        };
        let maps = expected(limits);
        let paths = |generation| {
            let own = maps.iter().map(|map| (map.name, state.path(map.name)));
            own.chain([(name::PROGRAMS, state.programs(generation))]).collect()
        };
        match state.take()? {
            Left::Nothing => {
                let header = pin(state, name::HEADER, header()?)?;
                if let Some(header) = MappedArray::<Header>::new(name::HEADER, &header)?.first() {
                    header.network.store(state.network()?);
                    header.names.store(names);
                }
                let ledger = pin(state, name::LEDGER, ledger()?)?;
                let owned = pin(state, name::OWNED, owned()?)?;
                let (adopted, generation) = (false, 0);
                Ok(Self { paths: paths(generation), adopted, generation, header, ledger, owned })
            }
            Left::All(header) => {
                let header = header.first().ok_or_else(|| state.mismatch("no header".into()))?;
                state.check(header)?;
                for map in maps.iter().chain(&own()) {
                    // Counters that are others now are made anew below.
                    if map.name != name::COUNTERS || header.names.load() == names {
                        map.check(state)?;
                    }
                }
                if header.names.load() != names {
                    let path = state.path(name::COUNTERS);
                    fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
                    header.counters.iter().for_each(|cell| cell.store(0));
                    header.names.store(names);
                }
                let generation = header.generation.load().wrapping_add(1);
                header.generation.store(generation);
                let open = |name: &'static str| {
                    MapData::from_pin(state.path(name)).map_err(|source| opened(name, source))
                };
                Ok(Self {
                    paths: paths(generation),
                    adopted: true,
                    generation,
                    header: open(name::HEADER)?,
                    ledger: open(name::LEDGER)?,
                    owned: open(name::OWNED)?,
                })
            }
        }
    }
}

impl Expected {
    /// Compares with what the kernel says of the pinned map.
    fn check(&self, state: &State) -> Result<(), Error> {
        let map = MapData::from_pin(state.path(self.name))
            .map_err(|_| state.mismatch(format!("map {} is missing", self.name)))?;
        let info = map.info().map_err(|source| opened(self.name, source))?;
        let kind = info.map_type().map_err(|source| opened(self.name, source))?;
        let same = kind == self.kind
            && info.key_size() as usize == self.key
            && info.value_size() as usize == self.value;
        if !same {
            return Err(state.mismatch(format!("map {} has another layout", self.name)));
        }
        if info.max_entries() != self.entries {
            let (had, wants) = (info.max_entries(), self.entries);
            return Err(state.mismatch(match self.name {
                name::SLOTS => {
                    format!("max_sessions was {}, and is {}", had.saturating_sub(1), wants - 1)
                }
                name::TEMPLATES => {
                    format!("max_persistence_templates was {had}, and is {wants}")
                }
                other => format!("map {other} has {had} entries, not {wants}"),
            }));
        }
        Ok(())
    }
}

/// The maps of the object, but for the tail-call array.
fn expected(limits: &Limits) -> Vec<Expected> {
    let map = |name, kind, key, value, entries| Expected { name, kind, key, value, entries };
    let array = |name, value, entries| map(name, MapType::Array, 4, value, entries);
    let ring = |name, bytes| map(name, MapType::RingBuf, 0, 0, bytes);
    let reasons = seawall_fastpath::Reason::ALL.len() as u32;
    vec![
        array(name::SLOTS, size_of::<Slot>(), limits.sessions + 1),
        array(name::INDEX, size_of::<Bucket>(), bucket_count(limits.sessions) + 1),
        array(name::FILTER, size_of::<Filter>(), filter_words(limits.sessions)),
        array(name::TEMPLATES, size_of::<Template>(), limits.templates),
        array(name::NEXT_HOPS, size_of::<NextHop>(), MAX_NEXT_HOPS),
        array(name::SETTINGS, size_of::<Settings>(), 1),
        array(name::EMBRYOS, size_of::<u64>(), EMBRYOS),
        map(name::COUNTERS, MapType::PerCpuArray, 4, size_of::<u64>(), reasons),
        map(
            name::SERVICES,
            MapType::Hash,
            size_of::<ServiceKey>(),
            size_of::<ServiceEntry>(),
            MAX_SERVICES,
        ),
        map(
            name::ADDRESSES,
            MapType::Hash,
            size_of::<AddressKey>(),
            size_of::<AddressEntry>(),
            MAX_ADDRESSES,
        ),
        map(name::INTERFACES, MapType::Hash, 4, size_of::<InterfaceEntry>(), MAX_INTERFACES),
        ring(name::PROVEN, limits.proven_ring_bytes),
        ring(name::UNPROVEN, limits.unproven_ring_bytes),
    ]
}

/// The maps that only user space knows.
fn own() -> [Expected; 3] {
    let of = |name, shape: Shape| Expected {
        name,
        kind: if shape.kind == MapType::Array as u32 { MapType::Array } else { MapType::Hash },
        key: shape.key as usize,
        value: shape.value as usize,
        entries: shape.entries,
    };
    [of(name::HEADER, HEADER), of(name::LEDGER, LEDGER), of(name::OWNED, OWNED)]
}

const HEADER: Shape = array(size_of::<Header>(), 1);
const LEDGER: Shape = array(size_of::<LedgerRecord>(), LEDGER_RECORDS);
const OWNED: Shape = Shape {
    kind: MapType::Hash as u32,
    key: size_of::<AddressKey>() as u32,
    value: size_of::<u64>() as u32,
    entries: MAX_ADDRESSES,
    // All of it at once: on Linux 6.1 an insert into one that grows may fail for want of memory.
    flags: 0,
};

const fn array(value: usize, entries: u32) -> Shape {
    Shape { kind: MapType::Array as u32, key: 4, value: value as u32, entries, flags: MMAPABLE }
}

fn header() -> Result<MapData, Error> {
    made(name::HEADER, create_map(c"HEADER", &HEADER))
}

fn ledger() -> Result<MapData, Error> {
    made(name::LEDGER, create_map(c"LEDGER", &LEDGER))
}

fn owned() -> Result<MapData, Error> {
    made(name::OWNED, create_map(c"OWNED", &OWNED))
}

fn made(name: &'static str, map: std::io::Result<OwnedFd>) -> Result<MapData, Error> {
    let error = |source| Error::Map { map: name, action: "create", source: Box::new(source) };
    MapData::from_fd(map.map_err(|source| error(MapError::IoError(source)))?).map_err(error)
}

fn pin(state: &State, name: &'static str, map: MapData) -> Result<MapData, Error> {
    let path = state.path(name);
    map.pin(&path).map_err(|error| failed("pin", &path, std::io::Error::other(error)))?;
    Ok(map)
}

fn opened(name: &'static str, source: MapError) -> Error {
    Error::Map { map: name, action: "open", source: Box::new(source) }
}
