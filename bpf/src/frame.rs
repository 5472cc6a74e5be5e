//! The packet behind an XDP context.

use core::arch::asm;
use core::marker::PhantomData;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use seawall_fastpath::Frame;
use seawall_wire::Bytes;

/// The frame that the program runs for.
pub struct Packet {
    context: *mut xdp_md,
    zero: usize,
}

impl Packet {
    /// The frame of `context`. `zero` is zero, but the verifier must not be able to know.
    #[inline(always)]
    pub fn new(context: *mut xdp_md, zero: usize) -> Self {
        Self { context, zero }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) }
    }
}

impl Frame for Packet {
    type Window<'a, const N: usize> = Window<'a, N>;

    #[inline(always)]
    fn len(&self) -> usize {
        let (data, end) = self.bounds();
        hidden(end.wrapping_sub(data))
    }

    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<Window<'_, N>> {
        let (data, end) = self.bounds();
        // The start is hidden so that its end is computed from it and not anew, which the
        // verifier would not relate to it; the end, because LLVM makes `p + 1 > end` into
        // `p >= end`, which proves nothing to the verifier.
        let start = hidden(data.wrapping_add(offset));
        if hidden(start.wrapping_add(N)) > end {
            return None;
        }
        Some(Window { start: start as *mut u8, frame: PhantomData })
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> Option<()> {
        let by = (len as i32).wrapping_sub(self.len() as i32);
        if by == 0 {
            return Some(());
        }
        // Growing takes headroom, of which every driver leaves 256 bytes: veth leaves no tailroom
        // to speak of behind a frame that a local socket sent.
        // SAFETY: pointers into the packet are dead: windows borrow `self`.
        let failed = unsafe {
            if by > 0 {
                bpf_xdp_adjust_head(self.context, by.wrapping_neg())
            } else {
                bpf_xdp_adjust_tail(self.context, by)
            }
        };
        if failed == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn grow_head(&mut self, by: i32) -> Option<()> {
        // SAFETY: as in `resize`.
        let failed = unsafe { bpf_xdp_adjust_head(self.context, by.wrapping_neg()) };
        if failed == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn opaque(&self, value: usize) -> usize {
        hidden(value) ^ self.zero
    }
}

/// `value`, which LLVM must take as it comes: what it cannot see it cannot rewrite into a form
/// that the verifier does not follow. No instruction.
#[inline(always)]
pub fn hidden(value: usize) -> usize {
    let mut value = value;
    // SAFETY: does nothing.
    unsafe { asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// `N` bytes of the packet. The verifier has seen their end compared with the packet's, and
/// rejects the program if an access here lies outside of them.
pub struct Window<'a, const N: usize> {
    start: *mut u8,
    frame: PhantomData<&'a mut [u8; N]>,
}

/// The access is one instruction, aligned or not, as the verifier allows it for packets where
/// the CPU does; `read_unaligned` would be one a byte.
macro_rules! word {
    ($get:ident, $set:ident, $word:ty) => {
        #[inline(always)]
        fn $get(&self, at: usize) -> $word {
            // SAFETY: see `Window`; on this target an access has no alignment.
            <$word>::from_be(unsafe { *self.start.add(at).cast::<$word>() })
        }

        #[inline(always)]
        fn $set(&mut self, at: usize, value: $word) {
            // SAFETY: as above.
            unsafe { *self.start.add(at).cast::<$word>() = value.to_be() }
        }
    };
}

impl<const N: usize> Bytes for Window<'_, N> {
    word!(u8, set_u8, u8);
    word!(u16, set_u16, u16);
    word!(u32, set_u32, u32);
    word!(u64, set_u64, u64);
}
