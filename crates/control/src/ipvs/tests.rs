//! The socket with a daemon of paper behind it: what comes is what is answered, whatever comes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect};
use rustix::net::{recv, send, socket};
use tokio::sync::oneshot;

use super::netlink::{Attributes, Header, Message, Writer};
use super::uapi::{
    AF_INET, GENL_ID_CTRL, IPPROTO_TCP, IPVS_ID, NLMSG_DONE, NLMSG_ERROR, attr, cmd, ctrl, dest,
    info, nlm, svc,
};
use super::*;
use crate::report::Totals;

/// A configuration that is changed as a daemon does, and all refusals.
struct Paper {
    config: Mutex<Config>,
    refusals: Mutex<Vec<String>>,
}

const FILE: &str = "interfaces = [\"eth0\"]\nmax_sessions = 4096\n";

impl Paper {
    fn new() -> Self {
        let config = Config::parse("f", FILE).unwrap();
        Self { config: Mutex::new(config), refusals: Mutex::default() }
    }
}

impl Backend for Paper {
    fn config(&self) -> Result<Arc<Config>, Declined> {
        Ok(Arc::new(self.config.lock().unwrap().clone()))
    }

    fn table(&self, _: Duration) -> Result<Arc<Table>, Declined> {
        let config = self.config()?;
        let report = |service: &ServiceConfig| ServiceReport {
            address: service.address,
            protocol: service.protocol,
            scheduler: service.scheduler,
            scheduler_flags: Vec::new(),
            synproxy: service.synproxy,
            ops: service.ops,
            persistent: None,
            totals: Totals { connections: 1 << 33, ..Totals::default() },
            rates: Default::default(),
            real_servers: service.real_servers.iter().map(server_report).collect(),
        };
        let reports = config.services.iter().map(report).collect();
        Ok(Arc::new(Table { config, reports }))
    }

    fn sessions(&self, _: Page) -> Result<SessionsReport, Declined> {
        Ok(SessionsReport::default())
    }

    fn change(&self, change: &Change) -> Result<(), Refusal> {
        let mut config = self.config.lock().unwrap();
        let index = crate::config::Index::new(&config.services);
        match edit(&config, &index, change)? {
            Edit::Put { at, service } => {
                let old = at.and_then(|at| config.services.get(at));
                config
                    .check(&index, old, &service)
                    .map_err(|error| Refusal { errno: Errno::INVAL, reason: error.to_string() })?;
                match at {
                    Some(at) => config.services[at] = *service,
                    None => config.services.push(*service),
                }
            }
            Edit::Remove(at) => {
                config.services.remove(at);
            }
            Edit::RemoveAll => config.services.clear(),
            Edit::Zero(_) => {}
            Edit::Timeouts(timeouts) => config.timeouts = timeouts,
        }
        Ok(())
    }

    fn refused(&self, _: &Change, refusal: &Refusal) {
        self.refusals.lock().unwrap().push(refusal.reason.clone());
    }
}

fn server_report(server: &RealServerConfig) -> RealServerReport {
    RealServerReport {
        address: server.address,
        forwarding: server.forwarding,
        weight: server.weight,
        down: false,
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
        overloaded: false,
        totals: Totals::default(),
        rates: Default::default(),
    }
}

fn header(kind: u16, flags: u16) -> Header {
    Header { kind, flags: nlm::REQUEST | flags, sequence: 7, port: 99 }
}

/// A request of the family `IPVS`.
fn request(command: u8, flags: u16, attributes: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.command(header(IPVS_ID, flags), (command, 1), attributes);
    writer.into_bytes()
}

fn service_attributes(writer: &mut Writer, port: u16, flags: u32) {
    writer.nested(attr::SERVICE, |writer| {
        writer.u16(svc::AF, AF_INET);
        writer.u16(svc::PROTOCOL, IPPROTO_TCP);
        writer.attribute(svc::ADDR, &[10, 0, 0, 1]);
        writer.be16(svc::PORT, port);
        writer.text(svc::SCHED_NAME, "rr");
        writer.attribute(svc::FLAGS, &[flags.to_ne_bytes(), [0xff; 4]].concat());
        writer.u32(svc::TIMEOUT, 0);
        writer.u32(svc::NETMASK, u32::MAX);
    });
}

fn destination_attributes(writer: &mut Writer, forwarding: u32) {
    writer.nested(attr::DEST, |writer| {
        writer.attribute(dest::ADDR, &[192, 168, 7, 2]);
        writer.be16(dest::PORT, 80);
        writer.u32(dest::FWD_METHOD, forwarding);
        writer.u32(dest::WEIGHT, 1);
        writer.u32(dest::U_THRESH, 0);
        writer.u32(dest::L_THRESH, 0);
    });
}

/// The error number that answers `request`, 0 being none; all that is answered otherwise is left out.
fn errno(paper: &Paper, request: &[u8]) -> Option<i32> {
    let answers = dialogue::answer(paper, request);
    let last = answers.last()?;
    let message = Message::all(last).last()?;
    (message.header.kind == NLMSG_ERROR)
        .then(|| i32::from_ne_bytes(message.payload[..4].try_into().unwrap()))
}

fn failed(errno: Errno) -> Option<i32> {
    Some(-errno.raw_os_error())
}

#[test]
fn errors_are_the_kernels() {
    let paper = Paper::new();
    let service = |port| move |writer: &mut Writer| service_attributes(writer, port, 0);
    let both = |writer: &mut Writer| {
        service_attributes(writer, 80, 0);
        destination_attributes(writer, 0);
    };
    for (name, request, expected) in [
        ("unknown command", request(99, 0, |_| ()), failed(Errno::OPNOTSUPP)),
        ("no such dump", request(cmd::FLUSH, nlm::DUMP, |_| ()), failed(Errno::OPNOTSUPP)),
        ("one destination", request(cmd::GET_DEST, 0, both), failed(Errno::OPNOTSUPP)),
        ("no service", request(cmd::NEW_SERVICE, 0, |_| ()), failed(Errno::INVAL)),
        ("not there", request(cmd::SET_SERVICE, 0, service(80)), failed(Errno::SRCH)),
        ("not there to delete", request(cmd::DEL_SERVICE, 0, service(80)), failed(Errno::SRCH)),
        ("not there to get", request(cmd::GET_SERVICE, 0, service(80)), failed(Errno::SRCH)),
        ("no service to add to", request(cmd::NEW_DEST, 0, both), failed(Errno::SRCH)),
        ("added, unasked", request(cmd::NEW_SERVICE, 0, service(80)), None),
        ("there", request(cmd::NEW_SERVICE, nlm::ACK, service(80)), failed(Errno::EXIST)),
        ("changed", request(cmd::SET_SERVICE, nlm::ACK, service(80)), Some(0)),
        ("no destination", request(cmd::NEW_DEST, 0, service(80)), failed(Errno::INVAL)),
        ("no such destination", request(cmd::DEL_DEST, 0, both), failed(Errno::NOENT)),
        ("none to change", request(cmd::SET_DEST, 0, both), failed(Errno::NOENT)),
        ("destination", request(cmd::NEW_DEST, nlm::ACK, both), Some(0)),
        ("again", request(cmd::NEW_DEST, nlm::ACK, both), failed(Errno::EXIST)),
        ("zeroed", request(cmd::ZERO, nlm::ACK, |_| ()), Some(0)),
        ("no such service to zero", request(cmd::ZERO, 0, service(81)), failed(Errno::SRCH)),
        ("which daemon", request(cmd::DEL_DAEMON, 0, |_| ()), failed(Errno::INVAL)),
        (
            "no such daemon",
            request(cmd::DEL_DAEMON, 0, |writer| writer.nested(attr::DAEMON, |_| ())),
            failed(Errno::SRCH),
        ),
        (
            "a timeout too short to read",
            request(cmd::SET_CONFIG, 0, |writer| writer.u16(attr::TIMEOUT_TCP, 1)),
            failed(Errno::RANGE),
        ),
        (
            "a timeout of 20 years",
            request(cmd::SET_CONFIG, 0, |writer| writer.u32(attr::TIMEOUT_TCP, 630_000_000)),
            failed(Errno::INVAL),
        ),
        (
            "another family",
            request(cmd::NEW_SERVICE, 0, |writer| {
                writer.nested(attr::SERVICE, |writer| {
                    writer.u16(svc::AF, 7);
                    writer.u32(svc::FWMARK, 1);
                });
            }),
            failed(Errno::AFNOSUPPORT),
        ),
        ("all removed", request(cmd::FLUSH, nlm::ACK, |_| ()), Some(0)),
    ] {
        assert_eq!(errno(&paper, &request), expected, "{name}");
    }
    assert_eq!(paper.config.lock().unwrap().services, []);
}

#[test]
fn what_seawall_cannot_do_is_refused_with_the_reason() {
    let paper = Paper::new();
    let proxied = request(cmd::NEW_SERVICE, nlm::ACK, |w| service_attributes(w, 80, 0x20));
    assert_eq!(errno(&paper, &proxied), Some(0));
    assert!(paper.config.lock().unwrap().services[0].synproxy);
    let direct = request(cmd::NEW_DEST, nlm::ACK, |writer| {
        service_attributes(writer, 80, 0);
        destination_attributes(writer, 3);
    });
    assert_eq!(errno(&paper, &direct), failed(Errno::INVAL));
    let marked = request(cmd::NEW_SERVICE, 0, |writer| {
        writer.nested(attr::SERVICE, |writer| {
            writer.u16(svc::AF, AF_INET);
            writer.u32(svc::FWMARK, 5);
            writer.text(svc::SCHED_NAME, "rr");
            writer.attribute(svc::FLAGS, &[0; 8]);
            writer.u32(svc::TIMEOUT, 0);
            writer.u32(svc::NETMASK, 0);
        });
    });
    assert_eq!(errno(&paper, &marked), failed(Errno::NOPROTOOPT));
    let refusals = paper.refusals.lock().unwrap();
    assert!(refusals[0].contains("synproxy cannot work with it"), "{refusals:?}");
    assert!(refusals[1].contains("before netfilter marks them"), "{refusals:?}");
}

#[test]
fn masquerading_is_fullnat_where_there_are_local_addresses() {
    let text = format!(
        "{FILE}[ipvs]\nsocket = \"/s\"\nlocal_addresses = \"pool\"\n[[local_addresses]]\nname = \
         \"pool\"\naddresses = [\"192.168.7.100\"]\n"
    );
    let config = Mutex::new(Config::parse("f", &text).unwrap());
    let paper = Paper { config, refusals: Mutex::default() };
    let both = |writer: &mut Writer| {
        service_attributes(writer, 80, 0);
        destination_attributes(writer, 0);
    };
    assert_eq!(errno(&paper, &request(cmd::NEW_SERVICE, nlm::ACK, both)), Some(0));
    assert_eq!(errno(&paper, &request(cmd::NEW_DEST, nlm::ACK, both)), Some(0));
    let forwarding =
        |paper: &Paper| paper.config.lock().unwrap().services[0].real_servers[0].forwarding;
    assert_eq!(forwarding(&paper), crate::config::Forwarding::FullNat);
    // One that a file has as NAT stays so.
    paper.config.lock().unwrap().services[0].real_servers[0].forwarding =
        crate::config::Forwarding::Nat;
    assert_eq!(errno(&paper, &request(cmd::SET_DEST, nlm::ACK, both)), Some(0));
    assert_eq!(forwarding(&paper), crate::config::Forwarding::Nat);
}

#[test]
fn a_dump_is_cut_into_datagrams_and_ends() {
    let paper = Paper::new();
    for port in 1..=200 {
        let add = request(cmd::NEW_SERVICE, 0, |writer| service_attributes(writer, port, 0));
        assert_eq!(errno(&paper, &add), None);
    }
    let answers = dialogue::answer(&paper, &request(cmd::GET_SERVICE, nlm::DUMP, |_| ()));
    assert!(answers.len() > 10 && answers.iter().all(|answer| answer.len() <= 4096));
    let messages: Vec<_> = answers.iter().flat_map(|answer| Message::all(answer)).collect();
    let (last, services) = messages.split_last().unwrap();
    assert_eq!(last.header.kind, NLMSG_DONE);
    assert_eq!(services.len(), 200);
    for (message, port) in services.iter().zip(1..) {
        assert_eq!(message.header, Header { flags: nlm::MULTI, ..header(IPVS_ID, 0) });
        let (command, attributes) = message.command().unwrap();
        assert_eq!(command, cmd::NEW_SERVICE);
        let service = Attributes::new(attributes).nested(attr::SERVICE).unwrap();
        assert_eq!(service.be16(svc::PORT), Ok(Some(port)));
        // 2^33 connections in 64 bits, and what 32 hold of them.
        let narrow = service.nested(svc::STATS).unwrap().u32(1);
        let wide = service.nested(svc::STATS64).unwrap().get(1).unwrap().to_vec();
        assert_eq!((narrow, wide), (Ok(Some(0)), (1u64 << 33).to_ne_bytes().to_vec()));
    }
}

#[test]
fn a_datagram_has_one_dump() {
    let paper = Paper::new();
    let dump = request(cmd::GET_SERVICE, nlm::DUMP, |_| ());
    let answers = dialogue::answer(&paper, &[dump.clone(), dump].concat());
    let messages: Vec<_> = answers.iter().flat_map(|answer| Message::all(answer)).collect();
    let [done, busy] = &messages[..] else { panic!("{answers:?}") };
    assert_eq!((done.header.kind, busy.header.kind), (NLMSG_DONE, NLMSG_ERROR));
    assert_eq!(busy.payload[..4], (-Errno::BUSY.raw_os_error()).to_ne_bytes());
}

#[test]
fn families_are_found_by_name_and_by_number() {
    let paper = Paper::new();
    let ask = |flags, attributes: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        writer.command(header(GENL_ID_CTRL, flags), (ctrl::GETFAMILY, 1), attributes);
        dialogue::answer(&paper, &writer.into_bytes())
    };
    for attributes in [
        &(|w: &mut Writer| w.text(ctrl::FAMILY_NAME, "IPVS")) as &dyn Fn(&mut Writer),
        &|w: &mut Writer| w.u16(ctrl::FAMILY_ID, IPVS_ID),
    ] {
        let answers = ask(nlm::ACK, attributes);
        let [family, acknowledgment] = &answers[..] else { panic!("{answers:?}") };
        let message = Message::all(family).next().unwrap();
        let found = Attributes::new(message.command().unwrap().1);
        assert_eq!(found.u16(ctrl::FAMILY_ID), Ok(Some(IPVS_ID)));
        assert_eq!(found.text(ctrl::FAMILY_NAME, 15), Ok(Some("IPVS")));
        assert_eq!(Message::all(acknowledgment).next().unwrap().header.kind, NLMSG_ERROR);
    }
    let unknown = ask(0, &|w| w.text(ctrl::FAMILY_NAME, "TASKSTATS"));
    let message = Message::all(&unknown[0]).next().unwrap();
    assert_eq!(message.payload[..4], (-Errno::NOENT.raw_os_error()).to_ne_bytes());
}

fn connected(path: &Path) -> OwnedFd {
    let fd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&fd, &SocketAddrUnix::new(path).unwrap()).unwrap();
    fd
}

fn receive(fd: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let (length, _) = recv(fd, buffer.as_mut_slice(), RecvFlags::empty()).unwrap();
    buffer.truncate(length);
    buffer
}

#[test]
fn a_connection_is_a_netlink_socket_and_serves_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ipvs.sock");
    let server = Server::bind(&path).unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let backend = Arc::new(Paper::new());
    let thread = std::thread::spawn(move || {
        server.run_blocking(backend, async {
            let _ = ended.await;
        })
    });

    let one = connected(&path);
    let other = connected(&path);
    for fd in [&one, &other, &one] {
        send(fd, &request(cmd::GET_INFO, nlm::ACK, |_| ()), SendFlags::empty()).unwrap();
        let answer = receive(fd);
        let message = Message::all(&answer).next().unwrap();
        assert_eq!(message.header, Header { flags: 0, ..header(IPVS_ID, 0) });
        let found = Attributes::new(message.command().unwrap().1);
        assert_eq!(found.u32(info::CONN_TAB_SIZE), Ok(Some(4096)));
        assert_eq!(Message::all(&receive(fd)).next().unwrap().header.kind, NLMSG_ERROR);
    }
    send(&other, b"/proc/net/ip_vs_conn", SendFlags::empty()).unwrap();
    assert!(receive(&other).starts_with(b"Pro FromIP   FPrt "));
    assert_eq!(receive(&other), [0]);
    assert_eq!(receive(&other), b"");
    // One that is too long to be read is not answered, and ends the connection.
    send(&one, &[0; 20_000], SendFlags::empty()).unwrap();
    assert_eq!(receive(&one), b"");

    end.send(()).unwrap();
    thread.join().unwrap().unwrap();
    assert!(!path.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What makes no sense is answered by an error or not at all, and changes nothing.
    #[test]
    fn nonsense_changes_nothing(
        command in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        headless in any::<bool>(),
    ) {
        let paper = Paper::new();
        let attributes = |writer: &mut Writer| writer.bytes(&payload);
        let bytes = if headless { payload.clone() } else { request(command, 0, attributes) };
        let answers = dialogue::answer(&paper, &bytes);
        prop_assert!(answers.iter().all(|answer| answer.len() <= 4096));
        prop_assert_eq!(&*paper.config.lock().unwrap(), &Config::parse("f", FILE).unwrap());
    }

    /// Requests of every kind with a few bytes wrong are served or refused, and no more comes of
    /// them than one service.
    #[test]
    fn damaged_requests_do_no_harm(
        command in 1u8..20,
        flags in prop::sample::select(vec![0, nlm::ACK, nlm::DUMP]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let paper = Paper::new();
        let add = request(cmd::NEW_SERVICE, 0, |writer| service_attributes(writer, 80, 0));
        prop_assert_eq!(errno(&paper, &add), None);
        let mut bytes = request(command, flags, |writer| {
            service_attributes(writer, 80, 0);
            destination_attributes(writer, 0);
        });
        // Behind the header, whose length goes with what is left.
        for (at, byte) in damage {
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(16 + cut.index(bytes.len() - 16));
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
        }
        for answer in dialogue::answer(&paper, &bytes) {
            prop_assert!(Message::all(&answer).count() > 0);
        }
        prop_assert!(paper.config.lock().unwrap().services.len() <= 2);
    }
}
