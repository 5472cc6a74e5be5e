//! Real servers learn who their client is (SPEC C7): a receiver reads TOA byte by byte where the real
//! server is, and stock nginx and HAProxy believe the PROXY header. Both versions of IP, the daemon
//! between Linux stacks in namespaces. Needs root, nginx and haproxy.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seawall_control::api::Client;
use seawall_lab::daemon::Daemon;
use seawall_lab::flood::Passes;
use seawall_lab::http::{Connection, HttpServer, ServerSpec, Timeouts};
use seawall_lab::tap::Tap;
use seawall_lab::topology::{LOCAL_ADDRESSES, LOCAL_ADDRESSES6, VIP, VIP6};
use seawall_lab::{ProcessGuard, Topology, TopologySpec, require};
use tempfile::TempDir;

const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(10), total: Duration::from_secs(20) };
/// Where the lab's own server listens, nginx, and HAProxy.
const OWN_PORT: u16 = 8080;
const NGINX_PORT: u16 = 8081;
const HAPROXY_PORT: u16 = 8082;

/// One service.
struct Service {
    port: u16,
    server_port: u16,
    forwarding: &'static str,
    /// More keys, a line each.
    keys: &'static str,
}

fn build() -> Option<Topology> {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    require::root(Topology::build(&spec))
}

/// The daemon with these services on both VIPs before the one real server.
fn start(topology: &Topology, services: &[Service]) -> Daemon {
    let directory = tempfile::tempdir().unwrap();
    let mut text = format!(
        "interfaces = {:?}\nmax_sessions = 4096\n[api]\nsocket = {:?}\n\
         [[local_addresses]]\nname = \"v4\"\naddresses = [\"{}\"]\n\
         [[local_addresses]]\nname = \"v6\"\naddresses = [\"{}\"]\n",
        topology.balancer_interfaces(),
        directory.path().join("api.sock"),
        LOCAL_ADDRESSES[0],
        LOCAL_ADDRESSES6[0],
    );
    let server = &topology.servers[0];
    for (vip, real, pool) in
        [(VIP.into(), server.address(), "v4"), (IpAddr::V6(VIP6), server.address6(), "v6")]
    {
        for service in services {
            write!(
                text,
                "[[service]]\naddress = \"{}\"\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
                 local_addresses = \"{pool}\"\n{}\n[[service.real_server]]\naddress = \"{}\"\n\
                 forwarding = \"{}\"\nweight = 1\n",
                SocketAddr::new(vip, service.port),
                service.keys,
                SocketAddr::new(real, service.server_port),
                service.forwarding,
            )
            .unwrap();
        }
    }
    let executable = Path::new(env!("CARGO_BIN_EXE_seawall"));
    Daemon::start_with(&topology.balancer.namespace, executable, &text, directory).unwrap()
}

/// A TCP segment as it came to the real server.
struct Seen {
    flags: u8,
    payload: usize,
    options: Vec<u8>,
}

/// The segment in a frame, if it is from a local address to the real server.
fn to_server(frame: &[u8]) -> Option<Seen> {
    let (tcp, end, source) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let len = usize::from(u16::from_be_bytes(frame.get(16..18)?.try_into().ok()?));
            let source: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
            (frame.get(23) == Some(&6)).then_some((34, 14 + len, IpAddr::from(source)))?
        }
        [0x86, 0xdd] => {
            let len = usize::from(u16::from_be_bytes(frame.get(18..20)?.try_into().ok()?));
            let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
            (frame.get(20) == Some(&6)).then_some((54, 54 + len, IpAddr::from(source)))?
        }
        _ => return None,
    };
    let local =
        source == IpAddr::V4(LOCAL_ADDRESSES[0]) || source == IpAddr::V6(LOCAL_ADDRESSES6[0]);
    let header = usize::from(*frame.get(tcp + 12)? >> 4) * 4;
    local.then_some(Seen {
        flags: *frame.get(tcp + 13)?,
        payload: end - tcp - header,
        options: frame.get(tcp + 20..tcp + header)?.to_vec(),
    })
}

/// The TOA option for a client (alibaba/LVS, `toa.h`).
fn toa(client: SocketAddr) -> Vec<u8> {
    let port = client.port().to_be_bytes();
    match client.ip() {
        IpAddr::V4(address) => [&[254, 8][..], &port, &address.octets()].concat(),
        IpAddr::V6(address) => [&[253, 20][..], &port, &address.octets()].concat(),
    }
}

#[test]
fn toa_arrives_byte_by_byte_in_the_first_segments_only() {
    let Some(topology) = build() else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let server = &topology.servers[0];
    let _servers = [server.address(), server.address6()].map(|address| {
        let spec = ServerSpec::new("rs0");
        HttpServer::start(&server.namespace, SocketAddr::new(address, OWN_PORT), spec).unwrap()
    });
    let service = |port, keys| Service { port, server_port: OWN_PORT, forwarding: "fullnat", keys };
    let daemon = start(
        &topology,
        &[
            service(80, "synproxy = \"on\"\ntoa = true"),
            service(81, "synproxy = \"off\"\ntoa = true"),
        ],
    );
    for (vip, client) in [
        (IpAddr::V4(VIP), topology.client.address()),
        (IpAddr::V6(VIP6), topology.client.address6()),
    ] {
        for port in [80, 81] {
            let at = SocketAddr::new(vip, port);
            let tap = Tap::open(&server.namespace).unwrap();
            let local = topology.client.namespace.run(|| {
                let mut connection = Connection::open(at, &TIMEOUTS).unwrap();
                for _ in 0..3 {
                    assert_eq!(connection.get("/").unwrap().status, 200);
                }
                connection.local_address().unwrap()
            });
            assert_eq!(local.ip(), client);
            let expected = toa(local);
            let (mut with, mut data, mut without) = (0, 0, 0);
            let end = tap.find(Duration::from_secs(5), |frame| {
                let seen = to_server(frame)?;
                let bears = seen.options.starts_with(&expected);
                let any = seen.options.windows(2).any(|it| it == &expected[..2]);
                assert_eq!(bears, any, "{at}: {:?} is not {expected:?}", seen.options);
                assert!(!bears || without == 0, "{at}: only in the first segments");
                assert!(!bears || seen.flags & 0x06 == 0, "{at}: in no SYN or RST");
                with += u32::from(bears);
                data += u32::from(bears && seen.payload > 0);
                // Its own SYN bears none.
                without += u32::from(!bears && seen.flags & 0x02 == 0);
                (seen.flags & 0x01 != 0).then_some(())
            });
            assert!(end.unwrap().is_some(), "{at}: no FIN");
            assert!(with > 0 && data > 0 && without > 1, "{at}: {with} {data} {without}");
        }
    }
    let counters = Client::new(daemon.socket()).stats().unwrap().counters;
    assert!(counters["fullnat_add_toa_ok"] >= 8);
    assert_eq!(counters["fullnat_add_toa_fail_len"], 0);
}

/// Starts a server in the real server's namespace and waits until it listens at `port`.
fn serve(topology: &Topology, mut command: Command, port: u16) -> io::Result<ProcessGuard> {
    let host = &topology.servers[0];
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = host.namespace.spawn_process(command)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    for address in [host.address(), host.address6()] {
        let address = SocketAddr::new(address, port);
        while host.namespace.run(|| TcpStream::connect(address)).is_err() {
            let ended = process.wait_for(Duration::from_millis(20))?;
            assert!(ended.is_none() && Instant::now() < deadline, "nobody listens at {address}");
        }
    }
    Ok(process)
}

fn nginx(topology: &Topology, directory: &TempDir) -> io::Result<ProcessGuard> {
    let (file, at) = (directory.path().join("nginx.conf"), directory.path().display());
    let host = &topology.servers[0];
    let listen = [host.address(), host.address6()]
        .map(|address| format!("listen {} proxy_protocol;", SocketAddr::new(address, NGINX_PORT)));
    let answer = "$proxy_protocol_addr $proxy_protocol_port \
                  $proxy_protocol_server_addr $proxy_protocol_server_port";
    std::fs::write(
        &file,
        format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\nserver {{ {} \
             location / {{ return 200 \"{answer}\"; }} }} }}\n",
            listen.concat(),
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
    serve(topology, command, NGINX_PORT)
}

fn haproxy(topology: &Topology, directory: &TempDir) -> io::Result<ProcessGuard> {
    let file = directory.path().join("haproxy.cfg");
    let host = &topology.servers[0];
    let bind = [host.address(), host.address6()]
        .map(|address| format!("  bind {} accept-proxy\n", SocketAddr::new(address, HAPROXY_PORT)));
    std::fs::write(
        &file,
        format!(
            "global\n  maxconn 256\ndefaults\n  mode http\n  timeout client 20s\n\
             frontend f\n{}  http-request return status 200 content-type text/plain \
             lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"\n",
            bind.concat(),
        ),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    serve(topology, command, HAPROXY_PORT)
}

#[test]
fn stock_nginx_and_haproxy_take_the_proxy_header() {
    let Some(topology) = build() else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (nginx, haproxy) = (nginx(&topology, &directory), haproxy(&topology, &directory));
    for (name, started) in [("nginx", &nginx), ("haproxy", &haproxy)] {
        match started {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return require::missing(format_args!("needs {name}"));
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    let (v1, v2) = (
        "synproxy = \"on\"\nproxy_protocol = \"v1\"",
        "synproxy = \"on\"\ndefer = true\nproxy_protocol = \"v2\"",
    );
    let mut services = Vec::new();
    for (server, server_port) in [(0, NGINX_PORT), (1, HAPROXY_PORT)] {
        for (way, forwarding) in [(0, "fullnat"), (1, "nat")] {
            for (version, keys) in [(1, v1), (2, v2)] {
                let port = 8_000 + server * 100 + way * 10 + version;
                services.push(Service { port, server_port, forwarding, keys });
            }
        }
    }
    let daemon = start(&topology, &services);
    for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
        for service in &services {
            let at = SocketAddr::new(vip, service.port);
            topology.client.namespace.run(|| {
                let mut connection = Connection::open(at, &TIMEOUTS).unwrap();
                let local = connection.local_address().unwrap();
                let expected = format!("{} {} {vip} {}", local.ip(), local.port(), at.port());
                for _ in 0..3 {
                    let response = connection.get("/").unwrap_or_else(|e| panic!("{at}: {e}"));
                    let body = String::from_utf8_lossy(&response.body).into_owned();
                    assert_eq!((response.status, body), (200, expected.clone()), "{at}");
                }
            });
        }
    }
    let counters = Client::new(daemon.socket()).stats().unwrap().counters;
    assert_eq!(counters["proxy_protocol_sent"], 2 * services.len() as u64);
    assert_eq!(counters["proxy_protocol_failed"], 0);
}
