//! A checked view of one TOML table: typed reads that report instead of failing, and the keys left
//! over at the end.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Located;
use super::errors::{Problems, quote};

/// A value of the file with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// One table of the file while it is read.
///
/// Read every key, then call [`Section::finish`], which reports the keys nobody read.
#[derive(Debug)]
pub(super) struct Section<'t, 'i> {
    table: &'t DeTable<'i>,
    /// As the user writes it, `[synproxy]` or `[[service]]`; empty for the top of the file.
    title: &'static str,
    /// Where the table starts; missing keys are reported here.
    pub(super) line: usize,
    known: Vec<&'static str>,
}

impl<'t, 'i> Section<'t, 'i> {
    pub(super) fn new(table: &'t DeTable<'i>, title: &'static str, line: usize) -> Self {
        Self { table, title, line, known: Vec::new() }
    }

    /// The key as named in messages: `[synproxy] wscale`.
    pub(super) fn name(&self, key: &str) -> String {
        if self.title.is_empty() { key.to_owned() } else { format!("{} {key}", self.title) }
    }

    fn take(&mut self, key: &'static str) -> Option<&'t Value<'i>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The value of a key, if it is there, unread.
    pub(super) fn peek(&self, key: &str) -> Option<&'t DeValue<'i>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    /// The key's value as `read` understands it, or a problem that says what was expected.
    pub(super) fn read<T>(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'t DeValue<'i>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.take(key)?;
        let line = problems.line(value.span());
        match read(value.get_ref()) {
            Some(value) => Some(Located { value, line }),
            None => {
                let message = format!("{} is {}", self.name(key), describe(value.get_ref()));
                problems.add(line, message, format_args!("expected {expected}"));
                None
            }
        }
    }

    /// An integer within `range`; `default` when absent or wrong.
    pub(super) fn integer<T: Copy + Display + PartialOrd + TryFrom<u32>>(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<T>,
        default: T,
    ) -> T {
        let expected = format!("an integer {} to {}", range.start(), range.end());
        let read = |value: &DeValue<'_>| {
            let number = T::try_from(integer(value)?).ok()?;
            range.contains(&number).then_some(number)
        };
        self.read(problems, key, &expected, read).map_or(default, |located| located.value)
    }

    /// An integer within `range`; `None` when absent or wrong.
    pub(super) fn optional_integer(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Option<Located<u32>> {
        let expected = format!("an integer {} to {}", range.start(), range.end());
        self.read(problems, key, &expected, |value| {
            integer(value).filter(|number| range.contains(number))
        })
    }

    /// `true` or `false`; `default` when absent or wrong.
    pub(super) fn boolean(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        default: bool,
    ) -> bool {
        self.read(problems, key, "true or false", DeValue::as_bool)
            .map_or(default, |located| located.value)
    }

    /// A string; `None` when absent or not a string.
    pub(super) fn string(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        expected: &str,
    ) -> Option<Located<&'t str>> {
        self.read(problems, key, expected, DeValue::as_str)
    }

    /// Like [`Section::string`], and its absence is a problem.
    pub(super) fn required_string(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        expected: &str,
    ) -> Option<Located<&'t str>> {
        self.require(problems, key, expected);
        self.string(problems, key, expected)
    }

    /// One of the words of `choices`; `None` when absent or wrong.
    pub(super) fn choice<T: Copy>(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Located<T>> {
        let expected = expected_words(choices);
        self.read(problems, key, &expected, |value| {
            let word = value.as_str()?;
            choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice)
        })
    }

    /// Like [`Section::choice`], and its absence is a problem.
    pub(super) fn required_choice<T: Copy>(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Located<T>> {
        self.require(problems, key, &expected_words(choices));
        self.choice(problems, key, choices)
    }

    /// The strings of a list, each with its line; wrong elements are reported and left out.
    pub(super) fn strings(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        expected: &str,
    ) -> Option<Located<Vec<Located<&'t str>>>> {
        let list = self.read(problems, key, expected, DeValue::as_array)?;
        let mut strings = Vec::with_capacity(list.value.len());
        for element in list.value.iter() {
            let line = problems.line(element.span());
            match element.get_ref().as_str() {
                Some(value) => strings.push(Located { value, line }),
                None => problems.add(
                    line,
                    format_args!("{} holds {}", self.name(key), describe(element.get_ref())),
                    format_args!("expected {expected}"),
                ),
            }
        }
        Some(Located { value: strings, line: list.line })
    }

    /// Like [`Section::strings`], and its absence is a problem.
    pub(super) fn required_strings(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        expected: &str,
    ) -> Option<Located<Vec<Located<&'t str>>>> {
        self.require(problems, key, expected);
        self.strings(problems, key, expected)
    }

    /// The table under `key`, or `None` when absent or not a table.
    pub(super) fn table(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Option<Section<'t, 'i>> {
        let table =
            self.read(problems, key, &format!("a table, {title}"), |value| value.as_table())?;
        Some(Section::new(table.value, title, table.line))
    }

    /// The tables of the list under `key`; what is not a table is reported and left out.
    pub(super) fn tables(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Vec<Section<'t, 'i>> {
        let expected = format!("a list of tables, each headed {title}");
        let Some(list) = self.read(problems, key, &expected, DeValue::as_array) else {
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(list.value.len());
        for element in list.value.iter() {
            let line = problems.line(element.span());
            match element.get_ref().as_table() {
                Some(table) => sections.push(Section::new(table, title, line)),
                None => problems.add(
                    line,
                    format_args!("{} holds {}", self.name(key), describe(element.get_ref())),
                    format_args!("expected {expected}"),
                ),
            }
        }
        sections
    }

    /// Reports every key of the table that was not read, with the nearest one that exists.
    pub(super) fn finish(self, problems: &mut Problems<'_>) {
        for key in self.table.keys() {
            let written: &str = key.get_ref();
            if self.known.contains(&written) {
                continue;
            }
            let line = problems.line(key.span());
            let place = if self.title.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in {}", self.title)
            };
            let message = format!("unknown key {} {place}", backticked(written));
            match nearest(written, &self.known) {
                Some(near) => problems.add(line, message, format_args!("did you mean `{near}`?")),
                None => problems.add(
                    line,
                    message,
                    format_args!("expected one of: {}", self.known.join(", ")),
                ),
            }
        }
    }

    fn require(&self, problems: &mut Problems<'_>, key: &'static str, expected: &str) {
        if self.table.get(key).is_none() {
            let message = format!("{} is missing", self.name(key));
            problems.add(self.line, message, format_args!("expected {expected}"));
        }
    }
}

fn backticked(written: &str) -> String {
    let quoted = quote(written);
    match quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) => format!("`{plain}`"),
        None => quoted,
    }
}

/// The known word within a third of the letters (at least one) of `written`, if any.
fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let lower = written.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, word), *word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

fn expected_words<T>(choices: &[(&'static str, T)]) -> String {
    let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    match words.as_slice() {
        [first, last] => format!("{first} or {last}"),
        _ => format!("one of {}", words.join(", ")),
    }
}

/// The integer that a value is, if it fits.
pub(super) fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// What a value is, for "... is WHAT; expected ...".
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(time) => format!("the date {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
