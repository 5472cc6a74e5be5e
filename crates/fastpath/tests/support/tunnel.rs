//! Packets wrapped for a real server, written byte by byte.

use seawall_fastpath::family::Version;
use seawall_fastpath::layout::{Tunnel, Wrapping};

use super::packet::{Ip, Mac, ones_sum};

/// The outer packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) source: Ip,
    pub(crate) destination: Ip,
    pub(crate) tunnel: Tunnel,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// Identification and the fragment field.
    pub(crate) fragment: [u8; 4],
    /// What GUE is sent from.
    pub(crate) port: u16,
}

impl Outer {
    /// Bytes that it adds to a packet.
    pub(crate) fn overhead(&self) -> usize {
        let ip = if self.destination.version() == Version::V4 { 20 } else { 40 };
        ip + match (self.tunnel.wrapping, self.tunnel.checksum) {
            (Wrapping::Ipip, _) => 0,
            (Wrapping::Gue, _) => 12,
            (Wrapping::Gre, false) => 4,
            (Wrapping::Gre, true) => 8,
        }
    }

    /// The frame that carries `packet`, which is of version `inner`.
    pub(crate) fn frame(&self, to: Mac, from: Mac, inner: Version, packet: &[u8]) -> Vec<u8> {
        let ethertype = |version| match version {
            Version::V4 => [0x08, 0x00],
            Version::V6 => [0x86, 0xdd],
        };
        let mut frame = [to, from].concat();
        frame.extend(ethertype(self.destination.version()));
        let number = if inner == Version::V4 { 4 } else { 41 };
        let checksum = self.tunnel.checksum;
        let (protocol, header) = match self.tunnel.wrapping {
            Wrapping::Ipip => (number, Vec::new()),
            Wrapping::Gre => {
                let mut header = vec![if checksum { 0x80 } else { 0 }, 0];
                header.extend(ethertype(inner));
                if checksum {
                    header.extend([0; 4]);
                    let sum = !ones_sum(&[&header, packet]);
                    header[4..6].copy_from_slice(&sum.to_be_bytes());
                }
                (47, header)
            }
            Wrapping::Gue => {
                let mut header = [self.port, self.tunnel.port].map(u16::to_be_bytes).concat();
                let len = (12 + packet.len()) as u16;
                header.extend(len.to_be_bytes());
                header.extend([0, 0, 0, number, 0, 0]);
                if checksum {
                    let mut pseudo = [self.source.octets(), self.destination.octets()].concat();
                    pseudo.extend([0, 17]);
                    pseudo.extend(len.to_be_bytes());
                    let sum = !ones_sum(&[&pseudo, &header, packet]);
                    let sum = if sum == 0 { 0xffff } else { sum };
                    header[6..8].copy_from_slice(&sum.to_be_bytes());
                }
                (17, header)
            }
        };
        let len = (header.len() + packet.len()) as u16;
        match self.destination.version() {
            Version::V4 => {
                let mut ip = vec![0x45, self.tos];
                ip.extend((20 + len).to_be_bytes());
                ip.extend(self.fragment);
                ip.extend([self.ttl, protocol, 0, 0]);
                ip.extend(self.source.octets());
                ip.extend(self.destination.octets());
                let sum = !ones_sum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(ip);
            }
            Version::V6 => {
                frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([protocol, self.ttl]);
                frame.extend(self.source.octets());
                frame.extend(self.destination.octets());
            }
        }
        frame.extend(header);
        frame.extend(packet);
        frame
    }
}
