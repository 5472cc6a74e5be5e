//! ICMP errors about a session (SPEC C2): path-MTU discovery works through us because what a
//! router says of a segment that we sent reaches whoever it came from, as if about that one's own
//! (IPVS: `ip_vs_nat_icmp`; RFC 5508, section 4).
//!
//! Anybody can send these, so they are held against the session first (RFC 5927, section 4.1): the
//! quoted sequence number must be one that may be in flight. A datagram has none: an error about one
//! need only name a session, as with IPVS, and is no more than an error to whom it reaches.

use seawall_wire::checksum::Update;
use seawall_wire::icmp::{self, Kind};
use seawall_wire::ipv4::Protocol;
use seawall_wire::udp::update_checksum;
use seawall_wire::{Bytes, SeqNumber, tcp};

use crate::decision::Decision;
use crate::family::{Family, Ip, Readdress, Shape};
use crate::layout::{Settings, Slot, Word, flag};
use crate::packet::Network;
use crate::tables::{Hit, Tables, find};
use crate::translate::{onward, relink};
use crate::{
    Direction, Endpoint, Frame, Reason, TcpState, Transport, Tuple, past, tunnel, wrapped,
};

/// How far behind the last acknowledgment a quoted segment may be: acknowledged since.
const SLACK: u32 = 0xffff;

/// The packet that an error quotes: the IP header, and the eight bytes that RFC 792 promises of what
/// follows.
#[derive(Clone, Copy)]
struct Quoted {
    ip: Ip,
    transport: Transport,
    /// Ports, the sender's first.
    ports: u32,
    /// The sequence number of a segment; length and checksum of a datagram.
    second: u32,
    l3: usize,
    l4: usize,
}

impl Quoted {
    #[inline(always)]
    fn read<V: Family, F: Frame>(frame: &mut F, ip: Ip, l3: usize) -> Option<Self> {
        let transport = match ip.protocol {
            Protocol::TCP => Transport::Tcp,
            Protocol::UDP => Transport::Udp,
            _ => return None,
        };
        let l4 = l3 + V::HEADER_LEN;
        let bytes = frame.window::<8>(l4)?;
        let (ports, second) = (bytes.u32(0), bytes.u32(4));
        Some(Self { ip, transport, ports, second, l3, l4 })
    }

    /// The tuple of packets that go the way the error goes.
    #[inline(always)]
    const fn answered(&self) -> Tuple {
        Tuple {
            source: Endpoint { address: self.ip.destination, port: self.ports as u16 },
            destination: Endpoint { address: self.ip.source, port: (self.ports >> 16) as u16 },
        }
    }
}

/// What an error is about.
#[derive(Clone, Copy)]
pub(crate) enum About {
    /// A segment of a session.
    Session(Subject),
    /// A packet around others that a router says is too big; perhaps one of ours.
    Wrapped,
    /// Nothing of ours.
    Other,
}

/// A segment that an error is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    quoted: Quoted,
    /// The slot of its session.
    pub(crate) index: u32,
    /// Which way the error goes in the session.
    pub(crate) direction: Direction,
    /// The hash of the tuple of what goes that way.
    pub(crate) hash: u64,
}

impl Subject {
    /// Whether the packet, which the real server sent the client of `slot` itself, may be in flight; of a
    /// datagram nobody can tell.
    #[inline(always)]
    pub(crate) fn may_be_in_flight(&self, slot: &Slot) -> bool {
        if matches!(self.quoted.transport, Transport::Udp) {
            return true;
        }
        let flow = &slot.inbound;
        let reach = flow.window.load().wrapping_add(SLACK);
        SeqNumber(self.quoted.second).since(SeqNumber(flow.ack.load()).sub(SLACK)) <= reach
    }
}

/// What the packet of the protocol [`Family::ICMP`] is about.
#[inline(always)]
pub(crate) fn about<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    settings: &Settings,
    tables: &T,
) -> About {
    let at = network.l3 + V::HEADER_LEN;
    let Some(kind) = frame.window::<2>(at).map(|bytes| Kind::read(&bytes)) else {
        return About::Other;
    };
    if !V::is_error(kind) || network.ip.shape != Shape::Whole {
        return About::Other;
    }
    let l3 = at + icmp::HEADER_LEN;
    let Some(ip) = V::read(frame, l3) else { return About::Other };
    if ip.source != network.ip.destination || ip.shape != Shape::Whole {
        return About::Other;
    }
    let no_session = if kind == V::TOO_BIG && tunnel::may_wrap(ip.protocol) {
        About::Wrapped
    } else {
        About::Other
    };
    let Some(quoted) = Quoted::read::<V, F>(frame, ip, l3) else { return no_session };
    let tuple = quoted.answered();
    let hash = tuple.hash(quoted.transport, settings.index_key.get());
    match find(tables, settings, quoted.transport, &tuple, hash) {
        Some(Hit { index, direction, .. }) => {
            About::Session(Subject { quoted, index, direction, hash })
        }
        None => no_session,
    }
}

/// What to do with a packet of the protocol [`Family::ICMP`].
#[inline(always)]
pub(crate) fn decide<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    ingress: u32,
    settings: &Settings,
    tables: &T,
) -> Decision {
    const PASS: Decision = Decision::pass(Reason::PassNotOurs);
    let about = match about::<V, F, T>(frame, network, settings, tables) {
        About::Session(about) => about,
        About::Wrapped => {
            return wrapped::decide::<V, F, T>(frame, network, ingress, settings, tables);
        }
        About::Other => return PASS,
    };
    let Subject { quoted, index, direction, .. } = about;
    let Some(slot) = tables.slot(index) else { return PASS };
    let word = slot.state();
    if word.state == TcpState::None || word.state == TcpState::SynSent {
        // What we sent ourselves concerns nobody else.
        return PASS;
    }
    if let Err(reason) = network.check::<V, F>(frame, tables.interface(ingress)) {
        return Decision::drop(reason);
    }
    if word.flags & flag::ONE_WAY != 0 {
        return past::error::<V, F, T>(frame, network, &about, slot, settings, tables);
    }
    let (hop, reason) = match direction {
        Direction::Inbound => (slot.next_hop_in.load(), Reason::IcmpIn),
        Direction::Outbound => (slot.next_hop_out.load(), Reason::IcmpOut),
    };
    let Some(next_hop) = tables.next_hop(hop) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let link = match onward(&network.ip, next_hop) {
        Ok(link) => link,
        Err(fault) => return Decision::drop(fault),
    };
    if let Err(fault) = translate::<V, F>(frame, network, &quoted, direction, slot, word) {
        return Decision::drop(fault);
    }
    match relink::<V, F>(frame, network.l3, link) {
        Ok(()) => Decision::send(next_hop.interface.load(), reason),
        Err(fault) => Decision::drop(fault),
    }
}

/// Makes an error about a packet of one side of a session one about the same packet of the other.
#[inline(always)]
fn translate<V: Family, F: Frame>(
    frame: &mut F,
    network: &Network,
    quoted: &Quoted,
    direction: Direction,
    slot: &Slot,
    word: Word,
) -> Result<(), Reason> {
    let f = slot.f.load();
    // The quoted segment goes the other way; its numbers are translated back. What was
    // acknowledged is known as the client counts.
    let seq = SeqNumber(quoted.second);
    let is_tcp = matches!(quoted.transport, Transport::Tcp);
    let (seq, ack_add, as_the_client_counts) = match direction {
        Direction::Inbound => (seq.sub(word.d), f, seq),
        Direction::Outbound => (seq.sub(f), word.d, seq.sub(f)),
    };
    let flow = slot.flow(direction);
    let reach = flow.window.load().wrapping_add(SLACK);
    if is_tcp && as_the_client_counts.since(SeqNumber(flow.ack.load()).sub(SLACK)) > reach {
        return Err(Reason::IcmpInvalid);
    }

    let to = slot.translated(direction);
    // The router that it comes from is a stranger on the other side, except under NAT, where
    // nothing hides (IPVS keeps it too).
    let is_nat = direction == Direction::Inbound
        && to.source == slot.translated(Direction::Outbound).destination;
    let message = Readdress {
        source: if is_nat { network.ip.source } else { to.source.address },
        destination: to.destination.address,
        ttl: network.ip.ttl.wrapping_sub(1),
    };
    let packet = Readdress {
        source: to.destination.address,
        destination: to.source.address,
        ttl: quoted.ip.ttl,
    };
    if !V::has(packet.source) || !V::has(packet.destination) {
        return Err(Reason::NotSetUp);
    }
    let ports = to.ports().rotate_left(16);
    let second = if is_tcp {
        seq.0
    } else {
        let update = V::update(Update::new(), &quoted.ip, &packet).dword(quoted.ports, ports);
        let checksum = update_checksum(quoted.second as u16, update);
        quoted.second & 0xffff_0000 | checksum as u32
    };
    let update = V::update_message(Update::new(), &network.ip, &message);
    let update = V::update_quoted(update, &quoted.ip, &packet)
        .dword(quoted.ports, ports)
        .dword(quoted.second, second);
    let Some(()) = frame.window::<8>(quoted.l4).map(|mut bytes| {
        bytes.set_u32(0, ports);
        bytes.set_u32(4, second);
    }) else {
        return Err(Reason::IcmpInvalid);
    };
    // Most routers quote more (RFC 1812, section 4.3.2.3), and then all of it fits.
    let whole = is_tcp && quoted.l4 + tcp::HEADER_LEN <= network.l3 + network.ip.len as usize;
    let update = if whole {
        let rest = frame.window::<12>(quoted.l4 + 8).map(|mut bytes| {
            let (ack, checksum) = (bytes.u32(0), bytes.u16(8));
            let has_ack = bytes.u16(4) & tcp::Flags::ACK.0 != 0;
            let new_ack = if has_ack { ack.wrapping_add(ack_add) } else { ack };
            let new_checksum = V::update(Update::new(), &quoted.ip, &packet)
                .dword(quoted.ports, ports)
                .dword(quoted.second, second)
                .dword(ack, new_ack)
                .apply(checksum);
            bytes.set_u32(0, new_ack);
            bytes.set_u16(8, new_checksum);
            update.dword(ack, new_ack).word(checksum, new_checksum)
        });
        let Some(update) = rest else { return Err(Reason::IcmpInvalid) };
        update
    } else {
        update
    };
    let checksum_at = network.l3 + V::HEADER_LEN + 2;
    let Some(()) = frame.window::<2>(checksum_at).map(|mut bytes| {
        let checksum = update.apply(bytes.u16(0));
        bytes.set_u16(0, checksum);
    }) else {
        return Err(Reason::IcmpInvalid);
    };
    let Some(()) = V::readdress(frame, quoted.l3, &quoted.ip, &packet) else {
        return Err(Reason::IcmpInvalid);
    };
    match V::readdress(frame, network.l3, &network.ip, &message) {
        Some(()) => Ok(()),
        None => Err(Reason::IcmpInvalid),
    }
}
