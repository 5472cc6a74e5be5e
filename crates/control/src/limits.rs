//! The most memory that the configured limits can lead to, printed at start.

use std::fmt;

/// What the data plane and the engine take for a configuration; the caller knows their layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of the session array, one a session.
    pub slots: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Buckets of the session index.
    pub buckets: u64,
    /// Bytes of a bucket.
    pub bucket_bytes: u64,
    /// Bytes of the index's filter.
    pub filter_bytes: u64,
    /// Bytes of the engine's own bookkeeping for a session (timers, handshake).
    pub engine_session_bytes: u64,
    /// Persistence templates (`max_persistence_templates`).
    pub templates: u64,
    /// Bytes of a template, bookkeeping included.
    pub template_bytes: u64,
    /// Bytes of the early-data store over all sessions (`ack_store_total_bytes`).
    pub early_data_bytes: u64,
    /// Bytes of all rings between kernel and daemon.
    pub ring_bytes: u64,
}

impl Sizes {
    /// Buckets of eight entries that hold two entries a session at a load of at most one half:
    /// the power of two that is at least `sessions / 2`, and at least 1.
    pub fn buckets_for(sessions: u64) -> u64 {
        sessions.div_ceil(2).checked_next_power_of_two().unwrap_or(1 << 63)
    }
}

/// One line of [`WorstCaseMemory`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    what: String,
    how: String,
    bytes: u64,
}

/// The worst case, line by line; its `Display` is the table printed at start.
///
/// ```
/// use seawall_control::limits::{Sizes, WorstCaseMemory};
///
/// let slots = 1 << 20;
/// let memory = WorstCaseMemory::new(&Sizes {
///     slots,
///     slot_bytes: 256,
///     buckets: Sizes::buckets_for(slots),
///     bucket_bytes: 64,
///     filter_bytes: 1 << 20,
///     engine_session_bytes: 128,
///     templates: 1 << 18,
///     template_bytes: 64,
///     early_data_bytes: 64 << 20,
///     ring_bytes: 32 << 20,
/// });
/// assert_eq!(memory.total_bytes(), (256 + 32 + 1 + 128 + 16 + 64 + 32) << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstCaseMemory {
    rows: Vec<Row>,
}

impl WorstCaseMemory {
    /// The worst case for `sizes`; sums saturate.
    pub fn new(sizes: &Sizes) -> Self {
        let product = |what: &str, count: u64, unit: &str, bytes: u64| Row {
            what: what.to_owned(),
            how: format!("{count} {unit} of {bytes} B"),
            bytes: count.saturating_mul(bytes),
        };
        let plain = |what: &str, how: &str, bytes| Row {
            what: what.to_owned(),
            how: how.to_owned(),
            bytes,
        };
        let engine = sizes.engine_session_bytes;
        Self {
            rows: vec![
                product("session array", sizes.slots, "slots", sizes.slot_bytes),
                product("session index", sizes.buckets, "buckets", sizes.bucket_bytes),
                plain("session filter", "a byte a bucket", sizes.filter_bytes),
                product("session bookkeeping", sizes.slots, "sessions", engine),
                product("persistence", sizes.templates, "templates", sizes.template_bytes),
                plain("early data", "[synproxy] ack_store_total_bytes", sizes.early_data_bytes),
                plain("rings", "kernel to daemon", sizes.ring_bytes),
            ],
        }
    }

    /// The table with one more line, for tables that not every configuration has.
    #[must_use]
    pub fn with(mut self, what: &str, bytes: u64) -> Self {
        self.rows.push(Row { what: what.to_owned(), how: String::new(), bytes });
        self
    }

    /// Everything together, bytes.
    pub fn total_bytes(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.bytes))
    }
}

impl fmt::Display for WorstCaseMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
        writeln!(f, "worst-case memory of the configured limits:")?;
        for row in &self.rows {
            let line = format!("  {:what$}  {:>10}  {}", row.what, mebibytes(row.bytes), row.how);
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "  {:what$}  {:>10}", "total", mebibytes(self.total_bytes()))
    }
}

/// Mebibytes with one decimal, rounded up: a worst case is never printed smaller than it is.
fn mebibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes).saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes {
            slots: 1000,
            slot_bytes: 256,
            buckets: Sizes::buckets_for(1000),
            bucket_bytes: 64,
            filter_bytes: 512,
            engine_session_bytes: 100,
            templates: 16_384,
            template_bytes: 64,
            early_data_bytes: 1 << 20,
            ring_bytes: 1,
        }
    }

    #[test]
    fn index_load_is_at_most_one_half() {
        for sessions in [1, 2, 3, 1024, 1025, 1 << 20, (1 << 24) - 1, 1 << 24] {
            let entries = Sizes::buckets_for(sessions) * 8;
            assert!(entries >= 2 * (2 * sessions), "{sessions}");
            assert!(entries < 2 * 2 * (2 * sessions + 2), "{sessions}");
        }
        assert_eq!(Sizes::buckets_for(1 << 20), 1 << 19);
        assert_eq!(Sizes::buckets_for(u64::MAX), 1 << 63);
    }

    #[test]
    fn table() {
        let memory = WorstCaseMemory::new(&sizes()).with("local ports", 3 << 20);
        assert_eq!(memory.total_bytes(), 256_000 + 512 * 64 + 512 + 100_000 + (5 << 20) + 1);
        assert_eq!(
            memory.to_string(),
            "worst-case memory of the configured limits:\n\
             \u{20} session array           0.3 MiB  1000 slots of 256 B\n\
             \u{20} session index           0.1 MiB  512 buckets of 64 B\n\
             \u{20} session filter          0.1 MiB  a byte a bucket\n\
             \u{20} session bookkeeping     0.1 MiB  1000 sessions of 100 B\n\
             \u{20} persistence             1.0 MiB  16384 templates of 64 B\n\
             \u{20} early data              1.0 MiB  [synproxy] ack_store_total_bytes\n\
             \u{20} rings                   0.1 MiB  kernel to daemon\n\
             \u{20} local ports             3.0 MiB\n\
             \u{20} total                   5.4 MiB"
        );
    }

    #[test]
    fn absurd_sizes_saturate() {
        let memory = WorstCaseMemory::new(&Sizes { slots: u64::MAX, ..sizes() });
        assert_eq!(memory.total_bytes(), u64::MAX);
    }
}
