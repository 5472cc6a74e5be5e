//! A chart of one scenario: a bar a system, with the spread of its rounds.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::outcome::{LIMIT, Outcome, Row, SEAWALL, short};

const WIDTH: u32 = 720;
const ROW: u32 = 44;
const HEAD: u32 = 56;
/// Left of the bars, for the names, and right of the longest, for its figure; in pixels.
const MARGINS: [u32; 2] = [130, 170];

const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const BOUND: RGBColor = RGBColor(0xb8, 0xb8, 0xb8);
const THEIRS: RGBColor = RGBColor(0xd9, 0x8c, 0x3f);

/// Draws it.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn draw(outcome: &Outcome, path: &Path) -> Result<()> {
    let rows = outcome.rows();
    let most = rows.iter().map(|row| row.range[1]).fold(f64::MIN_POSITIVE, f64::max);
    let height = HEAD + ROW * rows.len() as u32 + 16;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let title = format!("{}: {}", outcome.name, outcome.unit);
    area.draw(&Text::new(title, (12, 16), ("sans-serif", 18))).map_err(|error| failed(&error))?;
    for (number, row) in (0..).zip(&rows) {
        for element in bar(row, number, most) {
            area.draw(&element).map_err(|error| failed(&error))?;
        }
        for text in labels(row, number, most) {
            area.draw(&text).map_err(|error| failed(&error))?;
        }
    }
    area.present().map_err(|error| failed(&error))
}

/// Where a figure lies, in pixels from the left.
fn place(value: f64, most: f64) -> i32 {
    let room = f64::from(WIDTH - MARGINS[0] - MARGINS[1]);
    MARGINS[0] as i32 + (value / most * room).round() as i32
}

fn top(number: u32) -> i32 {
    (HEAD + ROW * number) as i32
}

/// The bar, and the line from the least to the most.
fn bar(row: &Row, number: u32, most: f64) -> [Rectangle<(i32, i32)>; 2] {
    let colour = match row.system {
        SEAWALL => OURS,
        LIMIT => BOUND,
        _ => THEIRS,
    };
    let (top, left) = (top(number), place(0.0, most));
    let [least, greatest] = row.range.map(|value| place(value, most));
    let end = place(row.median, most).max(left + 1);
    [
        Rectangle::new([(left, top), (end, top + 28)], colour.filled()),
        Rectangle::new([(least, top + 13), (greatest.max(least + 1), top + 15)], BLACK.filled()),
    ]
}

/// The name on the left, the figure on the right.
fn labels(row: &Row, number: u32, most: f64) -> [Text<'static, (i32, i32), String>; 2] {
    let top = top(number) + 7;
    let figure = match row.ratio {
        Some(ratio) => format!("{} (seawall: {} ×)", short(row.median), short(ratio)),
        None => short(row.median),
    };
    let end = place(row.range[1].max(row.median), most) + 8;
    [
        Text::new(row.system.to_owned(), (12, top), ("sans-serif", 14).into_font()),
        Text::new(figure, (end, top), ("sans-serif", 14).into_font()),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Outcome, draw};
    use crate::bench::outcome::Sample;

    #[test]
    fn a_chart_names_every_system() {
        let mut outcome = Outcome::new("syn-flood", "SYNs/s", &[]);
        outcome.push("seawall", Sample::new(2e6));
        outcome.push("nft-synproxy", Sample::new(2e5));
        let file = tempfile::NamedTempFile::new().unwrap();
        draw(&outcome, file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        for word in ["syn-flood", "seawall", "nft-synproxy", "2.00M", "10.0 ×"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
