//! What is configured and looked up by key: services, our addresses, our interfaces.

use seawall_wire::ethernet::MacAddr;
use seawall_wire::ipv4::Protocol;

use crate::tuple::{Addr, Endpoint, Transport};

/// Services that the map holds.
pub const MAX_SERVICES: u32 = 16_384;
/// Addresses (VIPs and local ones) that the map holds.
pub const MAX_ADDRESSES: u32 = 131_072;
/// Interfaces that the map holds.
pub const MAX_INTERFACES: u32 = 64;

/// Names a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct ServiceKey {
    address: Addr,
    port: u16,
    protocol: u16,
    // No array of odd bytes: LLVM would call `memset` for it, and a call takes 32 bytes of stack.
    spare: u32,
}

impl ServiceKey {
    /// The TCP service at `endpoint`.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(endpoint: Endpoint) -> Self {
        Self::of(Transport::Tcp, endpoint)
    }

    /// The UDP service at `endpoint`.
    #[inline(always)]
    #[must_use]
    pub const fn udp(endpoint: Endpoint) -> Self {
        Self::of(Transport::Udp, endpoint)
    }

    /// The service of `transport` at `endpoint`.
    #[inline(always)]
    #[must_use]
    pub const fn of(transport: Transport, endpoint: Endpoint) -> Self {
        let protocol = match transport {
            Transport::Tcp => Protocol::TCP.0 as u16,
            Transport::Udp => Protocol::UDP.0 as u16,
        };
        Self { address: endpoint.address, port: endpoint.port, protocol, spare: 0 }
    }

    /// The service of `transport` at `address` that takes all ports which have none of their own (IPVS:
    /// port 0).
    #[inline(always)]
    #[must_use]
    pub const fn any(transport: Transport, address: Addr) -> Self {
        Self::of(transport, Endpoint { address, port: 0 })
    }
}

/// A service, as far as XDP needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ServiceEntry {
    /// The engine's number for it.
    pub id: u32,
    /// Bits of this type's constants.
    pub flags: u32,
}

impl ServiceEntry {
    /// SYNs are answered with cookies.
    pub const SYNPROXY: u32 = 1;
    /// At least one real server takes new connections.
    pub const USABLE: u32 = 1 << 1;
    /// An ACK without payload does not complete the handshake (SPEC A5).
    pub const DEFER: u32 = 1 << 2;

    /// A real server of the service has refused SACK, so it is not offered (SPEC A7).
    pub const NO_SACK: u32 = 1 << 3;
    /// A real server of the service has refused window scaling.
    pub const NO_WINDOW_SCALE: u32 = 1 << 4;
    /// A real server of the service has refused timestamps.
    pub const NO_TIMESTAMP: u32 = 1 << 5;

    /// The proxy was switched off a moment ago: the cookies it gave out are still good (SPEC A15).
    pub const WAS_PROXIED: u32 = 1 << 6;

    /// First segments to its real servers get a TOA option (SPEC C7): clients leave room for it.
    pub const TOA: u32 = 1 << 11;
    /// Without [`Self::USABLE`]: there are real servers that would take new connections if they did
    /// not have as many as they may (IPVS: `IP_VS_DEST_F_OVERLOAD`).
    pub const OVERLOADED: u32 = 1 << 7;

    /// Whether an ACK may bear a valid cookie.
    #[inline(always)]
    #[must_use]
    pub const fn takes_cookies(self) -> bool {
        self.flags & (Self::SYNPROXY | Self::WAS_PROXIED) != 0
    }

    /// Whether `flag` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Names an address of ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct AddressKey(pub Addr);

/// What an address of ours is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct AddressEntry {
    /// Bits of this type's constants.
    pub flags: u32,
    /// Lowest and highest port of a local address that sessions use.
    pub port_min: u16,
    /// See `port_min`.
    pub port_max: u16,
}

impl AddressEntry {
    /// A virtual service address.
    pub const VIP: u32 = 1;
    /// A local address (LVS: `laddr`).
    pub const LOCAL: u32 = 1 << 1;
}

/// An interface that the program is attached to: its own MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct InterfaceEntry(u64);

impl InterfaceEntry {
    /// An interface with this MAC.
    #[inline(always)]
    #[must_use]
    pub const fn new(mac: MacAddr) -> Self {
        let (high, low) = mac.parts();
        Self((high as u64) << 32 | low as u64)
    }

    /// Its MAC.
    #[inline(always)]
    #[must_use]
    pub const fn mac(self) -> MacAddr {
        MacAddr::from_parts((self.0 >> 32) as u16, self.0 as u32)
    }
}
