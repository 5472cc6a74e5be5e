//! The memory and the names that the programs which play clients and servers share with their
//! driver.
//!
//! The BPF crate includes this file by path, so it uses nothing but `core`.

/// The programs.
pub mod program {
    /// Sends the request that is next in [`super::map::REQUESTS`], or the SYN of a new connection
    /// as long as [`super::Plan::limit`] allows. To be run by `BPF_PROG_TEST_RUN` with live frames.
    pub const CONNECT: &str = "lab_connect";
    /// Answers what comes back to the clients. What is not TCP over IPv4 passes.
    pub const CLIENT: &str = "lab_client";
    /// Answers as a server: a SYN, a request, a FIN. Likewise.
    pub const SERVER: &str = "lab_server";
    /// Sends a segment of [`super::DATA`] bytes of any one of [`super::map::ENDS`]. To be run as
    /// `CONNECT`.
    pub const REPEAT: &str = "lab_repeat";
}

/// The maps; each side has its own.
pub mod map {
    /// Array of one [`super::Plan`].
    pub const PLAN: &str = "LAB_PLAN";
    /// Queue of [`super::End`]s: clients whose handshake is over and who have yet to ask.
    pub const REQUESTS: &str = "LAB_REQUESTS";
    /// Per-CPU array of one [`super::Done`].
    pub const DONE: &str = "LAB_DONE";
    /// Array of [`super::End`]s: connections that were kept open. One; a driver makes it more.
    pub const ENDS: &str = "LAB_ENDS";
    /// Array of two `u64`s: [`super::number`].
    pub const NUMBERS: &str = "LAB_NUMBERS";
}

/// Places in [`map::NUMBERS`].
pub mod number {
    /// Connections begun: the number of the next.
    pub const BEGUN: u32 = 0;
    /// Ends written to [`super::map::ENDS`].
    pub const KEPT: u32 = 1;
}

/// What is done: values of [`Plan::stage`].
pub mod stage {
    /// What comes in is dropped.
    pub const SINK: u32 = 0;
    /// Clients close when they have their answer.
    pub const CLOSE: u32 = 1;
    /// Clients acknowledge it, and both sides note the connection in [`super::map::ENDS`].
    pub const KEEP: u32 = 2;
}

/// Clients ask from 100.64.0.0/10, where nobody here lives: room for all numbers of 32 bits.
pub const FIRST_CLIENT: u32 = 0x6440_0000;
/// Ports that a client asks from, [`FIRST_PORT`] and on.
pub const PORTS: u32 = 1 << 15;
/// The lowest of those.
pub const FIRST_PORT: u32 = 1024;

/// The clients' initial sequence number.
pub const CLIENT_ISN: u32 = 0x1000_0000;
/// The servers' initial sequence number.
pub const SERVER_ISN: u32 = 0x2000_0000;
/// Bytes of a request.
pub const REQUEST: usize = 64;
/// Bytes of an answer.
pub const ANSWER: usize = 120;
/// Bytes that `REPEAT` sends.
pub const DATA: usize = 16;

/// Clients that may wait to ask.
pub const WAITING: u32 = 4096;

/// What one side is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Plan {
    /// One of [`stage`].
    pub stage: u32,
    /// Connections that may have been begun so far.
    pub limit: u32,
    /// Whom clients ask.
    pub target: u32,
    /// On which port.
    pub target_port: u32,
    /// Destination and source on the link, in the order of memory.
    pub link: [u32; 3],
    /// Elements of [`map::ENDS`] that are in use.
    pub ends: u32,
}

/// The next segment of one end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct End {
    /// Its own address.
    pub source: u32,
    /// The other's.
    pub destination: u32,
    /// Its own port, and the other's in the lower half.
    pub ports: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
}

/// What one CPU has done for one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Done {
    /// Those over, or kept, as planned.
    pub finished: u64,
    /// Resets that came in.
    pub reset: u64,
    /// Segments that came in without timestamps.
    pub strange: u64,
    /// Requests that found no room to wait, and connections that found none to be kept.
    pub lost: u64,
    /// Segments that came in.
    pub received: u64,
    /// Frames that the generators have sent.
    pub sent: u64,
}
