//! What XDP looks up by key: services, addresses, interfaces; and the counters it keeps.

use std::collections::HashSet;

use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};
use seawall_fastpath::Reason;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, InterfaceEntry, MAX_ADDRESSES, MAX_INTERFACES, MAX_SERVICES,
    ServiceEntry, ServiceKey, name,
};

use crate::{Error, Xdp};

/// Lends a layout type the marker that aya wants.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Plain<T>(pub(crate) T);

macro_rules! plain {
    ($($type:ty: $size:literal),*) => {$(
        // The sum of the sizes of its fields, so there is no padding.
        const _: () = assert!(size_of::<$type>() == $size);
        // SAFETY: `repr(C)`, made of integers, without padding (asserted above), so that it may
        // be read as bytes and made of any bytes.
        unsafe impl Pod for Plain<$type> {}
    )*};
}

plain!(ServiceKey: 24, ServiceEntry: 8, AddressKey: 16, AddressEntry: 8, InterfaceEntry: 8);

struct Table {
    name: &'static str,
    limit: u32,
}

const SERVICES: Table = Table { name: name::SERVICES, limit: MAX_SERVICES };
const ADDRESSES: Table = Table { name: name::ADDRESSES, limit: MAX_ADDRESSES };
const INTERFACES: Table = Table { name: name::INTERFACES, limit: MAX_INTERFACES };

/// The tables. Setting replaces atomically what was there; removing what is not there is no
/// error. Each call is one system call.
///
/// # Errors
///
/// [`Error::Full`] and [`Error::Map`], in each of them.
impl Xdp {
    /// Sets what XDP knows of a service.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn set_service(&mut self, key: &ServiceKey, entry: &ServiceEntry) -> Result<(), Error> {
        SERVICES.set(&mut self.services, &Plain(*key), &Plain(*entry))
    }

    /// Removes a service.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn remove_service(&mut self, key: &ServiceKey) -> Result<(), Error> {
        SERVICES.remove(&mut self.services, &Plain(*key))
    }

    /// Sets what an address of ours is for.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn set_address(&mut self, key: &AddressKey, entry: &AddressEntry) -> Result<(), Error> {
        ADDRESSES.set(&mut self.addresses, &Plain(*key), &Plain(*entry))
    }

    /// Removes an address.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn remove_address(&mut self, key: &AddressKey) -> Result<(), Error> {
        ADDRESSES.remove(&mut self.addresses, &Plain(*key))
    }

    /// Sets what XDP knows of an interface that frames arrive on.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn set_interface(&mut self, interface: u32, entry: InterfaceEntry) -> Result<(), Error> {
        INTERFACES.set(&mut self.interfaces, &interface, &Plain(entry))
    }

    /// Removes an interface.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn remove_interface(&mut self, interface: u32) -> Result<(), Error> {
        INTERFACES.remove(&mut self.interfaces, &interface)
    }

    /// Removes the services, addresses and interfaces that are not among these.
    #[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
    pub fn retain(
        &mut self,
        services: &HashSet<ServiceKey>,
        addresses: &HashSet<AddressKey>,
        interfaces: &HashSet<u32>,
    ) -> Result<(), Error> {
        SERVICES.retain(&mut self.services, |Plain(key)| services.contains(key))?;
        ADDRESSES.retain(&mut self.addresses, |Plain(key)| addresses.contains(key))?;
        INTERFACES.retain(&mut self.interfaces, |index| interfaces.contains(index))
    }

    /// How often each [`Reason`] was given (its number is the position), over all CPUs, since
    /// the program was loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the kernel refuses.
    pub fn counters(&self) -> Result<Vec<u64>, Error> {
        let sum = |index| {
            let values = self.counters.get(&index, 0).map_err(|source| Error::Map {
                map: name::COUNTERS,
                action: "read",
                source: Box::new(source),
            })?;
            Ok(values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
        };
        (0..Reason::ALL.len() as u32).map(sum).collect()
    }
}

impl Table {
    fn set<K: Pod, V: Pod>(
        &self,
        map: &mut HashMap<MapData, K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        map.insert(key, value, 0).map_err(|source| match os_error(&source) {
            Some(libc::E2BIG) => Error::Full { map: self.name, limit: self.limit },
            _ => self.failed("write", source),
        })
    }

    fn remove<K: Pod, V: Pod>(
        &self,
        map: &mut HashMap<MapData, K, V>,
        key: &K,
    ) -> Result<(), Error> {
        match map.remove(key) {
            Err(source)
                if !matches!(source, MapError::KeyNotFound)
                    && os_error(&source) != Some(libc::ENOENT) =>
            {
                Err(self.failed("remove from", source))
            }
            _ => Ok(()),
        }
    }

    fn retain<K: Pod, V: Pod>(
        &self,
        map: &mut HashMap<MapData, K, V>,
        keep: impl Fn(&K) -> bool,
    ) -> Result<(), Error> {
        let keys: Result<Vec<_>, _> = map.keys().collect();
        for key in keys.map_err(|source| self.failed("read", source))? {
            if !keep(&key) {
                self.remove(map, &key)?;
            }
        }
        Ok(())
    }

    fn failed(&self, action: &'static str, source: MapError) -> Error {
        Error::Map { map: self.name, action, source: Box::new(source) }
    }
}

fn os_error(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
