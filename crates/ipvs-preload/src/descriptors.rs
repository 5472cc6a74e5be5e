//! Which descriptors of the process are netlink sockets of ours, and what each has asked last.

use std::sync::atomic::{AtomicU64, Ordering};

use libc::c_int;

/// Descriptors that can be ours; one above is an error, as if there were too many.
const MAX: usize = 65_536;
/// A descriptor that is ours, with nothing asked.
const OURS: u64 = 1 << 63;
/// It waits for an answer.
const WAITS: u64 = 1 << 62;

/// What is known of each: flags, and the sequence number of its last request. The port of a request
/// is not needed: nobody but libnl looks at it, and libnl takes any.
static ALL: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];

fn place(descriptor: c_int) -> Option<&'static AtomicU64> {
    ALL.get(usize::try_from(descriptor).ok()?)
}

/// Whether it is ours.
pub(crate) fn is_ours(descriptor: c_int) -> bool {
    place(descriptor).is_some_and(|word| word.load(Ordering::Relaxed) & OURS != 0)
}

/// Takes note that it is; says whether it can be.
pub(crate) fn add(descriptor: c_int) -> bool {
    let Some(word) = place(descriptor) else { return false };
    word.store(OURS, Ordering::Relaxed);
    true
}

/// Takes note that it is no longer, or something else now.
pub(crate) fn remove(descriptor: c_int) {
    if let Some(word) = place(descriptor) {
        word.store(0, Ordering::Relaxed);
    }
}

/// Takes note of a request of ours.
pub(crate) fn ask(descriptor: c_int, sequence: u32) {
    if let Some(word) = place(descriptor) {
        word.store(OURS | WAITS | u64::from(sequence), Ordering::Relaxed);
    }
}

/// Takes note that nothing more will be said to its last request.
pub(crate) fn answered(descriptor: c_int) {
    if let Some(word) = place(descriptor) {
        word.fetch_and(!WAITS, Ordering::Relaxed);
    }
}

/// The sequence number of a request that waits for its answer.
pub(crate) fn waiting(descriptor: c_int) -> Option<u32> {
    let word = place(descriptor)?.load(Ordering::Relaxed);
    (word & WAITS != 0).then_some(word as u32)
}
