//! Changes of links, addresses, routes and neighbours, as the kernel announces them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::socket::{parse_datagram, receive_datagram};
use super::{Address, Error, Link, Neighbour, NeighbourKey, Result};

/// Bytes asked for as the socket's receive buffer (the kernel caps it at `net.core.rmem_max`): a
/// whole neighbour table may change at once. When it is full, [`Event::Overrun`] says so.
const RECEIVE_BUFFER: u32 = 4 * 1024 * 1024;

/// The multicast groups of interest (`RTMGRP_*`).
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE) as u32;

/// A change in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface is there, or has changed.
    Link(Link),
    /// An interface is gone.
    LinkGone {
        /// Its number.
        index: u32,
        /// The name it had.
        name: String,
    },
    /// A neighbour is there, or has changed; look at its state.
    Neighbour(Neighbour),
    /// A neighbour was forgotten.
    NeighbourGone(NeighbourKey),
    /// An interface has an address.
    Address(Address),
    /// An interface has lost an address.
    AddressGone(Address),
    /// Some route was added, changed or removed: ask again for those that matter.
    Route,
    /// Events were lost, or could not be read: read everything anew.
    Overrun,
}

/// A subscription to the changes of the namespace it was opened in.
///
/// Never blocks: wait with poll(2) or epoll(7) on [`AsFd`], then call
/// [`next_event`](Self::next_event) until it returns `None`.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
    pending: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace. What is read with a
    /// [`Netlink`](super::Netlink) after this, together with the events, misses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] when the socket cannot be made.
    pub fn open() -> Result<Self> {
        let at = |action| move |source| Error::Socket { action, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(at("open"))?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER).map_err(at("enlarge the buffer of"))?;
        socket.bind(&SocketAddr::new(0, GROUPS)).map_err(at("subscribe with"))?;
        socket.set_non_blocking(true).map_err(at("unblock"))?;
        Ok(Self { socket, buffer: Vec::new(), pending: VecDeque::new() })
    }

    /// The next change, or `None` when there is none for now.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] when the socket fails for another reason than lost events.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let bytes = match receive_datagram(&self.socket, &mut self.buffer) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_loss(&error) => return Ok(Some(Event::Overrun)),
                Err(source) => return Err(Error::Socket { action: "receive from", source }),
            };
            match parse_datagram(bytes) {
                Ok(messages) => self.pending.extend(messages.into_iter().filter_map(event)),
                Err(_) => return Ok(Some(Event::Overrun)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_loss(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS) || error.kind() == io::ErrorKind::InvalidData
}

/// `None` for what is of no interest here.
fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
    let message = match message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Event::Overrun),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(message) if is_plain(&message) => {
            Some(Event::Link(Link::from_message(&message)))
        }
        RouteNetlinkMessage::DelLink(message) if is_plain(&message) => {
            let Link { index, name, .. } = Link::from_message(&message);
            Some(Event::LinkGone { index, name })
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            Neighbour::from_message(&message).map(Event::Neighbour)
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            Neighbour::from_message(&message).map(|gone| Event::NeighbourGone(gone.key()))
        }
        RouteNetlinkMessage::NewAddress(message) => {
            Address::from_message(&message).map(Event::Address)
        }
        RouteNetlinkMessage::DelAddress(message) => {
            Address::from_message(&message).map(Event::AddressGone)
        }
        RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Some(Event::Route),
        _ => None,
    }
}

/// Bridges announce their ports' membership as links of family `AF_BRIDGE`: a "deleted" one has
/// only left the bridge.
fn is_plain(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}
