//! The XDP program: loaded, attached, its tables written, its counters read.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};
use seawall_fastpath::Reason;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, InterfaceEntry, MAX_NEXT_HOPS, ServiceEntry, ServiceKey,
    bucket_count, name,
};

use crate::mapped::{Array, Arrays, MappedMemory};
use crate::ring::Ring;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/seawall.bpf.o");

/// What went wrong between us and the kernel's BPF.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the program or a map.
    #[error("the kernel refused the XDP program: {0}")]
    Load(#[from] aya::EbpfError),
    /// The verifier refused the program, or it could not be attached.
    #[error("{what}: {source}")]
    Program {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: ProgramError,
    },
    /// A map operation failed.
    #[error("writing map {map}: {source}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// The object file lacks something; it was built from other sources.
    #[error("the XDP object has no {0}; rebuild it with `cargo xtask bpf`")]
    Missing(&'static str),
    /// An array could not be mapped.
    #[error("mapping the session array into memory: {0}; is there enough free memory?")]
    Mapping(#[from] io::Error),
}

/// Sizes of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: u32,
    /// Bytes of the ring for proven traffic, a power of two of at least a page.
    pub proven_ring: u32,
    /// Bytes of the ring for everything else, likewise.
    pub unproven_ring: u32,
}

/// How the program runs on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the stack, because the driver cannot: slower, and after GRO.
    Generic,
}

macro_rules! pod {
    ($($wrapper:ident($inner:ty)),*) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $wrapper($inner);

        // SAFETY: the inner type is `repr(C)` integers without padding (its size is pinned by a
        // test of the layout), so any bytes are a value of it and all its bytes are set.
        unsafe impl Pod for $wrapper {}
    )*};
}

pod!(
    ServiceKeyPod(ServiceKey),
    ServiceEntryPod(ServiceEntry),
    AddressKeyPod(AddressKey),
    AddressEntryPod(AddressEntry),
    InterfaceEntryPod(InterfaceEntry)
);

/// The loaded program. Dropping it detaches it everywhere and frees the maps.
#[derive(Debug)]
pub struct Xdp {
    ebpf: Ebpf,
    services: HashMap<MapData, ServiceKeyPod, ServiceEntryPod>,
    addresses: HashMap<MapData, AddressKeyPod, AddressEntryPod>,
    interfaces: HashMap<MapData, u32, InterfaceEntryPod>,
    counters: PerCpuArray<MapData, u64>,
    attached: BTreeMap<u32, XdpLinkId>,
    /// How long the kernel took to verify the program.
    pub verification: Duration,
}

/// Everything that [`Xdp::load`] gives.
#[derive(Debug)]
pub struct Loaded {
    /// The program.
    pub xdp: Xdp,
    /// The arrays it shares with the engine.
    pub memory: MappedMemory,
    /// The ring for proven traffic.
    pub proven: Ring,
    /// The ring for everything else.
    pub unproven: Ring,
}

/// What a program did with one frame in a test run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestRun {
    /// The XDP action.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Mean time of one run, as the kernel measured it.
    pub duration: Duration,
}

impl Xdp {
    /// Loads the program with tables of these sizes; attaches it nowhere.
    ///
    /// # Errors
    /// When the kernel refuses it or there is not enough memory.
    pub fn load(limits: &Limits) -> Result<Loaded, Error> {
        let slots = limits.sessions + 1;
        let buckets = bucket_count(limits.sessions) + 1;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(name::SLOTS, slots)
            .map_max_entries(name::INDEX, buckets)
            .map_max_entries(name::PROVEN, limits.proven_ring)
            .map_max_entries(name::UNPROVEN, limits.unproven_ring)
            .load(OBJECT)?;
        let started = Instant::now();
        program(&mut ebpf)?
            .load()
            .map_err(|source| Error::Program { what: "loading the XDP program".into(), source })?;
        let verification = started.elapsed();
        let memory = map_arrays(&ebpf, slots, buckets)?;
        let mut xdp = Self {
            services: HashMap::try_from(take(&mut ebpf, name::SERVICES)?)
                .map_err(|source| Error::Map { map: name::SERVICES, source })?,
            addresses: HashMap::try_from(take(&mut ebpf, name::ADDRESSES)?)
                .map_err(|source| Error::Map { map: name::ADDRESSES, source })?,
            interfaces: HashMap::try_from(take(&mut ebpf, name::INTERFACES)?)
                .map_err(|source| Error::Map { map: name::INTERFACES, source })?,
            counters: PerCpuArray::try_from(take(&mut ebpf, name::COUNTERS)?)
                .map_err(|source| Error::Map { map: name::COUNTERS, source })?,
            attached: BTreeMap::new(),
            verification,
            ebpf,
        };
        let mut ring = |map| {
            RingBuf::try_from(take(&mut xdp.ebpf, map)?)
                .map(Ring::new)
                .map_err(|source| Error::Map { map, source })
        };
        let (proven, unproven) = (ring(name::PROVEN)?, ring(name::UNPROVEN)?);
        Ok(Loaded { xdp, memory, proven, unproven })
    }

    /// Attaches the program to an interface: in the driver, or else in the stack.
    ///
    /// # Errors
    /// When neither works, for example because another XDP program is there.
    pub fn attach(&mut self, interface: u32) -> Result<Mode, Error> {
        let program = program(&mut self.ebpf)?;
        let (link, mode) = match program.attach_to_if_index(interface, XdpMode::Driver) {
            Ok(link) => (link, Mode::Native),
            Err(native) => match program.attach_to_if_index(interface, XdpMode::Skb) {
                Ok(link) => (link, Mode::Generic),
                Err(_) => {
                    let what = format!("attaching XDP to interface {interface}");
                    return Err(Error::Program { what, source: native });
                }
            },
        };
        self.attached.insert(interface, link);
        Ok(mode)
    }

    /// Detaches the program everywhere.
    pub fn detach(&mut self) {
        let attached = std::mem::take(&mut self.attached);
        if let Ok(program) = program(&mut self.ebpf) {
            for (_, link) in attached {
                // An interface that is gone has taken its link along.
                let _ = program.detach(link);
            }
        }
    }

    /// Tells the program of a service, or that it changed.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_service(&mut self, key: ServiceKey, entry: ServiceEntry) -> Result<(), Error> {
        self.services
            .insert(ServiceKeyPod(key), ServiceEntryPod(entry), 0)
            .map_err(|source| Error::Map { map: name::SERVICES, source })
    }

    /// Tells the program what an address of ours is for.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_address(&mut self, key: AddressKey, entry: AddressEntry) -> Result<(), Error> {
        self.addresses
            .insert(AddressKeyPod(key), AddressEntryPod(entry), 0)
            .map_err(|source| Error::Map { map: name::ADDRESSES, source })
    }

    /// Tells the program the MAC of an interface.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_interface(&mut self, index: u32, entry: InterfaceEntry) -> Result<(), Error> {
        self.interfaces
            .insert(index, InterfaceEntryPod(entry), 0)
            .map_err(|source| Error::Map { map: name::INTERFACES, source })
    }

    /// The counters over all CPUs, in the order of [`Reason::ALL`].
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn counters(&self) -> Result<Vec<u64>, Error> {
        (0..Reason::ALL.len() as u32)
            .map(|index| {
                let values = self.counters.get(&index, 0);
                values
                    .map(|values| values.iter().sum())
                    .map_err(|source| Error::Map { map: name::COUNTERS, source })
            })
            .collect()
    }

    /// Runs the program on one frame as if it had come in on interface `ingress`
    /// (`BPF_PROG_TEST_RUN`), `repeat` times.
    ///
    /// # Errors
    /// When the kernel refuses, for example because there is no such interface.
    pub fn test_run(&self, frame: &[u8], ingress: u32, repeat: u32) -> Result<TestRun, Error> {
        let program: &aya::programs::Xdp = self
            .ebpf
            .program(name::PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or(Error::Missing(name::PROGRAM))?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress.
        let words = [0, frame.len() as u32, 0, ingress, 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut out = vec![0u8; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program
            .test_run(options)
            .map_err(|source| Error::Program { what: "running on a test frame".into(), source })?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRun { action: result.return_value, frame: out, duration: result.duration })
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut aya::programs::Xdp, Error> {
    ebpf.program_mut(name::PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(Error::Missing(name::PROGRAM))
}

fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<Map, Error> {
    ebpf.take_map(map).ok_or(Error::Missing(map))
}

fn map_arrays(ebpf: &Ebpf, slots: u32, buckets: u32) -> Result<MappedMemory, Error> {
    let data = |map: &'static str| match ebpf.map(map) {
        Some(Map::Array(data)) => Ok(data.fd().as_fd()),
        _ => Err(Error::Missing(map)),
    };
    let arrays = Arrays {
        slots: Array { map: data(name::SLOTS)?, count: slots },
        index: Array { map: data(name::INDEX)?, count: buckets },
        next_hops: Array { map: data(name::NEXT_HOPS)?, count: MAX_NEXT_HOPS },
        settings: data(name::SETTINGS)?,
    };
    Ok(MappedMemory::new(&arrays)?)
}
