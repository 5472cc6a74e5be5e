//! Where frames go: gateways towards real servers, which the kernel's routes name, and the
//! neighbours that clients' frames came from (LVS: `fast_response_xmit`).
//!
//! Both live in one array of [`MAX_NEXT_HOPS`] entries. Sessions hold their numbers, so an entry is
//! given back only by a look at all of them ([`NextHops::sweep`]). A neighbour whose MAC
//! changes is one write: of the entry towards it, and of the one learned from its frames. One that the kernel forgets keeps its last MAC until a new one is
//! known: the kernel's own entries age while only XDP sends to them.

use std::collections::HashMap;

use seawall_fastpath::Addr;
use seawall_fastpath::layout::{MAX_NEXT_HOPS, NextHop, Owner};
use seawall_fastpath::link::Link;
use seawall_wire::ethernet::{MacAddr, Tags};

use crate::counters::Counter;

/// An interface that frames leave by: one that the packet path runs on, or a VLAN on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its MAC.
    pub mac: MacAddr,
    /// Its MTU, in bytes of IP packet.
    pub mtu: u32,
    /// The interface that the packet path runs on: itself, or the one beneath the VLAN.
    pub device: u32,
    /// The tags that frames bear there.
    pub tags: Tags,
}

/// A neighbour, as a route names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Gateway {
    /// The interface it is on.
    pub interface: u32,
    /// Its address: the router's, or the real server's own.
    pub address: Addr,
}

/// Who sent the frame that a neighbour is learned from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sender {
    /// A client that has proved its address.
    Proven,
    /// Anybody.
    Unproven,
}

/// The bits of a tag that say which VLAN.
const VLAN_ID: u32 = 0xfff;
/// Neighbours that may be known when one more is learned from a sender that has proved nothing.
const MAX_UNPROVEN: usize = MAX_NEXT_HOPS as usize / 4;

/// Neighbours whose MACs are remembered; the kernel itself keeps 1,024 unless told otherwise
/// (`gc_thresh3`, arp(7)).
const MAX_NEIGHBOURS: usize = 65_536;

/// The numbers of next hops.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    interfaces: HashMap<u32, Interface>,
    gateways: HashMap<Gateway, u32>,
    learned: HashMap<(u32, MacAddr, Tags), u32>,
    /// The interface that each entry in use belongs to, by its number less one.
    owners: Vec<u32>,
    /// Numbers of entries that nobody uses.
    free: Vec<u32>,
    /// What the kernel has said of neighbours, at most [`MAX_NEIGHBOURS`].
    neighbours: HashMap<Gateway, MacAddr>,
}

impl NextHops {
    /// Sets what interface `index` is, in the entries that leave by it too.
    pub(crate) fn set_interface(&mut self, hops: &[NextHop], index: u32, interface: Interface) {
        self.interfaces.insert(index, interface);
        for (owner, hop) in self.owners.iter().zip(hops.iter().skip(1)) {
            if *owner == index {
                hop.set_source(interface.mac);
                hop.mtu.store(interface.mtu);
            }
        }
    }

    /// The number of the entry towards `gateway`, made if there is none.
    pub(crate) fn gateway(&mut self, hops: &[NextHop], gateway: Gateway) -> Option<u32> {
        if let Some(index) = self.gateways.get(&gateway) {
            return Some(*index);
        }
        let tags = self.interfaces.get(&gateway.interface)?.tags;
        let owner = Owner { interface: gateway.interface, gateway: Some(gateway.address) };
        let index = self.make(hops, owner, tags, None)?;
        self.gateways.insert(gateway, index);
        Some(index)
    }

    /// The number of the entry towards the neighbour that a frame with this link header came from
    /// on `interface`, in a VLAN that the host has too. Senders that have proved nothing fill at
    /// most a share of the table.
    ///
    /// # Errors
    /// What to count when there is none.
    pub(crate) fn learned(
        &mut self,
        hops: &[NextHop],
        interface: u32,
        link: Link,
        sender: Sender,
    ) -> Result<u32, Counter> {
        let mut tags = link.tags.identity();
        if tags.inner == 0 && tags.outer & VLAN_ID == 0 {
            // A tag that only gives a priority (IEEE 802.1Q, section 9.6).
            tags = Tags::NONE;
        }
        let neighbour = (interface, link.source, tags);
        if let Some(index) = self.learned.get(&neighbour) {
            return Ok(*index);
        }
        let is_it = |of: &Interface| of.device == interface && of.tags.identity() == tags;
        let vlan = self.interfaces.iter().find(|(_, of)| is_it(of)).map(|(index, _)| *index);
        let owner = vlan.ok_or(Counter::VlanUnknown)?;
        if sender == Sender::Unproven && self.learned.len() >= MAX_UNPROVEN {
            return Err(Counter::NextHopsFull);
        }
        let owner = Owner { interface: owner, gateway: None };
        let made = self.make(hops, owner, tags, Some(link.source));
        let index = made.ok_or(Counter::NextHopsFull)?;
        self.learned.insert(neighbour, index);
        Ok(index)
    }

    /// Takes note of a neighbour's MAC, whoever it is. When it was another, and no neighbour there
    /// has that any more, the entry learned from it follows: a router that has failed over still
    /// has the sessions that came through it.
    pub(crate) fn heard(&mut self, hops: &[NextHop], neighbour: Gateway, mac: MacAddr) {
        let Some(known) = self.neighbours.get_mut(&neighbour) else {
            if self.neighbours.len() < MAX_NEIGHBOURS {
                self.neighbours.insert(neighbour, mac);
            }
            return;
        };
        let old = std::mem::replace(known, mac);
        let has_old =
            |(of, mac): (&Gateway, &MacAddr)| of.interface == neighbour.interface && *mac == old;
        if old == mac || self.neighbours.iter().any(has_old) {
            return;
        }
        let Some(interface) = self.interfaces.get(&neighbour.interface) else { return };
        let (device, tags) = (interface.device, interface.tags.identity());
        // Each move of an address to a MAC that has an entry leaves two towards the same MAC.
        for (owner, (index, hop)) in self.owners.iter().zip((1..).zip(hops.iter().skip(1))) {
            if *owner == neighbour.interface
                && hop.destination() == Some(old)
                && !self.gateways.values().any(|gateway| *gateway == index)
            {
                hop.set_destination(Some(mac));
            }
        }
        if let Some(index) = self.learned.remove(&(device, old, tags)) {
            self.learned.entry((device, mac, tags)).or_insert(index);
        }
    }

    /// Forgets what [`NextHops::heard`] has noted.
    pub(crate) fn forget(&mut self, neighbour: Gateway) {
        self.neighbours.remove(&neighbour);
    }

    /// Takes over the entries that another engine has made, of interfaces that are set.
    pub(crate) fn adopt(&mut self, hops: &[NextHop]) {
        let last = hops.iter().rposition(|hop| hop.owner().is_some()).unwrap_or_default();
        self.owners = vec![0; last];
        for (owned, (index, hop)) in self.owners.iter_mut().zip((1..).zip(hops.iter().skip(1))) {
            let Some(Owner { interface, gateway }) = hop.owner() else {
                self.free.push(index);
                continue;
            };
            *owned = interface;
            let Some(ours) = self.interfaces.get(&interface) else { continue };
            hop.interface.store(ours.device);
            hop.mtu.store(ours.mtu);
            hop.set_source(ours.mac);
            if let Some(address) = gateway {
                self.gateways.entry(Gateway { interface, address }).or_insert(index);
            } else if let Some(mac) = hop.destination() {
                let neighbour = (ours.device, mac, ours.tags.identity());
                self.learned.entry(neighbour).or_insert(index);
            }
        }
    }

    /// Gives back the entries that are not `used`, by number.
    pub(crate) fn sweep(&mut self, hops: &[NextHop], used: &[bool]) {
        let is_used = |index: u32| used.get(index as usize).is_some_and(|used| *used);
        self.gateways.retain(|_, index| is_used(*index));
        self.learned.retain(|_, index| is_used(*index));
        self.free = (1..=self.owners.len() as u32).filter(|index| !is_used(*index)).collect();
        for index in &self.free {
            if let Some(hop) = hops.get(*index as usize) {
                hop.set_owner(None);
            }
        }
    }

    /// The gateways, and the numbers of their entries.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = (Gateway, u32)> {
        self.gateways.iter().map(|(gateway, index)| (*gateway, *index))
    }

    /// The gateway behind an entry, if it is one.
    pub(crate) fn gateway_of(&self, index: u32) -> Option<Gateway> {
        self.gateways.iter().find(|(_, at)| **at == index).map(|(gateway, _)| *gateway)
    }

    /// The number of the entry towards `gateway`, if there is one.
    pub(crate) fn existing(&self, gateway: Gateway) -> Option<u32> {
        self.gateways.get(&gateway).copied()
    }

    fn make(
        &mut self,
        hops: &[NextHop],
        owner: Owner,
        tags: Tags,
        destination: Option<MacAddr>,
    ) -> Option<u32> {
        let interface = owner.interface;
        let ours = self.interfaces.get(&interface)?;
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.owners.len() as u32 + 1 < MAX_NEXT_HOPS => {
                self.owners.push(interface);
                self.owners.len() as u32
            }
            None => return None,
        };
        *self.owners.get_mut(index as usize - 1)? = interface;
        let hop = hops.get(index as usize)?;
        hop.interface.store(ours.device);
        hop.mtu.store(ours.mtu);
        hop.set_tags(tags);
        hop.set_source(ours.mac);
        hop.set_destination(destination);
        hop.set_owner(Some(owner));
        Some(index)
    }
}
