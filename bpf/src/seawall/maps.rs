//! The maps. User space sets the sizes when it loads the program; those here only have to be
//! valid.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf};
use seawall_fastpath::Reason;
use seawall_fastpath::cell::Cell64;
use seawall_fastpath::embryo::EMBRYOS as EMBRYO_COUNT;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Bucket, Filter, InterfaceEntry, MAX_ADDRESSES, MAX_INTERFACES,
    MAX_NEXT_HOPS, MAX_SERVICES, NextHop, ServiceEntry, ServiceKey, Settings, Slot, Template,
    program,
};

const PLACEHOLDER_SESSIONS: u32 = 1024;
const PLACEHOLDER_RING: u32 = 1 << 20;

#[map]
pub(crate) static SLOTS: Array<Slot> =
    Array::with_max_entries(PLACEHOLDER_SESSIONS, BPF_F_MMAPABLE);
#[map]
pub(crate) static INDEX: Array<Bucket> =
    Array::with_max_entries(PLACEHOLDER_SESSIONS, BPF_F_MMAPABLE);
#[map]
pub(crate) static FILTER: Array<Filter> =
    Array::with_max_entries(PLACEHOLDER_SESSIONS, BPF_F_MMAPABLE);
#[map]
pub(crate) static NEXT_HOPS: Array<NextHop> =
    Array::with_max_entries(MAX_NEXT_HOPS, BPF_F_MMAPABLE);
/// For user space alone; here it lives as long as the others.
#[map]
pub(crate) static TEMPLATES: Array<Template> =
    Array::with_max_entries(PLACEHOLDER_SESSIONS, BPF_F_MMAPABLE);
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static SERVICES: HashMap<ServiceKey, ServiceEntry> =
    HashMap::with_max_entries(MAX_SERVICES, 0);
#[map]
pub(crate) static ADDRESSES: HashMap<AddressKey, AddressEntry> =
    HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
pub(crate) static INTERFACES: HashMap<u32, InterfaceEntry> =
    HashMap::with_max_entries(MAX_INTERFACES, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<Cell64> =
    PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);
#[map]
pub(crate) static EMBRYOS: Array<Cell64> = Array::with_max_entries(EMBRYO_COUNT, 0);
#[map]
pub(crate) static PROVEN: RingBuf = RingBuf::with_byte_size(PLACEHOLDER_RING, 0);
#[map]
pub(crate) static UNPROVEN: RingBuf = RingBuf::with_byte_size(PLACEHOLDER_RING, 0);

#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(program::COUNT, 0);

/// Zero, read from a map: the verifier takes it for any number.
#[inline(always)]
pub(crate) fn zero() -> usize {
    SETTINGS.get(0).map_or(0, |settings| settings.zero.load() as usize)
}
