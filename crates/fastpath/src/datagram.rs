//! UDP: a session a flow, whose first datagram the engine places and whose others are translated
//! here, both ways.
//!
//! There is no handshake, so nothing ever proves a client's address. What stands in for proof is a
//! conversation: a session begins in SYN_RECV, the real server's first datagram marks it answered
//! ([`flag::ANSWERED`]), and a datagram of the client's after that confirms it: ESTABLISHED, which
//! the engine is told. (Linux's connection tracking calls a flow assured when that happens two seconds
//! after its first datagram or later: `nf_conntrack_udp_packet` in
//! `net/netfilter/nf_conntrack_proto_udp.c`.) Whoever sends from addresses that are not its own
//! may confirm sessions where it guesses when the answer has come, so all UDP sessions together
//! have only a share of the table (SPEC B6; the engine's `udp` module). No other state exists, and
//! no datagram ends a session.
//!
//! The checksum is updated (RFC 1624), so corruption stays visible; over IPv4 a datagram without one
//! stays without (RFC 768), over IPv6 it is dropped (RFC 8200, section 8.1). Fragments are not put
//! together: they never come here. One that is larger than the next link is answered as TCP's are
//! ([`crate::too_big`]).

use seawall_wire::Bytes;
use seawall_wire::checksum::Update;
use seawall_wire::udp::{self, HEADER_LEN, update_checksum};

use crate::decision::Decision;
use crate::detour::ours;
use crate::family::{Family, Readdress, V4, V6, Version};
use crate::layout::{
    AddressEntry, AddressKey, InterfaceEntry, NextHop, RecordKind, ServiceEntry, ServiceKey,
    Settings, Slot, Word, flag, switch,
};
use crate::packet::{self, Network};
use crate::plan::Owner;
use crate::process::{Change, Record, decide_stray, punt, tell};
use crate::tables::{Tables, find};
use crate::too_big::{self, Limit};
use crate::translate::{onward, relink};
use crate::{Direction, Endpoint, Frame, Reason, TcpState, Transport, Tuple, past};

/// A datagram whose headers lie where they should; its lengths are not checked yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The headers in front of the UDP header.
    pub network: Network,
    /// The UDP header.
    pub udp: udp::Header,
    /// Sender and receiver.
    pub tuple: Tuple,
    /// Offset of the UDP header in the frame.
    pub l4: usize,
}

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forwarded {
    /// Interface to leave by.
    pub interface: u32,
    /// It confirmed the session.
    pub confirmed: bool,
}

impl Datagram {
    /// Reads the UDP header behind the headers in `network`, whose packet is whole.
    #[inline(always)]
    fn read<V: Family, F: Frame>(frame: &mut F, network: Network) -> Option<Self> {
        let l4 = network.l3 + V::HEADER_LEN;
        let udp = frame.window::<HEADER_LEN>(l4).map(|bytes| udp::Header::read(&bytes))?;
        let tuple = Tuple {
            source: Endpoint { address: network.ip.source, port: udp.source_port },
            destination: Endpoint { address: network.ip.destination, port: udp.destination_port },
        };
        Some(Self { network, udp, tuple, l4 })
    }

    /// Whether the datagram is well formed and was meant for `interface`.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    fn check<V: Family, F: Frame>(
        &self,
        frame: &mut F,
        interface: Option<InterfaceEntry>,
    ) -> Result<(), Reason> {
        self.network.check::<V, F>(frame, interface)?;
        if !self.length_holds() {
            return Err(Reason::UdpMalformed);
        }
        if matches!(V::VERSION, Version::V6) && self.udp.checksum == 0 {
            return Err(Reason::UdpChecksumMissing);
        }
        Ok(())
    }

    /// Whether the length in the UDP header fits the packet (RFC 768; what follows the datagram in
    /// its packet is nobody's business). Jumbograms (RFC 2675) are larger than any frame here.
    #[inline(always)]
    const fn length_holds(&self) -> bool {
        let header_len = (self.l4 - self.network.l3) as u32;
        let len = self.udp.len as u32;
        len >= HEADER_LEN as u32 && header_len + len <= self.network.ip.len
    }
}

/// The datagram in `frame`, of either version, if its lengths hold for a frame of `len` bytes, of
/// which `frame` may hold the headers only.
pub fn parse<F: Frame>(frame: &mut F, len: usize) -> Option<Datagram> {
    let datagram = match packet::version(frame)? {
        Version::V4 => parse_as::<V4, F>(frame)?,
        Version::V6 => parse_as::<V6, F>(frame)?,
    };
    let fits = datagram.network.l3 + datagram.network.ip.len as usize <= len;
    (fits && datagram.length_holds()).then_some(datagram)
}

fn parse_as<V: Family, F: Frame>(frame: &mut F) -> Option<Datagram> {
    let network = Network::read::<V, F>(frame)?;
    if network.is_udp() { Datagram::read::<V, F>(frame, network) } else { None }
}

/// What to do with a datagram that is whole.
#[inline(always)]
pub(crate) fn decide<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    network: &Network,
    ingress: u32,
    settings: &Settings,
    tables: &T,
) -> Decision {
    let Some(datagram) = Datagram::read::<V, F>(frame, *network) else {
        return match tables.address(&AddressKey(network.ip.destination)) {
            Some(_) => Decision::drop(Reason::UdpMalformed),
            None => Decision::pass(Reason::PassNotOurs),
        };
    };
    let tuple = &datagram.tuple;
    let service = tables.service(&ServiceKey::udp(tuple.destination));
    let hash = tuple.hash(Transport::Udp, settings.index_key.get());
    let mut owner = Owner::new(find(tables, settings, Transport::Udp, tuple, hash));
    owner.set_service(service);
    if !owner.is_service
        && settings.switches.load() & switch::ANY_PORT != 0
        && (!owner.is_session() || matches!(owner.direction, Direction::Inbound))
    {
        let key = ServiceKey::any(Transport::Udp, tuple.destination.address);
        owner.set_service(tables.service(&key));
    }
    if !owner.is_service && !owner.is_session() {
        return decide_unowned(tuple.destination, settings, tables);
    }
    if let Err(reason) = datagram.check::<V, F>(frame, tables.interface(ingress)) {
        return Decision::drop(reason);
    }
    let now = tables.now();
    if owner.is_session() {
        let Some(slot) = tables.slot(owner.slot) else {
            return Decision::drop(Reason::NotSetUp);
        };
        if slot.state().state != TcpState::None {
            return pass_on::<V, F, T>(
                frame, &datagram, hash, settings, tables, ingress, now, &owner,
            );
        }
        // Given back between the look-up and now: there is no session.
    }
    if !owner.is_service {
        return Decision::drop(Reason::UdpDrop);
    }
    if !owner.service.has(ServiceEntry::USABLE) {
        return Decision::drop(Reason::NoDestinationUnproxied);
    }
    let owner = Owner { slot: 0, ..owner };
    let record = Record { kind: RecordKind::Datagram, ingress, owner, detail: 0, now };
    punt(frame, settings, tables, &record)
}

/// UDP that is for no service and no session (SPEC B2).
#[inline(always)]
fn decide_unowned<T: Tables>(destination: Endpoint, settings: &Settings, tables: &T) -> Decision {
    if let Some(entry) = tables.address(&AddressKey(destination.address))
        && entry.flags & AddressEntry::VIP != 0
        && settings.switches.load() & switch::UDP_DROP != 0
    {
        return Decision::drop(Reason::UdpDrop);
    }
    decide_stray(destination, tables)
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "all that there is, and nothing that could be swapped"
)]
fn pass_on<V: Family, F: Frame, T: Tables>(
    frame: &mut F,
    datagram: &Datagram,
    hash: u64,
    settings: &Settings,
    tables: &T,
    ingress: u32,
    now: u64,
    owner: &Owner,
) -> Decision {
    let Some(slot) = tables.slot(owner.slot) else { return Decision::drop(Reason::NotSetUp) };
    let inbound = matches!(owner.direction, Direction::Inbound);
    let flags = slot.state().flags;
    if inbound && flags & flag::NO_SERVER != 0 {
        return Decision::drop(Reason::NoServer);
    }
    if flags & flag::ONE_WAY != 0 {
        return past::datagram::<V, F, T>(
            frame, datagram, hash, slot, settings, ingress, tables, now,
        );
    }
    let reason = if inbound { Reason::ForwardIn } else { Reason::ForwardOut };
    let Some(next_hop) = tables.next_hop(slot.next_hop(owner.direction)) else {
        return Decision::drop(Reason::NextHopMissing);
    };
    let network = &datagram.network;
    let mtu = next_hop.mtu.load();
    if network.ip.len > mtu && next_hop.destination().is_some() && network.ip.ttl > 1 {
        let from = ours(&datagram.tuple, owner.direction, slot);
        let limit = Limit { mtu, from, link: network.link.reversed(), interface: ingress };
        return too_big::answer::<V, F>(frame, &network.ip, network.l3, &limit, settings);
    }
    let forwarded = match forward_as::<V, F>(frame, datagram, owner.direction, slot, next_hop, now)
    {
        Ok(forwarded) => forwarded,
        Err(reason) => return Decision::drop(reason),
    };
    if forwarded.confirmed {
        let state = TcpState::Established;
        tell(frame, tables, ingress, now, &Change { slot, index: owner.slot, state });
    }
    Decision::send(forwarded.interface, reason)
}

/// Translates the checked `datagram` in `frame` for the session in `slot`, addresses it to
/// `next_hop`, counts it, and notes that its side has spoken.
///
/// # Errors
/// The reason to drop it; the frame may have changed, the session has not.
pub fn forward<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    direction: Direction,
    slot: &Slot,
    next_hop: &NextHop,
    now: u64,
) -> Result<Forwarded, Reason> {
    match Version::of(datagram.tuple.source.address) {
        Version::V4 => forward_as::<V4, F>(frame, datagram, direction, slot, next_hop, now),
        Version::V6 => forward_as::<V6, F>(frame, datagram, direction, slot, next_hop, now),
    }
}

#[inline(always)]
fn forward_as<V: Family, F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    direction: Direction,
    slot: &Slot,
    next_hop: &NextHop,
    now: u64,
) -> Result<Forwarded, Reason> {
    let Network { ip, l3, .. } = datagram.network;
    let link = onward(&ip, next_hop)?;
    let to = slot.translated(direction);
    let readdress = Readdress {
        source: to.source.address,
        destination: to.destination.address,
        ttl: ip.ttl.wrapping_sub(1),
    };
    if !V::has(readdress.source) || !V::has(readdress.destination) {
        return Err(Reason::NotSetUp);
    }
    let update =
        V::update(Update::new(), &ip, &readdress).dword(datagram.tuple.ports(), to.ports());
    let Some(()) = frame.window::<HEADER_LEN>(datagram.l4).map(|mut bytes| {
        bytes.set_u32(0, to.ports());
        bytes.set_u16(6, update_checksum(datagram.udp.checksum, update));
    }) else {
        return Err(Reason::UdpMalformed);
    };
    let Some(()) = V::readdress(frame, l3, &ip, &readdress) else {
        return Err(Reason::IpMalformed);
    };
    relink::<V, F>(frame, l3, link)?;
    slot.flow(direction).count(ip.len, now);
    Ok(Forwarded { interface: next_hop.interface.load(), confirmed: advance(direction, slot) })
}

/// Notes that a side has spoken; says whether that confirmed the session.
#[inline(always)]
fn advance(direction: Direction, slot: &Slot) -> bool {
    let bits = slot.word.load();
    let word = Word::from_bits(bits);
    if word.state != TcpState::SynRecv {
        return false;
    }
    let answered = word.flags & flag::ANSWERED != 0;
    let next = match direction {
        Direction::Outbound if !answered => Word { flags: word.flags | flag::ANSWERED, ..word },
        Direction::Inbound if answered => Word { state: TcpState::Established, ..word },
        Direction::Outbound | Direction::Inbound => return false,
    };
    // If it fails the other side has just changed it, and the next datagram tries again.
    slot.word.replace_if(bits, next.to_bits()) && next.state != word.state
}
