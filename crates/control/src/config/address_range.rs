//! A run of IP addresses, `192.168.7.100-192.168.7.103` or a single one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses of one family from `first` to `last`, both included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is not an [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// One end is not an IP address.
    #[error("`{0}` is not an IP address")]
    NotAnAddress(String),
    /// A prefix, `192.168.7.0/24`: it would hold a network and a broadcast address.
    #[error("a prefix is not a range")]
    Prefix,
    /// One end is IPv4 and the other IPv6.
    #[error("its ends are of different families")]
    MixedFamilies,
    /// The last address comes before the first.
    #[error("its last address comes before its first")]
    Backwards,
}

impl AddressRange {
    /// The range from `ends[0]` to `ends[1]`, both included.
    ///
    /// # Errors
    /// When the ends are of different families or the last comes before the first.
    pub fn new(ends: [IpAddr; 2]) -> Result<Self, AddressRangeError> {
        let [first, last] = ends;
        if first.is_ipv4() != last.is_ipv4() {
            Err(AddressRangeError::MixedFamilies)
        } else if last < first {
            Err(AddressRangeError::Backwards)
        } else {
            Ok(Self { first, last })
        }
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// How many addresses it holds, at least 1 (saturating for the whole of IPv6).
    pub fn count(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        // `IpAddr` orders every IPv4 address before every IPv6 one, so families never mix here.
        self.first <= address && address <= self.last
    }

    /// Every address, in ascending order; [`AddressRange::count`] of them.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let ipv4 = self.first.is_ipv4();
        (bits(self.first)..=bits(self.last)).map(move |bits| match u32::try_from(bits) {
            Ok(bits) if ipv4 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = |part: &str| {
            let part = part.trim();
            part.parse::<IpAddr>().map_err(|_| match part.split_once('/') {
                Some((head, _)) if head.parse::<IpAddr>().is_ok() => AddressRangeError::Prefix,
                _ => AddressRangeError::NotAnAddress(part.chars().take(64).collect()),
            })
        };
        match text.split_once('-') {
            Some((first, last)) => Self::new([address(first)?, address(last)?]),
            None => address(text).and_then(|single| Self::new([single, single])),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_writes_both_forms() {
        for text in ["192.168.7.100-192.168.7.103", "10.0.0.1", "2001:db8::1-2001:db8::ff", "::1"] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range(" 10.0.0.1 - 10.0.0.1 ").to_string(), "10.0.0.1");
    }

    #[test]
    fn refuses_what_is_no_range() {
        let cases = [
            ("", AddressRangeError::NotAnAddress(String::new())),
            ("10.0.0.1-", AddressRangeError::NotAnAddress(String::new())),
            ("host", AddressRangeError::NotAnAddress("host".to_owned())),
            ("10.0.0.0/24", AddressRangeError::Prefix),
            ("10.0.0.1-2001:db8::1", AddressRangeError::MixedFamilies),
            ("10.0.0.2-10.0.0.1", AddressRangeError::Backwards),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<AddressRange>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn counts_contains_and_iterates_across_an_octet() {
        let range = range("10.0.0.254-10.0.1.1");
        let all: Vec<_> = range.iter().map(|address| address.to_string()).collect();
        assert_eq!(all, ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"]);
        assert_eq!(range.count(), 4);
        assert!(range.iter().all(|address| range.contains(address)));
        assert!(!range.contains("10.0.1.2".parse().unwrap()));
        assert!(!range.contains("::a00:fe".parse().unwrap()));
    }

    #[test]
    fn low_ipv6_addresses_stay_ipv6() {
        assert_eq!(range("::2").iter().collect::<Vec<_>>(), ["::2".parse::<IpAddr>().unwrap()]);
        let whole = range("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(whole.count(), u128::MAX);
    }
}
