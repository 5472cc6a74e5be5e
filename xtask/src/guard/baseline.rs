//! Counts by group and name, what they were counted with, and the file of them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Instructions of native code, each time.
    Instructions,
    /// Instructions of an XDP program, after the kernel's rewriting.
    Size,
    /// Instructions that the kernel walked to verify it.
    Verified,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Instructions, Self::Size, Self::Verified];

    /// As the file calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Size => "size",
            Self::Verified => "verified",
        }
    }
}

/// How a count compares with its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    Within,
    /// More than the tolerance allows.
    Above,
    /// Better by more than the tolerance: the baseline no longer guards it well.
    Below,
    /// Without a baseline.
    Unknown,
    /// A baseline of something that is not counted.
    Gone,
}

/// One count and its baseline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    group: Group,
    name: String,
    was: Option<u64>,
    is: Option<u64>,
    pub(crate) judgement: Judgement,
}

/// All counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Baseline {
    compiler: String,
    kernel: String,
    counts: BTreeMap<Group, BTreeMap<String, u64>>,
}

impl Baseline {
    pub(crate) const fn new(compiler: String, kernel: String) -> Self {
        Self { compiler, kernel, counts: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, group: Group, name: String, count: u64) {
        self.counts.entry(group).or_default().insert(name, count);
    }

    /// What a group was counted with.
    pub(crate) fn tool(&self, group: Group) -> &str {
        match group {
            Group::Instructions => &self.compiler,
            Group::Size | Group::Verified => &self.kernel,
        }
    }

    fn get(&self, group: Group, name: &str) -> Option<u64> {
        self.counts.get(&group)?.get(name).copied()
    }

    /// Holds the counts of a group in `measured` against these.
    pub(crate) fn judge(&self, measured: &Self, group: Group, tolerance: f64) -> Vec<Line> {
        let all = [self, measured].into_iter().filter_map(|side| side.counts.get(&group));
        let names: std::collections::BTreeSet<&String> = all.flat_map(BTreeMap::keys).collect();
        let line = |name: &String| {
            let (was, is) = (self.get(group, name), measured.get(group, name));
            let judgement = judge(was, is, tolerance);
            Line { group, name: name.clone(), was, is, judgement }
        };
        names.into_iter().map(line).collect()
    }

    /// The file.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "# What `cargo xtask guard` holds counts against. Written by `cargo xtask guard \
             --accept`.\ncompiler = \"{}\"\nkernel = \"{}\"\n",
            self.compiler, self.kernel
        );
        for group in Group::ALL {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\n[{}]\n", group.name());
            for (name, count) in self.counts.get(&group).into_iter().flatten() {
                let _ = writeln!(text, "{name} = {count}");
            }
        }
        text
    }

    /// Reads the file; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let file: toml::Table = text.parse().ok()?;
        let word = |name: &str| Some(file.get(name)?.as_str()?.to_owned());
        let mut baseline = Self::new(word("compiler")?, word("kernel")?);
        for group in Group::ALL {
            for (name, count) in file.get(group.name())?.as_table()? {
                let count = u64::try_from(count.as_integer()?).ok()?;
                baseline.set(group, name.clone(), count);
            }
        }
        Some(baseline)
    }
}

fn judge(was: Option<u64>, is: Option<u64>, tolerance: f64) -> Judgement {
    let (Some(was), Some(is)) = (was, is) else {
        return if was.is_some() { Judgement::Gone } else { Judgement::Unknown };
    };
    match is as f64 / was as f64 {
        ratio if ratio > 1.0 + tolerance => Judgement::Above,
        ratio if ratio < 1.0 - tolerance => Judgement::Below,
        _ => Judgement::Within,
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (was, is) = (number(self.was), number(self.is));
        write!(f, "{:<13} {:<28} {is:>8}, baseline {was:>8}", self.group.name(), self.name)?;
        match self.judgement {
            Judgement::Within => Ok(()),
            Judgement::Above => write!(f, "  MORE"),
            Judgement::Below => write!(f, "  less: worth accepting"),
            Judgement::Unknown => write!(f, "  NO BASELINE"),
            Judgement::Gone => write!(f, "  NOT COUNTED"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Baseline, Group, Judgement};

    fn baseline(counts: &[(&str, u64)]) -> Baseline {
        let mut baseline = Baseline::new("rustc 1 \"a\"".replace('"', "'"), "6.18".to_owned());
        for (name, count) in counts {
            baseline.set(Group::Size, (*name).to_owned(), *count);
        }
        baseline
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let mut written = baseline(&[("seawall", 7_000), ("seawall_ipv6", 8_000)]);
        written.set(Group::Instructions, "ipv4-syn-answered".to_owned(), 2_118);
        written.set(Group::Verified, "seawall".to_owned(), 400_000);
        assert_eq!(Baseline::parse(&written.text()), Some(written));
        assert_eq!(Baseline::parse("compiler = 1"), None);
    }

    #[test]
    fn a_count_may_grow_within_the_tolerance_and_no_further() {
        let was = baseline(&[("a", 1_000), ("b", 1_000), ("c", 1_000), ("d", 1_000)]);
        let is = baseline(&[("a", 1_050), ("b", 1_051), ("c", 949), ("e", 1)]);
        let lines = was.judge(&is, Group::Size, 0.05);
        let judged: Vec<_> =
            lines.iter().map(|line| (line.name.as_str(), line.judgement)).collect();
        assert_eq!(
            judged,
            [
                ("a", Judgement::Within),
                ("b", Judgement::Above),
                ("c", Judgement::Below),
                ("d", Judgement::Gone),
                ("e", Judgement::Unknown),
            ]
        );
        let fails: Vec<_> = judged.iter().map(|(_, judgement)| judgement.fails()).collect();
        assert_eq!(fails, [false, true, false, true, true]);
    }
}
