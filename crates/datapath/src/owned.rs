//! The addresses that the host has from us, where whoever ends us finds them.

use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData};
use seawall_fastpath::Addr;
use seawall_fastpath::layout::{AddressKey, name};

use crate::Error;
use crate::netlink::Address;
use crate::tables::Plain;

/// Addresses on interfaces; written down before they are added, and struck out when they are removed.
#[derive(Debug)]
pub struct Owned(HashMap<MapData, Plain<AddressKey>, u64>);

impl Owned {
    pub(crate) fn new(map: MapData) -> Result<Self, Error> {
        let map = HashMap::try_from(Map::HashMap(map));
        Ok(Self(
            map.map_err(|error| Error::Object { what: format!("map {}: {error}", name::OWNED) })?,
        ))
    }

    /// Writes an address down.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the kernel refuses; likewise the other two.
    pub fn insert(&mut self, address: &Address) -> Result<(), Error> {
        let value = u64::from(address.link_index) << 32 | u64::from(address.prefix_len);
        self.0.insert(key(address.address), value, 0).map_err(|source| failed("write", source))
    }

    /// Strikes an address out.
    ///
    /// # Errors
    ///
    /// As [`Owned::insert`].
    pub fn remove(&mut self, address: IpAddr) -> Result<(), Error> {
        self.0.remove(&key(address)).map_err(|source| failed("remove from", source))
    }

    /// All of them.
    ///
    /// # Errors
    ///
    /// As [`Owned::insert`].
    pub fn all(&self) -> Result<Vec<Address>, Error> {
        let entries = self.0.iter().map(|entry| {
            let (Plain(AddressKey(address)), value) = entry?;
            let (link_index, prefix_len) = ((value >> 32) as u32, value as u8);
            Ok(Address { link_index, address: address.into(), prefix_len })
        });
        entries.collect::<Result<_, _>>().map_err(|source| failed("read", source))
    }
}

fn key(address: IpAddr) -> Plain<AddressKey> {
    Plain(AddressKey(Addr::from(address)))
}

fn failed(action: &'static str, source: aya::maps::MapError) -> Error {
    Error::Map { map: name::OWNED, action, source: Box::new(source) }
}
