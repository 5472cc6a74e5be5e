//! SIGINT and SIGTERM for the commands that build a network to show something in.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use seawall_datapath::{Signal, Signals};

/// The exit code of a program that SIGINT has ended, by the shell's convention.
const INTERRUPTED: i32 = 128 + 2;
/// How often it is looked whether SIGINT or SIGTERM has come.
const LOOK: Duration = Duration::from_millis(20);

/// Has SIGINT and SIGTERM end the program as ever, but not without the one thing that would stay:
/// namespaces and the daemon go with the process.
pub(crate) fn remove(directory: PathBuf) -> Result<()> {
    let mut signals = Signals::open()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while !signals.take().contains(&Signal::Stop) {
            std::thread::sleep(LOOK);
        }
        // The daemon may be removing its socket at this moment: then once more.
        if fs::remove_dir_all(&directory).is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        std::process::exit(INTERRUPTED);
    })?;
    Ok(())
}
