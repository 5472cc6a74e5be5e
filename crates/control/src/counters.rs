//! How counters are shown: the table of `seawall stats`, the advice of `seawall drops`, and JSON.
//!
//! What a counter counts is decided where it is counted; this module only presents rows.

use std::fmt::Write;

use crate::report::{DropRow, Rates, ServiceReport, StatsReport, Totals};

/// One counter with what a reader needs to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Its name; LVS's where LVS has one.
    pub name: &'static str,
    /// Its value since the daemon started, monotone.
    pub value: u64,
    /// What it means when it moves.
    pub meaning: &'static str,
    /// What to do about it, or that nothing need be done.
    pub remedy: &'static str,
}

impl StatsReport {
    /// The report of `seawall stats`.
    pub fn new(rows: &[CounterRow], services: Vec<ServiceReport>) -> Self {
        let counters = rows.iter().map(|row| (row.name.to_owned(), row.value)).collect();
        Self { counters, services }
    }

    /// The JSON of `seawall stats --json`, one line: `{"counters": {…}, "services": […]}`.
    ///
    /// # Errors
    /// None for this type; the serializer's signature has one.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// The rows of `seawall drops`: every counter that moved, as reported over the API.
pub fn moved(rows: &[CounterRow]) -> Vec<DropRow> {
    let row = |row: &CounterRow| DropRow {
        name: row.name.to_owned(),
        value: row.value,
        meaning: row.meaning.to_owned(),
        remedy: row.remedy.to_owned(),
    };
    rows.iter().filter(|row| row.value > 0).map(row).collect()
}

/// The tables of `seawall stats`: services with their real servers, then all counters.
pub fn render_stats(report: &StatsReport) -> String {
    let mut text = String::new();
    if !report.services.is_empty() {
        let mut rows = vec![
            ["service / real server", "via", "weight", "active", "inactive", "persistent"]
                .into_iter()
                .chain(["connections", "in packets", "in bytes", "out packets", "out bytes"])
                .chain(["cps", "in pps", "out pps", "in bps", "out bps"])
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        for service in &report.services {
            let proxy = match (service.synproxy, service.ops) {
                (true, _) => " synproxy",
                (false, true) => " ops",
                (false, false) => "",
            };
            let name = format!("{} {}", service.address, service.protocol);
            // The flags as ipvsadm shows them.
            let flags: Vec<_> = service.scheduler_flags.iter().map(|flag| flag.word()).collect();
            let flags = match flags.as_slice() {
                [] => String::new(),
                flags => format!(" ({})", flags.join(",")),
            };
            let persistent = service.persistent.map(|seconds| format!(" persistent {seconds}"));
            let persistent = persistent.unwrap_or_default();
            let via = format!("{}{flags}{persistent}{proxy}", service.scheduler);
            rows.push(row([name, via, String::new()], &service.totals, &service.rates));
            for server in &service.real_servers {
                let name = format!("  -> {}", server.address);
                let via = match (server.down, server.overloaded) {
                    (true, _) => format!("{} down", server.forwarding),
                    (false, true) => format!("{} overloaded", server.forwarding),
                    (false, false) => server.forwarding.to_string(),
                };
                let head = [name, via, server.weight.to_string()];
                rows.push(row(head, &server.totals, &server.rates));
            }
        }
        text.push_str(&table(&rows, 2));
        text.push('\n');
    }
    let header = ["counter".to_owned(), "value".to_owned()];
    let counters = report.counters.iter().map(|(name, value)| [name.clone(), value.to_string()]);
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(counters).map(Vec::from).collect();
    text.push_str(&table(&rows, 1));
    text
}

/// The text of `seawall drops`: each counter that moved, what it means and what to do.
pub fn render_drops(rows: &[DropRow]) -> String {
    if rows.is_empty() {
        return "no counter has moved\n".to_owned();
    }
    let name = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let value = rows.iter().map(|row| row.value.to_string().len()).max().unwrap_or(0);
    let indent = name + value + 4;
    let mut text = String::new();
    for row in rows {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{:name$}  {:>value$}  {}", row.name, row.value, row.meaning);
        let _ = writeln!(text, "{:indent$}{}", "", row.remedy);
    }
    text
}

fn row(head: [String; 3], totals: &Totals, rates: &Rates) -> Vec<String> {
    let numbers = [
        totals.active_connections,
        totals.inactive_connections,
        totals.persistent_connections,
        totals.connections,
        totals.in_packets,
        totals.in_bytes,
        totals.out_packets,
        totals.out_bytes,
        rates.cps,
        rates.in_pps,
        rates.out_pps,
        rates.in_bps,
        rates.out_bps,
    ];
    head.into_iter().chain(numbers.map(|number| number.to_string())).collect()
}

/// Aligned columns: the first `left` to the left, the others to the right.
fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let _ = if column < left {
                write!(line, "{gap}{cell:<width$}")
            } else {
                write!(line, "{gap}{cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Forwarding, Protocol, Scheduler, SchedulerFlag};
    use crate::report::RealServerReport;

    const ROWS: [CounterRow; 3] = [
        CounterRow {
            name: "synproxy_syn_cnt",
            value: 1200,
            meaning: "SYNs answered with a cookie",
            remedy: "nothing to do",
        },
        CounterRow { name: "synproxy_bad_ack", value: 0, meaning: "m", remedy: "r" },
        CounterRow {
            name: "bad_checksum",
            value: 7,
            meaning: "IPv4 header checksums that are wrong",
            remedy: "look at the sender",
        },
    ];

    fn report() -> StatsReport {
        let totals = Totals { active_connections: 3, connections: 12, ..Totals::default() };
        let rates = Rates { cps: 4, out_bps: 77, ..Rates::default() };
        let service = ServiceReport {
            address: "10.0.0.254:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            scheduler: Scheduler::Sh,
            scheduler_flags: vec![SchedulerFlag::ShPort],
            synproxy: true,
            ops: false,
            persistent: None,
            totals,
            rates,
            real_servers: vec![RealServerReport {
                address: "192.168.7.2:8080".parse().unwrap(),
                forwarding: Forwarding::FullNat,
                weight: 1,
                down: true,
                upper_threshold: 9,
                lower_threshold: 0,
                overloaded: true,
                totals,
                rates,
            }],
        };
        StatsReport::new(&ROWS, vec![service])
    }

    #[test]
    fn json_has_the_shape_that_tests_rely_on() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json().unwrap()).unwrap();
        assert_eq!(json["counters"]["synproxy_syn_cnt"], 1200);
        assert_eq!(json["counters"]["synproxy_bad_ack"], 0);
        let service = &json["services"][0];
        assert_eq!(service["address"], "10.0.0.254:80");
        assert_eq!(service["protocol"], "tcp");
        assert_eq!(service["scheduler"], "sh");
        assert_eq!(service["scheduler_flags"][0], "sh-port");
        assert_eq!(service["connections"], 12);
        assert_eq!(service["real_servers"][0]["forwarding"], "fullnat");
        assert_eq!(service["real_servers"][0]["active_connections"], 3);
        assert_eq!(service["real_servers"][0]["down"], true);
        assert_eq!(service["real_servers"][0]["rates"]["out_bps"], 77);
        assert_eq!(service["rates"]["cps"], 4);
    }

    #[test]
    fn tables_are_aligned() {
        let text = render_stats(&report());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("10.0.0.254:80 tcp      sh (sh-port) synproxy  "), "{text}");
        assert!(
            lines[2].starts_with("  -> 192.168.7.2:8080  fullnat down                1"),
            "{text}"
        );
        assert_eq!(lines[1].len(), lines[2].len(), "{text}");
        let end = lines[0].find("connections").unwrap() + "connections".len();
        assert_eq!(&lines[2][end - 2..end], "12", "{text}");
        assert_eq!(
            lines[4..],
            [
                "counter           value",
                "bad_checksum          7",
                "synproxy_bad_ack      0",
                "synproxy_syn_cnt   1200",
            ]
        );
    }

    #[test]
    fn drops_show_what_moved_and_what_to_do() {
        let text = render_drops(&moved(&ROWS));
        assert_eq!(
            text,
            "synproxy_syn_cnt  1200  SYNs answered with a cookie\n\
             \u{20}                       nothing to do\n\
             bad_checksum         7  IPv4 header checksums that are wrong\n\
             \u{20}                       look at the sender\n"
        );
        assert_eq!(render_drops(&[]), "no counter has moved\n");
    }
}
