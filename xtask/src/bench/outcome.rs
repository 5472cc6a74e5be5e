//! What a scenario came to: the table and the JSON of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::series::Series;

/// The name of what everything else is held against.
pub(crate) const SEAWALL: &str = "seawall";
/// The name of what no load balancer can exceed here.
pub(crate) const LIMIT: &str = "limit";

/// What one system did in one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sample {
    /// The figure of the scenario, in its unit.
    pub(crate) value: f64,
    /// Other figures by name, their units in the names.
    pub(crate) notes: BTreeMap<String, f64>,
}

impl Sample {
    pub(crate) fn new(value: f64) -> Self {
        Self { value, notes: BTreeMap::new() }
    }

    #[must_use]
    pub(crate) fn note(mut self, name: &str, value: f64) -> Self {
        self.notes.insert(name.to_owned(), value);
        self
    }
}

/// What is held against a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Figure {
    /// Seawall's own.
    Value,
    /// Seawall's over that system's.
    Over(&'static str),
    /// One of Seawall's notes.
    Note(&'static str),
}

/// Which side of its bound a figure must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What the project has promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Must {
    pub(crate) figure: Figure,
    pub(crate) bound: Bound,
}

impl Must {
    pub(crate) const fn at_least(figure: Figure, bound: f64) -> Self {
        Self { figure, bound: Bound::AtLeast(bound) }
    }

    pub(crate) const fn at_most(figure: Figure, bound: f64) -> Self {
        Self { figure, bound: Bound::AtMost(bound) }
    }
}

/// The runs of one scenario.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    musts: &'static [Must],
    /// By system, in the order of the table.
    systems: Vec<(&'static str, Vec<Sample>)>,
}

/// One row of the table and one bar of the chart.
pub(crate) struct Row {
    pub(crate) system: &'static str,
    pub(crate) median: f64,
    pub(crate) range: [f64; 2],
    /// Seawall's figure over this one.
    pub(crate) ratio: Option<f64>,
}

impl Outcome {
    pub(crate) const fn new(
        name: &'static str,
        unit: &'static str,
        musts: &'static [Must],
    ) -> Self {
        Self { name, unit, musts, systems: Vec::new() }
    }

    /// Adds a run.
    pub(crate) fn push(&mut self, system: &'static str, sample: Sample) {
        match self.systems.iter_mut().find(|(name, _)| *name == system) {
            Some((_, samples)) => samples.push(sample),
            None => self.systems.push((system, vec![sample])),
        }
    }

    fn series(&self, system: &str) -> Series {
        let found = self.systems.iter().find(|(name, _)| *name == system);
        found.iter().flat_map(|(_, samples)| samples).map(|sample| sample.value).collect()
    }

    fn ratio(&self, system: &str) -> Option<f64> {
        self.series(SEAWALL).over(&self.series(system)).median()
    }

    /// Medians of a system's notes.
    fn notes(&self, system: &str) -> BTreeMap<String, f64> {
        let mut series: BTreeMap<&String, Series> = BTreeMap::new();
        let found = self.systems.iter().find(|(name, _)| *name == system);
        for sample in found.iter().flat_map(|(_, samples)| samples) {
            for (name, value) in &sample.notes {
                series.entry(name).or_default().push(*value);
            }
        }
        series
            .into_iter()
            .filter_map(|(name, series)| Some((name.clone(), series.median()?)))
            .collect()
    }

    /// Every system's figures.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.systems
            .iter()
            .filter_map(|&(system, _)| {
                let series = self.series(system);
                let (median, range) = (series.median()?, series.range()?);
                let ratio = (system != SEAWALL).then(|| self.ratio(system)).flatten();
                Some(Row { system, median, range, ratio })
            })
            .collect()
    }

    /// What was promised in words, what was reached, and whether that will do. What could not be
    /// measured here is left out.
    fn judged(&self) -> Vec<(String, f64, bool)> {
        let judge = |must: &Must| {
            let (what, reached) = match must.figure {
                Figure::Value => (self.unit.to_owned(), self.series(SEAWALL).median()?),
                Figure::Over(system) => (format!("times {system}"), self.ratio(system)?),
                Figure::Note(note) => (note.replace('_', " "), *self.notes(SEAWALL).get(note)?),
            };
            Some(match must.bound {
                Bound::AtLeast(least) => {
                    (format!("at least {} {what}", short(least)), reached, reached >= least)
                }
                Bound::AtMost(most) => {
                    (format!("at most {} {what}", short(most)), reached, reached <= most)
                }
            })
        };
        self.musts.iter().filter_map(judge).collect()
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{} ({})\n", self.name, self.unit);
        // Writing to a `String` cannot fail.
        for Row { system, median, range: [least, most], ratio } in self.rows() {
            let ratio = ratio.map(|ratio| format!("  seawall / {system} = {}", short(ratio)));
            let _ = writeln!(
                text,
                "  {system:<14} {:>10}  ({} to {}){}",
                short(median),
                short(least),
                short(most),
                ratio.unwrap_or_default()
            );
            let notes = self.notes(system);
            let notes: Vec<_> =
                notes.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
            if !notes.is_empty() {
                let _ = writeln!(text, "      {}", notes.join(", "));
            }
        }
        for (promise, reached, kept) in self.judged() {
            let word = if kept { "ok  " } else { "MISS" };
            let _ = writeln!(text, "  {word} {promise}: {}", short(reached));
        }
        text
    }

    /// For a program: the fields that every scenario has, then the spread and the notes.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows();
        let median = |system: &str| rows.iter().find(|r| r.system == system).map(|r| r.median);
        let object = |pairs: Vec<(&str, Value)>| -> Value {
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()
        };
        let peers = rows.iter().filter(|row| row.system != SEAWALL && row.system != LIMIT);
        let musts = self.judged().into_iter().map(
            |(promise, reached, kept)| json!({ "must": promise, "reached": reached, "kept": kept }),
        );
        json!({
            "name": self.name,
            "unit": self.unit,
            "seawall": median(SEAWALL),
            "limit": median(LIMIT),
            "peers": object(peers.map(|row| (row.system, json!(row.median))).collect()),
            "ratios": object(
                rows.iter().filter_map(|row| Some((row.system, json!(row.ratio?)))).collect()
            ),
            "spread": object(rows.iter().map(|row| (row.system, json!(row.range))).collect()),
            "rounds": self.systems.iter().map(|(_, samples)| samples.len()).min(),
            "notes": object(
                rows.iter().map(|row| (row.system, json!(self.notes(row.system)))).collect()
            ),
            "must": musts.collect::<Vec<_>>(),
        })
    }
}

/// A number as people read it: three digits that count, and thousands as k, M.
pub(crate) fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{suffix}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Figure, Must, Outcome, Sample, short};

    const MUSTS: &[Must] = &[
        Must::at_least(Figure::Over("nft"), 8.0),
        Must::at_least(Figure::Over("limit"), 0.75),
        Must::at_most(Figure::Note("lost"), 0.0),
        Must::at_least(Figure::Over("absent"), 1.0),
    ];

    fn outcome() -> Outcome {
        let mut outcome = Outcome::new("syn-flood", "SYNs/s", MUSTS);
        for round in [1.0, 2.0, 3.0] {
            outcome.push("seawall", Sample::new(900.0 * round).note("lost", 0.0));
            outcome.push("nft", Sample::new(100.0 * round));
            outcome.push("limit", Sample::new(1800.0 * round));
        }
        outcome
    }

    #[test]
    fn the_json_has_the_shape_that_was_asked_for() {
        let json = outcome().json();
        assert_eq!(json["name"], "syn-flood");
        assert_eq!(json["unit"], "SYNs/s");
        assert_eq!(json["seawall"], 1800.0);
        assert_eq!(json["limit"], 3600.0);
        assert_eq!(json["peers"], json!({ "nft": 200.0 }));
        assert_eq!(json["ratios"], json!({ "nft": 9.0, "limit": 0.5 }));
        assert_eq!(json["spread"]["nft"], json!([100.0, 300.0]));
        assert_eq!(json["rounds"], 3);
        assert_eq!(json["notes"]["seawall"], json!({ "lost": 0.0 }));
    }

    #[test]
    fn promises_are_judged_and_what_was_not_measured_is_not() {
        let kept: Vec<_> = outcome().judged().into_iter().map(|(_, _, kept)| kept).collect();
        assert_eq!(kept, [true, false, true]);
        let table = outcome().table();
        assert!(table.contains("ok   at least 8.00 times nft: 9.00"), "{table}");
        assert!(table.contains("MISS at least 0.750 times limit: 0.500"), "{table}");
    }

    #[test]
    fn a_scenario_without_a_limit_says_null() {
        let mut outcome = Outcome::new("a", "b", &[]);
        outcome.push("seawall", Sample::new(1.0));
        assert!(outcome.json()["limit"].is_null());
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.5, "1.50"),
            (12.34, "12.3"),
            (9_999.0, "9999"),
            (194_321.0, "194k"),
            (2_345_678.0, "2.35M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
