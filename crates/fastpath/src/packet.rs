//! From a frame to the headers that the decision needs.

use seawall_wire::ethernet::{self, EtherType};
use seawall_wire::ipv4::{self, Protocol};
use seawall_wire::tcp;

use crate::layout::InterfaceEntry;
use crate::{Addr, Endpoint, Frame, Reason, Tuple};

/// A TCP segment whose headers lie where they should; its lengths are not checked yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The Ethernet header.
    pub ethernet: ethernet::Header,
    /// The IPv4 header.
    pub ip: ipv4::Header,
    /// The fixed part of the TCP header.
    pub tcp: tcp::Header,
    /// Sender and receiver.
    pub tuple: Tuple,
    /// Offset of the IP header in the frame.
    pub l3: usize,
    /// Offset of the TCP header in the frame.
    pub l4: usize,
}

/// The headers of an IPv4 packet, as far as they lie where they should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// The Ethernet header.
    pub ethernet: ethernet::Header,
    /// The fixed part of the IPv4 header.
    pub ip: ipv4::Header,
}

impl Network {
    /// Reads the headers of `frame`, if it is IPv4.
    #[inline(always)]
    pub fn read<F: Frame>(frame: &mut F) -> Option<Self> {
        let ethernet = frame
            .window::<{ ethernet::HEADER_LEN }>(0)
            .map(|bytes| ethernet::Header::read(&bytes))?;
        if ethernet.ethertype != EtherType::IPV4 {
            return None;
        }
        let ip = frame
            .window::<{ ipv4::HEADER_LEN }>(ethernet::HEADER_LEN)
            .map(|bytes| ipv4::Header::read(&bytes))?;
        Some(Self { ethernet, ip })
    }

    /// Whether this is TCP and not a fragment of it.
    #[inline(always)]
    #[must_use]
    pub fn is_segment(&self) -> bool {
        self.ip.protocol == Protocol::TCP && !self.ip.is_fragment()
    }

    /// Reads the TCP header behind these headers.
    ///
    /// # Errors
    /// What is wrong with the packet.
    #[inline(always)]
    pub fn segment<F: Frame>(&self, frame: &mut F) -> Result<Packet, Reason> {
        let Self { ethernet, ip } = *self;
        if ip.version != 4 || (ip.header_len as usize) < ipv4::HEADER_LEN {
            return Err(Reason::IpMalformed);
        }
        if ip.header_len as usize > ipv4::HEADER_LEN {
            return Err(Reason::IpOptions);
        }
        let l3 = ethernet::HEADER_LEN;
        let l4 = l3 + ipv4::HEADER_LEN;
        let Some(tcp) =
            frame.window::<{ tcp::HEADER_LEN }>(l4).map(|bytes| tcp::Header::read(&bytes))
        else {
            return Err(Reason::TcpMalformed);
        };
        let tuple = Tuple {
            source: Endpoint { address: Addr::v4(ip.source), port: tcp.source_port },
            destination: Endpoint { address: Addr::v4(ip.destination), port: tcp.destination_port },
        };
        Ok(Packet { ethernet, ip, tcp, tuple, l3, l4 })
    }
}

impl Packet {
    /// Bytes of payload. Only after [`Packet::check`].
    #[inline(always)]
    #[must_use]
    pub const fn payload(&self) -> u32 {
        (self.ip.total_len as u32)
            .wrapping_sub(self.ip.header_len as u32)
            .wrapping_sub(self.tcp.header_len as u32)
    }

    /// What the segment takes of the sequence space: payload, SYN and FIN (RFC 9293, section
    /// 3.4). Only after [`Packet::check`].
    #[inline(always)]
    #[must_use]
    pub const fn sequence_len(&self) -> u32 {
        let syn = self.tcp.flags.contains(tcp::Flags::SYN) as u32;
        let fin = self.tcp.flags.contains(tcp::Flags::FIN) as u32;
        self.payload().wrapping_add(syn).wrapping_add(fin)
    }

    /// Whether the lengths in the headers fit each other and a frame of `frame_len` bytes.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub const fn lengths_hold(&self, frame_len: usize) -> Result<(), Reason> {
        let total_len = self.ip.total_len as usize;
        let headers = ipv4::HEADER_LEN + self.tcp.header_len as usize;
        if self.l3 + total_len > frame_len || total_len < ipv4::HEADER_LEN {
            return Err(Reason::IpMalformed);
        }
        if (self.tcp.header_len as usize) < tcp::HEADER_LEN || headers > total_len {
            return Err(Reason::TcpMalformed);
        }
        Ok(())
    }

    /// Whether the packet is well formed and was meant for `interface`: what every packet to a
    /// service or a session must be (SPEC B3).
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub fn check<F: Frame>(
        &self,
        frame: &mut F,
        interface: Option<InterfaceEntry>,
    ) -> Result<(), Reason> {
        let Some(interface) = interface else { return Err(Reason::NotOurMac) };
        if interface.mac() != self.ethernet.destination {
            return Err(Reason::NotOurMac);
        }
        self.lengths_hold(frame.len())?;
        match frame.window::<{ ipv4::HEADER_LEN }>(self.l3) {
            Some(bytes) if ipv4::Header::checksum_holds(&bytes) => Ok(()),
            _ => Err(Reason::IpChecksum),
        }
    }
}
