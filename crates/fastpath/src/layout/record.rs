//! What goes up the rings: a header and as much of the frame as the record holds.

/// Bytes of frame in a small record: every header and most handshakes.
pub const SMALL_RECORD_FRAME: usize = 128;
/// Bytes of frame in a full record: the largest frame that an XDP program without
/// multi-buffer support sees (one page less headroom and tailroom).
pub const FULL_RECORD_FRAME: usize = 3_520;

/// Why a frame goes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum RecordKind {
    /// An ACK with a valid cookie: a client has proved its address.
    Accepted = 1,
    /// A segment of a client whose accepted ACK is on its way to the engine.
    Embryo = 2,
    /// A segment from the client of a session that is not established.
    FromClient = 3,
    /// A segment from the real server of a session that is not established, or a SYN/ACK.
    FromRealServer = 4,
    /// A SYN to a service without the proxy.
    Unproxied = 5,
    /// A session changed its state; the frame is not included.
    StateChanged = 6,
    /// A datagram to a UDP service that belongs to no session.
    Datagram = 7,
    /// A segment from the client of a session without the proxy, whose real server is still to
    /// hear who that is.
    FromUnproxied = 8,
}

impl RecordKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            1 => Some(Self::Accepted),
            2 => Some(Self::Embryo),
            3 => Some(Self::FromClient),
            4 => Some(Self::FromRealServer),
            5 => Some(Self::Unproxied),
            6 => Some(Self::StateChanged),
            7 => Some(Self::Datagram),
            8 => Some(Self::FromUnproxied),
            _ => None,
        }
    }
}

/// Stands in front of the frame in every record. 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RecordHeader {
    /// A [`RecordKind`].
    pub kind: u16,
    /// Bytes of frame that follow; less than the frame had only if it did not fit.
    pub frame_len: u16,
    /// Interface the frame came in on.
    pub interface: u32,
    /// Number of the service, for `Accepted`, `Embryo`, `Unproxied` and `Datagram`.
    pub service: u32,
    /// The slot that the packet's tuple led to, or 0.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// For `Accepted`: the option byte of the cookie. For `StateChanged`: the new state.
    pub detail: u32,
    /// When XDP saw the frame, in milliseconds of the monotonic clock.
    pub time: u64,
}

impl RecordHeader {
    /// The header at the start of a record, as the XDP program laid it down.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; 32]) -> Self {
        let [a0, a1, b0, b1, c0, c1, c2, c3, d0, d1, d2, d3, rest @ ..] = *bytes;
        let [e0, e1, e2, e3, f0, f1, f2, f3, g0, g1, g2, g3, time @ ..] = rest;
        Self {
            kind: u16::from_ne_bytes([a0, a1]),
            frame_len: u16::from_ne_bytes([b0, b1]),
            interface: u32::from_ne_bytes([c0, c1, c2, c3]),
            service: u32::from_ne_bytes([d0, d1, d2, d3]),
            slot: u32::from_ne_bytes([e0, e1, e2, e3]),
            generation: u32::from_ne_bytes([f0, f1, f2, f3]),
            detail: u32::from_ne_bytes([g0, g1, g2, g3]),
            time: u64::from_ne_bytes(time),
        }
    }
}
