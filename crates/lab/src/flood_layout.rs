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
    /// Counts in [`super::map::SINK`] and drops; ARP passes.
    pub const SINK: &str = "lab_sink";
    /// Overwrites a frame of [`super::FRAME_LEN`] bytes by the next of [`super::Flood`] and sends
    /// it. To be run by `BPF_PROG_TEST_RUN` with live frames.
    pub const FLOOD: &str = "lab_flood";
}

/// The maps.
pub mod map {
    /// Array of one [`super::Flood`], mapped into user space.
    pub const FLOOD: &str = "LAB_FLOOD";
    /// Per-CPU array of one [`super::Sent`].
    pub const SENT: &str = "LAB_SENT";
    /// Per-CPU array of one [`super::Received`].
    pub const DROPS: &str = "LAB_DROPS";
    /// Per-CPU array of one [`super::Received`].
    pub const SINK: &str = "LAB_SINK";
}

/// Length that a frame must have for the flood program: Ethernet, IPv4 and 40 bytes. A shorter
/// packet leaves the rest as padding.
pub const FRAME_LEN: usize = 74;

/// What a flood consists of: values of [`Flood::kind`].
pub mod kind {
    /// TCP SYN.
    pub const SYN: u32 = 0;
    /// TCP ACK with random numbers.
    pub const ACK: u32 = 1;
    /// TCP RST.
    pub const RST: u32 = 2;
    /// TCP FIN and ACK.
    pub const FIN: u32 = 3;
    /// TCP SYN and ACK.
    pub const SYN_ACK: u32 = 4;
    /// TCP without a flag.
    pub const NULL: u32 = 5;
    /// TCP with FIN, PSH and URG.
    pub const XMAS: u32 = 6;
    /// UDP, 32 bytes of payload.
    pub const UDP: u32 = 7;
    /// A middle fragment of a TCP packet.
    pub const FRAGMENT: u32 = 8;
    /// Any of the others, at random.
    pub const MIX: u32 = 9;
}

/// What to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Flood {
    /// Where frames go; see [`mac`].
    pub destination_mac: u64,
    /// Where they say they come from.
    pub source_mac: u64,
    /// First source address, in host order.
    pub source: u32,
    /// Source addresses to draw from, starting with the first; 0 means 1.
    pub source_count: u32,
    /// Destination address, in host order.
    pub destination: u32,
    /// Destination port, 0 to 65535.
    pub destination_port: u32,
    /// One of [`kind`].
    pub kind: u32,
    /// Not 0: TCP carries the options of a Linux SYN (MSS, SACK permitted, timestamps, window
    /// scale).
    pub options: u32,
    /// Packets that each CPU sends before it drops the rest; 0 means no limit.
    pub limit: u64,
}

/// What one CPU has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Sent {
    /// State of the generator of random numbers; a run with the same non-zero state sends the
    /// same frames.
    pub random: u64,
    /// Packets.
    pub packets: u64,
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

/// A MAC address as it stands in [`Flood`].
#[must_use]
pub const fn mac(address: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = address;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
