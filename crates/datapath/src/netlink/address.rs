//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
};

use super::socket::Subject;
use super::{Netlink, Result};

/// `INFINITY_LIFE_TIME`: an address that does not expire.
const FOREVER: u32 = u32::MAX;

/// An address that an interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The interface.
    pub link_index: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of the subnet, 0-32 or 0-128.
    pub prefix_len: u8,
}

/// An address to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressSpec {
    /// The interface to add it to.
    pub link_index: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of the subnet, 0-32 or 0-128.
    pub prefix_len: u8,
    /// Never a source of the kernel's own choosing: preferred lifetime 0. IPv4 source selection
    /// (`inet_select_addr`) does not look at lifetimes, only at the scope, so an IPv4 address gets
    /// scope `host` as well.
    pub deprecated: bool,
}

impl Netlink {
    /// All addresses of the namespace, both families.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let subject = Subject::new("list", "addresses");
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(&subject, request)?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// Adds an address; `false` when that interface has it already. An IPv6 address is usable
    /// within moments (a work queue of the kernel's finishes it): duplicate address detection is
    /// skipped.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn add_address(&mut self, spec: &AddressSpec) -> Result<bool> {
        let key = Address {
            link_index: spec.link_index,
            address: spec.address,
            prefix_len: spec.prefix_len,
        };
        let mut message = key.to_message();
        let mut flags = AddressFlags::empty();
        if spec.address.is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        if spec.deprecated {
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = 0;
            lifetimes.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
            flags |= AddressFlags::Deprecated;
            if spec.address.is_ipv4() {
                message.header.scope = AddressScope::Host;
            }
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        let subject = key.subject("add");
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.change(&subject, request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(error) if error.os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an address; `false` when the interface does not have it.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn delete_address(&mut self, address: &Address) -> Result<bool> {
        let subject = address.subject("delete");
        match self.change(&subject, RouteNetlinkMessage::DelAddress(address.to_message()), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Address {
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        // IFA_LOCAL is our own end where there are two (point to point); IPv6 has IFA_ADDRESS only.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = local.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })?;
        Some(Self {
            link_index: message.header.index,
            address,
            prefix_len: message.header.prefix_len,
        })
    }

    fn to_message(self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(self.address);
        message.header.index = self.link_index;
        message.header.prefix_len = self.prefix_len;
        message.attributes.push(AddressAttribute::Local(self.address));
        message.attributes.push(AddressAttribute::Address(self.address));
        message
    }

    fn subject(&self, request: &'static str) -> Subject {
        let Self { link_index, address, prefix_len } = self;
        Subject::new(request, format!("address {address}/{prefix_len} on interface {link_index}"))
    }
}

/// The family of an address, as netlink counts them.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
