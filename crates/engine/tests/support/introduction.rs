//! What a real server is to be told of its client, written byte by byte.

use seawall_engine::ProxyProtocol;
use seawall_fastpath::family::Version;
use std::net::IpAddr;

use super::packet::{Ip, Opt};

/// The TOA option for a client (alibaba/LVS, `toa.h`).
pub(crate) fn toa(client: (Ip, u16)) -> Opt {
    let kind = match client.0.version() {
        Version::V4 => 254,
        Version::V6 => 253,
    };
    Opt::Other(kind, [&client.1.to_be_bytes()[..], &client.0.octets()].concat())
}

/// The PROXY header for a client of `vip` (HAProxy, `doc/proxy-protocol.txt`).
pub(crate) fn proxy_header(protocol: ProxyProtocol, client: (Ip, u16), vip: (Ip, u16)) -> Vec<u8> {
    let (from, to) = (IpAddr::from(client.0), IpAddr::from(vip.0));
    let (family, code) = if from.is_ipv4() { ("TCP4", 0x11) } else { ("TCP6", 0x21) };
    match protocol {
        ProxyProtocol::V1 => {
            format!("PROXY {family} {from} {to} {} {}\r\n", client.1, vip.1).into_bytes()
        }
        ProxyProtocol::V2 => {
            let addresses = [client.0.octets(), vip.0.octets()].concat();
            let mut header = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21".to_vec();
            header.extend([code, 0, addresses.len() as u8 + 4]);
            header.extend(addresses);
            header.extend([client.1, vip.1].into_iter().flat_map(u16::to_be_bytes));
            header
        }
    }
}
