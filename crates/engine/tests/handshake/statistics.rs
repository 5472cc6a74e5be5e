//! What services and real servers have had, and have in a second (SPEC C8).

use seawall_engine::{Rates, Totals};

use crate::support::balancer::Setup;
use crate::support::family::{Family, in_each_family};
use crate::support::packet::{ACK, RST, Segment};
use crate::support::stage::{CLIENT_PORT, Stage, answer, data};

in_each_family! {
    totals_never_go_back,
    rates_rise_and_fall,
    an_idle_table_is_looked_at_in_one_step,
}

/// Whether they come from live sessions, from the scan, or from those that are over.
fn totals_never_go_back(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 1, ..Setup::of(family) });
    let totals = |stage: &Stage| {
        let report = stage.balancer.engine.services().swap_remove(0);
        assert_eq!(report.totals, report.servers[0].totals);
        report.totals
    };
    let (first, syn, _) = stage.establish(CLIENT_PORT);
    let before = totals(&stage);
    assert_eq!(before.connections, 1);
    for count in 1..=5 {
        stage.client(&data(&first, 100 * count, &[7; 100]));
        let says = answer(&syn, ACK, syn.ack, syn.seq.wrapping_add(1));
        stage.server(&Segment { payload: vec![7; 1_000], ..says });
        let now = totals(&stage);
        assert_eq!(now.in_packets, before.in_packets + u64::from(count));
        assert_eq!(now.out_packets, before.out_packets + u64::from(count));
        stage.pass(900);
        assert_eq!(totals(&stage), now);
    }
    stage.client(&Segment { flags: RST | ACK, ..data(&first, 600, b"") });
    stage.round();
    let last = totals(&stage);
    stage.pass(11_000);
    assert_eq!(stage.balancer.engine.session_count(), 0);
    assert_eq!(totals(&stage), last);
    let Totals { in_bytes, out_bytes, .. } = last;
    assert!(in_bytes >= 500 && out_bytes >= 5_000, "{last:?}");
}

fn rates_rise_and_fall(family: Family) {
    let mut stage = Stage::new(&Setup { servers: 1, ..Setup::of(family) });
    let rates = |stage: &Stage| {
        let report = stage.balancer.engine.services().swap_remove(0);
        assert_eq!(report.rates, report.servers[0].rates);
        report.rates
    };
    assert_eq!(rates(&stage), Rates::default());
    let start = stage.balancer.now();
    assert_eq!(stage.balancer.engine.poll_statistics(), start + 2_000);
    let (first, ..) = stage.establish(CLIENT_PORT);
    let before = stage.balancer.engine.services()[0].totals.in_packets;
    for count in before..40 {
        stage.client(&data(&first, count as u32, b"x"));
    }
    stage.balancer.set_now(start + 1_999);
    stage.round();
    assert_eq!(rates(&stage), Rates::default());
    stage.balancer.set_now(start + 2_000);
    stage.round();
    // 40 packets in 2 s, of which a quarter: (40 << 9 >> 2) + 511 >> 10.
    let risen = rates(&stage);
    assert_eq!((risen.in_packets, risen.connections, risen.out_packets), (5, 0, 0));
    assert!(risen.in_bytes > 5 * 40);
    for round in 2..80 {
        stage.balancer.set_now(start + 2_000 * round);
        stage.round();
    }
    assert_eq!(rates(&stage), Rates::default());
    assert_eq!(stage.balancer.engine.poll_statistics(), start + 80 * 2_000);
}

/// However large it is; what lives is looked at, a step for each 65,536.
fn an_idle_table_is_looked_at_in_one_step(family: Family) {
    let mut stage = Stage::new(&Setup { sessions: 200_000, ..Setup::of(family) });
    stage.establish(CLIENT_PORT);
    let start = stage.balancer.now();
    for interval in 1..4 {
        assert_eq!(stage.balancer.engine.poll_statistics(), start + 2_000 * interval);
        stage.pass(2_000);
    }
    assert_eq!(stage.balancer.engine.services()[0].totals.in_packets, 1);
}
