//! The memory and the names that the lab's XDP programs share with their driver.
//!
//! The BPF crate includes this file by path, so it uses nothing but `core`.

/// The programs.
pub mod program {
    /// Lets everything through: a veth receives what its peer sends by XDP only if it has a
    /// program.
    pub const PASS: &str = "lab_pass";
    /// Counts in [`super::map::DROPS`] and drops.
    pub const DROP_COUNT: &str = "lab_drop_count";
    /// Sends IPv4 back where it came from, addresses and ports swapped; drops the rest.
    pub const REFLECT: &str = "lab_reflect";
    /// Counts in [`super::map::SINK`] and drops; ARP and neighbour discovery pass.
    pub const SINK: &str = "lab_sink";
    /// Overwrites a frame of [`super::FRAME_MAX`] bytes by the next of [`super::map::TEMPLATES`]
    /// and sends it. To be run by `BPF_PROG_TEST_RUN` with live frames.
    pub const FLOOD: &str = "lab_flood";
}

/// The maps.
pub mod map {
    /// Array of [`super::TEMPLATES`] [`super::Template`]s; the first that is empty ends it.
    pub const TEMPLATES: &str = "LAB_TEMPLATES";
    /// Per-CPU array of one [`super::Turn`].
    pub const TURN: &str = "LAB_TURN";
    /// Per-CPU array of one `u64` a template: how often it was sent.
    pub const SENT: &str = "LAB_SENT";
    /// Per-CPU array of one [`super::Received`].
    pub const DROPS: &str = "LAB_DROPS";
    /// Per-CPU array of one [`super::Received`].
    pub const SINK: &str = "LAB_SINK";
}

/// The longest frame that a flood sends, in bytes, without the checksum of Ethernet.
pub const FRAME_MAX: usize = 192;

/// Templates that there is room for, unless the driver makes more.
pub const TEMPLATES: u32 = 64;

/// Fields that a template can vary.
pub const FIELDS: usize = 4;

/// In which order a field takes its values: values of [`Field::order`].
pub mod order {
    /// At random.
    pub const RANDOM: u32 = 0;
    /// One after the other, on each CPU.
    pub const RISING: u32 = 1;
}

/// A field of a frame whose value differs from frame to frame; 0 in the template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Field {
    /// Its lowest value.
    pub first: u32,
    /// How many values it can have; 0 means that there is no such field.
    pub count: u32,
    /// One of [`order`].
    pub order: u32,
    /// Where it stands in the frame, in bytes; even.
    pub offset: u32,
    /// Its width: 2 or 4 bytes.
    pub width: u32,
    /// Where the checksums over it stand in the frame; 0 for none.
    pub sums: [u32; 2],
}

/// What frames of a flood look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Template {
    /// Length of the frame in bytes, 14 to [`FRAME_MAX`]; 0 for no template.
    pub len: u32,
    /// What differs from frame to frame.
    pub fields: [Field; FIELDS],
    /// The frame, in the order of memory; its checksums are right as long as all fields are 0.
    pub words: [u32; FRAME_MAX / 4],
}

/// Where one CPU is in the round of templates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Turn {
    /// State of the generator of random numbers; a run with the same non-zero state sends the
    /// same frames.
    pub random: u64,
    /// The next template.
    pub next: u64,
}

/// What one CPU has received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Received {
    /// Frames.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Those that are a TCP SYN and ACK over IPv4 without options.
    pub syn_acks: u64,
}
