//! Words that the XDP program and the engine share.
//!
//! Natively these are the atomics of `core`. The BPF target has none there, so on it they are
//! built from the compiler's atomic intrinsics, which `target-cpu=v3` turns into the BPF
//! instructions (Linux, `Documentation/bpf/standardization/instruction-set.rst`, "Atomic
//! operations"). Loads and stores are single instructions on both.
#![allow(unsafe_code)]

#[cfg(not(target_arch = "bpf"))]
mod imp {
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// A shared 32-bit word.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct Cell32(AtomicU32);

    /// A shared 64-bit word.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct Cell64(AtomicU64);

    macro_rules! cell {
        ($cell:ident, $atomic:ident, $word:ty) => {
            impl $cell {
                /// A word that holds `value`.
                #[must_use]
                pub const fn new(value: $word) -> Self {
                    Self($atomic::new(value))
                }

                /// The value; sees everything stored before the [`Self::publish`] it reads from.
                #[inline(always)]
                pub fn load(&self) -> $word {
                    self.0.load(Ordering::Acquire)
                }

                /// Stores `value`, with no promise about other words.
                #[inline(always)]
                pub fn store(&self, value: $word) {
                    self.0.store(value, Ordering::Relaxed);
                }

                /// Stores `value` after everything stored before.
                #[inline(always)]
                pub fn publish(&self, value: $word) {
                    self.0.store(value, Ordering::SeqCst);
                }

                /// Adds `by`, wrapping; gives the value before.
                #[inline(always)]
                pub fn fetch_add(&self, by: $word) -> $word {
                    self.0.fetch_add(by, Ordering::Relaxed)
                }

                /// Stores `new` if the word still is `current`; says whether it did.
                #[inline(always)]
                pub fn replace_if(&self, current: $word, new: $word) -> bool {
                    self.0
                        .compare_exchange(current, new, Ordering::SeqCst, Ordering::Relaxed)
                        .is_ok()
                }
            }
        };
    }

    cell!(Cell32, AtomicU32, u32);
    cell!(Cell64, AtomicU64, u64);
}

#[cfg(target_arch = "bpf")]
mod imp {
    use core::cell::UnsafeCell;
    use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

    /// A shared 32-bit word.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct Cell32(UnsafeCell<u32>);

    /// A shared 64-bit word.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct Cell64(UnsafeCell<u64>);

    // SAFETY: every access is a single aligned load, store or atomic instruction.
    unsafe impl Sync for Cell32 {}
    // SAFETY: as above.
    unsafe impl Sync for Cell64 {}

    macro_rules! exchange {
        ($word:ty, $at:expr, $old:expr, $new:expr) => {
            atomic_cxchg::<$word, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                $at, $old, $new,
            )
        };
    }

    macro_rules! cell {
        ($cell:ident, $word:ty) => {
            impl $cell {
                /// A word that holds `value`.
                #[must_use]
                pub const fn new(value: $word) -> Self {
                    Self(UnsafeCell::new(value))
                }

                /// The value.
                #[inline(always)]
                pub fn load(&self) -> $word {
                    // SAFETY: the pointer is valid and aligned as long as `self` is.
                    unsafe { self.0.get().read_volatile() }
                }

                /// Stores `value`.
                #[inline(always)]
                pub fn store(&self, value: $word) {
                    // SAFETY: as in `load`.
                    unsafe { self.0.get().write_volatile(value) }
                }

                /// Stores `value` after everything stored before. Volatile accesses keep their
                /// order, and the JIT adds none on the hosts that XDP runs on.
                #[inline(always)]
                pub fn publish(&self, value: $word) {
                    self.store(value);
                }

                /// Adds `by`, wrapping; gives the value before.
                #[inline(always)]
                pub fn fetch_add(&self, by: $word) -> $word {
                    // SAFETY: as in `load`.
                    unsafe {
                        atomic_xadd::<$word, $word, { AtomicOrdering::SeqCst }>(self.0.get(), by)
                    }
                }

                /// Stores `new` if the word still is `current`; says whether it did.
                #[inline(always)]
                pub fn replace_if(&self, current: $word, new: $word) -> bool {
                    // SAFETY: as in `load`.
                    unsafe { exchange!($word, self.0.get(), current, new).1 }
                }
            }
        };
    }

    cell!(Cell32, u32);
    cell!(Cell64, u64);
}

pub use imp::{Cell32, Cell64};
