//! The arrays that the program and the engine share, and those that the engine leaves to the next one,
//! as the engine takes them.

use seawall_fastpath::layout::{
    Bucket, Filter, Header, LedgerRecord, NextHop, Settings, Slot, Template,
};
use seawall_fastpath::native::Memory;

use crate::{Error, MappedArray, Xdp};

/// The shared arrays, mapped.
#[derive(Debug)]
pub struct SharedMemory {
    slots: MappedArray<Slot>,
    index: MappedArray<Bucket>,
    filter: MappedArray<Filter>,
    next_hops: MappedArray<NextHop>,
    templates: MappedArray<Template>,
    settings: MappedArray<Settings>,
    header: MappedArray<Header>,
    ledger: MappedArray<LedgerRecord>,
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
        let (header, ledger) = (xdp.header()?, xdp.ledger()?);
        if header.len() != 1 {
            return Err(Error::Object { what: format!("{} headers", header.len()) });
        }
        let (slots, index) = (xdp.slots()?, xdp.index()?);
        let (filter, next_hops) = (xdp.filter()?, xdp.next_hops()?);
        let templates = xdp.templates()?;
        Ok(Self { slots, index, filter, next_hops, templates, settings, header, ledger })
    }
}

impl Memory for SharedMemory {
    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn index(&self) -> &[Bucket] {
        &self.index
    }

    fn filter(&self) -> &[Filter] {
        &self.filter
    }

    fn next_hops(&self) -> &[NextHop] {
        &self.next_hops
    }

    fn templates(&self) -> &[Template] {
        &self.templates
    }

    fn settings(&self) -> &Settings {
        self.settings.first().expect("`new` has seen that there is one")
    }

    fn header(&self) -> &Header {
        self.header.first().expect("`new` has seen that there is one")
    }

    fn ledger(&self) -> &[LedgerRecord] {
        &self.ledger
    }
}
