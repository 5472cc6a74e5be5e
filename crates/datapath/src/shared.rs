//! The four arrays that the program and the engine share, as the engine takes them.

use seawall_fastpath::layout::{Bucket, NextHop, Settings, Slot};
use seawall_fastpath::native::Memory;

use crate::{Error, MappedArray, Xdp};

/// The shared arrays, mapped.
#[derive(Debug)]
pub struct SharedMemory {
    slots: MappedArray<Slot>,
    index: MappedArray<Bucket>,
    next_hops: MappedArray<NextHop>,
    settings: MappedArray<Settings>,
}

impl SharedMemory {
    /// Maps the arrays of `xdp`.
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`] for want of address space, [`Error::Object`] on a mismatch of builds.
    pub fn new(xdp: &Xdp) -> Result<Self, Error> {
        let settings = xdp.settings()?;
        if settings.len() != 1 {
            return Err(Error::Object { what: format!("{} settings", settings.len()) });
        }
        let (slots, index, next_hops) = (xdp.slots()?, xdp.index()?, xdp.next_hops()?);
        Ok(Self { slots, index, next_hops, settings })
    }
}

impl Memory for SharedMemory {
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
        self.settings.first().expect("`new` has seen that there is one")
    }
}
