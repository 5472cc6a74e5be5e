//! What outlives the daemon: a directory of pins on a BPF file system (DESIGN, "Adoption").
//!
//! ```text
//! SLOTS INDEX FILTER NEXT_HOPS TEMPLATES SETTINGS SERVICES ADDRESSES INTERFACES COUNTERS EMBRYOS
//! PROVEN UNPROVEN          the maps of the object: see `seawall_fastpath::layout`
//! HEADER LEDGER OWNED      maps that only user space knows: likewise
//! programs-N               the tail-call array of program generation N
//! link-I                   the link that holds the program on interface I
//! ```
//!
//! One daemon lives on a directory at a time: it holds a lock (flock(2)) on it, which the kernel gives
//! back however the daemon ends. [`Header::version`] is set when a start was complete; what was
//! begun and not completed is cleared by the next one.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::maps::MapData;
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};
use seawall_fastpath::layout::{Header, VERSION, name};

use crate::bpf_call::{detach_link, link_interface, pinned};
use crate::netlink::Netlink;
use crate::owned::Owned;
use crate::{Error, MappedArray, netns};

/// Where the BPF file system belongs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// How long a daemon that is about to end may still hold the lock.
const PATIENCE: Duration = Duration::from_secs(3);

const LINK: &str = "link-";
const PROGRAMS: &str = "programs-";

/// A state directory, locked. Dropped while a start is not complete, it takes what that has made along.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// Whether what is there stays.
    stays: Cell<bool>,
    _lock: File,
}

/// What is in a state directory.
pub(crate) enum Left {
    /// Nothing, or what a start has not completed.
    Nothing,
    /// What a daemon has left.
    All(MappedArray<Header>),
}

impl State {
    /// Makes `directory` if there is none, mounting the BPF file system at its usual place if it is to
    /// lie there, and locks it.
    ///
    /// # Errors
    ///
    /// [`Error::StateInUse`] while another daemon lives on it, [`Error::State`] where no pins can be.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        ensure_bpffs(directory)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| failed("make", directory, source))?;
        Self::lock(directory, PATIENCE)
    }

    /// Locks `directory`, if there is one.
    ///
    /// # Errors
    ///
    /// As [`State::open`].
    pub fn existing(directory: &Path) -> Result<Option<Self>, Error> {
        match fs::metadata(directory) {
            Ok(_) => Self::lock(directory, Duration::ZERO).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("look at", directory, source)),
        }
    }

    fn lock(directory: &Path, patience: Duration) -> Result<Self, Error> {
        let lock = File::open(directory).map_err(|source| failed("open", directory, source))?;
        let end = Instant::now() + patience;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::StateInUse { directory: directory.to_owned() });
                }
                Err(source) => return Err(failed("lock", directory, source.into())),
            }
        }
        Ok(Self { directory: directory.to_owned(), stays: Cell::new(true), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn link(&self, interface: u32) -> PathBuf {
        self.path(&format!("{LINK}{interface}"))
    }

    pub(crate) fn programs(&self, generation: u32) -> PathBuf {
        self.path(&format!("{PROGRAMS}{generation}"))
    }

    /// What is there. Whatever was not completed is cleared.
    pub(crate) fn take(&self) -> Result<Left, Error> {
        let path = self.path(name::HEADER);
        if path.exists() {
            let map = MapData::from_pin(&path)
                .map_err(|_| self.mismatch(format!("{} is no map", path.display())))?;
            let header = MappedArray::<Header>::new(name::HEADER, &map)
                .map_err(|_| self.mismatch("its header is of another layout".into()))?;
            if header.first().is_some_and(|header| header.version.load() != 0) {
                return Ok(Left::All(header));
            }
        }
        self.clear()?;
        self.stays.set(false);
        Ok(Left::Nothing)
    }

    /// The start is complete.
    pub(crate) fn stay(&self) {
        self.stays.set(true);
    }

    /// Whether what was left is of this layout and this network namespace.
    pub(crate) fn check(&self, header: &Header) -> Result<(), Error> {
        let version = header.version.load();
        if version != VERSION {
            let what = format!("its layout is version {version}, this program's {VERSION}");
            return Err(self.mismatch(what));
        }
        if header.network.load() != self.network()? {
            return Err(self.mismatch("it belongs to another network namespace".into()));
        }
        Ok(())
    }

    pub(crate) fn network(&self) -> Result<u64, Error> {
        netns::cookie()
            .map_err(|source| failed("tell the network namespace for", &self.directory, source))
    }

    pub(crate) fn mismatch(&self, what: String) -> Error {
        Error::StateMismatch { directory: self.directory.clone(), what }
    }

    /// The interfaces that links are pinned for.
    pub(crate) fn links(&self) -> Result<Vec<u32>, Error> {
        Ok(self.numbers(LINK)?.collect())
    }

    /// Detaches a program that is held by a pin.
    pub(crate) fn detach(&self, interface: u32) -> Result<(), Error> {
        let path = self.link(interface);
        // Whoever closes a link last detaches it too, but only soon. The interface may be gone.
        let _ = link_at(&path).and_then(|link| detach_link(link.as_fd()));
        fs::remove_file(&path).map_err(|source| failed("remove", &path, source))
    }

    /// Removes the tail-call arrays of generations before `oldest`.
    pub(crate) fn forget_programs(&self, oldest: u32) -> Result<(), Error> {
        for generation in self.numbers(PROGRAMS)?.filter(|generation| *generation < oldest) {
            let path = self.programs(generation);
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }

    /// The addresses that a daemon has added to this host and left. Fails when that was in another
    /// network namespace, where they still are, and an interface of it has the program.
    fn owned(&self) -> Result<Option<Owned>, Error> {
        let (header, owned) = (self.path(name::HEADER), self.path(name::OWNED));
        let Ok(header) = MapData::from_pin(header) else { return Ok(None) };
        // The front of a header never changes, so that of another version is good enough.
        let network = MappedArray::<Header>::new(name::HEADER, &header);
        let network =
            network.map_err(|_| self.mismatch("its header is of another layout".into()))?;
        let network = network.first().map_or(0, |header| header.network.load());
        if network != self.network()? && network != 0 {
            let what = "it belongs to another network namespace".to_owned();
            return if self.is_attached()? { Err(self.mismatch(what)) } else { Ok(None) };
        }
        let Ok(map) = MapData::from_pin(owned) else { return Ok(None) };
        Owned::new(map).map(Some)
    }

    /// Whether an interface that lives has a program from here.
    fn is_attached(&self) -> Result<bool, Error> {
        let links = self.links()?;
        Ok(links.into_iter().any(|interface| {
            let link = link_at(&self.link(interface));
            link.and_then(|link| link_interface(link.as_fd())).is_ok_and(|interface| interface != 0)
        }))
    }

    /// Removes the addresses that a daemon has added, detaches all programs, removes all pins. In this
    /// order: without XDP the kernel would answer for the addresses, with resets.
    fn clear(&self) -> Result<(), Error> {
        if let Some(owned) = self.owned()?
            && let Ok(mut netlink) = Netlink::open()
        {
            for address in owned.all()? {
                // Somebody may have removed it before.
                let _ = netlink.delete_address(&address);
            }
        }
        for interface in self.links()? {
            self.detach(interface)?;
        }
        for entry in self.entries()? {
            let path = self.path(&entry);
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }

    /// Removes the addresses that a daemon has added, detaches all programs, removes all pins and the
    /// directory.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when something in the directory cannot be removed, and
    /// [`Error::StateMismatch`] when the addresses are in another network namespace.
    pub fn remove(self) -> Result<(), Error> {
        self.stays.set(true);
        self.remove_all()
    }

    fn remove_all(&self) -> Result<(), Error> {
        self.clear()?;
        fs::remove_dir(&self.directory).map_err(|source| failed("remove", &self.directory, source))
    }

    fn numbers(&self, prefix: &'static str) -> Result<impl Iterator<Item = u32>, Error> {
        let entries = self.entries()?.into_iter();
        Ok(entries.filter_map(move |entry| entry.strip_prefix(prefix)?.parse().ok()))
    }

    fn entries(&self) -> Result<Vec<String>, Error> {
        let read = |source| failed("read", &self.directory, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(read)? {
            names.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if !self.stays.get() {
            // The next start clears what cannot be removed now.
            let _ = self.remove_all();
        }
    }
}

fn link_at(path: &Path) -> io::Result<OwnedFd> {
    pinned(&CString::new(path.as_os_str().as_bytes())?)
}

fn ensure_bpffs(directory: &Path) -> Result<(), Error> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statfs(existing).map_err(|source| failed("look at", existing, source.into()))?;
    if found.f_type as u64 == BPF_FS_MAGIC {
        return Ok(());
    }
    if !directory.starts_with(BPFFS) {
        let source = io::Error::other("it is not on a BPF file system");
        return Err(failed("pin to", directory, source));
    }
    mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)
        .map_err(|source| failed("mount the BPF file system for", directory, source.into()))
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::State { action, path: path.to_owned(), source }
}
