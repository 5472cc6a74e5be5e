//! The API over real sockets: round trips, malformed requests, and the socket's life.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::config::{Forwarding, Protocol};
use crate::report::{DropRow, SessionReport};

/// A daemon of 2,500 sessions that counts what it was asked to do.
#[derive(Default)]
struct Daemon {
    stops: AtomicU32,
    reloads: AtomicU32,
}

const SESSIONS: u64 = 2500;

fn session(index: u64) -> SessionReport {
    SessionReport {
        client: format!("198.51.100.1:{}", 1024 + index).parse().unwrap(),
        vip: "10.0.0.254:80".parse().unwrap(),
        local: format!("192.168.7.100:{}", 5000 + index).parse().unwrap(),
        real_server: "192.168.7.2:8080".parse().unwrap(),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::FullNat,
        state: "ESTABLISHED".to_owned(),
        idle_ms: 5,
        expires_ms: 899_995,
        in_packets: 1,
        in_bytes: 40,
        out_packets: 2,
        out_bytes: 80,
    }
}

impl Backend for Daemon {
    fn stats(&self) -> Result<StatsReport, Declined> {
        let counters = [("synproxy_syn_cnt".to_owned(), u64::MAX)].into();
        Ok(StatsReport { counters, services: Vec::new() })
    }

    fn drops(&self) -> Result<DropsReport, Declined> {
        let text = |text: &str| text.to_owned();
        let row =
            DropRow { name: text("n"), value: 1, meaning: text("\"quoted\""), remedy: text("é") };
        Ok(DropsReport { drops: vec![row] })
    }

    fn sessions(&self, page: Page) -> Result<SessionsReport, Declined> {
        let end = page.offset.saturating_add(page.limit.into()).min(SESSIONS);
        let next = (end < SESSIONS).then_some(end);
        let sessions = (page.offset..end).map(session).collect();
        Ok(SessionsReport { total: SESSIONS, next, sessions })
    }

    fn reload(&self) -> Result<ReloadReport, Declined> {
        match self.reloads.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(ReloadReport { changes: vec!["a weight".to_owned()] }),
            1 => Err(Declined::Refused("seawall.toml:7: wrong; expected right".to_owned())),
            _ => Err(Declined::NoAnswer),
        }
    }

    fn diff(&self, file: NewFile) -> Result<DiffReport, Declined> {
        if file.bytes.is_empty() {
            return Err(Declined::Refused("1: the file configures nothing".to_owned()));
        }
        let restart = vec![format!("{}:1: interfaces has changed", file.name)];
        Ok(DiffReport { changes: vec![format!("{} bytes", file.bytes.len())], restart })
    }

    fn set_health(&self, name: ServerName, health: Health) -> Result<HealthReport, Declined> {
        if name.server.port() == 1 {
            return Err(Declined::Refused("there is no real server".to_owned()));
        }
        Ok(HealthReport { changed: health == Health::Down })
    }

    fn stop(&self, what: Stop) {
        let by = match what {
            Stop::End => 1,
            Stop::Keep => 100,
        };
        self.stops.fetch_add(by, Ordering::SeqCst);
    }
}

struct Running {
    dir: tempfile::TempDir,
    path: PathBuf,
    daemon: Arc<Daemon>,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/seawall/api.sock");
        let daemon = Arc::new(Daemon::default());
        let server = Server::bind(&path).unwrap();
        let (shutdown, signal) = oneshot::channel();
        let backend = Arc::clone(&daemon);
        let thread = std::thread::spawn(move || {
            server.run_blocking(backend, async {
                let _ = signal.await;
            })
        });
        Self { dir, path, daemon, shutdown: Some(shutdown), thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    fn stop(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    /// Sends bytes, and what came back until the daemon closed.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // A refusal may close the connection before everything is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

#[test]
fn every_request_round_trips() {
    let running = Running::start();
    let client = running.client();
    assert_eq!(client.stats().unwrap(), running.daemon.stats().unwrap());
    assert_eq!(client.drops().unwrap(), running.daemon.drops().unwrap());
    let version = client.version().unwrap();
    assert_eq!((version.version.as_str(), version.pid), ("0.1.0", std::process::id()));

    let mut page = Page::default();
    let mut all = Vec::new();
    loop {
        let report = client.sessions(page).unwrap();
        assert!(report.sessions.len() <= 1000);
        all.extend(report.sessions);
        match report.next {
            Some(next) => page.offset = next,
            None => break,
        }
    }
    assert_eq!(all, (0..SESSIONS).map(session).collect::<Vec<_>>());

    let mut name = ServerName {
        service: "[2001:db8::1]:80".parse().unwrap(),
        protocol: Protocol::Udp,
        server: "[2001:db8::2]:8080".parse().unwrap(),
    };
    assert!(client.set_health(name, Health::Down).unwrap().changed);
    assert!(!client.set_health(name, Health::Up).unwrap().changed);
    name.server.set_port(1);
    let refused = client.set_health(name, Health::Up).unwrap_err().to_string();
    assert!(refused.contains("there is no real server"), "{refused}");

    let changes = vec!["a weight".to_owned()];
    assert_eq!(client.reload().unwrap(), ReloadReport { changes });
    let refused = client.reload().unwrap_err().to_string();
    assert!(refused.contains("seawall.toml:7: wrong; expected right"), "{refused}");
    let silent = client.reload().unwrap_err().to_string();
    assert!(silent.contains("too busy to answer"), "{silent}");

    // More than a request without a file may bring, and a name that a URI cannot hold as it is.
    let file = NewFile { name: "a b&c=é/%.toml".to_owned(), bytes: vec![0xff; 100_000] };
    let report = client.diff(file.clone()).unwrap();
    assert_eq!(report.changes, ["100000 bytes"]);
    assert_eq!(report.restart, ["a b&c=é/%.toml:1: interfaces has changed"]);
    assert_eq!(
        report.to_text(),
        "needs a restart: a b&c=é/%.toml:1: interfaces has changed\n100000 bytes"
    );
    let refused = client.diff(NewFile { bytes: Vec::new(), ..file }).unwrap_err().to_string();
    assert!(refused.contains("the file configures nothing"), "{refused}");

    assert_eq!(running.daemon.stops.load(Ordering::SeqCst), 0);
    assert!(client.stop(Stop::End).unwrap().stopping);
    assert_eq!(running.daemon.stops.load(Ordering::SeqCst), 1);
    assert!(client.stop(Stop::Keep).unwrap().stopping);
    assert_eq!(running.daemon.stops.load(Ordering::SeqCst), 101);
}

#[test]
fn a_page_out_of_range_is_refused() {
    let running = Running::start();
    for limit in [0, Page::MAX_LIMIT + 1] {
        let error = running.client().sessions(Page { limit, offset: 0 }).unwrap_err().to_string();
        let expected = format!("the daemon refused: limit is {limit}; expected limit (1 to 10000)");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn malformed_requests_get_an_error_and_change_nothing() {
    let running = Running::start();
    let long_head =
        format!("GET /v1/stats HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(99_999));
    let many = format!("GET /v1/stats HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    let long_body = format!(
        "POST /v1/stop HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n{}",
        " ".repeat(5000)
    );
    let close = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let cases = [
        (format!("GET / {close}"), "404 ", "nothing at \\\"/\\\"; expected one of: /v1/version"),
        (format!("GET /v1/stop {close}"), "405 ", "/v1/stop does not take GET; expected POST"),
        (format!("POST /v1/stats {close}"), "405 ", "/v1/stats does not take POST; expected GET"),
        (format!("GET /v1/servers/up {close}"), "405 ", "expected POST"),
        (
            format!("POST /v1/servers/up {close}"),
            "400 ",
            "missing field `service`; expected service=",
        ),
        (
            format!("POST /v1/servers/up?service=10.0.0.1&server=10.0.0.2:80 {close}"),
            "400 ",
            "expected service=IP:PORT",
        ),
        (
            format!("POST /v1/servers/up?service=1.1.1.1:1&server=1.1.1.1:1&x=y {close}"),
            "400 ",
            "unknown field `x`",
        ),
        (format!("POST /v1/stop?keep=1 {close}"), "400 ", "expected keep (true or false)"),
        (format!("POST /v1/stop?kept=true {close}"), "400 ", "unknown field `kept`"),
        (format!("POST /v1/diff {close}"), "400 ", "missing field `file`; expected file=NAME"),
        (format!("POST /v1/diff?file=a&b=c {close}"), "400 ", "unknown field `b`"),
        (format!("GET /v1/diff?file=a {close}"), "405 ", "expected POST"),
        (
            "POST /v1/diff?file=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Length: 67108866\r\n\r\n"
                .to_owned(),
            "413 ",
            "limit",
        ),
        (format!("GET /v1/stats?a {close}"), "400 ", "unknown parameter \\\"a\\\"; expected none"),
        (format!("GET /v1/sessions?limit=x {close}"), "400 ", "expected limit (1 to 10000)"),
        (format!("GET /v1/sessions?limit=-1 {close}"), "400 ", "expected limit"),
        (format!("GET /v1/sessions?limt=1 {close}"), "400 ", "unknown field `limt`"),
        (format!("GET /v1/sessions?offset=99999999999999999999 {close}"), "400 ", "expected"),
        (
            "POST /v1/stop HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
                .to_owned(),
            "400 ",
            "takes no body",
        ),
        (long_body, "413 ", "limit"),
        (long_head, "431 ", ""),
        (many, "431 ", ""),
        ("nonsense\r\n\r\n".to_owned(), "400 ", ""),
        ("POST /v1/stop HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), "400 ", ""),
        ("\u{0}\u{1}\u{2}\u{3}".repeat(16), "400 ", ""),
    ];
    for (request, status, error) in cases {
        let head: String = request.chars().take(70).collect();
        let answer = running.raw(request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head:?}: {answer}");
        if !error.is_empty() {
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            assert!(body.starts_with("{\"error\":\"") && body.contains(error), "{head:?}: {body}");
        }
    }
    assert_eq!(running.daemon.stops.load(Ordering::SeqCst), 0);
    assert!(running.client().stats().is_ok());
}

#[test]
fn socket_and_directory_have_their_modes_and_go() {
    let mut running = Running::start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&running.path), 0o600);
    assert_eq!(mode(running.path.parent().unwrap()), 0o755);
    running.stop();
    assert!(!running.path.exists());
    let error = running.client().stats().unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(_)));
    assert_eq!(
        error.to_string(),
        format!(
            "no daemon listens on {}: is `seawall run` started? (--api PATH names another socket)",
            running.path.display()
        )
    );
    assert!(running.dir.path().exists());
}

#[test]
fn a_live_socket_is_respected() {
    let running = Running::start();
    let error = Server::bind(&running.path).unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error}");
    assert!(error.to_string().contains("`seawall stop`"), "{error}");
    assert!(running.client().stats().is_ok());
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(matches!(Client::new(&path).stats(), Err(ClientError::NotRunning(_))));
    drop(Server::bind(&path).unwrap());
    assert!(!path.exists());
}

#[test]
fn another_file_in_its_place_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let error = Server::bind(&path.join("below")).unwrap_err().to_string();
    assert!(error.contains("cannot create the directory"), "{error}");
}

#[test]
fn a_socket_taken_over_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let server = Server::bind(&path).unwrap();
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[test]
fn answers_that_are_none_are_reported() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "bad answer from "),
        (b"SSH-2.0-OpenSSH\r\n", "bad answer from "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "missing field `counters`"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "a refusal without a reason"),
    ];
    for (answer, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let error = Client::new(&path).stats().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn an_answer_under_way_survives_the_shutdown() {
    /// Shuts the server down from within the request, as the daemon does.
    struct Stopping(std::sync::Mutex<Option<oneshot::Sender<()>>>);
    impl Backend for Stopping {
        fn stats(&self) -> Result<StatsReport, Declined> {
            Err(Declined::NoAnswer)
        }
        fn drops(&self) -> Result<DropsReport, Declined> {
            Err(Declined::NoAnswer)
        }
        fn sessions(&self, _: Page) -> Result<SessionsReport, Declined> {
            Err(Declined::NoAnswer)
        }
        fn reload(&self) -> Result<ReloadReport, Declined> {
            Err(Declined::NoAnswer)
        }
        fn diff(&self, _: NewFile) -> Result<DiffReport, Declined> {
            Err(Declined::NoAnswer)
        }
        fn set_health(&self, _: ServerName, _: Health) -> Result<HealthReport, Declined> {
            Err(Declined::NoAnswer)
        }
        fn stop(&self, _: Stop) {
            self.0.lock().unwrap().take().unwrap().send(()).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let server = Server::bind(&path).unwrap();
    let (shutdown, signal) = oneshot::channel();
    let backend = Arc::new(Stopping(std::sync::Mutex::new(Some(shutdown))));
    let thread = std::thread::spawn(move || {
        server.run_blocking(backend, async {
            let _ = signal.await;
        })
    });
    assert!(Client::new(&path).stop(Stop::End).unwrap().stopping);
    thread.join().unwrap().unwrap();
    assert!(!path.exists());
}
