//! From a frame to the headers that the decision needs.

use seawall_wire::ipv4::Protocol;
use seawall_wire::tcp;

use crate::family::{Family, Ip, Shape, V4, V6, Version};
use crate::layout::InterfaceEntry;
use crate::link::Link;
use crate::{Endpoint, Frame, Reason, Tuple};

/// A TCP segment whose headers lie where they should; its lengths are not checked yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The link header.
    pub link: Link,
    /// The IP header.
    pub ip: Ip,
    /// The fixed part of the TCP header.
    pub tcp: tcp::Header,
    /// Sender and receiver.
    pub tuple: Tuple,
    /// Offset of the IP header in the frame.
    pub l3: usize,
    /// Offset of the TCP header in the frame.
    pub l4: usize,
}

/// The headers of an IP packet, as far as they lie where they should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// The link header.
    pub link: Link,
    /// The IP header.
    pub ip: Ip,
    /// Offset of the IP header in the frame.
    pub l3: usize,
}

/// The IP version of `frame`, if it is IP behind at most two VLAN tags.
#[inline(always)]
pub fn version<F: Frame>(frame: &mut F) -> Option<Version> {
    let (_, ethertype) = Link::read(frame)?;
    if ethertype == V4::ETHERTYPE {
        Some(Version::V4)
    } else if ethertype == V6::ETHERTYPE {
        Some(Version::V6)
    } else {
        None
    }
}

impl Network {
    /// Reads the headers of `frame`, if it is of version `V`.
    #[inline(always)]
    pub fn read<V: Family, F: Frame>(frame: &mut F) -> Option<Self> {
        let (link, ethertype) = Link::read(frame)?;
        if ethertype != V::ETHERTYPE {
            return None;
        }
        let l3 = link.l3(frame);
        let ip = V::read(frame, l3)?;
        Some(Self { link, ip, l3 })
    }

    /// Whether it is a datagram of UDP in one piece.
    #[inline(always)]
    #[must_use]
    pub fn is_udp(&self) -> bool {
        self.ip.protocol == Protocol::UDP && self.ip.shape == Shape::Whole
    }

    /// Reads the TCP header behind these headers.
    ///
    /// # Errors
    /// What is wrong with the packet.
    #[inline(always)]
    pub fn segment<V: Family, F: Frame>(&self, frame: &mut F) -> Result<Packet, Reason> {
        let Self { link, ip, l3 } = *self;
        match ip.shape {
            Shape::Whole => {}
            Shape::Extended => return Err(Reason::IpOptions),
            Shape::Malformed | Shape::Fragment => return Err(Reason::IpMalformed),
        }
        let l4 = l3 + V::HEADER_LEN;
        let Some(tcp) =
            frame.window::<{ tcp::HEADER_LEN }>(l4).map(|bytes| tcp::Header::read(&bytes))
        else {
            return Err(Reason::TcpMalformed);
        };
        let tuple = Tuple {
            source: Endpoint { address: ip.source, port: tcp.source_port },
            destination: Endpoint { address: ip.destination, port: tcp.destination_port },
        };
        Ok(Packet { link, ip, tcp, tuple, l3, l4 })
    }

    /// Whether the frame holds the packet and was meant for `interface`, and its IP header is
    /// intact (SPEC B3).
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub fn check<V: Family, F: Frame>(
        &self,
        frame: &mut F,
        interface: Option<InterfaceEntry>,
    ) -> Result<(), Reason> {
        let Some(interface) = interface else { return Err(Reason::NotOurMac) };
        if interface.mac() != self.link.destination {
            return Err(Reason::NotOurMac);
        }
        let len = self.ip.len as usize;
        if self.l3 + len > frame.len() || len < V::HEADER_LEN || !V::is_source(self.ip.source) {
            return Err(Reason::IpMalformed);
        }
        if V::is_intact(frame, self.l3) { Ok(()) } else { Err(Reason::IpChecksum) }
    }
}

impl Packet {
    /// Which version of IP carries it.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> Version {
        Version::of(self.ip.source)
    }

    /// Bytes of payload. Only after [`Packet::lengths_hold`].
    #[inline(always)]
    #[must_use]
    pub const fn payload(&self) -> u32 {
        self.ip
            .len
            .wrapping_sub((self.l4 - self.l3) as u32)
            .wrapping_sub(self.tcp.header_len as u32)
    }

    /// What the segment takes of the sequence space: payload, SYN and FIN (RFC 9293, section
    /// 3.4). Only after [`Packet::lengths_hold`].
    #[inline(always)]
    #[must_use]
    pub const fn sequence_len(&self) -> u32 {
        let syn = self.tcp.flags.contains(tcp::Flags::SYN) as u32;
        let fin = self.tcp.flags.contains(tcp::Flags::FIN) as u32;
        self.payload().wrapping_add(syn).wrapping_add(fin)
    }

    /// Whether the packet is well formed and was meant for `interface`: what every packet to a
    /// service or a session must be (SPEC B3).
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub fn check<V: Family, F: Frame>(
        &self,
        frame: &mut F,
        interface: Option<InterfaceEntry>,
    ) -> Result<(), Reason> {
        let network = Network { link: self.link, ip: self.ip, l3: self.l3 };
        network.check::<V, F>(frame, interface)?;
        self.lengths_hold(frame.len())
    }

    /// Whether the lengths in the headers fit each other and a frame of `frame_len` bytes.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub const fn lengths_hold(&self, frame_len: usize) -> Result<(), Reason> {
        let len = self.ip.len as usize;
        let header_len = self.l4 - self.l3;
        if self.l3 + len > frame_len || len < header_len {
            return Err(Reason::IpMalformed);
        }
        let tcp_len = self.tcp.header_len as usize;
        if tcp_len < tcp::HEADER_LEN || header_len + tcp_len > len {
            return Err(Reason::TcpMalformed);
        }
        Ok(())
    }
}

/// The segment in `frame`, of either version, if its lengths hold for a frame of `len` bytes, of
/// which `frame` may hold the headers only.
pub fn parse<F: Frame>(frame: &mut F, len: usize) -> Option<Packet> {
    let packet = match version(frame)? {
        Version::V4 => segment::<V4, F>(frame)?,
        Version::V6 => segment::<V6, F>(frame)?,
    };
    packet.lengths_hold(len).ok().map(|()| packet)
}

fn segment<V: Family, F: Frame>(frame: &mut F) -> Option<Packet> {
    let network = Network::read::<V, F>(frame)?;
    if network.ip.protocol == Protocol::TCP { network.segment::<V, F>(frame).ok() } else { None }
}
