//! Long transfers, one and ten at a time, down and up.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_lab::TopologySpec;
use seawall_lab::daemon::SERVER_PORT;

use super::outcome::Sample;
use super::rig::{Placement, Rig};
use super::system::System;
use super::{Settings, WARM_UP};

/// Bytes that are read or written at once.
const CHUNK: usize = 256 << 10;
/// Longer than this no end waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// Transfers at a time.
const COUNTS: [usize; 2] = [1, 10];

/// Which way the data goes; its first byte tells the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Download = b'd' as isize,
    Upload = b'u' as isize,
}

/// The mean of the four rates, in megabytes a second.
pub(crate) fn measure(settings: &Settings, system: System) -> Result<Sample> {
    let spec = TopologySpec { real_servers: 1, attacker: false, ..TopologySpec::default() };
    let rig =
        Rig::build(&spec, Placement::Apart, |topology| system.start(topology, &settings.daemon))?;
    let _passes = rig.open()?;
    let received = Arc::new(AtomicU64::new(0));
    serve(&rig, &received)?;
    let target = system.target(&rig.topology);
    let mut sample = Sample::new(0.0);
    for (way, name) in [(Way::Download, "down"), (Way::Upload, "up")] {
        for count in COUNTS {
            let usage = rig.usage()?;
            let (bytes, rate) = transfer(&rig, target, way, count, &received, settings.window)
                .with_context(|| format!("{count} {name}"))?;
            let spent = rig.usage()?.since(&usage);
            sample.value += rate / 4.0;
            sample = sample.note(&format!("{count:02}_{name}_mb_per_s"), rate).note(
                &format!("{count:02}_{name}_balancer_ns_per_kb"),
                spent.balancer / bytes * 1e12,
            );
        }
    }
    Ok(sample)
}

/// Serves transfers, and counts what the uploads bring.
fn serve(rig: &Rig, received: &Arc<AtomicU64>) -> Result<()> {
    let host = &rig.topology.servers[0];
    let at = SocketAddr::new(host.address(), SERVER_PORT);
    let listener = host.namespace.run(|| TcpListener::bind(at))?;
    let received = Arc::clone(received);
    // It has no end of its own: it listens until the process ends.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let received = Arc::clone(&received);
            thread::spawn(move || answer(stream, &received));
        }
    });
    Ok(())
}

/// Serves one; an error is how its end is told.
fn answer(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    let mut way = [0];
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut way)?;
    let never = AtomicBool::new(false);
    if way == [Way::Download as u8] {
        send(&mut stream, &never)
    } else {
        receive(&mut stream, &never, received)
    }
}

/// All bytes that have arrived in the end, and how many megabytes a second did in the window.
fn transfer(
    rig: &Rig,
    target: SocketAddr,
    way: Way,
    count: usize,
    received: &AtomicU64,
    window: Duration,
) -> Result<(f64, f64)> {
    let end = AtomicBool::new(false);
    let client = &rig.topology.client.namespace;
    let first = received.load(Ordering::Relaxed);
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = client.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&[way as u8])?;
        streams.push(stream);
    }
    let rate = thread::scope(|scope| {
        for mut stream in streams {
            let end = &end;
            scope.spawn(move || match way {
                Way::Download => receive(&mut stream, end, received),
                Way::Upload => send(&mut stream, end),
            });
        }
        sleep(WARM_UP);
        let (before, start) = (received.load(Ordering::Relaxed), Instant::now());
        sleep(window);
        let bytes = received.load(Ordering::Relaxed) - before;
        let rate = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
        end.store(true, Ordering::Relaxed);
        rate
    });
    ensure!(rate > 0.0, "nothing arrives");
    Ok(((received.load(Ordering::Relaxed) - first) as f64, rate))
}

fn send(stream: &mut TcpStream, end: &AtomicBool) -> io::Result<()> {
    let chunk = vec![0; CHUNK];
    while !end.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, end: &AtomicBool, received: &AtomicU64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while !end.load(Ordering::Relaxed) {
        match stream.read(&mut chunk)? {
            0 => break,
            size => received.fetch_add(size as u64, Ordering::Relaxed),
        };
    }
    Ok(())
}
