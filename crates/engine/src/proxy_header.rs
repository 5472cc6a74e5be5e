//! The header of the PROXY protocol (HAProxy, `doc/proxy-protocol.txt`): who the client is and whom
//! it asked, in front of what it says.

use std::io::Write;
use std::net::IpAddr;

use seawall_fastpath::Endpoint;
use seawall_fastpath::layout::Ends;

/// Longest header: version 1 over IPv6 (section 2.1).
const MAX_LEN: usize = 107;
/// Version 2 begins with it (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, "PROXY".
const VERSION_COMMAND: u8 = 0x21;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Versions of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProxyHeader {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl ProxyHeader {
    /// The header of a session.
    pub(crate) fn new(protocol: ProxyProtocol, ends: &Ends) -> Self {
        let mut header = Self { bytes: [0; MAX_LEN], len: 0 };
        match protocol {
            ProxyProtocol::V1 => header.write_text(ends),
            ProxyProtocol::V2 => header.write_binary(ends),
        }
        header
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn write_text(&mut self, ends: &Ends) {
        let (client, vip) = (ip(ends.client), ip(ends.vip));
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let mut rest = &mut self.bytes[..];
        let (from, to) = (ends.client.port, ends.vip.port);
        // The longest there is fits.
        let _ = write!(rest, "PROXY {family} {client} {vip} {from} {to}\r\n");
        self.len = MAX_LEN - rest.len();
    }

    fn write_binary(&mut self, ends: &Ends) {
        self.put(&SIGNATURE);
        match (ip(ends.client), ip(ends.vip)) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                self.put(&[VERSION_COMMAND, TCP4, 0, 12]);
                self.put(&client.octets());
                self.put(&vip.octets());
            }
            (client, vip) => {
                self.put(&[VERSION_COMMAND, TCP6, 0, 36]);
                for address in [client, vip] {
                    match address {
                        IpAddr::V4(address) => self.put(&address.to_ipv6_mapped().octets()),
                        IpAddr::V6(address) => self.put(&address.octets()),
                    }
                }
            }
        }
        self.put(&ends.client.port.to_be_bytes());
        self.put(&ends.vip.port.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
            self.len += 1;
        }
    }
}

fn ip(end: Endpoint) -> IpAddr {
    end.address.into()
}

#[cfg(test)]
mod tests {
    use super::{MAX_LEN, ProxyHeader, ProxyProtocol};
    use seawall_fastpath::Endpoint;
    use seawall_fastpath::layout::Ends;

    fn ends(client: &str, vip: &str) -> Ends {
        let end = |text: &str| -> Endpoint {
            text.parse::<std::net::SocketAddr>().expect("an address").into()
        };
        Ends { client: end(client), vip: end(vip), local: end(client), real: end(vip) }
    }

    /// The examples of section 2.1.
    #[test]
    fn version_1_is_a_line() {
        let v4 = ends("192.168.0.1:56324", "192.168.0.11:443");
        let header = ProxyHeader::new(ProxyProtocol::V1, &v4);
        assert_eq!(header.bytes(), b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        let v6 = ends("[2001:db8::1]:1", "[2001:db8::fe]:65535");
        let header = ProxyHeader::new(ProxyProtocol::V1, &v6);
        assert_eq!(header.bytes(), b"PROXY TCP6 2001:db8::1 2001:db8::fe 1 65535\r\n");
    }

    /// Section 2.1: the worst case but for the "UNKNOWN" that we never say.
    #[test]
    fn the_longest_fits() {
        let long = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let header = ProxyHeader::new(ProxyProtocol::V1, &ends(long, long));
        assert_eq!(header.bytes().len(), 104);
        assert!(header.bytes().len() <= MAX_LEN && header.bytes().ends_with(b"65535 65535\r\n"));
    }

    /// Section 2.2, byte by byte.
    #[test]
    fn version_2_is_binary() {
        let header = ProxyHeader::new(ProxyProtocol::V2, &ends("10.1.2.3:258", "10.0.0.254:80"));
        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
            12, 10, 1, 2, 3, 10, 0, 0, 254, 1, 2, 0, 80,
        ];
        assert_eq!(header.bytes(), expected);
        let v6 = ends("[2001:db8::1]:258", "[2001:db8::fe]:80");
        let header = ProxyHeader::new(ProxyProtocol::V2, &v6);
        let mut expected = expected[..12].to_vec();
        expected.extend([0x21, 0x21, 0, 36]);
        for last in [1, 0xfe] {
            expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        expected.extend([1, 2, 0, 80]);
        assert_eq!(header.bytes(), expected);
    }
}
