//! SIGTERM, SIGINT and SIGHUP as something to wait for.
//!
//! Handlers that write to a pipe rather than signalfd(2): that would need the signals blocked in
//! every thread, and processes that we start would inherit the block and not die of SIGTERM.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::Error;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: end, and take everything along.
    Stop,
    /// SIGHUP: read the configuration anew.
    Reload,
}

/// Receives the signals of the whole process from the moment it is opened; ready for epoll(7)
/// ([`AsFd`]) while one waits. Signals are not lost, but several of a kind count as one.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Installs the handlers; they stay when this is dropped, but then do nothing, and the
    /// signals no longer end the process.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`] when no socket pair can be made or a handler not installed.
    pub fn open() -> Result<Self, Error> {
        let at = |source| Error::Wait { action: "receive signals", source };
        let (read, write) = UnixStream::pair().map_err(at)?;
        let signals = [SIGTERM, SIGINT, SIGHUP];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals).map_err(at)?;
        Ok(Self { delivery })
    }

    /// What was asked for since the last call. [`Signal::Stop`] comes after [`Signal::Reload`]
    /// when both wait.
    pub fn take(&mut self) -> Vec<Signal> {
        let (mut reload, mut stop) = (false, false);
        for signal in self.delivery.pending() {
            match signal {
                SIGHUP => reload = true,
                _ => stop = true,
            }
        }
        [(reload, Signal::Reload), (stop, Signal::Stop)]
            .into_iter()
            .filter_map(|(pending, signal)| pending.then_some(signal))
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{Signal, Signals};
    use crate::{Ready, Sources, Waiter};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::low_level::raise;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn signals_end_a_wait_and_say_what_they_ask_for() {
        let mut signals = Signals::open().unwrap();
        let sources = Sources { signals: Some(signals.as_fd()), ..Sources::default() };
        let mut waiter = Waiter::new(sources).unwrap();
        assert_eq!(waiter.wait(Duration::ZERO).unwrap(), Ready::default());
        for (raised, expected) in [
            (vec![SIGHUP, SIGHUP], vec![Signal::Reload]),
            (vec![SIGTERM], vec![Signal::Stop]),
            (vec![SIGINT, SIGHUP], vec![Signal::Reload, Signal::Stop]),
        ] {
            for signal in raised {
                raise(signal).unwrap();
            }
            assert!(waiter.wait(Duration::from_secs(10)).unwrap().signals);
            assert_eq!(signals.take(), expected);
            assert_eq!(waiter.wait(Duration::ZERO).unwrap(), Ready::default());
        }
        assert_eq!(signals.take(), []);
    }
}
