//! Frames that the engine sends: segments of a session on their way, and segments of our own.

use seawall_fastpath::layout::flag;
use seawall_fastpath::link::Link;
use seawall_fastpath::native::{Buffer, Memory};
use seawall_fastpath::one_way::{self, Way};
use seawall_fastpath::options::{self, Timestamps};
use seawall_fastpath::packet::{self, Packet};
use seawall_fastpath::segment::{self, Segment, SynOptions};
use seawall_fastpath::splice::splice;
use seawall_fastpath::{Direction, Reason, Transport, Tuple, too_big};
use seawall_wire::SeqNumber;
use seawall_wire::tcp::Flags;

use crate::counters::Counter;
use crate::engine::{Arrived, Engine, Request};
use crate::lengthen::append;
use crate::outbox::MAX_FRAME;
use crate::table::Found;
use crate::toa::{Put, Toa};

/// What our own segment to a real server or client says; the rest follows from the session.
pub(crate) struct Says {
    pub(crate) flags: Flags,
    pub(crate) seq: SeqNumber,
    pub(crate) ack: SeqNumber,
    pub(crate) window: u16,
    pub(crate) syn: Option<SynOptions>,
    pub(crate) timestamps: Option<Timestamps>,
}

/// Payload that a segment of our own may have: the longest PROXY header.
const MAX_PAYLOAD: usize = 107;

/// What a segment of our own has beside what it says: never both.
#[derive(Default)]
struct With<'a> {
    toa: Option<Toa>,
    payload: &'a [u8],
}

impl Says {
    /// A reset.
    pub(crate) const fn reset(seq: SeqNumber) -> Self {
        let (ack, flags) = (SeqNumber(0), Flags::RST);
        Self { flags, seq, ack, window: 0, syn: None, timestamps: None }
    }
}

impl<M: Memory> Engine<M> {
    /// Sends a segment of a session on its way, translated, as the packet path would have.
    pub(crate) fn pass_on(&mut self, now: u64, found: Found, frame: &[u8]) {
        let mut bytes = [0u8; MAX_FRAME];
        let Some((mut buffer, packet)) = copy(&mut bytes, frame) else {
            return self.count(Counter::RecordInvalid);
        };
        let memory = self.table.memory();
        let Some(slot) = memory.slots().get(found.index as usize) else { return };
        let toa = Toa::wanted(slot, slot.state(), found.direction, packet.tcp.flags);
        let hash = self.table.hash(Transport::Tcp, &packet.tuple);
        let hop = memory.next_hops().get(slot.next_hop(found.direction) as usize);
        let mtu = hop.map_or(0, |hop| one_way::room(slot, hop));
        let spliced = hop.map_or(Err(Reason::NextHopMissing), |next_hop| {
            if slot.state().flags & flag::ONE_WAY != 0 {
                let way = Way { slot, next_hop, settings: memory.settings(), hash };
                one_way::forward(&mut buffer, &packet, &way, now)
            } else {
                splice(&mut buffer, &packet, found.direction, slot, next_hop, now)
            }
        });
        if spliced == Err(Reason::MtuExceeded) {
            return self.tell_sender(found, mtu, &mut buffer);
        }
        let mut sent = spliced.ok().map(|it| (it.interface, it.changed.is_some()));
        if let (Some(toa), Some((interface, _))) = (toa, sent)
            && self.add_toa(interface, mtu, &toa, &mut buffer).is_none()
        {
            sent = None;
        }
        self.send_on(now, found, sent, buffer.bytes());
    }

    /// Sends a packet of a session that has been translated, by that interface, and follows the
    /// state if it has changed. Without, it could not be: somebody asks for the neighbour, should
    /// that be why.
    pub(crate) fn send_on(
        &mut self,
        now: u64,
        found: Found,
        sent: Option<(u32, bool)>,
        frame: &[u8],
    ) {
        let Some((interface, changed)) = sent else {
            if let Some(slot) = self.table.slot(found.index) {
                self.resolve(slot.next_hop(found.direction));
            }
            return self.count(Counter::PassOnFailed);
        };
        if self.outbox.push(interface, frame) {
            self.count(Counter::PassedOn);
        } else {
            self.count(Counter::PassOnFailed);
        }
        if changed {
            self.state_changed(now, found.index);
        }
    }

    /// Tells the sender of the packet in `frame`, in which nothing has changed, that no more than `mtu`
    /// bytes go on.
    pub(crate) fn tell_sender(&mut self, found: Found, mtu: u32, frame: &mut Buffer<'_>) {
        let memory = self.table.memory();
        let Some(slot) = memory.slots().get(found.index as usize) else { return };
        let back = match found.direction {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        };
        let told = too_big::tell(frame, found.direction, slot, mtu, memory.settings());
        let hop = memory.next_hops().get(slot.next_hop(back) as usize);
        let interface = hop.map(|hop| hop.interface.load()).filter(|_| told.is_ok());
        let sent = interface.is_some_and(|interface| self.outbox.push(interface, frame.bytes()));
        self.count(if sent { Counter::TooBig } else { Counter::PassOnFailed });
    }

    /// Puts a TOA option into a translated segment; if there is no room, sends one with it before.
    /// `None` if the segment must not be sent.
    fn add_toa(
        &mut self,
        interface: u32,
        mtu: u32,
        toa: &Toa,
        buffer: &mut Buffer<'_>,
    ) -> Option<()> {
        let len = buffer.bytes().len();
        let packet = packet::parse(buffer, len)?;
        let timestamps = options::parse(buffer, &packet).ok().and_then(|it| it.timestamps);
        if toa.fits(&packet, timestamps, mtu) {
            let put = toa.put(buffer, &packet, timestamps)?;
            self.count_toa(put);
            return Some(());
        }
        self.count(Counter::ToaTooLong);
        let tcp = packet.tcp;
        let (flags, syn) = (Flags::ACK, None);
        let says = Says { flags, seq: tcp.seq, ack: tcp.ack, window: tcp.window, syn, timestamps };
        let with = With { toa: Some(*toa), payload: &[] };
        self.say_to(interface, packet.link, packet.tuple, &says, &with);
        Some(())
    }

    fn count_toa(&mut self, put: Put) {
        self.count(Counter::ToaAdded);
        if put == Put::InPlace {
            self.count(Counter::ToaHeadFull);
        }
    }

    /// Asks for the MAC of next hop `hop`, if it is a gateway's and not known.
    pub(crate) fn resolve(&mut self, hop: u32) {
        let known = self.table.memory().next_hops().get(hop as usize);
        if known.is_some_and(|known| known.destination().is_none())
            && let Some(gateway) = self.next_hops.gateway_of(hop)
        {
            self.request(Request::Resolve(gateway));
        }
    }

    /// Sends a segment of our own on behalf of one end of a session to the other.
    pub(crate) fn say(&mut self, index: u32, direction: Direction, says: &Says) -> bool {
        self.say_with(index, direction, says, &[])
    }

    /// The same with a payload of at most [`MAX_PAYLOAD`] bytes.
    pub(crate) fn say_with(
        &mut self,
        index: u32,
        direction: Direction,
        says: &Says,
        payload: &[u8],
    ) -> bool {
        let memory = self.table.memory();
        let Some(slot) = memory.slots().get(index as usize) else { return false };
        let hop = slot.next_hop(direction);
        let Some(hop) = memory.next_hops().get(hop as usize) else { return false };
        let Some(destination) = hop.destination() else { return false };
        let link = Link { source: hop.source(), destination, tags: hop.tags() };
        let (tuple, interface) = (slot.translated(direction), hop.interface.load());
        let toa = Toa::wanted(slot, slot.state(), direction, says.flags);
        self.say_to(interface, link, tuple, says, &With { toa, payload })
    }

    /// Answers a segment that has no session with a reset (RFC 9293, section 3.10.7.1).
    pub(crate) fn refuse(&mut self, arrived: &Arrived<'_>) {
        let Packet { link, tcp, tuple, .. } = &arrived.packet;
        let tuple = Tuple { source: tuple.destination, destination: tuple.source };
        let says = if tcp.flags.contains(Flags::ACK) {
            Says::reset(tcp.ack)
        } else {
            Says {
                flags: Flags::RST.with(Flags::ACK),
                ack: tcp.seq.add(arrived.packet.sequence_len()),
                ..Says::reset(SeqNumber(0))
            }
        };
        self.say_to(arrived.interface, link.reversed(), tuple, &says, &With::default());
    }

    fn say_to(
        &mut self,
        interface: u32,
        link: Link,
        tuple: Tuple,
        says: &Says,
        with: &With<'_>,
    ) -> bool {
        let mut bytes = [0u8; 128 + MAX_PAYLOAD];
        let mut buffer = Buffer::new(&mut bytes, 0);
        let segment = Segment {
            link,
            tuple,
            seq: says.seq,
            ack: says.ack,
            flags: says.flags,
            window: says.window,
            ttl: self.config.ttl,
            syn: says.syn,
            timestamps: says.timestamps,
        };
        if segment::write(&mut buffer, &segment).is_none() {
            return false;
        }
        let len = buffer.bytes().len();
        let Some(packet) = packet::parse(&mut buffer, len) else { return false };
        if let Some(toa) = with.toa {
            let Some(put) = toa.put(&mut buffer, &packet, says.timestamps) else { return false };
            self.count_toa(put);
        } else if append(&mut buffer, &packet, with.payload).is_none() {
            return false;
        }
        self.outbox.push(interface, buffer.bytes())
    }
}

/// `frame` in a buffer with room to grow.
pub(crate) fn buffer<'b>(bytes: &'b mut [u8], frame: &[u8]) -> Option<Buffer<'b>> {
    bytes.get_mut(..frame.len())?.copy_from_slice(frame);
    Some(Buffer::new(bytes, frame.len()))
}

/// [`buffer`], and the headers of `frame` if it is a TCP segment whose lengths hold.
pub(crate) fn copy<'b>(bytes: &'b mut [u8], frame: &[u8]) -> Option<(Buffer<'b>, Packet)> {
    let mut buffer = buffer(bytes, frame)?;
    let packet = packet::parse(&mut buffer, frame.len())?;
    Some((buffer, packet))
}

pub(crate) fn parse(frame: &[u8]) -> Option<Packet> {
    // The headers that are read end before this.
    let mut bytes = [0u8; 128];
    let head = frame.get(..frame.len().min(bytes.len()))?;
    bytes.get_mut(..head.len())?.copy_from_slice(head);
    packet::parse(&mut Buffer::new(&mut bytes, head.len()), frame.len())
}
