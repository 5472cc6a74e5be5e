//! The tables over BPF maps.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use seawall_fastpath::cell::Cell64;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Bucket, FULL_RECORD_FRAME, Filter, InterfaceEntry, NextHop,
    RecordHeader, RecordKind, SMALL_RECORD_FRAME, ServiceEntry, ServiceKey, Settings, Slot,
};
use seawall_fastpath::{Frame, Reason, Ring, Sessions, Tables, embryo};

use crate::{maps, record};

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// The maps, as seen while the program runs for one frame.
pub(crate) struct Maps {
    context: *mut xdp_md,
}

impl Maps {
    /// The maps for the run that has this context.
    #[inline(always)]
    pub(crate) fn new(context: *mut xdp_md) -> Self {
        Self { context }
    }
}

impl Sessions for Maps {
    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        maps::INDEX.get(index)
    }

    #[inline(always)]
    fn filter(&self, word: u32) -> Option<&Filter> {
        maps::FILTER.get(word)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<&Slot> {
        maps::SLOTS.get(index)
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: takes nothing.
        let nanoseconds = unsafe { bpf_ktime_get_ns() };
        nanoseconds / NANOSECONDS_PER_MILLISECOND
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        // SAFETY: an entry that is removed or replaced at this moment may be read torn between
        // its two words; either pair means a service that was configured a moment ago.
        unsafe { maps::SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        // SAFETY: as for services.
        unsafe { maps::ADDRESSES.get(key) }.copied()
    }

    #[inline(always)]
    fn interface(&self, index: u32) -> Option<InterfaceEntry> {
        // SAFETY: one word.
        unsafe { maps::INTERFACES.get(index) }.copied()
    }

    #[inline(always)]
    fn next_hop(&self, index: u32) -> Option<&NextHop> {
        maps::NEXT_HOPS.get(index)
    }

    #[inline(always)]
    fn embryo(&self, hash: u64) -> Option<&Cell64> {
        maps::EMBRYOS.get(embryo::index(hash))
    }

    #[inline(always)]
    fn punt(&self, ring: Ring, header: &RecordHeader, frame: &mut impl Frame) -> bool {
        let ring = match ring {
            Ring::Proven => &maps::PROVEN,
            Ring::Unproven => &maps::UNPROVEN,
        };
        if header.kind == RecordKind::StateChanged as u16 {
            return record::send::<0>(ring, self.context, header, 0);
        }
        let len = frame.len();
        if len <= SMALL_RECORD_FRAME {
            record::send::<SMALL_RECORD_FRAME>(ring, self.context, header, len)
        } else {
            record::send::<FULL_RECORD_FRAME>(ring, self.context, header, len)
        }
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = maps::COUNTERS.get(reason as u32) {
            counter.store(counter.load().wrapping_add(1));
        }
    }
}
