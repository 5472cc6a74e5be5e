//! The memory that the XDP program and user space share, byte for byte.
//!
//! Every type here is `repr(C)`, has a size that a test pins, and means the same on both sides.
//! [`VERSION`] changes whenever one of them does.

mod header;
mod index;
mod ledger;
mod next_hop;
mod record;
mod service;
mod settings;
mod slot;
mod template;
mod tunnel;

pub use header::{COUNTER_CELLS, Header};
pub use index::{
    Bucket, ENTRIES_PER_BUCKET, Entry, Filter, bucket_count, first_bucket, mark, second_bucket, tag,
};
pub use ledger::{Account, LEDGER_RECORDS, LedgerRecord, Load, TOTALS};
pub use next_hop::{MAX_NEXT_HOPS, NO_NEXT_HOP, NextHop, Owner};
pub use record::{FULL_RECORD_FRAME, RecordHeader, RecordKind, SMALL_RECORD_FRAME};
pub use service::{
    AddressEntry, AddressKey, InterfaceEntry, MAX_ADDRESSES, MAX_INTERFACES, MAX_SERVICES,
    ServiceEntry, ServiceKey,
};
pub use settings::{COOKIE_KEYS, CookieKey, HEARTBEAT_LIMIT_MS, Settings, switch};
pub use slot::{Ends, Flow, Kept, NO_SCALE, Preface, Scales, Slot, Word, flag};
pub use template::Template;
pub use tunnel::{Tunnel, Wrapping};

/// Version of all the layouts together.
pub const VERSION: u32 = 11;

/// Where [`name::PROGRAMS`] holds what.
pub mod program {
    /// [`super::name::PROGRAM_IPV6`].
    pub const IPV6: u32 = 0;
    /// [`super::name::DETOUR`].
    pub const DETOUR: u32 = 1;
    /// [`super::name::DETOUR_IPV6`].
    pub const DETOUR_IPV6: u32 = 2;
    /// How many there are.
    pub const COUNT: u32 = 3;
}

/// Names of the BPF maps and programs, as the object file spells them.
pub mod name {
    /// The XDP program.
    pub const PROGRAM: &str = "seawall";
    /// The XDP program that the first hands IPv6 on to.
    pub const PROGRAM_IPV6: &str = "seawall_ipv6";
    /// The XDP program that takes over what is not TCP or is rare: [`crate::detour_as`].
    pub const DETOUR: &str = "seawall_detour";
    /// The same for IPv6.
    pub const DETOUR_IPV6: &str = "seawall_detour_ipv6";
    /// Program array, by the numbers of [`super::program`].
    pub const PROGRAMS: &str = "PROGRAMS";
    /// Array of [`super::Slot`], mapped into user space.
    pub const SLOTS: &str = "SLOTS";
    /// Array of [`super::Bucket`], mapped into user space; the last one is the stash.
    pub const INDEX: &str = "INDEX";
    /// Array of [`super::Filter`], mapped into user space.
    pub const FILTER: &str = "FILTER";
    /// Array of [`super::NextHop`], mapped into user space.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// Array of one [`super::Settings`], mapped into user space.
    pub const SETTINGS: &str = "SETTINGS";
    /// Array of [`super::Template`], mapped into user space; the program does not use it.
    pub const TEMPLATES: &str = "TEMPLATES";
    /// Hash map of [`super::ServiceKey`] to [`super::ServiceEntry`].
    pub const SERVICES: &str = "SERVICES";
    /// Hash map of [`super::AddressKey`] to [`super::AddressEntry`].
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Hash map of interface index to [`super::InterfaceEntry`].
    pub const INTERFACES: &str = "INTERFACES";
    /// Per-CPU array of `u64`, one a [`crate::Reason`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of `u64`: what [`crate::embryo`] keeps.
    pub const EMBRYOS: &str = "EMBRYOS";
    /// Array of one [`super::Header`], mapped into user space; the packet path does not know it.
    pub const HEADER: &str = "HEADER";
    /// Array of [`super::LedgerRecord`], likewise.
    pub const LEDGER: &str = "LEDGER";
    /// Hash map of the addresses that the host has from us, likewise.
    pub const OWNED: &str = "OWNED";
    /// Ring buffer for frames of proven peers.
    pub const PROVEN: &str = "PROVEN";
    /// Ring buffer for frames of peers that have proved nothing.
    pub const UNPROVEN: &str = "UNPROVEN";
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, size_of};

    #[test]
    fn sizes_are_pinned() {
        assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (256, 64));
        assert_eq!((size_of::<Flow>(), align_of::<Flow>()), (64, 64));
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
        assert_eq!(size_of::<Filter>(), 8);
        assert_eq!(size_of::<NextHop>(), 64);
        assert_eq!(size_of::<Template>(), 40);
        assert_eq!(size_of::<ServiceKey>(), 24);
        assert_eq!(size_of::<ServiceEntry>(), 8);
        assert_eq!(size_of::<AddressKey>(), 16);
        assert_eq!(size_of::<AddressEntry>(), 8);
        assert_eq!(size_of::<InterfaceEntry>(), 8);
        assert_eq!(size_of::<RecordHeader>(), 32);
        assert_eq!(size_of::<Settings>(), 192);
        assert_eq!(size_of::<Header>(), 1088);
        assert_eq!(size_of::<LedgerRecord>(), 80);
    }
}
