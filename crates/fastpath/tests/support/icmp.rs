//! ICMP and ICMPv6 errors, written and read byte by byte.

use seawall_fastpath::family::Version;

use super::packet::{IP, Ip, Mac, Segment, header_len, ones_sum};

/// An error about a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Error {
    pub(crate) from: Ip,
    pub(crate) to: Ip,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// What follows the checksum: the MTU, among others.
    pub(crate) rest: u32,
    pub(crate) ttl: u8,
    /// Bytes of the segment that are quoted behind its IP header, at most.
    pub(crate) quote: usize,
}

impl Error {
    /// The frame for `mac`, about the packet of `about`; tagged as that is.
    pub(crate) fn bytes(&self, mac: Mac, about: &Segment) -> Vec<u8> {
        let packet = Segment { tags: Vec::new(), ..about.clone() }.bytes().split_off(IP);
        self.limited(mac, &about.tags, &packet)
    }

    /// The same about a datagram.
    pub(crate) fn about_datagram(&self, mac: Mac, about: &Segment) -> Vec<u8> {
        self.limited(mac, &[], &about.datagram().split_off(IP))
    }

    fn limited(&self, mac: Mac, tags: &[u32], packet: &[u8]) -> Vec<u8> {
        let version = self.to.version();
        let quoted = packet.len().min(header_len(version) + self.quote);
        self.message(mac, tags, &packet[..quoted])
    }

    /// The frame for `mac`, about a packet that begins with `quoted`.
    pub(crate) fn quoting(&self, mac: Mac, quoted: &[u8]) -> Vec<u8> {
        self.message(mac, &[], quoted)
    }

    fn message(&self, mac: Mac, tags: &[u32], quoted: &[u8]) -> Vec<u8> {
        let version = self.to.version();
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.rest.to_be_bytes());
        message.extend(quoted);
        let checksum = !self.sum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = mac.to_vec();
        frame.extend([2, 0, 0, 0, 0, 0x77]);
        frame.extend(tags.iter().flat_map(|tag| tag.to_be_bytes()));
        let len = message.len() as u16;
        match version {
            Version::V4 => {
                let mut header = vec![0x45, 0xc0];
                header.extend((20 + len).to_be_bytes());
                header.extend([0x12, 0x34, 0, 0, self.ttl, 1, 0, 0]);
                header.extend(self.from.octets());
                header.extend(self.to.octets());
                let sum = !ones_sum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(header);
            }
            Version::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([58, self.ttl]);
                frame.extend(self.from.octets());
                frame.extend(self.to.octets());
            }
        }
        frame.extend(message);
        frame
    }

    /// The sum that the message's checksum completes (RFC 792; RFC 4443, section 2.3).
    fn sum(&self, message: &[u8]) -> u16 {
        match self.to.version() {
            Version::V4 => ones_sum(&[message]),
            Version::V6 => {
                let mut pseudo = [self.from.octets(), self.to.octets()].concat();
                pseudo.extend((message.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, 58]);
                ones_sum(&[&pseudo, message])
            }
        }
    }
}
