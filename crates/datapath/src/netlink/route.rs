//! Routes: asked one at a time, so that `ip rule`, VRF and multipath are honoured.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType, RouteVia,
    },
};

use super::address::family;
use super::socket::Subject;
use super::{Netlink, Result};

/// What the kernel does with packets of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on.
    Unicast,
    /// Takes them itself.
    Local,
    /// Sends them to everyone on the link.
    Broadcast,
    /// Sends them to a group.
    Multicast,
    /// Answers with "unreachable", or has no route at all.
    Unreachable,
    /// Drops them without an answer.
    Blackhole,
    /// Answers with "administratively prohibited".
    Prohibit,
    /// Something newer or rarer (`RTN_*`).
    Other(u8),
}

/// The way to one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface it leaves by; 0 where nothing leaves.
    pub link_index: u32,
    /// The next router, of either family; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel would choose.
    pub preferred_source: Option<IpAddr>,
    /// The route's own MTU in bytes, where it has one (set by hand or by path-MTU discovery).
    pub mtu: Option<u32>,
    /// What happens to the packets.
    pub kind: RouteKind,
}

/// A route to be added to the main table. One of `gateway` and `link_index` must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    /// The destination network.
    pub destination: IpAddr,
    /// Its bits, 0-32 or 0-128; 0 for a default route.
    pub prefix_len: u8,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub link_index: Option<u32>,
}

impl Netlink {
    /// The way the kernel would send a packet of its own to `destination` now (`RTM_GETROUTE`).
    /// That there is no way is an answer ([`RouteKind::Unreachable`]), not an error.
    ///
    /// # Errors
    ///
    /// Those of [`Error`](super::Error).
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Route> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = bits(destination);
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        let subject = Subject::new("look up", format!("the route to {destination}"));
        match self.query(&subject, RouteNetlinkMessage::GetRoute(message)) {
            Ok(RouteNetlinkMessage::NewRoute(message)) => Ok(Route::from_message(&message)),
            Ok(_) => Err(subject.not_understood("not a route")),
            // IPv4 reports the fate of such packets as the error their sender would get
            // (`fib_props`), IPv6 as a route of that kind.
            Err(error) => match error.os_error() {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
                    Ok(Route::without_way(RouteKind::Unreachable))
                }
                Some(libc::EACCES) => Ok(Route::without_way(RouteKind::Prohibit)),
                Some(libc::EINVAL) => Ok(Route::without_way(RouteKind::Blackhole)),
                _ => Err(error),
            },
        }
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// `EEXIST` when there is one, `ENETUNREACH` when the gateway is not on a link, and those of
    /// [`Error`](super::Error).
    pub fn add_route(&mut self, spec: &RouteSpec) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(spec.destination);
        message.header.destination_prefix_length = spec.prefix_len;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match (spec.gateway, spec.destination) {
            (None, IpAddr::V4(_)) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if spec.prefix_len > 0 {
            message.attributes.push(RouteAttribute::Destination(spec.destination.into()));
        }
        message
            .attributes
            .extend(spec.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message.attributes.extend(spec.link_index.map(RouteAttribute::Oif));
        let subject =
            Subject::new("add", format!("route to {}/{}", spec.destination, spec.prefix_len));
        self.change(&subject, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}

impl Route {
    const fn without_way(kind: RouteKind) -> Self {
        Self { link_index: 0, gateway: None, preferred_source: None, mtu: None, kind }
    }

    fn from_message(message: &RouteMessage) -> Self {
        let mut route = Self::without_way(kind(message.header.kind));
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => route.link_index = *index,
                RouteAttribute::Gateway(address) => route.gateway = ip(address),
                RouteAttribute::Via(RouteVia::Inet(address)) => {
                    route.gateway = Some((*address).into());
                }
                RouteAttribute::Via(RouteVia::Inet6(address)) => {
                    route.gateway = Some((*address).into());
                }
                RouteAttribute::PrefSource(address) => route.preferred_source = ip(address),
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        route
    }
}

fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local | RouteType::Anycast => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Prohibit => RouteKind::Prohibit,
        other => RouteKind::Other(other.into()),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
