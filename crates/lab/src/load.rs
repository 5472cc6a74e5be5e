//! A closed loop of requests: so many threads, each with one request under way, each request on a
//! connection of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Namespace;
use crate::histogram::{Counts, Histogram};
use crate::http::{self, ErrorKind, Timeouts};

/// When a load ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// After so many requests, failed ones included.
    Requests(u64),
    /// After so long; requests under way are finished.
    Time(Duration),
}

/// What to ask, how often.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// The server or service.
    pub target: SocketAddr,
    /// What is fetched; anything but status 200 counts as an error.
    pub path: String,
    /// Requests under way at once; at least 1.
    pub threads: usize,
    /// When it ends.
    pub limit: Limit,
    /// How long each request may take.
    pub timeouts: Timeouts,
    /// What each thread waits between two requests.
    pub pause: Duration,
}

impl LoadSpec {
    /// `GET /` by 8 threads without a pause, with the default timeouts.
    pub fn new(target: SocketAddr, limit: Limit) -> Self {
        Self {
            target,
            path: "/".to_owned(),
            threads: 8,
            limit,
            timeouts: Timeouts::default(),
            pause: Duration::ZERO,
        }
    }
}

struct Shared {
    spec: LoadSpec,
    start: Instant,
    stop: AtomicBool,
    /// Requests handed out, under [`Limit::Requests`].
    begun: AtomicU64,
    latencies: Histogram,
    errors: [AtomicU64; ErrorKind::ALL.len()],
    servers: Mutex<BTreeMap<String, u64>>,
    /// The first failure's words, as an example.
    example: Mutex<Option<String>>,
}

/// A load under way; it is stopped when dropped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a load has done up to one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed: Duration,
    /// The successful requests' latencies, from the first SYN to the last byte.
    pub latencies: Counts,
    /// Failed requests by kind; kinds that did not occur are left out.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Successful requests by the server's name.
    pub servers: BTreeMap<String, u64>,
    /// What the first failure said.
    pub example: Option<String>,
}

impl Snapshot {
    /// Requests that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.latencies.total()
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Successful requests a second.
    pub fn rate(&self) -> f64 {
        self.succeeded() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that half of the successful requests do not exceed.
    pub fn p50(&self) -> Option<Duration> {
        self.latencies.percentile(50.0)
    }

    /// The latency that 99 % of the successful requests do not exceed.
    pub fn p99(&self) -> Option<Duration> {
        self.latencies.percentile(99.0)
    }

    /// What happened after `earlier`, a snapshot of the same load.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            elapsed: self.elapsed.saturating_sub(earlier.elapsed),
            latencies: self.latencies.since(&earlier.latencies),
            errors: difference(&self.errors, &earlier.errors),
            servers: difference(&self.servers, &earlier.servers),
            example: self.example.clone(),
        }
    }
}

fn difference<K: Ord + Clone>(now: &BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    now.iter()
        .map(|(key, count)| (key.clone(), count - then.get(key).copied().unwrap_or(0).min(*count)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

impl Load {
    /// Starts asking from inside a namespace.
    ///
    /// # Errors
    ///
    /// When no threads can be started.
    pub fn start(namespace: &Namespace, spec: LoadSpec) -> io::Result<Self> {
        // Threads start in the namespace of the thread that starts them.
        namespace.run(|| Self::start_here(spec))
    }

    /// Starts asking from the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// When no threads can be started.
    pub fn start_here(spec: LoadSpec) -> io::Result<Self> {
        let threads = spec.threads.max(1);
        let shared = Arc::new(Shared {
            spec,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            latencies: Histogram::default(),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            servers: Mutex::default(),
            example: Mutex::default(),
        });
        let mut load = Self { shared, threads: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let shared = Arc::clone(&load.shared);
            let builder = thread::Builder::new().name("load".into());
            load.threads.push(builder.spawn(move || shared.ask())?);
        }
        Ok(load)
    }

    /// What has been done so far.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Whether the limit has been reached and all requests are finished.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Begins no more requests; those under way are finished.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Waits for the limit, or after [`stop`](Self::stop) for the last requests, and sums up.
    pub fn finish(mut self) -> Snapshot {
        self.join();
        self.snapshot()
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

impl Shared {
    fn ask(&self) {
        while self.may_begin() {
            match http::get(self.spec.target, &self.spec.path, &self.spec.timeouts) {
                Ok(response) if response.status == 200 => {
                    self.latencies.record(response.latency);
                    let name = response.server.unwrap_or_default();
                    *lock(&self.servers).entry(name).or_default() += 1;
                }
                Ok(response) => {
                    self.failed(ErrorKind::Status, || format!("status {}", response.status));
                }
                Err(error) => self.failed(error.kind, || error.to_string()),
            }
            if !self.spec.pause.is_zero() {
                thread::sleep(self.spec.pause);
            }
        }
    }

    fn may_begin(&self) -> bool {
        if self.stop.load(Ordering::Acquire) {
            return false;
        }
        match self.spec.limit {
            Limit::Requests(limit) => self.begun.fetch_add(1, Ordering::Relaxed) < limit,
            Limit::Time(limit) => self.start.elapsed() < limit,
        }
    }

    fn failed(&self, kind: ErrorKind, words: impl FnOnce() -> String) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
        lock(&self.example).get_or_insert_with(words);
    }

    fn snapshot(&self) -> Snapshot {
        let errors = ErrorKind::ALL
            .iter()
            .map(|&kind| (kind, self.errors[kind as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Snapshot {
            elapsed: self.start.elapsed(),
            latencies: self.latencies.counts(),
            errors,
            servers: lock(&self.servers).clone(),
            example: lock(&self.example).clone(),
        }
    }
}

/// The maps hold plain counts: whatever a panicking thread left in them is still true.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HttpServer, ServerSpec};

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn a_count_is_kept_exactly() {
        let server = HttpServer::start_here(any(), ServerSpec::new("blue")).unwrap();
        let spec = LoadSpec::new(server.address(), Limit::Requests(100));
        let report = Load::start_here(spec).unwrap().finish();
        assert_eq!((report.succeeded(), report.failed()), (100, 0));
        assert_eq!(report.servers, BTreeMap::from([("blue".to_owned(), 100)]));
        assert_eq!(server.requests(), 100);
        assert!(report.p50().unwrap() <= report.p99().unwrap());
    }

    #[test]
    fn failures_are_counted_by_kind() {
        let server = HttpServer::start_here(any(), ServerSpec::new("blue")).unwrap();
        let mut spec = LoadSpec::new(server.address(), Limit::Requests(10));
        spec.path = "/nothing".to_owned();
        let report = Load::start_here(spec.clone()).unwrap().finish();
        assert_eq!(report.errors, BTreeMap::from([(ErrorKind::Status, 10)]));
        drop(server);
        let report = Load::start_here(spec).unwrap().finish();
        assert_eq!(report.errors, BTreeMap::from([(ErrorKind::Refused, 10)]));
        assert!(report.example.unwrap().contains("refused"));
    }

    #[test]
    fn a_time_limit_ends_and_snapshots_are_live() {
        let server = HttpServer::start_here(any(), ServerSpec::new("blue")).unwrap();
        let limit = Limit::Time(Duration::from_millis(400));
        let mut spec = LoadSpec::new(server.address(), limit);
        spec.threads = 2;
        spec.pause = Duration::from_millis(1);
        let load = Load::start_here(spec).unwrap();
        thread::sleep(Duration::from_millis(200));
        let middle = load.snapshot();
        assert!(middle.succeeded() > 0);
        assert!(!load.is_finished());
        let end = load.finish();
        let later = end.since(&middle);
        assert!(later.succeeded() > 0);
        assert_eq!(later.succeeded() + middle.succeeded(), end.succeeded());
        assert!(end.elapsed < Duration::from_secs(5), "{:?}", end.elapsed);
    }

    #[test]
    fn kinds_have_the_place_of_their_number() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
