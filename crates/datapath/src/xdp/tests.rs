//! The checked-in object in the running kernel.

use std::path::Path;
use std::time::Duration;

use aya::programs::ProgramError;
use aya_obj::VerifierLog;
use seawall_fastpath::layout::{
    AddressEntry, AddressKey, InterfaceEntry, RecordKind, ServiceEntry, ServiceKey, VERSION,
};
use seawall_fastpath::{Addr, Endpoint, Reason};
use seawall_wire::ethernet::MacAddr;

use super::{Limits, Mode, Xdp, refused};
use crate::netlink::{Address, AddressSpec, Netlink, VethSpec};
use crate::program_test::Action;
use crate::testing::{in_namespace, needs_root};
use crate::{Error, Sources, State, Waiter, clock, netns};

const LIMITS: Limits = Limits {
    sessions: 1000,
    templates: 100,
    proven_ring_bytes: 1 << 16,
    unproven_ring_bytes: 1 << 16,
};
const LOOPBACK: u32 = 1;
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const VIP: [u8; 4] = [198, 51, 100, 1];
const PORT: u16 = 80;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP segment from port 1024 of the client to the service; XDP does not look at its checksum.
fn segment(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(OUR_MAC);
    frame.extend([2, 0, 0, 0, 0, 9, 0x08, 0x00]);
    let length = (40 + payload.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let mut ip = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[12..16].copy_from_slice(&CLIENT);
    ip[16..20].copy_from_slice(&VIP);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(1024_u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

fn service() -> ServiceKey {
    ServiceKey::tcp(Endpoint { address: Addr::v4(u32::from_be_bytes(VIP)), port: PORT })
}

/// Loaded, and serving one service.
fn serving(flags: u32) -> Xdp {
    let mut xdp = Xdp::load(&LIMITS).unwrap();
    let settings = xdp.settings().unwrap();
    settings[0].heartbeat.store(clock::monotonic_ms());
    settings[0].init_mss.store(1452);
    settings[0].ttl.store(64);
    settings[0].bucket_mask.store(xdp.index().unwrap().len() as u32 - 2);
    let entry = ServiceEntry { id: 77, flags: ServiceEntry::USABLE | flags };
    xdp.set_service(&service(), &entry).unwrap();
    let address = AddressEntry { flags: AddressEntry::VIP, port_min: 0, port_max: 0 };
    xdp.set_address(&AddressKey(Addr::v4(u32::from_be_bytes(VIP))), &address).unwrap();
    xdp.set_interface(LOOPBACK, InterfaceEntry::new(MacAddr(OUR_MAC))).unwrap();
    xdp
}

fn count(xdp: &Xdp, reason: Reason) -> u64 {
    xdp.counters().unwrap()[reason as usize]
}

#[test]
fn the_object_verifies_in_under_two_seconds() {
    if !needs_root() {
        return;
    }
    // The machine may have other things to do; the verifier's own work is the same each time.
    let load = || Xdp::load(&LIMITS).unwrap();
    let xdp = [load(), load(), load()].into_iter().min_by_key(Xdp::verification).unwrap();
    let instructions = xdp.verified_instructions();
    println!(
        "verified in {:?}, {instructions} instructions walked, jitted: {}",
        xdp.verification(),
        xdp.is_jitted()
    );
    assert!(xdp.verification() < Duration::from_secs(2), "{:?}", xdp.verification());
    assert!(xdp.verification() > Duration::ZERO);
    // Linux 6.1 walks half as many again, and gives up at a million.
    assert!(instructions < 600_000, "{instructions}");
    let counters = xdp.counters().unwrap();
    assert_eq!(counters, vec![0; Reason::ALL.len()]);
}

#[test]
fn limits_that_no_kernel_takes_are_refused_before_it_is_asked() {
    let wrong = |limits: &Limits| match Xdp::load(limits) {
        Err(Error::Limit { what, .. }) => what,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("loaded with {limits:?}"),
    };
    assert!(wrong(&Limits { sessions: 0, ..LIMITS }).contains("sessions"));
    assert!(wrong(&Limits { sessions: u32::MAX, ..LIMITS }).contains("sessions"));
    assert!(wrong(&Limits { templates: 0, ..LIMITS }).contains("templates"));
    assert!(wrong(&Limits { proven_ring_bytes: 5000, ..LIMITS }).contains(" proven"));
    assert!(wrong(&Limits { unproven_ring_bytes: 2048, ..LIMITS }).contains("unproven"));
}

#[test]
fn memory_is_what_the_arrays_take() {
    let small = Limits { sessions: 1, ..LIMITS };
    let large = Limits { sessions: 1 << 20, ..LIMITS };
    // 256 bytes a slot; 2^19 buckets of 64 bytes against one; a word for each eight of them and the
    // stash against one.
    let expected = ((1 << 20) - 1) * 256 + ((1 << 19) - 1) * 64 + (1 << 16) * 8;
    assert_eq!(large.memory() - small.memory(), expected);
}

#[test]
fn arrays_have_the_asked_for_size_and_are_one_memory() {
    if !needs_root() {
        return;
    }
    let xdp = Xdp::load(&LIMITS).unwrap();
    let (slots, again) = (xdp.slots().unwrap(), xdp.slots().unwrap());
    assert_eq!(slots.len(), 1001);
    assert_eq!(xdp.index().unwrap().len(), 513);
    assert_eq!(xdp.filter().unwrap().len(), 65);
    assert_eq!(xdp.next_hops().unwrap().len(), 4096);
    assert_eq!(xdp.templates().unwrap().len(), 100);
    assert_eq!(xdp.settings().unwrap().len(), 1);
    assert_eq!(slots[1000].generation.load(), 0);
    slots[1000].generation.store(0xdead_beef);
    assert_eq!(again[1000].generation.load(), 0xdead_beef);
    assert_eq!(again[999].generation.load(), 0);
    drop(xdp);
    drop(slots);
    assert_eq!(again[1000].generation.load(), 0xdead_beef);
}

#[test]
fn a_frame_that_is_not_ours_passes_untouched() {
    if !needs_root() {
        return;
    }
    let mut xdp = serving(0);
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let run = xdp.test_run(&arp, LOOPBACK).unwrap();
    assert_eq!((run.action, run.frame), (Action::Pass, arp));
    assert_eq!(count(&xdp, Reason::PassNotIp), 1);
    assert_eq!(xdp.counters().unwrap().iter().sum::<u64>(), 1);
}

#[test]
fn frames_that_the_kernel_cannot_run_are_errors() {
    if !needs_root() {
        return;
    }
    let mut xdp = serving(0);
    assert!(matches!(xdp.test_run(&[0; 13], LOOPBACK), Err(Error::TestRun { length: 13, .. })));
    assert!(matches!(xdp.test_run(&[0; 60], 0x7fff_ffff), Err(Error::TestRun { .. })));
    assert!(matches!(xdp.test_run(&[0; 3521], LOOPBACK), Err(Error::Limit { .. })));
}

#[test]
fn services_come_and_go() {
    if !needs_root() {
        return;
    }
    let mut xdp = serving(ServiceEntry::SYNPROXY);
    let syn = segment(SYN, 1000, 0, &[]);
    assert_eq!(xdp.test_run(&syn, LOOPBACK).unwrap().action, Action::Tx);
    assert_eq!(count(&xdp, Reason::Cookie), 1);
    xdp.remove_service(&service()).unwrap();
    assert_ne!(xdp.test_run(&syn, LOOPBACK).unwrap().action, Action::Tx);
    assert_eq!(count(&xdp, Reason::Cookie), 1);
    xdp.remove_service(&service()).unwrap();
    xdp.remove_interface(LOOPBACK).unwrap();
    xdp.remove_interface(LOOPBACK).unwrap();
    let address = AddressKey(Addr::v4(u32::from_be_bytes(VIP)));
    xdp.remove_address(&address).unwrap();
    xdp.remove_address(&address).unwrap();
}

#[test]
fn a_table_that_is_full_says_so() {
    if !needs_root() {
        return;
    }
    let mut xdp = Xdp::load(&LIMITS).unwrap();
    let entry = InterfaceEntry::new(MacAddr(OUR_MAC));
    for interface in 1..=64 {
        xdp.set_interface(interface, entry).unwrap();
    }
    xdp.set_interface(64, entry).unwrap();
    let error = xdp.set_interface(65, entry).unwrap_err();
    assert!(matches!(error, Error::Full { limit: 64, .. }), "{error}");
}

#[test]
fn records_come_up_the_ring_of_their_kind() {
    if !needs_root() {
        return;
    }
    let mut xdp = serving(0);
    let mut rings = xdp.take_rings().unwrap();
    assert!(xdp.take_rings().is_none());
    use std::os::fd::AsFd;
    let sources = Sources {
        proven: Some(rings.proven.as_fd()),
        unproven: Some(rings.unproven.as_fd()),
        ..Sources::default()
    };
    let mut waiter = Waiter::new(sources).unwrap();
    assert!(!waiter.wait(Duration::ZERO).unwrap().unproven);

    let syn = segment(SYN, 1000, 0, &[]);
    for _ in 0..3 {
        xdp.test_run(&syn, LOOPBACK).unwrap();
    }
    let ready = waiter.wait(Duration::from_secs(10)).unwrap();
    assert!(ready.unproven && !ready.proven, "{ready:?}");
    let mut seen = 0;
    let handled = rings.unproven.for_each(2, |header, frame| {
        assert_eq!(header.kind, RecordKind::Unproxied as u16);
        assert_eq!((header.interface, header.service, header.slot), (LOOPBACK, 77, 0));
        assert!(clock::monotonic_ms() - header.time < 10_000);
        assert_eq!(frame, syn);
        seen += 1;
    });
    assert_eq!((handled, seen), (2, 2));
    assert!(waiter.wait(Duration::ZERO).unwrap().unproven);
    assert_eq!(rings.unproven.for_each(2, |_, _| {}), 1);
    assert!(!waiter.wait(Duration::ZERO).unwrap().unproven);
    assert_eq!(rings.proven.for_each(9, |_, _| {}), 0);
    assert_eq!(rings.unproven.malformed(), 0);
}

#[test]
fn an_ack_that_answers_a_cookie_comes_up_the_proven_ring() {
    if !needs_root() {
        return;
    }
    let mut xdp = serving(ServiceEntry::SYNPROXY);
    let mut rings = xdp.take_rings().unwrap();
    let synack = xdp.test_run(&segment(SYN, 1000, 0, &[]), LOOPBACK).unwrap().frame;
    let cookie = u32::from_be_bytes([synack[38], synack[39], synack[40], synack[41]]);
    // More than fits a small record.
    let ack = segment(ACK, 1001, cookie.wrapping_add(1), &[b'x'; 500]);
    xdp.test_run(&ack, LOOPBACK).unwrap();
    let mut seen = 0;
    rings.proven.for_each(9, |header, frame| {
        assert_eq!((header.kind, header.service), (RecordKind::Accepted as u16, 77));
        assert_eq!(frame, ack);
        seen += 1;
    });
    assert_eq!((seen, rings.unproven.for_each(9, |_, _| {})), (1, 0));
    assert_eq!(count(&xdp, Reason::Accepted), 1);
}

#[test]
fn a_full_ring_loses_frames_and_works_again_once_read() {
    if !needs_root() {
        return;
    }
    let mut xdp = serving(0);
    let mut rings = xdp.take_rings().unwrap();
    let syn = segment(SYN, 1000, 0, &[]);
    let capacity = LIMITS.unproven_ring_bytes as usize / 160;
    for _ in 0..capacity + 50 {
        xdp.test_run(&syn, LOOPBACK).unwrap();
    }
    let kept = rings.unproven.for_each(usize::MAX, |_, frame| assert_eq!(frame, syn));
    assert!((capacity / 2..=capacity).contains(&kept), "{kept} of {capacity}");
    // Several times around the ring, so that records lie across its end.
    for _ in 0..3 * capacity {
        xdp.test_run(&syn, LOOPBACK).unwrap();
        assert_eq!(rings.unproven.for_each(9, |_, frame| assert_eq!(frame, syn)), 1);
    }
}

#[test]
fn attaches_in_the_driver_where_it_can_and_detaches_when_dropped() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        let spec = VethSpec {
            name: "near",
            mac: None,
            peer_name: "far",
            peer_mac: None,
            peer_netns: None,
        };
        netlink.add_veth(&spec).unwrap();
        let near = netlink.link("near").unwrap().unwrap().index;
        let mut first = Xdp::load(&LIMITS).unwrap();
        let mut second = Xdp::load(&LIMITS).unwrap();
        assert!(matches!(first.attach(near).unwrap(), Mode::Native));
        // The loopback's driver knows no XDP.
        let mode = first.attach(LOOPBACK).unwrap();
        let Mode::Generic { native_refused } = mode else { panic!("{mode:?}") };
        assert_eq!(native_refused.raw_os_error(), Some(libc::EOPNOTSUPP), "{native_refused}");
        assert_eq!(first.attached().collect::<Vec<_>>(), [LOOPBACK, near]);

        let error = second.attach(near).unwrap_err();
        assert!(error.to_string().contains("another XDP program is attached"), "{error}");
        first.detach(near).unwrap();
        first.detach(near).unwrap();
        second.attach(near).unwrap();
        assert!(second.attach(LOOPBACK).is_err());
        drop(first);
        second.attach(LOOPBACK).unwrap();

        let error = second.attach(0x7fff_ffff).unwrap_err();
        assert!(error.to_string().contains("no such interface"), "{error}");
    });
}

#[test]
fn the_verifiers_last_words_are_kept() {
    let log: String = (0..100).map(|line| format!("line {line}\n")).collect();
    let error = refused(ProgramError::LoadError {
        io_error: std::io::Error::from_raw_os_error(libc::EACCES),
        verifier_log: VerifierLog::new(log),
    });
    let text = error.to_string();
    assert!(text.ends_with("line 99"), "{text}");
    assert!(text.contains("Permission denied") && !text.contains("line 75\n"), "{text}");
}

/// Work in a network namespace with a BPF file system of its own; the directory is `DIRECTORY`.
fn in_state(test: fn()) {
    in_namespace(move || {
        std::thread::spawn(move || {
            netns::unshare_bpffs().unwrap();
            test();
        })
        .join()
        .unwrap();
    });
}

const DIRECTORY: &str = "/sys/fs/bpf/seawall";
const NAMES: u64 = 7;

fn open(limits: &Limits, names: u64) -> Result<Xdp, Error> {
    Xdp::open(limits, State::open(Path::new(DIRECTORY)).unwrap(), names)
}

fn veth() -> (Netlink, u32) {
    let mut netlink = Netlink::open().unwrap();
    let (name, peer_name) = ("near", "far");
    let spec = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None };
    netlink.add_veth(&spec).unwrap();
    let near = netlink.link("near").unwrap().unwrap().index;
    (netlink, near)
}

#[test]
fn what_is_pinned_outlives_the_process_and_is_taken_over() {
    in_state(|| {
        let (mut netlink, near) = veth();
        let mut first = open(&LIMITS, NAMES).unwrap();
        assert!(!first.adopted());
        first.set_service(&service(), &ServiceEntry { id: 77, flags: 0 }).unwrap();
        first.slots().unwrap()[9].cookie.store(5);
        first.filter().unwrap()[3].set_marks(24, 6);
        first.templates().unwrap()[99].deadline.store(8);
        first.test_run(&[0xff; 60], LOOPBACK).unwrap();
        let counted = first.counters().unwrap();
        assert!(counted.iter().sum::<u64>() > 0);
        let address = Address { link_index: near, address: [192, 0, 2, 7].into(), prefix_len: 32 };
        first.take_owned().unwrap().insert(&address).unwrap();
        assert!(matches!(first.attach(near).unwrap(), Mode::Native));
        first.complete().unwrap();
        drop(first);

        for round in 1..4 {
            let mut next = open(&LIMITS, NAMES).unwrap();
            assert!(next.adopted());
            assert_eq!(next.slots().unwrap()[9].cookie.load(), 5);
            assert_eq!(next.filter().unwrap()[3].marks(24), 6);
            assert_eq!(next.templates().unwrap()[99].deadline.load(), 8);
            assert_eq!(next.counters().unwrap(), counted);
            assert_eq!(next.take_owned().unwrap().all().unwrap(), [address]);
            // A link of another number is no longer wanted.
            if round < 3 {
                assert!(matches!(next.attach(near).unwrap(), Mode::Replaced));
            }
            next.complete().unwrap();
            let entries = std::fs::read_dir(DIRECTORY).unwrap();
            let names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            let programs = names.iter().filter(|name| name.starts_with("programs-")).count();
            assert_eq!(programs, 2, "this one's and the last one's: {names:?}");
            assert_eq!(names.contains(&format!("link-{near}")), round < 3);
        }
        // The program is gone from the interface: another one finds room.
        Xdp::load(&LIMITS).unwrap().attach(near).unwrap();

        netlink.set_up(near).unwrap();
        let spec = AddressSpec {
            link_index: near,
            address: address.address,
            prefix_len: 32,
            deprecated: false,
        };
        netlink.add_address(&spec).unwrap();
        State::existing(Path::new(DIRECTORY)).unwrap().unwrap().remove().unwrap();
        assert!(!netlink.addresses().unwrap().contains(&address));
        assert!(State::existing(Path::new(DIRECTORY)).unwrap().is_none());
    });
}

#[test]
fn a_start_that_was_not_completed_leaves_nothing() {
    in_state(|| {
        let (_netlink, near) = veth();
        let mut first = open(&LIMITS, NAMES).unwrap();
        first.attach(near).unwrap();
        drop(first);
        assert!(!Path::new(DIRECTORY).exists());
        Xdp::load(&LIMITS).unwrap().attach(near).unwrap();
        // Killed, it leaves what the next start clears.
        let mut first = open(&LIMITS, NAMES).unwrap();
        first.attach(near).unwrap();
        first.slots().unwrap()[9].cookie.store(5);
        first.state.as_ref().unwrap().stay();
        drop(first);
        assert!(Path::new(DIRECTORY).exists());
        let next = open(&LIMITS, NAMES).unwrap();
        assert!(!next.adopted());
        assert_eq!(next.slots().unwrap()[9].cookie.load(), 0);
        Xdp::load(&LIMITS).unwrap().attach(near).unwrap();
    });
}

#[test]
fn what_does_not_fit_is_refused_and_stays() {
    in_state(|| {
        let mut first = open(&LIMITS, NAMES).unwrap();
        first.complete().unwrap();
        let busy = State::open(Path::new(DIRECTORY)).unwrap_err();
        assert!(busy.to_string().contains("another daemon lives on"), "{busy}");
        let header = first.header().unwrap();
        drop(first);
        let refused = |limits: &Limits, message: &str| {
            let error = open(limits, NAMES).map(drop).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert!(error.contains("`seawall stop --state /sys/fs/bpf/seawall`"), "{error}");
        };
        refused(&Limits { sessions: 999, ..LIMITS }, "max_sessions was 1000, and is 999");
        let templates = Limits { templates: 101, ..LIMITS };
        refused(&templates, "max_persistence_templates was 100, and is 101");
        refused(&Limits { proven_ring_bytes: 1 << 17, ..LIMITS }, "map PROVEN has 65536 entries");
        header[0].version.store(VERSION - 1);
        refused(&LIMITS, &format!("its layout is version {}", VERSION - 1));
        header[0].version.store(VERSION);
        let elsewhere = std::thread::spawn(|| {
            netns::unshare().unwrap();
            open(&LIMITS, NAMES).map(drop).unwrap_err().to_string()
        });
        assert!(elsewhere.join().unwrap().contains("another network namespace"));
        std::fs::remove_file(Path::new(DIRECTORY).join("EMBRYOS")).unwrap();
        refused(&LIMITS, "map EMBRYOS is missing");
        State::open(Path::new(DIRECTORY)).unwrap().remove().unwrap();
    });
}

#[test]
fn other_counters_start_anew_and_the_rest_goes_on() {
    in_state(|| {
        let mut first = open(&LIMITS, NAMES).unwrap();
        first.test_run(&[0xff; 60], LOOPBACK).unwrap();
        first.slots().unwrap()[9].cookie.store(5);
        first.header().unwrap()[0].counters[3].store(9);
        first.complete().unwrap();
        drop(first);
        let next = open(&LIMITS, NAMES + 1).unwrap();
        assert!(next.adopted());
        assert_eq!(next.counters().unwrap().iter().sum::<u64>(), 0);
        assert_eq!(next.header().unwrap()[0].counters[3].load(), 0);
        assert_eq!(next.slots().unwrap()[9].cookie.load(), 5);
    });
}

#[test]
fn a_state_outside_of_a_bpf_file_system_is_refused() {
    if needs_root() {
        let error = State::open(Path::new("/tmp/seawall-no-bpf")).unwrap_err().to_string();
        assert!(error.contains("not on a BPF file system"), "{error}");
        assert!(error.contains("mount -t bpf"), "{error}");
    }
}
