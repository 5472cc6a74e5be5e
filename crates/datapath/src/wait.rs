//! The one place where the worker sleeps.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{Errno, read, write};

use crate::Error;

/// What to wait for, besides wakers. Any of them may be absent.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sources<'a> {
    /// The ring of proven peers.
    pub proven: Option<BorrowedFd<'a>>,
    /// The ring of peers that have proved nothing.
    pub unproven: Option<BorrowedFd<'a>>,
    /// A [`crate::netlink::Monitor`].
    pub netlink: Option<BorrowedFd<'a>>,
    /// [`crate::Signals`].
    pub signals: Option<BorrowedFd<'a>>,
}

/// What there is to do. All but `woken` stay set until the source has been read empty.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ready {
    /// There are records in the ring of proven peers.
    pub proven: bool,
    /// There are records in the ring of peers that have proved nothing.
    pub unproven: bool,
    /// There are netlink events.
    pub netlink: bool,
    /// There are signals.
    pub signals: bool,
    /// A [`Waker`] called since the last wait.
    pub woken: bool,
}

/// Waits for work (epoll(7)). A source may be closed before this; it is then never ready.
pub struct Waiter {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    events: Vec<epoll::Event>,
}

/// Ends a wait from another thread.
#[derive(Clone, Debug)]
pub struct Waker {
    wake: Arc<OwnedFd>,
}

const PROVEN: u64 = 0;
const UNPROVEN: u64 = 1;
const NETLINK: u64 = 2;
const SIGNALS: u64 = 3;
const WAKE: u64 = 4;
/// As many as there are sources.
const EVENTS: usize = 5;

impl Waiter {
    /// Prepares to wait for `sources`.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`] when the kernel refuses one, which it does only for want of descriptors.
    pub fn new(sources: Sources<'_>) -> Result<Self, Error> {
        let at = |action| move |source: Errno| Error::Wait { action, source: source.into() };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(at("create an epoll"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(at("create an eventfd"))?;
        let Sources { proven, unproven, netlink, signals } = sources;
        let wake_fd = Some(std::os::fd::AsFd::as_fd(&wake));
        for (source, number) in [
            (proven, PROVEN),
            (unproven, UNPROVEN),
            (netlink, NETLINK),
            (signals, SIGNALS),
            (wake_fd, WAKE),
        ] {
            if let Some(source) = source {
                let data = epoll::EventData::new_u64(number);
                epoll::add(&epoll, source, data, epoll::EventFlags::IN)
                    .map_err(at("wait for a source"))?;
            }
        }
        Ok(Self { epoll, wake: Arc::new(wake), events: Vec::with_capacity(EVENTS) })
    }

    /// A handle that ends waits.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { wake: Arc::clone(&self.wake) }
    }

    /// Waits until there is work, at most `timeout` (rounded up to milliseconds by the kernel's
    /// interface; zero only looks). May come back early with nothing to do, when a signal was
    /// handled meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`] when epoll itself fails.
    pub fn wait(&mut self, timeout: Duration) -> Result<Ready, Error> {
        let at = |source: Errno| Error::Wait { action: "wait", source: source.into() };
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(at(error)),
        }
        let mut ready = Ready::default();
        for event in &self.events {
            match event.data.u64() {
                PROVEN => ready.proven = true,
                UNPROVEN => ready.unproven = true,
                NETLINK => ready.netlink = true,
                SIGNALS => ready.signals = true,
                _ => ready.woken = true,
            }
        }
        if ready.woken {
            match read(&self.wake, &mut [0; 8]) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(at(error)),
            }
        }
        Ok(ready)
    }
}

impl Waker {
    /// Ends the wait that is going on, or the next. Calls before it count as one.
    pub fn wake(&self) {
        // It can only fail because the count is at its limit, and then a wake-up is due anyway.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{Ready, Sources, Waiter};
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_wait_ends_in_time() {
        let mut waiter = Waiter::new(Sources::default()).unwrap();
        assert_eq!(waiter.wait(Duration::ZERO).unwrap(), Ready::default());
        let start = Instant::now();
        assert_eq!(waiter.wait(Duration::from_millis(30)).unwrap(), Ready::default());
        assert!((29..5_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }

    #[test]
    fn wakes_from_another_thread_count_once() {
        let mut waiter = Waiter::new(Sources::default()).unwrap();
        let waker = waiter.waker();
        let other = waker.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.wake();
        });
        assert_eq!(waiter.wait(LONG).unwrap(), Ready { woken: true, ..Ready::default() });
        thread.join().unwrap();
        waker.wake();
        waker.wake();
        assert!(waiter.wait(LONG).unwrap().woken);
        assert!(!waiter.wait(Duration::ZERO).unwrap().woken);
    }

    #[test]
    fn each_source_is_told_from_the_others_until_it_is_empty() {
        let mut pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let fd = |index: usize| Some(pairs[index].0.as_fd());
        let sources = Sources { proven: fd(0), unproven: fd(1), netlink: fd(2), signals: fd(3) };
        let mut waiter = Waiter::new(sources).unwrap();
        for (index, (near, far)) in pairs.iter_mut().enumerate() {
            far.write_all(b"!").unwrap();
            let expected = Ready {
                proven: index == 0,
                unproven: index == 1,
                netlink: index == 2,
                signals: index == 3,
                woken: false,
            };
            assert_eq!(waiter.wait(LONG).unwrap(), expected);
            assert_eq!(waiter.wait(LONG).unwrap(), expected);
            near.read_exact(&mut [0]).unwrap();
            assert_eq!(waiter.wait(Duration::ZERO).unwrap(), Ready::default());
        }
    }
}
