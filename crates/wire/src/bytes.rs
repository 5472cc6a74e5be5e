//! Access to a run of bytes whose length has been proved.

/// A run of bytes that the holder has already checked to be long enough.
///
/// Offsets are in bytes from the start of the run, values in host order. Implemented here for
/// byte slices, where an access past the end reads zero or writes nothing, and by the XDP shell
/// for a pointer into the packet, where the kernel's verifier rejects the program if one could
/// be out of range.
pub trait Bytes {
    /// The byte at `at`.
    fn u8(&self, at: usize) -> u8;
    /// The big-endian 16-bit word at `at`, in host order.
    fn u16(&self, at: usize) -> u16;
    /// The big-endian 32-bit word at `at`, in host order.
    fn u32(&self, at: usize) -> u32;
    /// The big-endian 64-bit word at `at`, in host order.
    fn u64(&self, at: usize) -> u64;
    /// Writes the byte at `at`.
    fn set_u8(&mut self, at: usize, value: u8);
    /// Writes `value` as a big-endian 16-bit word at `at`.
    fn set_u16(&mut self, at: usize, value: u16);
    /// Writes `value` as a big-endian 32-bit word at `at`.
    fn set_u32(&mut self, at: usize, value: u32);
    /// Writes `value` as a big-endian 64-bit word at `at`.
    fn set_u64(&mut self, at: usize, value: u64);
}

impl Bytes for [u8] {
    #[inline(always)]
    fn u8(&self, at: usize) -> u8 {
        self.get(at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> u16 {
        read::<2>(self, at).map_or(0, u16::from_be_bytes)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> u32 {
        read::<4>(self, at).map_or(0, u32::from_be_bytes)
    }

    #[inline(always)]
    fn set_u8(&mut self, at: usize, value: u8) {
        write(self, at, [value]);
    }

    #[inline(always)]
    fn set_u16(&mut self, at: usize, value: u16) {
        write(self, at, value.to_be_bytes());
    }

    #[inline(always)]
    fn set_u32(&mut self, at: usize, value: u32) {
        write(self, at, value.to_be_bytes());
    }

    #[inline(always)]
    fn u64(&self, at: usize) -> u64 {
        read::<8>(self, at).map_or(0, u64::from_be_bytes)
    }

    #[inline(always)]
    fn set_u64(&mut self, at: usize, value: u64) {
        write(self, at, value.to_be_bytes());
    }
}

impl<B: Bytes + ?Sized> Bytes for &mut B {
    #[inline(always)]
    fn u8(&self, at: usize) -> u8 {
        (**self).u8(at)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> u16 {
        (**self).u16(at)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> u32 {
        (**self).u32(at)
    }

    #[inline(always)]
    fn set_u8(&mut self, at: usize, value: u8) {
        (**self).set_u8(at, value);
    }

    #[inline(always)]
    fn set_u16(&mut self, at: usize, value: u16) {
        (**self).set_u16(at, value);
    }

    #[inline(always)]
    fn set_u32(&mut self, at: usize, value: u32) {
        (**self).set_u32(at, value);
    }

    #[inline(always)]
    fn u64(&self, at: usize) -> u64 {
        (**self).u64(at)
    }

    #[inline(always)]
    fn set_u64(&mut self, at: usize, value: u64) {
        (**self).set_u64(at, value);
    }
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

fn write<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(to) = bytes.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<N>()) {
        *to = value;
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn reads_and_writes_are_big_endian() {
        let mut bytes = [0u8; 8];
        bytes[..].set_u32(1, 0x0102_0304);
        bytes[..].set_u16(5, 0x0506);
        bytes[..].set_u8(7, 7);
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((bytes[..].u32(1), bytes[..].u16(5), bytes[..].u8(7)), (0x0102_0304, 0x0506, 7));
        assert_eq!(bytes[..].u64(0), 0x0001_0203_0405_0607);
        bytes[..].set_u64(0, 0x0807_0605_0403_0201);
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn past_the_end_reads_zero_and_writes_nothing() {
        let mut bytes = [0xffu8; 4];
        assert_eq!((bytes[..].u8(4), bytes[..].u16(3), bytes[..].u32(usize::MAX)), (0, 0, 0));
        bytes[..].set_u32(1, 0);
        bytes[..].set_u16(usize::MAX, 0);
        assert_eq!(bytes, [0xff; 4]);
    }
}
