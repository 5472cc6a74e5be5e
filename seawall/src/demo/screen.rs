//! What the demo shows while it runs: one line that is written again on a terminal, and one line
//! for every finished phase.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// Columns of the live table.
pub(super) const COLUMNS: usize = 6;
/// Width of its progress bar.
const BAR: usize = 22;

fn row(cells: [&str; COLUMNS]) -> String {
    cells.map(|cell| format!("{cell:>11}")).concat()
}

/// The terminal, or a log.
pub(super) struct Screen {
    live: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { live: stdout().is_terminal() }
    }

    /// A heading.
    pub(super) fn heading(&self, text: &str) {
        if self.live {
            println!("\n\x1b[1m{text}\x1b[0m");
        } else {
            println!("\n{text}");
        }
    }

    /// The head of the live table; only on a terminal.
    pub(super) fn live_head(&self, columns: [&str; COLUMNS]) {
        if self.live {
            println!("  {:BAR$} {}", "", row(columns));
        }
    }

    /// The row of the live table, written again in its place: how far the phase is, from 0 to 1,
    /// and what is happening now.
    pub(super) fn live_row(&self, progress: f64, cells: [&str; COLUMNS]) {
        if self.live {
            let done = (progress.clamp(0.0, 1.0) * (BAR - 2) as f64) as usize;
            let bar = format!("[{}{}]", "#".repeat(done), "-".repeat(BAR - 2 - done));
            print!("\r\x1b[2K  {bar} {}", row(cells));
            // A terminal that is gone does not end the demo.
            let _ = stdout().flush();
        }
    }

    /// What came of it.
    pub(super) fn line(&self, text: &str) {
        if self.live {
            print!("\r\x1b[2K");
        }
        println!("  {text}");
    }

    /// A promise, and whether it was kept.
    pub(super) fn verdict(&self, kept: bool, text: &str) {
        let (word, colour) = if kept { ("ok", 32) } else { ("FAILED", 31) };
        if self.live {
            print!("\r\x1b[2K");
            println!("  \x1b[{colour}m{word:<6}\x1b[0m {text}");
        } else {
            println!("  {word:<6} {text}");
        }
    }
}

/// A number with thousands separated.
pub(super) fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A latency, or a dash where there was none.
pub(super) fn latency(value: Option<Duration>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.2} ms", value.as_secs_f64() * 1e3))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn thousands_are_separated() {
        for (value, text) in
            [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1234567.0, "1,234,567")]
        {
            assert_eq!(number(value), text);
        }
    }
}
