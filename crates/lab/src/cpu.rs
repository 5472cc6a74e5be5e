//! Who spends processor time, and on which processor: for benches.
//!
//! A veth's receive work runs wherever its sender does, inside whatever was interrupted, so nobody
//! can be billed for it. With threaded NAPI each interface has a kernel thread that does it, which
//! can be pinned and whose time the kernel counts.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

use crate::Namespace;

/// The niceness (setpriority(2)) of what is preferred.
const PREFERRED: i32 = -10;

/// Gives the receive work of an interface to a kernel thread of its own, as soon as it has NAPI: a
/// veth has while it has an XDP program.
///
/// # Errors
///
/// When there is no such interface, or the kernel is older than 5.12.
pub fn set_threaded(namespace: &Namespace, interface: &str) -> io::Result<()> {
    namespace.run(|| {
        // `/sys` shows the network that it was mounted in; this shows the namespace's.
        let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let root =
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        let path = format!("class/net/{interface}/threaded");
        let file = openat(&root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, b"1")?;
        Ok(())
    })
}

/// The kernel threads of threaded NAPI on this machine, by their process ids.
///
/// # Errors
///
/// Those of reading `/proc`.
pub fn napi_threads() -> io::Result<BTreeSet<u32>> {
    named(|comm| comm.starts_with("napi/"))
}

/// Processes whose short name is like that.
fn named(is_one: impl Fn(&str) -> bool) -> io::Result<BTreeSet<u32>> {
    let mut threads = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may have ended by now.
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if is_one(name.trim_end()) {
            threads.insert(pid);
        }
    }
    Ok(threads)
}

/// Lets a process or kernel thread, with the threads that it has now, run on one processor only.
///
/// # Errors
///
/// When there is no such process or processor.
pub fn pin(pid: u32, cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    for thread in tasks(pid)? {
        let id = i32::try_from(thread).ok().and_then(Pid::from_raw);
        unless_ended(sched_setaffinity(id, &set).map_err(io::Error::from))?;
    }
    Ok(())
}

/// Lets the kernel prefer a process or kernel thread, with the threads that it has now, to ordinary
/// ones.
///
/// # Errors
///
/// When there is no such process.
pub fn prefer(pid: u32) -> io::Result<()> {
    for thread in tasks(pid)? {
        let id = i32::try_from(thread).ok().and_then(Pid::from_raw);
        unless_ended(setpriority_process(id, PREFERRED).map_err(io::Error::from))?;
    }
    Ok(())
}

/// Processor time that the threads a process has now have taken, softirqs on top of them included.
///
/// # Errors
///
/// When there is no such process.
pub fn time(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in tasks(pid)? {
        let path = format!("/proc/{pid}/task/{thread}/schedstat");
        let Some(text) = unless_ended(std::fs::read_to_string(path))? else { continue };
        let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
        total += nanos.map(Duration::from_nanos).ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(total)
}

/// What was asked of a thread that was listed a moment ago; none when it has ended since, which
/// `/proc` says by ENOENT when a file is opened, and by ESRCH when it is read, as system calls do.
fn unless_ended<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn tasks(pid: u32) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_str().and_then(|n| n.parse().ok())));
    names.filter_map(Result::transpose).collect()
}

/// What the processors of this machine have done since it started, in ticks (proc(5): `/proc/stat`;
/// 10 ms each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticks {
    /// All but idle and waiting for disks.
    pub busy: u64,
}

impl Ticks {
    /// Those of one processor.
    ///
    /// # Errors
    ///
    /// When there is no such processor.
    pub fn of(cpu: usize) -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        Self::parse(&text, cpu).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str, cpu: usize) -> Option<Self> {
        let name = format!("cpu{cpu} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let numbers: Vec<u64> =
            line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal.
        let &[user, nice, system, _, _, irq, softirq, ..] = &numbers[..] else { return None };
        Some(Self { busy: user + nice + system + irq + softirq })
    }

    /// What was done since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { busy: self.busy - earlier.busy }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Ticks, napi_threads, pin, prefer, time};

    #[test]
    fn ticks_of_a_processor() {
        let text = "cpu  9 9 9 9 9 9 9 0\ncpu0 1 2 3 100 50 4 5 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n";
        assert_eq!(Ticks::parse(text, 0), Some(Ticks { busy: 15 }));
        assert_eq!(Ticks::parse(text, 1), Some(Ticks::default()));
        assert_eq!(Ticks::parse(text, 2), None);
    }

    #[test]
    fn time_passes_for_whoever_works() {
        let pid = std::process::id();
        let before = time(pid).unwrap();
        let mut sum = 0u64;
        while time(pid).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(!napi_threads().unwrap().contains(&pid));
    }

    #[test]
    fn threads_may_end_while_their_time_is_read() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::spawn(|| ()).join().unwrap();
                }
            });
            let result = (0..2_000).try_for_each(|_| time(std::process::id()).map(drop));
            done.store(true, Ordering::Relaxed);
            result.unwrap();
        });
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let gone = ended.id();
        ended.wait().unwrap();
        assert!(time(gone).is_err());
        assert!(pin(gone, 0).is_err());
        assert!(prefer(gone).is_err());
    }
}
