//! The steps of a run under a load of frames: warm up, measure a while, stop, settle.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::rig::{Rig, Spent};
use super::{Settings, WARM_UP};

/// How long what is under way may take to arrive.
const SETTLE: Duration = Duration::from_millis(100);

/// What grows while a load lasts.
pub(crate) trait Counts {
    /// How far it has grown.
    fn since(&self, earlier: &Self) -> Self;
}

/// What came of a load.
pub(crate) struct Window<C> {
    /// From before the load until after it.
    pub(crate) all: C,
    /// Of the window, like what was spent.
    pub(crate) counts: C,
    pub(crate) spent: Spent,
    /// Frames that the generators sent.
    pub(crate) sent: u64,
    /// Seconds from the start of the load to its end.
    pub(crate) sending: f64,
}

/// Starts a load, measures a window of it, and stops it; `stop` gives the frames that it sent.
pub(crate) fn measure<C: Counts, L>(
    settings: &Settings,
    rig: &Rig,
    count: impl Fn() -> Result<C>,
    start: impl FnOnce() -> Result<L>,
    stop: impl FnOnce(L) -> Result<u64>,
) -> Result<Window<C>> {
    let (before, started) = (count()?, Instant::now());
    let load = start()?;
    sleep(WARM_UP);
    let (counts, usage) = (count()?, rig.usage()?);
    sleep(settings.window);
    let spent = rig.usage()?.since(&usage);
    let counts = count()?.since(&counts);
    let sending = started.elapsed().as_secs_f64();
    let sent = stop(load)?;
    sleep(SETTLE);
    Ok(Window { all: count()?.since(&before), counts, spent, sent, sending })
}
