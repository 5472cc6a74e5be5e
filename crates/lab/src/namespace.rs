//! A network namespace without a name, and work inside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use seawall_datapath::netlink::{self, Netlink};
use seawall_datapath::netns;

/// IPv6 settings that keep a namespace quiet: no duplicate address detection, no router
/// solicitations, no addresses from advertisements, no redirects (IPv4 can be told not to send
/// them, IPv6 only not to follow them).
const QUIET_IPV6: [(&str, &str); 5] = [
    ("accept_redirects", "0"),
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    ("router_solicitations", "0"),
    ("accept_ra", "0"),
];

/// What could not be done to or in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("namespace {label}: cannot {action}: {source}")]
    System {
        /// The namespace.
        label: String,
        /// What was tried.
        action: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The kernel refused a change of its network configuration.
    #[error("namespace {label}: {source}")]
    Netlink {
        /// The namespace.
        label: String,
        /// The refusal.
        source: netlink::Error,
    },
}

impl Error {
    /// Whether this process lacks the privilege (root, or `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`).
    pub fn is_permission(&self) -> bool {
        match self {
            Self::System { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Netlink { source, .. } => source.os_error().is_some_and(|code| {
                io::Error::from_raw_os_error(code).kind() == io::ErrorKind::PermissionDenied
            }),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace that ends with this value, its threads and its processes.
///
/// `lo` is up. `/proc/net` is the main thread's network wherever it is read from: inside, read
/// `/proc/thread-self/net`.
pub struct Namespace {
    label: String,
    descriptor: OwnedFd,
    /// To the thread that lives in the namespace and starts its processes; they die with it.
    jobs: Option<mpsc::Sender<Job>>,
    keeper: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes a namespace. The label is for messages only and need not be unique.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `PermissionDenied` when not root; see [`Error::is_permission`].
    pub fn new(label: &str) -> Result<Self, Error> {
        let failed = |action: &str, source| Error::System {
            label: label.to_owned(),
            action: action.to_owned(),
            source,
        };
        let (jobs, queue) = mpsc::channel::<Job>();
        let (report, outcome) = mpsc::channel();
        let keeper = thread::Builder::new()
            .name(format!("netns {label}"))
            .spawn(move || {
                // Pins of the processes in it end with it too, whatever becomes of them.
                let made = netns::unshare()
                    .and_then(|()| netns::unshare_bpffs())
                    .and_then(|()| netns::current());
                let ready = made.is_ok();
                if report.send(made).is_ok() && ready {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .map_err(|source| failed("start its thread", source))?;
        let descriptor = outcome
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
            .map_err(|source| failed("make it", source))?;
        let namespace =
            Self { label: label.to_owned(), descriptor, jobs: Some(jobs), keeper: Some(keeper) };
        namespace.set_up()?;
        Ok(namespace)
    }

    fn set_up(&self) -> Result<(), Error> {
        for scope in ["all", "default", "lo"] {
            for (name, value) in QUIET_IPV6 {
                match self.sysctl(&format!("net.ipv6.conf.{scope}.{name}"), value) {
                    // A kernel without IPv6 makes no noise.
                    Err(Error::System { source, .. })
                        if source.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
        }
        self.netlink(|netlink| {
            if let Some(loopback) = netlink.link("lo")? {
                netlink.set_up(loopback.index)?;
            }
            Ok(())
        })
    }

    /// The label it was made with.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Runs a closure inside, on a thread of its own, and waits for it. A panic is passed on.
    ///
    /// # Panics
    ///
    /// When the closure does, or when the thread cannot be started or cannot enter the namespace
    /// although it was made by this process (out of threads, privileges dropped).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            netns::enter(self.descriptor.as_fd()).expect("enter a namespace this process made");
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a closure on a thread that stays inside until it returns. The namespace lives at least
    /// as long.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        // A thread starts in the namespace of the thread that starts it.
        let name = format!("in {}", self.label);
        self.on_keeper(move || thread::Builder::new().name(name).spawn(work))
    }

    /// Starts a process inside. It is killed when the guard is dropped, when the namespace is, and
    /// when this process dies in whatever way.
    ///
    /// # Errors
    ///
    /// Those of [`Command::spawn`].
    pub fn spawn_process(&self, mut command: Command) -> io::Result<ProcessGuard> {
        netns::die_with_parent(&mut command);
        self.on_keeper(move || command.spawn().map(|child| ProcessGuard { child }))
    }

    /// Runs a short piece of work on the thread that lives in the namespace.
    fn on_keeper<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (report, outcome) = mpsc::channel();
        let gone = || io::Error::other(format!("namespace {} has ended", self.label));
        let job: Job = Box::new(move || {
            // Fails only when the thread below that waits for it is gone.
            let _ = report.send(work());
        });
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }

    /// Sets a kernel parameter of this namespace, named as sysctl(8) does:
    /// `net.ipv4.tcp_syncookies`. Interface names with dots in them cannot be part of it.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: `NotFound` when there is none of that name.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), Error> {
        let path = sysctl_path(name);
        self.run(|| std::fs::write(path, value))
            .map_err(|source| self.failed(format!("set {name} to {value}"), source))
    }

    /// Reads a kernel parameter of this namespace.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: `NotFound` when there is none of that name.
    pub fn read_sysctl(&self, name: &str) -> Result<String, Error> {
        let path = sysctl_path(name);
        let text = self
            .run(|| std::fs::read_to_string(path))
            .map_err(|source| self.failed(format!("read {name}"), source))?;
        Ok(text.trim_end().to_owned())
    }

    /// Runs a closure with an rtnetlink client of this namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] with what the closure returns.
    pub fn netlink<T: Send>(
        &self,
        work: impl FnOnce(&mut Netlink) -> netlink::Result<T> + Send,
    ) -> Result<T, Error> {
        self.run(|| Netlink::open().and_then(|mut netlink| work(&mut netlink)))
            .map_err(|source| Error::Netlink { label: self.label.clone(), source })
    }

    fn failed(&self, action: String, source: io::Error) -> Error {
        Error::System { label: self.label.clone(), action, source }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(keeper) = self.keeper.take() {
            // It only runs jobs, and their panics are of no use to anybody now.
            let _ = keeper.join();
        }
    }
}

fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

/// A process in a namespace; killed and reaped when dropped. What it has started itself is its own
/// to end.
#[derive(Debug)]
pub struct ProcessGuard {
    child: Child,
}

impl ProcessGuard {
    /// The process, for its pipes and its number.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until it ends by itself; `None` when it has not within `limit`.
    ///
    /// # Errors
    ///
    /// Those of [`Child::try_wait`].
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
