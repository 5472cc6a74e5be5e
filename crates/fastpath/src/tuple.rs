//! Addresses, and the four values that name a flow of TCP or UDP.

use crate::siphash::{self, Key};

/// An IPv4 or IPv6 address as two words in host order; IPv4 is mapped (RFC 4291, section
/// 2.5.5.2), so that one comparison and one table serve both families.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Addr(pub [u64; 2]);

const MAPPED: u64 = 0xffff;

impl Addr {
    /// The mapped form of an IPv4 address in host order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: u32) -> Self {
        Self([0, MAPPED << 32 | address as u64])
    }

    /// The IPv4 address in host order, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn as_v4(self) -> Option<u32> {
        let [high, low] = self.0;
        if high == 0 && low >> 32 == MAPPED { Some(low as u32) } else { None }
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(address: core::net::IpAddr) -> Self {
        let octets = match address {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            core::net::IpAddr::V6(v6) => v6,
        };
        let bits = octets.to_bits();
        Self([(bits >> 64) as u64, bits as u64])
    }
}

impl From<Addr> for core::net::IpAddr {
    fn from(address: Addr) -> Self {
        let [high, low] = address.0.map(u128::from);
        core::net::Ipv6Addr::from_bits(high << 64 | low).to_canonical()
    }
}

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Endpoint {
    /// The address.
    pub address: Addr,
    /// The port, in host order.
    pub port: u16,
}

impl From<core::net::SocketAddr> for Endpoint {
    fn from(address: core::net::SocketAddr) -> Self {
        Self { address: address.ip().into(), port: address.port() }
    }
}

impl From<Endpoint> for core::net::SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address.into(), endpoint.port)
    }
}

/// What carries a flow: one of each may have the same four values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp = 0,
    /// UDP.
    Udp = 1,
}

/// Sender and receiver of a segment or datagram.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tuple {
    /// Who sent it.
    pub source: Endpoint,
    /// Whom it is for.
    pub destination: Endpoint,
}

impl Tuple {
    /// The ports in one word, the source's first.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> u32 {
        (self.source.port as u32) << 16 | self.destination.port as u32
    }

    /// The keyed hash under which the session index files this flow of `transport`.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, transport: Transport, key: Key) -> u64 {
        let last = join(transport as u32, self.ports());
        let (s, d) = (self.source.address.0, self.destination.address.0);
        match (self.source.address.as_v4(), self.destination.address.as_v4()) {
            (Some(source), Some(destination)) => {
                siphash::hash(key, [join(source, destination), last])
            }
            _ => siphash::hash(key, [s[0], s[1], d[0], d[1], last]),
        }
    }

    /// The keyed MAC of this flow and two more words, for cookies and clocks.
    #[inline(always)]
    #[must_use]
    pub fn mac(&self, key: Key, more: [u32; 3]) -> u64 {
        let (s, d) = (self.source.address.0, self.destination.address.0);
        let ports = join(self.ports(), more[0]);
        let last = join(more[1], more[2]);
        match (self.source.address.as_v4(), self.destination.address.as_v4()) {
            (Some(source), Some(destination)) => {
                siphash::mac(key, [join(source, destination), ports, last])
            }
            _ => siphash::mac(key, [s[0], s[1], d[0], d[1], ports, last]),
        }
    }
}

#[inline(always)]
const fn join(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::Addr;
    use core::net::IpAddr;

    #[test]
    fn addresses_survive_both_ways() {
        for text in ["10.0.0.254", "2001:db8::1", "::1", "255.255.255.255"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(address)), address);
        }
        assert_eq!(Addr::from("10.0.0.254".parse::<IpAddr>().unwrap()), Addr::v4(0x0a00_00fe));
        assert_eq!(Addr::v4(7).as_v4(), Some(7));
        assert_eq!(Addr::from("::1".parse::<IpAddr>().unwrap()).as_v4(), None);
    }
}
