//! The kernel's ARP and neighbour-discovery tables.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
        NeighbourState as WireState,
    },
    route::RouteType,
};

use super::address::family;
use super::socket::Subject;
use super::{Netlink, Result};

/// What the kernel knows about a neighbour (`NUD_*` of `linux/neighbour.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourState {
    /// Nothing has been asked yet.
    None,
    /// Asked, not answered yet.
    Incomplete,
    /// Confirmed a moment ago.
    Reachable,
    /// Known, not confirmed lately.
    Stale,
    /// Known and just used; a probe follows unless something confirms it.
    Delay,
    /// Known and being probed.
    Probe,
    /// Asked and not answered.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by hand.
    Permanent,
    /// A state or combination newer than this list.
    Other(u16),
}

impl NeighbourState {
    /// Whether frames may be sent to the MAC address known (`NUD_VALID`).
    pub const fn is_valid(self) -> bool {
        match self {
            Self::Reachable
            | Self::Stale
            | Self::Delay
            | Self::Probe
            | Self::NoArp
            | Self::Permanent => true,
            Self::None | Self::Incomplete | Self::Failed | Self::Other(_) => false,
        }
    }
}

/// Which neighbour: an address is only unique on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NeighbourKey {
    /// The interface.
    pub link_index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
}

/// An entry of the neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface.
    pub link_index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its link-layer address; kept by the kernel for a while after it stopped answering, so look
    /// at the state too.
    pub mac: Option<[u8; 6]>,
    /// How good that knowledge is.
    pub state: NeighbourState,
}

impl Netlink {
    /// All neighbours of the namespace, both families.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let subject = Subject::new("list", "neighbours");
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.dump(&subject, request)?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// One neighbour, if the kernel has heard of it (kernel 5.0).
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error); that there is none is not one of them.
    pub fn neighbour(&mut self, key: NeighbourKey) -> Result<Option<Neighbour>> {
        let subject = key.subject("look up");
        match self.query(&subject, RouteNetlinkMessage::GetNeighbour(key.to_message())) {
            Ok(RouteNetlinkMessage::NewNeighbour(message)) => Ok(Neighbour::from_message(&message)),
            Ok(_) => Err(subject.not_understood("not a neighbour")),
            Err(error) if error.os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the kernel to resolve a neighbour, as if it had a packet for it. The outcome arrives
    /// at a [`Monitor`](super::Monitor), or shows in [`neighbour`](Self::neighbour) later.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn probe_neighbour(&mut self, key: NeighbourKey) -> Result<()> {
        let mut message = key.to_message();
        message.header.state = WireState::None;
        message.header.flags = NeighbourFlags::Use;
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.change(&key.subject("probe"), request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sets a neighbour's link-layer address by hand, for good.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn add_neighbour(&mut self, key: NeighbourKey, mac: [u8; 6]) -> Result<()> {
        let mut message = key.to_message();
        message.header.state = WireState::Permanent;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.change(&key.subject("add"), request, NLM_F_CREATE | NLM_F_REPLACE)
    }
}

impl NeighbourKey {
    fn to_message(self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = family(self.address);
        message.header.ifindex = self.link_index;
        message.attributes.push(NeighbourAttribute::Destination(self.address.into()));
        message
    }

    fn subject(&self, request: &'static str) -> Subject {
        Subject::new(
            request,
            format!("neighbour {} on interface {}", self.address, self.link_index),
        )
    }
}

impl Neighbour {
    /// The entry's key.
    pub const fn key(&self) -> NeighbourKey {
        NeighbourKey { link_index: self.link_index, address: self.address }
    }

    /// `None` for entries that are not of IPv4 or IPv6 (a bridge's forwarding table).
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(destination)) => {
                    address = Some(IpAddr::from(*destination));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(destination)) => {
                    address = Some(IpAddr::from(*destination));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok();
                }
                _ => {}
            }
        }
        Some(Self {
            link_index: message.header.ifindex,
            address: address?,
            mac,
            state: state(message.header.state),
        })
    }
}

fn state(state: WireState) -> NeighbourState {
    match state {
        WireState::None => NeighbourState::None,
        WireState::Incomplete => NeighbourState::Incomplete,
        WireState::Reachable => NeighbourState::Reachable,
        WireState::Stale => NeighbourState::Stale,
        WireState::Delay => NeighbourState::Delay,
        WireState::Probe => NeighbourState::Probe,
        WireState::Failed => NeighbourState::Failed,
        WireState::Noarp => NeighbourState::NoArp,
        WireState::Permanent => NeighbourState::Permanent,
        other => NeighbourState::Other(other.into()),
    }
}
