//! A persistence template: which real server the clients of one network stay with.
//!
//! Only user space reads and writes these. They lie in a BPF array so that they can outlive the
//! daemon as sessions do; whatever leads to them (an index, timers, how many sessions a template
//! controls) can be made anew from them and the slots.

use crate::cell::{Cell32, Cell64};
use crate::tuple::Addr;

/// One template: 40 bytes.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Template {
    client: [Cell64; 2],
    /// When it ends unless a session of its is left, in milliseconds of the monotonic clock.
    pub deadline: Cell64,
    /// How long it lives after its last new session, in milliseconds.
    pub timeout: Cell32,
    /// Number of the service.
    pub service: Cell32,
    /// Number of the real server.
    pub server: Cell32,
    /// Bits of this type's constants; 0 if there is no template here.
    pub flags: Cell32,
}

impl Template {
    /// There is one.
    pub const LIVE: u32 = 1;
    /// New sessions no longer follow it: its real server was not available.
    pub const INVALID: u32 = 1 << 1;
    /// A client with this template has proved its address (Linux: `IP_VS_CTPL_S_ASSURED`).
    pub const ASSURED: u32 = 1 << 2;

    /// The clients' address, masked.
    #[must_use]
    pub fn client(&self) -> Addr {
        Addr([self.client[0].load(), self.client[1].load()])
    }

    /// Sets the clients' address, masked.
    pub fn set_client(&self, client: Addr) {
        self.client[0].store(client.0[0]);
        self.client[1].store(client.0[1]);
    }
}
