//! The demo's HTML report: the results, and charts drawn as SVG inside the page.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::phases::Results;
use super::screen::{latency, number};

const SIZE: (u32, u32) = (760, 300);
/// Seconds between two points of a course.
const STEP: f64 = 0.25;

/// The page.
pub(super) fn page(results: &Results) -> Result<String> {
    let mut rows = String::new();
    for (kept, text) in &results.promises {
        let (class, word) = if *kept { ("ok", "ok") } else { ("failed", "FAILED") };
        writeln!(rows, "<tr><td class=\"{class}\">{word}</td><td>{}</td></tr>", escape(text))?;
    }
    let mut requests = String::new();
    for phase in &results.requests {
        let snapshot = &phase.snapshot;
        writeln!(
            requests,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{:.0} %</td><td>{:.0} %</td></tr>",
            phase.name,
            number(snapshot.succeeded() as f64),
            number(snapshot.failed() as f64),
            latency(snapshot.p50()),
            latency(snapshot.p99()),
            number(phase.flood_rate),
            number(phase.answer_rate),
            phase.cpu.0,
            phase.cpu.1,
        )?;
    }
    let mut floods = String::new();
    for flood in &results.dropped {
        writeln!(
            floods,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            flood.name,
            number(flood.sent as f64),
            number(flood.counted as f64),
            flood.counter,
        )?;
    }
    let transfers: Vec<_> = results
        .transfers
        .iter()
        .map(|(name, rate)| format!("{name} {} MB/s", number(*rate)))
        .collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Seawall demo</title><style>\
         body{{font:15px/1.5 sans-serif;max-width:800px;margin:2em auto;padding:0 1em}}\
         table{{border-collapse:collapse;margin:1em 0}}td,th{{padding:.2em .8em;text-align:left;\
         border-bottom:1px solid #ddd}}.ok{{color:#2a7d2a}}.failed{{color:#c22;font-weight:bold}}\
         </style></head><body>\n<h1>Seawall demo</h1>\n<table>{rows}</table>\n\
         <h2>Requests</h2>\n<table><tr><th>phase</th><th>ok</th><th>failed</th><th>p50</th>\
         <th>p99</th><th>flood/s</th><th>SYN/ACKs/s</th><th>daemon</th><th>softirq</th></tr>\
         {requests}</table>\n{}\n{}\n<h2>Floods</h2>\n<table><tr><th>flood</th><th>sent</th>\
         <th>dropped</th><th>counter</th></tr>{floods}</table>\n<p>{}</p>\n</body></html>\n",
        course(results)?,
        shares(results)?,
        transfers.join(", "),
    ))
}

/// Requests a second over time, a line a phase.
fn course(results: &Results) -> Result<String> {
    let longest = results.requests.iter().map(|phase| phase.course.len()).max().unwrap_or(1);
    let highest =
        results.requests.iter().flat_map(|phase| &phase.course).fold(1.0, |a: f64, b| a.max(*b));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .caption("Successful requests a second", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..longest as f64 * STEP, 0.0..highest * 1.1)
            .map_err(drawing)?;
        chart.configure_mesh().x_desc("seconds").draw().map_err(drawing)?;
        for (at, phase) in results.requests.iter().enumerate() {
            let colour = Palette99::pick(at).to_rgba();
            let points = phase.course.iter().enumerate();
            chart
                .draw_series(LineSeries::new(
                    points.map(|(at, rate)| ((at + 1) as f64 * STEP, *rate)),
                    colour.stroke_width(2),
                ))
                .map_err(drawing)?
                .label(phase.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()
            .map_err(drawing)?;
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

/// Requests by server in the first phase.
fn shares(results: &Results) -> Result<String> {
    let Some(phase) = results.requests.first() else { return Ok(String::new()) };
    let counts: Vec<u64> = phase.snapshot.servers.values().copied().collect();
    let highest = counts.iter().copied().max().unwrap_or(1);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .caption("Requests by server, without a flood", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (1..counts.len() as u32).into_segmented(),
                0..highest + highest / 10 + 1,
            )
            .map_err(drawing)?;
        chart.configure_mesh().x_desc("server").disable_x_mesh().draw().map_err(drawing)?;
        let bars = counts.iter().enumerate().map(|(at, count)| (at as u32 + 1, *count));
        chart
            .draw_series(
                Histogram::vertical(&chart).style(BLUE.mix(0.6).filled()).margin(20).data(bars),
            )
            .map_err(drawing)?;
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a chart: {error}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Results, page};

    #[test]
    fn an_empty_show_and_hostile_text_still_make_a_page() {
        let mut results = Results::default();
        results.promises.push((false, "<script>&".to_owned()));
        let page = page(&results).expect("drawn");
        assert!(page.contains("&lt;script&gt;&amp;") && page.contains("<svg"));
    }
}
