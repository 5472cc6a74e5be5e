//! The program run on a frame of the caller's making (`BPF_PROG_TEST_RUN`), as the tests and
//! benches of all crates do it. The maps are the real ones, and so are counters and records.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use seawall_fastpath::layout::FULL_RECORD_FRAME;

use crate::xdp::program;
use crate::{Error, Xdp};

/// Longest frame that can be run: what fits a page beside XDP's headroom and tailroom.
pub const MAX_FRAME: usize = FULL_RECORD_FRAME;
/// What a program can at most put in front of a frame (`XDP_PACKET_HEADROOM`).
const HEADROOM: usize = 256;

/// What XDP does with a frame (`enum xdp_action` in `linux/bpf.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The program failed.
    Aborted,
    /// The frame is gone.
    Drop,
    /// The kernel's stack has it.
    Pass,
    /// It leaves by the interface it came in on.
    Tx,
    /// It leaves by another interface.
    Redirect,
    /// No action that the kernel knows.
    Unknown(u32),
}

/// What one run gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestRun {
    /// The program's answer.
    pub action: Action,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// How long the program ran; a first run is cold.
    pub duration: Duration,
}

impl Xdp {
    /// Runs the program once on `frame` as if it had come in on `interface` (an index in the
    /// calling thread's namespace; 1 is the loopback's). Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::TestRun`]: `frame` is shorter than 14 bytes or longer than [`MAX_FRAME`], or there
    /// is no such interface.
    pub fn test_run(&mut self, frame: &[u8], interface: u32) -> Result<TestRun, Error> {
        if frame.len() > MAX_FRAME {
            let expected = "at most 3520 bytes";
            let value = frame.len() as u64;
            return Err(Error::Limit { what: "the length of the frame", value, expected });
        }
        let mut out = vec![0; frame.len().max(MAX_FRAME) + HEADROOM];
        let context = context(frame.len() as u32, interface);
        let result = program(&mut self.ebpf, seawall_fastpath::layout::name::PROGRAM)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .map_err(|source| Error::TestRun {
                length: frame.len(),
                interface,
                source: Box::new(source),
            })?;
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            0 => Action::Aborted,
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            other => Action::Unknown(other),
        };
        Ok(TestRun { action, frame: out, duration: result.duration })
    }
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(length: u32, interface: u32) -> Vec<u8> {
    [0, length, 0, interface, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}
