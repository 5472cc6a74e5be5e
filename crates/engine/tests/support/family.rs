//! The addresses of the test network in each family.

use std::net::IpAddr;

use seawall_fastpath::Addr;

use super::packet::Ip;

/// An IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

/// All of them.
pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    const fn pick(self, v4: u32) -> Ip {
        match self {
            Self::V4 => Ip::v4(v4),
            Self::V6 => Ip(0x2001_0db8 << 96 | v4 as u128),
        }
    }

    pub(crate) const fn client(self) -> Ip {
        self.pick(0x0a00_0001)
    }

    pub(crate) const fn vip(self) -> (Ip, u16) {
        (self.pick(0x0a00_00fe), 80)
    }

    /// The local address of FULLNAT.
    pub(crate) const fn local(self) -> Ip {
        self.pick(0xc0a8_0764)
    }

    pub(crate) fn server(self, number: u32) -> Ip {
        self.pick(0xc0a8_0702) + number
    }

    /// Which real server has this address.
    pub(crate) fn server_number(self, address: Ip) -> u32 {
        (address.0 - self.server(0).0) as u32
    }

    /// Bytes of an address in a header.
    pub(crate) const fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Bytes of an Ethernet, IP and TCP header without options.
    pub(crate) const fn headers(self) -> usize {
        match self {
            Self::V4 => 14 + 20 + 20,
            Self::V6 => 14 + 40 + 20,
        }
    }

    /// The MSS of an end that names none (RFC 9293, section 3.7.1).
    pub(crate) const fn default_mss(self) -> u16 {
        match self {
            Self::V4 => 536,
            Self::V6 => 1_220,
        }
    }

    /// EtherType of a packet.
    pub(crate) const fn ethertype(self) -> [u8; 2] {
        match self {
            Self::V4 => [0x08, 0x00],
            Self::V6 => [0x86, 0xdd],
        }
    }
}

impl From<Ip> for Addr {
    fn from(ip: Ip) -> Self {
        IpAddr::from(ip).into()
    }
}

/// Makes a test of each named function for each address family: they take a [`Family`].
macro_rules! in_each_family {
    ($($name:ident),* $(,)?) => {
        mod v4 {
            use crate::support::family::{Family, in_each_family};
            in_each_family!(Family::V4 => $($name),*);
        }

        mod v6 {
            use crate::support::family::{Family, in_each_family};
            in_each_family!(Family::V6 => $($name),*);
        }
    };
    ($family:expr => $($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                super::$name($family);
            }
        )*
    };
}
pub(crate) use in_each_family;
