//! Server and client against each other over loopback; no privilege needed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

fn server(name: &str) -> HttpServer {
    let spec = ServerSpec { seed: 42, threads: 4, ..ServerSpec::new(name) };
    HttpServer::start_here(SocketAddr::from(([127, 0, 0, 1], 0)), spec).unwrap()
}

/// A server that reads a request and answers with these bytes, then closes.
fn canned(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(answer);
    });
    address
}

fn kind(result: Result<Response, Error>) -> ErrorKind {
    result.unwrap_err().kind
}

#[test]
fn a_server_answers_in_its_own_name() {
    let server = server("blue");
    let response = get(server.address(), "/", &Timeouts::default()).unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.body, b"blue\n");
    assert_eq!(response.server.as_deref(), Some("blue"));
    assert!(response.headers.contains(&("Connection".into(), "close".into())));
    assert_eq!(get(server.address(), "/nothing", &Timeouts::default()).unwrap().status, 404);
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = server("blue");
    let mut connection = Connection::open(server.address(), &Timeouts::default()).unwrap();
    let local = connection.local_address().unwrap();
    for _ in 0..3 {
        assert_eq!(connection.get("/").unwrap().body, b"blue\n");
        assert_eq!(connection.get("/bytes/10").unwrap().body.len(), 10);
    }
    assert_eq!(connection.local_address().unwrap(), local);
}

#[test]
fn transfers_are_compared_byte_for_byte() {
    let server = server("blue");
    let length = 3 * CHUNK as u64 + 17;
    let timeouts = Timeouts::default();
    let down = download(server.address(), Payload { length, seed: 42 }, &timeouts).unwrap();
    let up = upload(server.address(), Payload { length, seed: 42 }, &timeouts).unwrap();
    assert_eq!((down.length, up.length), (length, length));
    // Computed by the client for one and confirmed by the server for the other.
    assert_eq!(down.sha256, up.sha256);
    let error = download(server.address(), Payload { length, seed: 43 }, &timeouts).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.detail.contains("the byte at 0 of"), "{error}");
    assert_eq!(
        upload(server.address(), Payload { length: 0, seed: 42 }, &timeouts).unwrap().length,
        0
    );
}

#[test]
fn an_expectation_is_answered_before_the_body() {
    let server = server("blue");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .write_all(b"POST /upload HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    // FIPS 180-2, appendix B.1.
    assert!(answer.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3"));
}

#[test]
fn bad_requests_are_refused_with_a_reason() {
    let server = server("blue");
    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask(b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(ask(b"PUT / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(ask(b"POST /upload HTTP/1.1\r\n\r\nbody").starts_with("HTTP/1.1 411 "));
    assert!(ask(b"GET / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nblue\n"));
}

#[test]
fn failures_are_told_apart() {
    let timeouts =
        Timeouts { connect: Duration::from_millis(500), total: Duration::from_millis(200) };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(kind(get(closed, "/", &timeouts)), ErrorKind::Refused);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    let result = get(silent.local_addr().unwrap(), "/", &timeouts);
    assert_eq!(kind(result), ErrorKind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(kind(get(canned(b""), "/", &timeouts)), ErrorKind::Truncated);
    assert_eq!(kind(get(canned(b"SSH-2.0 x\r\n\r\n"), "/", &timeouts)), ErrorKind::Malformed);
    let short = canned(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour");
    assert_eq!(kind(get(short, "/", &timeouts)), ErrorKind::Truncated);
    let busy = canned(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    let error = download(busy, Payload { length: 1, seed: 0 }, &timeouts);
    assert_eq!(error.unwrap_err().kind, ErrorKind::Status);
}

#[test]
fn a_dropped_server_leaves_at_once_and_frees_its_port() {
    let server = server("blue");
    let address = server.address();
    let mut idle = Connection::open(address, &Timeouts::default()).unwrap();
    idle.get("/").unwrap();
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(kind(get(address, "/", &Timeouts::default())), ErrorKind::Refused);
}
