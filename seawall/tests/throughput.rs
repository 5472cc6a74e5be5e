//! Throughput through the daemon against the same path with XDP programs that pass everything,
//! where the kernel forwards (SPEC, issue 3: within 10 %). A measurement, so not part of the tests:
//!
//! `cargo test --release -p seawall --test throughput -- --ignored --nocapture`

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use seawall_lab::daemon::{Daemon, DaemonSpec, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::{Arms, Topology, TopologySpec, require};

const LENGTH: u64 = 200_000_000;
const CHUNK: usize = 256 * 1024;
const ROUNDS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Download,
    Upload,
}

impl Way {
    const ALL: [Self; 2] = [Self::Download, Self::Upload];

    /// The first byte of a connection.
    const fn request(self) -> u8 {
        match self {
            Self::Download => b'd',
            Self::Upload => b'u',
        }
    }
}

#[test]
#[ignore = "a measurement of a minute; wants a release build and an idle machine"]
fn within_a_tenth_of_plain_forwarding() {
    let spec =
        TopologySpec { arms: Arms::Two, real_servers: 1, attacker: false, ..Default::default() };
    let Some(topology) = require::root(Topology::build(&spec)) else { return };
    let _passes = Passes::attach(&topology).unwrap();
    let server = &topology.servers[0];
    let real = SocketAddr::new(server.address(), SERVER_PORT);
    let listener = server.namespace.run(|| TcpListener::bind(real)).unwrap();
    std::thread::spawn(move || listener.incoming().flatten().try_for_each(serve));

    let mut rates = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for _ in 0..ROUNDS {
        let daemon = Daemon::start(&topology, &DaemonSpec::new(env!("CARGO_BIN_EXE_seawall")));
        let daemon = daemon.unwrap();
        for (way, rates) in Way::ALL.into_iter().zip(&mut rates) {
            rates[0].push(topology.client.namespace.run(|| measure(service(), way)));
        }
        daemon.end().unwrap();
        let passes = Passes::attach_to_balancer(&topology).unwrap();
        for (way, rates) in Way::ALL.into_iter().zip(&mut rates) {
            rates[1].push(topology.client.namespace.run(|| measure(real, way)));
        }
        drop(passes);
    }
    for (way, mut rates) in Way::ALL.into_iter().zip(rates) {
        println!("{way:?}: Seawall {:.0?}, plain {:.0?} MB/s", rates[0], rates[1]);
        let [seawall, plain] = rates.each_mut().map(|rates| {
            rates.sort_by(f64::total_cmp);
            rates[ROUNDS / 2]
        });
        let ratio = seawall / plain;
        println!("{way:?}: {seawall:.0} of {plain:.0} MB/s, {ratio:.2}");
        assert!(ratio >= 0.9, "{way:?}: {ratio:.2}");
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut way = [0];
    stream.read_exact(&mut way)?;
    if way == [Way::Download.request()] {
        send(&mut stream)
    } else {
        receive(&mut stream)?;
        stream.write_all(b".")
    }
}

/// Megabytes a second, from the SYN to the last byte's arrival.
fn measure(at: SocketAddr, way: Way) -> f64 {
    let start = Instant::now();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(&[way.request()]).unwrap();
    match way {
        Way::Download => assert_eq!(receive(&mut stream).unwrap(), LENGTH),
        Way::Upload => {
            send(&mut stream).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
        }
    }
    LENGTH as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn send(stream: &mut TcpStream) -> std::io::Result<()> {
    let chunk = vec![0; CHUNK];
    let mut left = LENGTH as usize;
    while left > 0 {
        let size = left.min(CHUNK);
        stream.write_all(&chunk[..size])?;
        left -= size;
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(stream: &mut TcpStream) -> std::io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(received),
            size => received += size as u64,
        }
    }
}
