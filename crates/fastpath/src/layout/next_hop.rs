//! Where frames go next: one entry a neighbour, so that a MAC change is one write.

use seawall_wire::ethernet::{MacAddr, Tags};

use crate::Addr;
use crate::cell::{Cell32, Cell64};

/// Entries in the array, entry 0 included.
pub const MAX_NEXT_HOPS: u32 = 4096;
/// The entry that is never valid.
pub const NO_NEXT_HOP: u32 = 0;

const VALID: u64 = 1 << 48;

/// Values of [`NextHop::kind`].
const GATEWAY: u32 = 1;
const LEARNED: u32 = 2;

/// Whose entry it is, for the engine that takes the array over from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The interface that the neighbour is on: the one that the packet path runs on, or a VLAN.
    pub interface: u32,
    /// The gateway's address; `None` for a neighbour that is known by its frames.
    pub gateway: Option<Addr>,
}

/// One neighbour on one interface. 64 bytes, of which the packet path reads the first half.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct NextHop {
    destination: Cell64,
    source: Cell64,
    /// Interface to leave by.
    pub interface: Cell32,
    /// Largest IP packet that fits, in bytes.
    pub mtu: Cell32,
    tags: Cell64,
    owner: Cell32,
    kind: Cell32,
    gateway: [Cell64; 2],
}

impl NextHop {
    /// The neighbour's MAC, when it is known.
    #[inline(always)]
    pub fn destination(&self) -> Option<MacAddr> {
        let bits = self.destination.load();
        if bits & VALID == 0 { None } else { Some(mac(bits)) }
    }

    /// Our MAC on the interface.
    #[inline(always)]
    pub fn source(&self) -> MacAddr {
        mac(self.source.load())
    }

    /// Sets the neighbour's MAC, or that it is not known: one write.
    pub fn set_destination(&self, to: Option<MacAddr>) {
        self.destination.publish(to.map_or(0, |mac| VALID | bits(mac)));
    }

    /// The VLAN tags that its frames bear.
    #[inline(always)]
    pub fn tags(&self) -> Tags {
        let bits = self.tags.load();
        Tags { outer: (bits >> 32) as u32, inner: bits as u32 }
    }

    /// Sets the VLAN tags that its frames bear.
    pub fn set_tags(&self, to: Tags) {
        self.tags.store((to.outer as u64) << 32 | to.inner as u64);
    }

    /// Whose entry it is, if it is in use.
    pub fn owner(&self) -> Option<Owner> {
        let interface = self.owner.load();
        match self.kind.load() {
            GATEWAY => {
                let address = Addr([self.gateway[0].load(), self.gateway[1].load()]);
                Some(Owner { interface, gateway: Some(address) })
            }
            LEARNED => Some(Owner { interface, gateway: None }),
            _ => None,
        }
    }

    /// Sets whose entry it is, or that nobody uses it.
    pub fn set_owner(&self, to: Option<Owner>) {
        self.kind.store(0);
        let Some(to) = to else { return };
        self.owner.store(to.interface);
        for (cell, word) in self.gateway.iter().zip(to.gateway.unwrap_or(Addr([0; 2])).0) {
            cell.store(word);
        }
        self.kind.publish(if to.gateway.is_some() { GATEWAY } else { LEARNED });
    }

    /// Sets our MAC on the interface.
    pub fn set_source(&self, to: MacAddr) {
        self.source.store(bits(to));
    }
}

#[inline(always)]
const fn mac(bits: u64) -> MacAddr {
    MacAddr::from_parts((bits >> 32) as u16, bits as u32)
}

const fn bits(mac: MacAddr) -> u64 {
    let (high, low) = mac.parts();
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::{NextHop, Owner};
    use crate::Addr;
    use seawall_wire::ethernet::{MacAddr, Tags};

    #[test]
    fn addresses_survive_both_ways() {
        let hop = NextHop::default();
        assert_eq!(hop.destination(), None);
        let (a, b) = (MacAddr([0xff, 1, 2, 3, 4, 0xfe]), MacAddr([2, 0, 0, 0, 0, 1]));
        hop.set_destination(Some(a));
        hop.set_source(b);
        assert_eq!((hop.destination(), hop.source()), (Some(a), b));
        hop.set_destination(None);
        assert_eq!(hop.destination(), None);
        let tags = Tags { outer: 0x88a8_0fff, inner: 0x8100_0001 };
        hop.set_tags(tags);
        assert_eq!(hop.tags(), tags);
    }

    #[test]
    fn owners_survive_both_ways() {
        let hop = NextHop::default();
        assert_eq!(hop.owner(), None);
        for gateway in [Some(Addr::v4(7)), None, Some(Addr([1, 2]))] {
            let owner = Some(Owner { interface: 3, gateway });
            hop.set_owner(owner);
            assert_eq!(hop.owner(), owner);
        }
        hop.set_owner(None);
        assert_eq!(hop.owner(), None);
    }
}
