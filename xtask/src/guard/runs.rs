//! How long the kernel says that XDP takes for a frame (`BPF_PROG_TEST_RUN`): a look, no figure.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use seawall_datapath::program_test::Action;
use seawall_datapath::{Limits, SharedMemory, Xdp, clock};
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, InterfaceEntry, ServiceEntry, ServiceKey, switch,
};
use seawall_fastpath::native::Memory;
use seawall_fastpath::{Addr, Endpoint};
use seawall_lab::flood::LINUX_OPTIONS;
use seawall_lab::frame::{Link, Packet, Path, Segment, flags};
use seawall_wire::ethernet::MacAddr;

/// The loopback's interface, which the frames are said to come from; nothing is sent.
const INTERFACE: u32 = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RUNS: usize = 1_001;

/// Nanoseconds, the median of [`RUNS`], by kind of frame.
pub(crate) fn times() -> Result<Vec<(&'static str, u128)>> {
    let limits = Limits {
        sessions: 1_024,
        templates: 1,
        proven_ring_bytes: 1 << 16,
        unproven_ring_bytes: 1 << 16,
    };
    let mut xdp = Xdp::load(&limits)?;
    let shared = SharedMemory::new(&xdp)?;
    let settings = shared.settings();
    settings.heartbeat.store(clock::monotonic_ms());
    settings.epoch_ends.store(u64::MAX);
    settings.switches.store(switch::SACK | switch::TIMESTAMP);
    settings.init_mss.store(1_452);
    settings.window_scale.store(7);
    settings.early_data.store(32_768);
    settings.ttl.store(63);
    xdp.set_interface(INTERFACE, InterfaceEntry::new(MacAddr(MAC)))?;
    let mut times = Vec::new();
    for (names, client, service) in [
        (["ipv4-syn-answered", "ipv4-ack-refused"], "10.0.0.2:40000", "10.0.0.254:80"),
        (["ipv6-syn-answered", "ipv6-ack-refused"], "[fd00::2]:40000", "[fd00::fe]:80"),
    ] {
        let (client, service): (SocketAddr, SocketAddr) = (client.parse()?, service.parse()?);
        let address = Addr::from(service.ip());
        let key = ServiceKey::tcp(Endpoint { address, port: service.port() });
        let proxied = ServiceEntry::SYNPROXY | ServiceEntry::USABLE;
        xdp.set_service(&key, &ServiceEntry { id: 0, flags: proxied })?;
        let vip = AddressEntry { flags: AddressEntry::VIP, port_min: 0, port_max: 0 };
        xdp.set_address(&AddressKey(address), &vip)?;
        let segment = |flags, options: &[u8]| {
            let link = Link { destination: MAC, source: [2, 0, 0, 0, 0, 2] };
            let path = Path { source: client, destination: service };
            let segment = Segment { flags, options: options.to_vec(), ..Segment::default() };
            Packet::tcp(link, path, &segment).template().bytes
        };
        let frames = [segment(flags::SYN, &LINUX_OPTIONS), segment(flags::ACK, &[])];
        for ((name, frame), expected) in
            names.into_iter().zip(frames).zip([Action::Tx, Action::Drop])
        {
            times.push((name, median(&mut xdp, &frame, expected)?));
        }
    }
    Ok(times)
}

fn median(xdp: &mut Xdp, frame: &[u8], expected: Action) -> Result<u128> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let run = xdp.test_run(frame, INTERFACE)?;
        ensure!(run.action == expected, "{:?} instead of {expected:?}", run.action);
        times.push(run.duration.as_nanos());
    }
    times.sort_unstable();
    Ok(times[RUNS / 2])
}
