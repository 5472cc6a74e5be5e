//! Programs that the kernel runs for frames of its own (`BPF_PROG_TEST_RUN` with live frames), in
//! short turns.

use aya::Ebpf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode};

use crate::Namespace;
use crate::flood::{Error, xdp};
use crate::flood_layout::FRAME_MAX;

/// Frames that the kernel runs a program for at once.
const BATCH: u32 = 64;

/// Programs and where they send.
pub(crate) struct Generator {
    ebpf: Ebpf,
    /// `struct xdp_md` of each frame.
    context: Vec<u8>,
    /// Where the programs are attached beside: loopbacks that nobody uses. A turn of a program
    /// that is attached nowhere costs 18 to 28 ms and not 13 µs: the kernel makes it known to all
    /// of XDP and forgets it again (`bpf_prog_change_xdp` in `net/bpf/test_run.c`).
    nowhere: Vec<Namespace>,
}

impl Generator {
    /// For frames of [`FRAME_MAX`] bytes that are said to come in at `interface`, an index in the
    /// namespace of the threads that call [`Generator::turn`].
    pub(crate) fn new(ebpf: Ebpf, interface: u32) -> Self {
        // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let words = [0, FRAME_MAX as u32, 0, interface, 0, 0];
        let context = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self { ebpf, context, nowhere: Vec::new() }
    }

    /// Loads a program, for [`Generator::turn`].
    pub(crate) fn load(&mut self, name: &'static str) -> Result<(), Error> {
        let nowhere = Namespace::new("nowhere")?;
        let program = xdp(&mut self.ebpf, name)?;
        program.load()?;
        nowhere.run(|| program.attach("lo", XdpMode::Skb))?;
        self.nowhere.push(nowhere);
        Ok(())
    }

    /// Runs a program for so many frames, at least 1.
    pub(crate) fn turn(&mut self, name: &'static str, frames: u32) -> Result<(), Error> {
        let options = TestRunOptions {
            data_in: Some(&[0; FRAME_MAX]),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        xdp(&mut self.ebpf, name)?.test_run(options)?;
        Ok(())
    }

    /// The programs and their maps.
    pub(crate) const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// Work of a generator, which gives a `T` in the end; dropping it ends it.
#[derive(Debug)]
pub struct Work<T> {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<T, Error>>>,
}

impl<T: Send + 'static> Work<T> {
    /// Starts it on a thread in a namespace; it is to end when it is told to.
    pub(crate) fn start(
        namespace: &Namespace,
        work: impl FnOnce(&AtomicBool) -> Result<T, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        Ok(Self { end, thread: Some(namespace.spawn(move || work(&ends))?) })
    }
}

impl<T> Work<T> {
    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What ended it before, if anything did.
    pub fn stop(mut self) -> Result<T, Error> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(Error::Missing("result: the thread of a generator panicked")),
        }
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever wanted to know how it went has called `stop`.
            let _ = thread.join();
        }
    }
}
