//! Tables for the packet path with any content, and frames that have to do with it.

use std::rc::Rc;

use seawall_fastpath::layout::{
    AddressEntry, AddressKey, Ends, Entry, InterfaceEntry, ServiceEntry, ServiceKey, Word,
    first_bucket, flag, tag,
};
use seawall_fastpath::native::{Memory, NativeMemory, NativeTables, put_entry};
use seawall_fastpath::siphash::Key;
use seawall_fastpath::{Direction, Endpoint, TcpState, Transport, Tuple};
use seawall_wire::ethernet::{MacAddr, Tags};

use super::input::Input;
use crate::support::packet::{ACK, FIN, Ip, Opt, RST, SYN, Segment};

const SESSIONS: u32 = 4;
const HOPS: u32 = 4;
/// Interfaces that are ours, and one that is not.
pub(crate) const INTERFACES: [u32; 3] = [1, 2, 9];

pub(crate) fn mac(number: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0, number as u8]
}

/// One of a few addresses of either family.
fn address(input: &mut Input<'_>, is_v6: bool) -> Ip {
    let number = 0x0a00_0000 + input.below(6) as u32;
    if is_v6 { Ip(0x2001_0db8 << 96 | u128::from(number)) } else { Ip::v4(number) }
}

fn end(input: &mut Input<'_>, is_v6: bool) -> (Ip, u16) {
    (address(input, is_v6), 80 + input.below(4) as u16)
}

fn endpoint((address, port): (Ip, u16)) -> Endpoint {
    Endpoint { address: address.into(), port }
}

/// Tables filled from `input`.
pub(crate) fn tables(input: &mut Input<'_>) -> NativeTables {
    let memory = Rc::new(NativeMemory::new(SESSIONS));
    let tables = NativeTables::new(Rc::clone(&memory));
    let settings = memory.settings();
    let now = 1_000_000 + u64::from(input.u32());
    tables.set_now(now);
    settings.heartbeat.store(now - u64::from(input.u8()) * 50);
    settings.switches.store(input.u32());
    settings.window_scale.store(u32::from(input.pick(&[0u8, 7, 14, 255, 200])));
    settings.early_data.store(input.u32());
    settings.init_mss.store(u32::from(input.u16()));
    settings.ttl.store(u32::from(input.u8()));
    settings.timestamp_offset.store(input.u64());
    settings.epoch.store(input.u32());
    settings.epoch_ends.store(if input.bit() { u64::MAX } else { now + u64::from(input.u16()) });
    settings.ack_storm_threshold.store(u32::from(input.pick(&[0u8, 1, 10])));
    settings.index_key.set(Key(input.u64(), 1));
    for number in [1, 2] {
        let entry = InterfaceEntry::new(MacAddr(mac(number)));
        tables.interfaces.borrow_mut().insert(number, entry);
    }
    for (number, hop) in memory.next_hops().iter().enumerate().take(HOPS as usize).skip(1) {
        let to = MacAddr([2, 0, 0, 0, 1, number as u8]);
        hop.set_destination(input.bit().then_some(to));
        hop.set_source(MacAddr(mac(1)));
        hop.interface.store(1 + input.below(2) as u32);
        hop.mtu.store(input.pick(&[1_500, 1_280, 576, 68, 0, 9_000]));
        if input.below(4) == 0 {
            let (outer, inner) = (0x8100_0000 + u32::from(input.u16()), 0x8100_0007);
            hop.set_tags(Tags { outer, inner: if input.bit() { inner } else { 0 } });
        }
    }
    for _ in 0..input.below(6) {
        let is_v6 = input.bit();
        let (at, flags) = (end(input, is_v6), u32::from(input.u8()));
        let service = ServiceEntry { id: input.u32(), flags };
        let transport = if input.u8() & 3 == 0 { Transport::Udp } else { Transport::Tcp };
        tables.services.borrow_mut().insert(ServiceKey::of(transport, endpoint(at)), service);
        let entry = AddressEntry {
            flags: u32::from(input.u8()),
            port_min: 80 + input.below(4) as u16,
            port_max: 80 + input.below(4) as u16,
        };
        tables.addresses.borrow_mut().insert(AddressKey(at.0.into()), entry);
    }
    for slot in 1..=input.below(SESSIONS as usize + 1) as u32 {
        session(input, &tables, slot);
    }
    tables
}

fn session(input: &mut Input<'_>, tables: &NativeTables, number: u32) {
    let is_v6 = input.bit();
    let slot = &tables.memory.slots()[number as usize];
    // The engine makes none between families; the packet path must survive one.
    let is_real_v6 = is_v6 ^ (input.u8() == 0xff);
    let ends = Ends {
        client: endpoint(end(input, is_v6)),
        vip: endpoint(end(input, is_v6)),
        local: endpoint(end(input, is_v6)),
        real: endpoint(end(input, is_real_v6)),
    };
    slot.set_ends(&ends);
    slot.inbound.begin(tables_now(tables), input.u32());
    slot.outbound.begin(tables_now(tables), input.u32());
    slot.f.store(input.u32());
    slot.ts_in.store(input.u32());
    slot.ts_out.store(input.u32());
    slot.scales.store(input.u32());
    slot.next_hop_in.store(input.below(HOPS as usize + 2) as u32);
    slot.next_hop_out.store(input.below(HOPS as usize + 2) as u32);
    slot.cookie.store(input.u32());
    slot.client_isn.store(input.u32());
    slot.inbound.window.store(input.u32());
    slot.outbound.window.store(input.u32());
    slot.inbound.punted.store(u32::from(input.pick(&[0u8, 31, 32])));
    slot.inbound.syn_forwarded.store(tables_now(tables) - u64::from(input.u16()));
    let state = TcpState::from_bits(input.below(9) as u8);
    let flags = u32::from(input.u8()) | if input.u8() & 3 == 0 { flag::UDP } else { 0 };
    let word = Word { state, flags, d: input.u32() };
    slot.word.store(word.to_bits());
    for (tuple, direction) in
        [(ends.inbound(), Direction::Inbound), (ends.outbound(), Direction::Outbound)]
    {
        let settings = tables.memory.settings();
        let hash = tuple.hash(word.transport(), settings.index_key.get());
        // An index that leads elsewhere only hints.
        let to = if input.u8() == 0xff { input.u32() & 0xff } else { number };
        let entry = Entry { tag: tag(hash), direction, slot: to };
        let bucket = first_bucket(hash, settings.bucket_mask.load());
        let _ = put_entry(&tables.memory, bucket, entry);
    }
}

fn tables_now(tables: &NativeTables) -> u64 {
    use seawall_fastpath::Tables;
    tables.now()
}

/// Who a segment may be from and for: a session's ends, or any.
fn tuple(input: &mut Input<'_>, tables: &NativeTables) -> ((Ip, u16), (Ip, u16)) {
    let number = input.below(SESSIONS as usize * 2);
    let slot = &tables.memory.slots()[number % SESSIONS as usize + 1];
    let ends = slot.ends();
    let Tuple { source, destination } =
        if number < SESSIONS as usize { ends.inbound() } else { ends.outbound() };
    let host = |end: Endpoint| {
        let [high, low] = end.address.0.map(u128::from);
        (Ip(high << 64 | low), end.port)
    };
    let (source, destination) = (host(source), host(destination));
    if source.0.version() != destination.0.version() || source.0.0 == 0 || input.below(3) == 0 {
        let is_v6 = input.bit();
        return (end(input, is_v6), end(input, is_v6));
    }
    (source, destination)
}

fn options(input: &mut Input<'_>) -> Vec<Opt> {
    let mut options = Vec::new();
    let mut room = 40;
    for _ in 0..input.below(7) {
        let option = match input.below(9) {
            0 => Opt::Nop,
            1 => Opt::Mss(input.u16()),
            2 => Opt::Scale(input.u8()),
            3 => Opt::SackPermitted,
            4 | 5 => Opt::Timestamps(input.u32(), input.u32()),
            6 => Opt::Sack((0..=input.below(4)).map(|_| (input.u32(), input.u32())).collect()),
            7 => Opt::End,
            _ => Opt::Other(input.u8() | 0x40, input.bytes(12)),
        };
        let len = option.bytes().len();
        if len <= room {
            room -= len;
            options.push(option);
        }
    }
    options
}

/// A whole segment with right lengths and checksums, near something in `tables`.
pub(crate) fn segment(input: &mut Input<'_>, tables: &NativeTables) -> Segment {
    let (source, destination) = tuple(input, tables);
    let near = |input: &mut Input<'_>| match input.below(4) {
        0 => input.u32(),
        kind => {
            let slot = &tables.memory.slots()[input.below(SESSIONS as usize) + 1];
            let from = [&slot.inbound.ack, &slot.outbound.ack, &slot.cookie][kind - 1];
            from.load().wrapping_add(u32::from(input.u8())).wrapping_sub(1)
        }
    };
    let any = input.u16() & 0x1ff;
    let len = usize::from(input.pick(&[0u8, 0, 1, 7, 100, 255])) * input.pick(&[1, 1, 5]);
    Segment {
        source_mac: mac(7),
        destination_mac: mac(input.pick(&[1, 1, 1, 2, 3])),
        tags: (0..input.below(12).saturating_sub(9))
            .map(|_| input.pick(&[0x8100_0000, 0x88a8_0000]) | u32::from(input.u16()))
            .collect(),
        tos: input.u8(),
        ident: input.u16(),
        ttl: input.pick(&[64, 64, 0, 1, 2, 255]),
        source,
        destination,
        seq: near(input),
        ack: near(input),
        flags: input.pick(&[SYN, ACK, ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, any]),
        window: input.u16(),
        urgent: 0,
        options: options(input),
        raw_options: None,
        payload: vec![0xa5; len],
    }
}
