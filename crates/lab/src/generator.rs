//! A program that the kernel runs for frames of its own (`BPF_PROG_TEST_RUN` with live frames),
//! in short turns.

use aya::Ebpf;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode};

use crate::Namespace;
use crate::flood::{Error, xdp};
use crate::flood_layout::FRAME_MAX;

/// Frames that the kernel runs the program for at once.
const BATCH: u32 = 64;

/// A loaded program and where it sends.
pub(crate) struct Generator {
    ebpf: Ebpf,
    name: &'static str,
    /// `struct xdp_md` of each frame.
    context: Vec<u8>,
    /// Where the program is attached beside: to a loopback that nobody uses. A turn of a program
    /// that is attached nowhere costs 18 to 28 ms and not 13 µs: the kernel makes it known to all
    /// of XDP and forgets it again (`bpf_prog_change_xdp` in `net/bpf/test_run.c`).
    _nowhere: Namespace,
}

impl Generator {
    /// Loads the program of that name, for frames of [`FRAME_MAX`] bytes that are said to come in
    /// at `interface`, an index in the namespace of the threads that call [`Generator::turn`].
    pub(crate) fn new(mut ebpf: Ebpf, name: &'static str, interface: u32) -> Result<Self, Error> {
        let nowhere = Namespace::new("nowhere")?;
        let program = xdp(&mut ebpf, name)?;
        program.load()?;
        nowhere.run(|| program.attach("lo", XdpMode::Skb))?;
        // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let words = [0, FRAME_MAX as u32, 0, interface, 0, 0];
        let context = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(Self { ebpf, name, context, _nowhere: nowhere })
    }

    /// Runs the program for so many frames, at least 1.
    pub(crate) fn turn(&mut self, frames: u32) -> Result<(), Error> {
        let options = TestRunOptions {
            data_in: Some(&[0; FRAME_MAX]),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        xdp(&mut self.ebpf, self.name)?.test_run(options)?;
        Ok(())
    }

    /// Its maps.
    pub(crate) const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}
