//! What can go wrong between user space and the kernel.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;

/// Whose fault it is, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit that the kernel would not take.
    #[error("{what} is {value}; it must be {expected}")]
    Limit {
        /// The limit's name.
        what: &'static str,
        /// What it was set to.
        value: u64,
        /// What is right.
        expected: &'static str,
    },
    /// The kernel did not take the object's maps, usually for want of memory.
    #[error(
        "cannot create the maps for {sessions} sessions ({mebibytes} MiB); if the cause is memory, \
         lower max_sessions or raise the memory limit of the service"
    )]
    Maps {
        /// Sessions that the maps were to hold.
        sessions: u32,
        /// Worst-case memory of the maps, in MiB.
        mebibytes: u64,
        /// What the kernel refused.
        source: Box<MapError>,
    },
    /// The object and this program do not belong together.
    #[error("the XDP object does not match this program ({what}); rebuild both")]
    Object {
        /// What does not match.
        what: String,
    },
    /// The verifier refused the program.
    #[error("the kernel's verifier refused the XDP program: {source}; its last words:\n{log}")]
    Verifier {
        /// The end of the verifier's log.
        log: String,
        /// The system call's answer.
        source: io::Error,
    },
    /// The program could not be loaded, for another reason than the verifier's.
    #[error("cannot load the XDP program")]
    Load(#[source] Box<ProgramError>),
    /// The program could not be attached, in either mode.
    #[error("cannot attach the XDP program to interface {interface}: {reason}{}", hint(reason))]
    Attach {
        /// The interface's index.
        interface: u32,
        /// The kernel's answer.
        reason: io::Error,
    },
    /// A map could not be read or written.
    #[error("cannot {action} map {map}")]
    Map {
        /// The map's name in the object.
        map: &'static str,
        /// What was tried, as a verb.
        action: &'static str,
        /// The kernel's answer.
        source: Box<MapError>,
    },
    /// A map has no room for another entry.
    #[error("map {map} is full: it holds {limit} entries")]
    Full {
        /// The map's name in the object.
        map: &'static str,
        /// Entries that it holds.
        limit: u32,
    },
    /// An array could not be mapped into this process.
    #[error("cannot map {map} into memory: {source}")]
    Mmap {
        /// The map's name in the object.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A packet socket could not be made.
    #[error("cannot {action} a packet socket for interface {interface}: {source}")]
    PacketSocket {
        /// The interface's index.
        interface: u32,
        /// What was tried, as a verb.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program could not be run on a frame of a test's.
    #[error("cannot run the XDP program on a frame of {length} bytes from interface {interface}")]
    TestRun {
        /// Bytes in the frame.
        length: usize,
        /// The interface it was to come from.
        interface: u32,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// A state directory cannot be used.
    #[error(
        "cannot {action} {}: {source}; state must be a directory on a BPF file system \
         (`mount -t bpf bpf /sys/fs/bpf`)", path.display()
    )]
    State {
        /// What was tried, as a verb.
        action: &'static str,
        /// The directory, or a pin in it.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Another daemon lives on a state directory.
    #[error(
        "another daemon lives on {}; stop it with `seawall stop`, or set another `state`",
        directory.display()
    )]
    StateInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// What a daemon has left is not what this one can take over.
    #[error(
        "cannot take over what a daemon has left in {dir}: {what}; put it back as it was, or run \
         `seawall stop --state {dir}`, which ends the sessions, or set another `state`",
        dir = directory.display()
    )]
    StateMismatch {
        /// The directory.
        directory: PathBuf,
        /// What differs.
        what: String,
    },
    /// epoll, an eventfd or the signal handlers could not be set up or used.
    #[error("cannot {action}: {source}")]
    Wait {
        /// What was tried, as a verb.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No random bytes.
    #[error("the kernel gave no random bytes: {0}")]
    Random(getrandom::Error),
}

fn hint(reason: &io::Error) -> &'static str {
    match reason.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "; another XDP program is attached (`ip link` shows it): detach that first"
        }
        Some(libc::ENODEV) => "; there is no such interface in this network namespace",
        _ => "",
    }
}
