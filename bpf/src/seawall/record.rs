//! Records on their way up a ring.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_load_bytes;
use aya_ebpf::maps::RingBuf;
use seawall_bpf::hidden;
use seawall_fastpath::layout::RecordHeader;

/// A record with room for `N` bytes of frame.
#[repr(C)]
struct Record<const N: usize> {
    header: RecordHeader,
    frame: [u8; N],
}

/// Sends `header` and the first `len` bytes of the frame, or `N` if that is less, up `ring`;
/// says whether there was room.
#[inline(always)]
pub(crate) fn send<const N: usize>(
    ring: &RingBuf,
    context: *mut xdp_md,
    header: &RecordHeader,
    len: usize,
) -> bool {
    let Some(mut entry) = ring.reserve::<Record<N>>(0) else { return false };
    let record = entry.as_mut_ptr();
    let len = hidden(if len < N { len } else { N });
    let header = RecordHeader { frame_len: len as u16, ..*header };
    // SAFETY: the record is as large as its type; what is written is written before it is read.
    unsafe { (&raw mut (*record).header).write(header) };
    // The verifier wants both bounds on the very value that the helper gets. Plainly written, LLVM
    // merges the comparisons into one of `len - 1`.
    if len >= hidden(1) && len <= N {
        // SAFETY: `len` bytes fit in the record.
        let copied = unsafe {
            bpf_xdp_load_bytes(context, 0, (&raw mut (*record).frame).cast(), len as u32)
        };
        if copied != 0 {
            entry.discard(0);
            return false;
        }
    }
    entry.submit(0);
    true
}
