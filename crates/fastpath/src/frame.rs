//! Access to a frame.

use seawall_wire::Bytes;

/// A frame that is being processed, from the first byte of the Ethernet header.
pub trait Frame {
    /// A run of `N` bytes whose length has been proved.
    type Window<'a, const N: usize>: Bytes
    where
        Self: 'a;

    /// Length of the frame in bytes.
    fn len(&self) -> usize;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `N` bytes at `offset`, or `None` if the frame ends before.
    fn window<const N: usize>(&mut self, offset: usize) -> Option<Self::Window<'_, N>>;

    /// Makes the frame `len` bytes long, for somebody who writes all of it: where it grows or
    /// is cut is up to the implementation. `None` if there is no room, and then nothing has
    /// changed.
    #[must_use]
    fn resize(&mut self, len: usize) -> Option<()>;

    /// Puts `by` bytes in front of the frame, or takes away as many as `by` is below zero; what is
    /// left keeps its bytes, what is new must be written. `None` if there is no room, and then
    /// nothing has changed.
    #[must_use]
    fn grow_head(&mut self, by: i32) -> Option<()>;

    /// `value` itself, in a way that the kernel's verifier cannot follow: without it, it walks
    /// every combination of option lengths separately and gives up.
    fn opaque(&self, value: usize) -> usize;
}
