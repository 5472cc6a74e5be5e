//! BPF arrays in this process's memory: the same bytes that the XDP program reads and writes.

use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use aya::maps::{MapData, MapType};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use seawall_fastpath::layout::{
    Bucket, Filter, Header, LedgerRecord, NextHop, Settings, Slot, Template,
};

use crate::Error;

/// Types that may lie in memory which the kernel changes at any time.
///
/// # Safety
///
/// Every byte belongs to a `Cell32` or a `Cell64` (atomics, so shared references allow changes
/// from elsewhere), any bit pattern is a value, and nothing needs dropping.
pub unsafe trait Cells: Sync {}

// SAFETY: `repr(C)`, made of cells only; their sizes, which leave no padding, are pinned by tests.
unsafe impl Cells for Slot {}
// SAFETY: as above.
unsafe impl Cells for Bucket {}
// SAFETY: as above.
unsafe impl Cells for Filter {}
// SAFETY: as above.
unsafe impl Cells for NextHop {}
// SAFETY: as above.
unsafe impl Cells for Template {}
// SAFETY: as above.
unsafe impl Cells for Settings {}
// SAFETY: as above.
unsafe impl Cells for Header {}
// SAFETY: as above.
unsafe impl Cells for LedgerRecord {}

/// A BPF array, mapped for reading and writing for as long as this lives. The mapping keeps the
/// kernel's memory even when the map and the program are gone.
#[derive(Debug)]
pub struct MappedArray<T: Cells> {
    base: NonNull<T>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `T` is `Sync`.
unsafe impl<T: Cells> Send for MappedArray<T> {}
// SAFETY: only shared references to `T`, which is `Sync`, are given out.
unsafe impl<T: Cells> Sync for MappedArray<T> {}

impl<T: Cells> MappedArray<T> {
    /// The kernel rounds the distance between elements up to this (`array_map_alloc` in
    /// `kernel/bpf/arraymap.c`); elements must fill it, or the slice's would lie elsewhere.
    const STRIDE: usize = 8;
    /// The smallest page; what the kernel aligns the first element of a mappable array to.
    const PAGE: usize = 4096;

    /// Maps all of `map`, which the object calls `name`.
    pub(crate) fn new(name: &'static str, map: &MapData) -> Result<Self, Error> {
        const {
            assert!(size_of::<T>() > 0 && size_of::<T>().is_multiple_of(Self::STRIDE));
            assert!(align_of::<T>() <= Self::PAGE);
        }
        let at = |source| Error::Map { map: name, action: "ask about", source: Box::new(source) };
        let info = map.info().map_err(at)?;
        let (kind, value_size) = (info.map_type().map_err(at)?, info.value_size() as usize);
        if kind != MapType::Array || value_size != size_of::<T>() {
            let expected = size_of::<T>();
            let what = format!("{name} is {kind:?} of {value_size} bytes, not Array of {expected}");
            return Err(Error::Object { what });
        }
        let len = info.max_entries() as usize;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                len * size_of::<T>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|source| Error::Mmap { map: name, source: source.into() })?;
        let base = NonNull::new(base.cast()).ok_or_else(|| Error::Mmap {
            map: name,
            source: std::io::Error::other("mapped at address zero"),
        })?;
        Ok(Self { base, len })
    }
}

impl<T: Cells> Deref for MappedArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `base` begins a mapping of `len` elements that lives as long as `self`. It is
        // page-aligned, elements lie `size_of::<T>()` apart (both asserted in `new`), BPF array
        // memory is zeroed, and by the contract of `Cells` every bit pattern is a value and
        // changes by the kernel are those of atomics.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Cells> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; the borrows that `deref` gave have ended. A failure
        // leaves the memory mapped, which harms nobody.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}
