//! BPF arrays mapped into this process: the same memory as the XDP program's, without a system
//! call between them.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use seawall_fastpath::layout::{Bucket, NextHop, Settings, Slot};
use seawall_fastpath::native::Memory;

/// A type that a shared array may hold.
///
/// # Safety
/// The type is `repr(C)`, made only of `seawall_fastpath::cell` cells (so that it may change
/// under a shared reference, and any bit pattern is valid), and its size is a multiple of 8, the
/// stride of a BPF array.
unsafe trait Shared: Sync {}

// SAFETY: cells only; the layout's tests pin the sizes at 256, 64, 32 and 192.
unsafe impl Shared for Slot {}
// SAFETY: as above.
unsafe impl Shared for Bucket {}
// SAFETY: as above.
unsafe impl Shared for NextHop {}
// SAFETY: as above.
unsafe impl Shared for Settings {}

/// A mapped array of `T`.
#[derive(Debug)]
struct Mapped<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: the memory belongs to no thread, and `T` may be used from any through `&T`.
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    fn new(map: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        let count = count as usize;
        let len = count.checked_mul(size_of::<T>()).filter(|len| *len > 0);
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new shared mapping of a map that the kernel keeps alive as long as it is
        // mapped; nothing else in this process lies there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<T>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, count })
    }
}

impl<T> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the kernel mapped at least `count` elements (it refuses a longer mapping than
        // the array), page-aligned, zeroed at first and valid in any state; see `Shared`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; the borrow checker has ended every reference.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}

/// The four arrays.
#[derive(Debug)]
pub struct MappedMemory {
    slots: Mapped<Slot>,
    index: Mapped<Bucket>,
    next_hops: Mapped<NextHop>,
    settings: Mapped<Settings>,
}

/// One of the arrays, as the kernel knows it.
pub(crate) struct Array<'fd> {
    pub(crate) map: BorrowedFd<'fd>,
    pub(crate) count: u32,
}

/// All of the arrays.
pub(crate) struct Arrays<'fd> {
    pub(crate) slots: Array<'fd>,
    pub(crate) index: Array<'fd>,
    pub(crate) next_hops: Array<'fd>,
    pub(crate) settings: BorrowedFd<'fd>,
}

impl MappedMemory {
    pub(crate) fn new(arrays: &Arrays<'_>) -> io::Result<Self> {
        Ok(Self {
            slots: Mapped::new(arrays.slots.map, arrays.slots.count)?,
            index: Mapped::new(arrays.index.map, arrays.index.count)?,
            next_hops: Mapped::new(arrays.next_hops.map, arrays.next_hops.count)?,
            settings: Mapped::new(arrays.settings, 1)?,
        })
    }
}

impl Memory for MappedMemory {
    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn index(&self) -> &[Bucket] {
        &self.index
    }

    fn next_hops(&self) -> &[NextHop] {
        &self.next_hops
    }

    fn settings(&self) -> &Settings {
        let [settings] = &*self.settings else { unreachable!("mapped with exactly one element") };
        settings
    }
}
