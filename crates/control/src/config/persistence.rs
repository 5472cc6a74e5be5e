//! Persistence of a service: for how long clients stay with their real server, and which are one.

use std::fmt;
use std::net::Ipv4Addr;

use toml::de::DeValue;

use super::errors::{Problems, quote};
use super::section::{Section, integer};

/// What `persistent = true` means, in seconds (ipvsadm `-p` without a value).
const DEFAULT_TIMEOUT: u32 = 360;
/// The longest that ipvsadm takes, in seconds: 31 days.
pub(crate) const MAX_TIMEOUT: u32 = 31 * 86_400;

/// Which part of a client's address counts (ipvsadm `-M`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netmask {
    /// Of IPv4 addresses the bits of this mask.
    V4(Ipv4Addr),
    /// Of IPv6 addresses the first so many bits, 1 to 128.
    V6(u8),
}

/// `persistent` and `netmask` of a `[[service]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistenceConfig {
    /// How long a client stays after its last new connection, 1 s to 31 days, in seconds.
    pub timeout: u32,
    /// Which clients are one; of the service's family.
    pub netmask: Netmask,
}

impl fmt::Display for PersistenceConfig {
    /// As ipvsadm shows it: `360`, or `360 mask 255.255.255.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timeout)?;
        match self.netmask {
            Netmask::V4(Ipv4Addr::BROADCAST) | Netmask::V6(128) => Ok(()),
            Netmask::V4(mask) => write!(f, " mask {mask}"),
            Netmask::V6(prefix) => write!(f, " mask {prefix}"),
        }
    }
}

/// The keys of a service of that family.
pub(super) fn read(
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
    ipv4: bool,
) -> Option<PersistenceConfig> {
    let expected = format!(
        "true (for {DEFAULT_TIMEOUT} s), false, or an integer 1 to {MAX_TIMEOUT} (seconds)"
    );
    let timeout = section.read(problems, "persistent", &expected, |value| match value {
        DeValue::Boolean(on) => Some(on.then_some(DEFAULT_TIMEOUT)),
        value => integer(value).filter(|it| (1..=MAX_TIMEOUT).contains(it)).map(Some),
    });
    let expected = if ipv4 {
        "a netmask such as \"255.255.255.0\", or a prefix length 1 to 32"
    } else {
        "a prefix length 1 to 128"
    };
    let netmask = section.read(problems, "netmask", expected, |value| match (ipv4, value) {
        (true, DeValue::String(text)) => text.parse().ok().map(Netmask::V4),
        (true, value) => {
            let prefix = integer(value).filter(|prefix| (1..=32).contains(prefix))?;
            Some(Netmask::V4(Ipv4Addr::from_bits(u32::MAX << (32 - prefix))))
        }
        (false, value) => {
            let prefix = integer(value).filter(|prefix| (1..=128).contains(prefix))?;
            u8::try_from(prefix).ok().map(Netmask::V6)
        }
    });
    let Some(timeout) = timeout.and_then(|timeout| timeout.value) else {
        if let Some(netmask) = netmask {
            let message = format!("{} has no effect", section.name("netmask"));
            let remedy = format!("expected {} too, as in persistent = 360", quote("persistent"));
            problems.add(netmask.line, message, remedy);
        }
        return None;
    };
    let all = if ipv4 { Netmask::V4(Ipv4Addr::BROADCAST) } else { Netmask::V6(128) };
    Some(PersistenceConfig { timeout, netmask: netmask.map_or(all, |netmask| netmask.value) })
}
