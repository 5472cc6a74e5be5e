//! The memory and the names that the lossy link's XDP programs share with their driver.
//!
//! The BPF crate includes this file by path, so it uses nothing but `core`.

/// The programs.
pub mod program {
    /// Sends everything out of the first interface of [`super::map::OUT`].
    pub const REDIRECT: &str = "lab_redirect";
    /// Forwards frames to [`super::map::OUT`], as [`super::Link`] says.
    pub const LINK: &str = "lab_link";
    /// Holds a frame until its time has come and forwards it then; the program of
    /// [`super::map::HOLD`].
    pub const RELEASE: &str = "lab_release";
}

/// The maps; each direction of a link has its own.
pub mod map {
    /// Array of one [`super::Link`].
    pub const LINK: &str = "LAB_LINK";
    /// Per-CPU array of one [`super::Passed`].
    pub const PASSED: &str = "LAB_PASSED";
    /// Device map of two entries, both of them the interface that frames leave by: a broadcast to
    /// it doubles a frame.
    pub const OUT: &str = "LAB_OUT";
    /// CPU map where held frames wait. One entry; a driver makes it one for each CPU.
    pub const HOLD: &str = "LAB_HOLD";
}

/// Bytes before a held frame: the time of its release, in nanoseconds since boot.
pub const STAMP: usize = 8;

/// What rates are parts of.
pub const WHOLE: u64 = 1000;

/// What one direction does to frames. Each frame has one fate: the rates are parts of [`WHOLE`],
/// and their sum is at most that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Link {
    /// Frames that are lost.
    pub drop: u64,
    /// Frames that arrive twice.
    pub duplicate: u64,
    /// Frames that are held, and so overtaken.
    pub reorder: u64,
    /// How long those are held, in nanoseconds.
    pub hold: u64,
    /// CPUs in [`map::HOLD`], numbered from 0.
    pub cpus: u64,
}

/// What one CPU has seen of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Passed {
    /// State of the generator of random numbers: the seed, at first.
    pub random: u64,
    /// All frames.
    pub frames: u64,
    /// Those lost.
    pub dropped: u64,
    /// Those doubled.
    pub duplicated: u64,
    /// Those held.
    pub held: u64,
    /// Held ones that have gone on.
    pub released: u64,
    /// Bytes of the longest frame, from its Ethernet header on.
    pub longest: u64,
}
