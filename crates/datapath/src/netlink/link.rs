//! Network interfaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        VlanProtocol,
    },
};

use super::socket::Subject;
use super::{Netlink, Result};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's number in its namespace, never 0.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its link-layer address; all zero where there is none of 6 bytes.
    pub mac: [u8; 6],
    /// The longest network-layer packet, in bytes.
    pub mtu: u32,
    /// Whether it is switched on (`IFF_UP`), whatever its carrier.
    pub up: bool,
    /// The driver kind of a virtual interface: `veth`, `bridge`, `vlan` …
    pub kind: Option<String>,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The other end of a veth, as numbered in *its* namespace.
    pub peer_index: Option<u32>,
    /// What a VLAN interface is.
    pub vlan: Option<Vlan>,
}

/// A VLAN on another interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// The interface beneath.
    pub lower: u32,
    /// EtherType of its tags: 0x8100 or 0x88a8.
    pub ethertype: u16,
    /// VLAN identifier, 1 to 4094.
    pub id: u16,
}

/// A pair of virtual Ethernet interfaces to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethSpec<'a> {
    /// The near end's name, in this client's namespace.
    pub name: &'a str,
    /// The near end's address; the kernel takes a random one for `None`.
    pub mac: Option<[u8; 6]>,
    /// The far end's name.
    pub peer_name: &'a str,
    /// The far end's address.
    pub peer_mac: Option<[u8; 6]>,
    /// The far end's namespace; this client's for `None`.
    pub peer_netns: Option<BorrowedFd<'a>>,
}

impl Netlink {
    /// All interfaces of the namespace.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let subject = Subject::new("list", "interfaces");
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump(&subject, request)?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
                _ => None,
            })
            .collect())
    }

    /// The interface of that name, if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error); that there is none is not one of them.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let subject = Subject::new("look up", format!("interface {name}"));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.query(&subject, RouteNetlinkMessage::GetLink(message)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Link::from_message(&message))),
            Ok(_) => Err(subject.not_understood("not an interface")),
            // ERANGE and EINVAL: no interface can have a name so long, or empty.
            Err(error) => match error.os_error() {
                Some(libc::ENODEV | libc::ERANGE | libc::EINVAL) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Makes a veth pair.
    ///
    /// # Errors
    ///
    /// `EEXIST` when a name is taken, and those of [`Error`](super::Error).
    pub fn add_veth(&mut self, spec: &VethSpec<'_>) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(spec.peer_name.to_owned()));
        peer.attributes.extend(spec.peer_mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        peer.attributes
            .extend(spec.peer_netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(spec.name.to_owned()));
        message.attributes.extend(spec.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let subject =
            Subject::new("add", format!("veth pair {} and {}", spec.name, spec.peer_name));
        self.change(&subject, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a bridge, without spanning tree.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken, `EOPNOTSUPP` when the kernel has no bridges, and those of
    /// [`Error`](super::Error).
    pub fn add_bridge(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        let subject = Subject::new("add", format!("bridge {name}"));
        self.change(&subject, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes interface `index` a port of the bridge `master`, or of none.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        self.set_link("set the master of", index, LinkAttribute::Controller(master.unwrap_or(0)))
    }

    /// Switches an interface on.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let subject = Subject::new("switch on", format!("interface {index}"));
        self.change(&subject, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the link-layer address.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        self.set_link("set the MAC address of", index, LinkAttribute::Address(mac.to_vec()))
    }

    /// Sets the longest network-layer packet, in bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside what the driver allows, and those of [`Error`](super::Error).
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.set_link("set the MTU of", index, LinkAttribute::Mtu(mtu))
    }

    /// Moves an interface to another namespace, where it keeps its name.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken there, and those of [`Error`](super::Error).
    pub fn move_to_netns(&mut self, index: u32, netns: BorrowedFd<'_>) -> Result<()> {
        self.set_link("move to another namespace", index, LinkAttribute::NetNsFd(netns.as_raw_fd()))
    }

    /// Removes a virtual interface (both ends of a veth).
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is none, `EOPNOTSUPP` for hardware, and those of
    /// [`Error`](super::Error).
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let subject = Subject::new("delete", format!("interface {index}"));
        self.change(&subject, RouteNetlinkMessage::DelLink(message), 0)
    }

    fn set_link(
        &mut self,
        request: &'static str,
        index: u32,
        attribute: LinkAttribute,
    ) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        let subject = Subject::new(request, format!("interface {index}"));
        self.change(&subject, RouteNetlinkMessage::SetLink(message), 0)
    }
}

impl Link {
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: None,
            master: None,
            peer_index: None,
            vlan: None,
        };
        let mut lower = None;
        let mut vlan = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.master = (*index != 0).then_some(*index),
                LinkAttribute::Link(index) => lower = (*index != 0).then_some(*index),
                LinkAttribute::LinkInfo(information) => {
                    link.kind = information.iter().find_map(|entry| match entry {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    vlan = information.iter().find_map(|entry| match entry {
                        LinkInfo::Data(InfoData::Vlan(attributes)) => Some(tag(attributes)),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        // IFLA_LINK is the peer of a veth, but the device beneath of anything else.
        link.peer_index = lower.filter(|_| link.kind.as_deref() == Some("veth"));
        link.vlan = vlan.zip(lower).map(|((ethertype, id), lower)| Vlan { lower, ethertype, id });
        link
    }
}

/// EtherType and identifier of a VLAN's tags.
fn tag(attributes: &[InfoVlan]) -> (u16, u16) {
    let (mut ethertype, mut id) = (u16::from(VlanProtocol::default()), 0);
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(value) => id = *value,
            InfoVlan::Protocol(protocol) => ethertype = u16::from(*protocol),
            _ => {}
        }
    }
    (ethertype, id)
}
