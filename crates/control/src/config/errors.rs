//! What is wrong with a configuration file, where, and what would be right.

use std::fmt;
use std::ops::Range;

/// At most this many problems are printed; one broken generator script can cause thousands.
const PRINTED: usize = 100;

/// Values quoted in a message are cut after this many characters.
const QUOTED: usize = 64;

/// One problem of a configuration file.
///
/// Displayed as `FILE:LINE: message; remedy`, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name as the user gave it.
    pub file: String,
    /// Line in the file, counted from 1; `None` when the file as a whole is meant (unreadable).
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right, usually beginning with "expected".
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}; {}", self.file, self.message, self.remedy),
            None => write!(f, "{}: {}; {}", self.file, self.message, self.remedy),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Every problem found in a configuration file, in the order of its lines; never empty.
///
/// Displayed one problem a line, without a trailing newline, the first 100 of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Those problems, at least one.
    pub(super) fn sorted(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line);
        Self { errors }
    }

    /// The problems, in the order of the file's lines.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().take(PRINTED).enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        match self.errors.len().checked_sub(PRINTED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n... and {more} more problems"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects problems while a file is read and checked, so that all are reported at once.
#[derive(Debug)]
pub(super) struct Problems<'s> {
    file: &'s str,
    /// Byte offset at which each line starts; a span's line is found by binary search.
    line_starts: Vec<usize>,
    errors: Vec<ConfigError>,
}

impl<'s> Problems<'s> {
    pub(super) fn new(file: &'s str, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Self { file, line_starts, errors: Vec::new() }
    }

    /// The line, counted from 1, that a span starts on.
    pub(super) fn line(&self, span: Range<usize>) -> usize {
        self.line_starts.partition_point(|start| *start <= span.start).max(1)
    }

    /// A problem on that line; 0 is none.
    pub(super) fn add(
        &mut self,
        line: usize,
        message: impl fmt::Display,
        remedy: impl fmt::Display,
    ) {
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            line: (line > 0).then_some(line),
            message: message.to_string(),
            remedy: remedy.to_string(),
        });
    }

    /// `value` when nothing was found wrong, else everything that was.
    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(ConfigErrors::sorted(self.errors)),
        }
    }
}

/// A value from the file, quoted for a message: escaped, on one line, cut when long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let problems = Problems::new("f", "a\nbc\n\nd");
        let lines: Vec<_> = (0..7).map(|i| problems.line(i..i)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4]);
        assert_eq!(Problems::new("f", "").line(0..0), 1);
    }

    #[test]
    fn errors_are_sorted_and_the_printed_ones_bounded() {
        let mut problems = Problems::new("f", "");
        for line in (1..=103).rev() {
            problems.add(line, "m", "r");
        }
        let shown = problems.into_result(Some(())).unwrap_err().to_string();
        assert!(shown.starts_with("f:1: m; r\nf:2: m; r\n"), "{shown}");
        assert!(shown.ends_with("f:100: m; r\n... and 3 more problems"), "{shown}");
    }

    #[test]
    fn quoted_values_stay_on_one_line_and_short() {
        assert_eq!(quote("a\nb"), "\"a\\nb\"");
        assert_eq!(quote(&"é".repeat(65)), format!("\"{}\"...", "é".repeat(64)));
    }
}
