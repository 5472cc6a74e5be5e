//! The scenarios, and what the project has promised for each.

use anyhow::Result;
use seawall_lab::flood::Kind;

use super::Settings;
use super::flood::{self, Deed};
use super::outcome::{Figure, Must, Sample};
use super::system::{Limit, System};
use super::{bulk, connections, forward, growth, requests};

/// One thing to measure.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) unit: &'static str,
    /// In the order in which they run in each round.
    pub(crate) systems: &'static [System],
    pub(crate) musts: &'static [Must],
    /// More are not made, for want of time.
    pub(crate) most_rounds: usize,
    /// One run of one system.
    pub(crate) measure: fn(&Settings, System) -> Result<Sample>,
}

/// All of them.
pub(crate) static SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "syn-flood",
        about: "SYNs from anywhere, each to be answered",
        unit: "SYNs answered per second of receive-side CPU",
        systems: &[
            System::Seawall,
            System::NftSynproxy,
            System::Listener,
            System::Limit(Limit::Reflect),
        ],
        musts: &[
            Must::at_least(Figure::Over("nft-synproxy"), 8.0),
            Must::at_least(Figure::Over("limit"), 0.75),
        ],
        most_rounds: usize::MAX,
        measure: |settings, system| flood::measure(settings, system, &[Kind::Syn], Deed::Answered),
    },
    Scenario {
        name: "ack-flood",
        about: "forged ACKs, none to be let through",
        unit: "ACKs refused per second of receive-side CPU",
        systems: &[System::Seawall, System::NftConntrack, System::Limit(Limit::Drop)],
        musts: &[
            Must::at_least(Figure::Over("nft-conntrack"), 8.0),
            Must::at_least(Figure::Over("limit"), 0.70),
        ],
        most_rounds: usize::MAX,
        measure: |settings, system| flood::measure(settings, system, &[Kind::Ack], Deed::Refused),
    },
    Scenario {
        name: "mixed-flood",
        about: "SYNs, ACKs, UDP and fragments in turn, from anywhere",
        unit: "frames answered or refused per second of receive-side CPU",
        systems: &[System::Seawall, System::NftSynproxy, System::Limit(Limit::Drop)],
        musts: &[Must::at_least(Figure::Over("nft-synproxy"), 8.0)],
        most_rounds: usize::MAX,
        measure: |settings, system| {
            let kinds = [Kind::Syn, Kind::Ack, Kind::Udp, Kind::Fragment];
            flood::measure(settings, system, &kinds, Deed::Refused)
        },
    },
    Scenario {
        name: "forward",
        about: "small segments of 1,000 established sessions, both ways",
        unit: "segments forwarded per second of receive-side CPU",
        systems: &[
            System::Seawall,
            System::NftDnat,
            System::Routing,
            System::Limit(Limit::Redirect),
        ],
        musts: &[
            Must::at_least(Figure::Over("nft-dnat"), 4.0),
            Must::at_least(Figure::Over("limit"), 0.60),
        ],
        most_rounds: usize::MAX,
        measure: forward::measure,
    },
    Scenario {
        name: "new-connections",
        about: "whole connections, a request each, between XDP clients and an XDP server",
        unit: "µs of the balancer's CPU per connection",
        systems: &[System::Seawall, System::NftSynproxy, System::NftDnat, System::Haproxy],
        musts: &[
            Must::at_most(Figure::Value, 12.0),
            Must::at_most(Figure::Over("nft-synproxy"), 1.0 / 3.0),
        ],
        most_rounds: usize::MAX,
        measure: connections::measure,
    },
    Scenario {
        name: "real-http",
        about: "wrk and nginx, a connection a request",
        unit: "requests per second",
        systems: &[System::Seawall, System::Routing, System::NftSynproxy, System::Haproxy],
        musts: &[
            Must::at_least(Figure::Over("routing"), 0.95),
            Must::at_most(Figure::Note("socket_errors"), 0.0),
            Must::at_least(Figure::Note("flatness"), 0.90),
        ],
        most_rounds: usize::MAX,
        measure: requests::real_http,
    },
    Scenario {
        name: "bulk",
        about: "one and ten downloads and uploads",
        unit: "MB/s, the mean of the four",
        systems: &[System::Seawall, System::Routing, System::Haproxy],
        musts: &[Must::at_least(Figure::Over("routing"), 0.90)],
        most_rounds: usize::MAX,
        measure: bulk::measure,
    },
    Scenario {
        name: "under-attack",
        about: "requests while a SYN flood of half of Seawall's capacity comes in",
        unit: "ms at the 99th percentile",
        systems: &[System::Seawall, System::NftSynproxy, System::Limit(Limit::DropAttack)],
        musts: &[
            Must::at_most(Figure::Over("limit"), 1.5),
            Must::at_least(Figure::Note("at_50_succeeded_share"), 1.0),
        ],
        most_rounds: usize::MAX,
        measure: requests::under_attack,
    },
    Scenario {
        name: "growth",
        about: "segments and SYNs with 1 k to 4 M sessions; what those take",
        unit: "times the cost of a forwarded segment at 1 k, at 1 M",
        systems: &[System::Seawall],
        musts: &[
            Must::at_most(Figure::Value, 1.5),
            Must::at_most(Figure::Note("syn_cost_times"), 1.5),
            Must::at_most(Figure::Note("bytes_a_session"), 400.0),
        ],
        most_rounds: 3,
        measure: growth::measure,
    },
];
