//! What the kernel shows in `/proc/net/ip_vs*`, for those who read it there: the preload library asks
//! for a file by a datagram of its name, which is no netlink message. It is answered by the file's
//! text, in as many datagrams as it takes, then one of [`END`], and the end of the
//! connection.
//!
//! Formats: `ip_vs_info_seq_show()` and `ip_vs_stats_show()` (`net/netfilter/ipvs/ip_vs_ctl.c`),
//! `ip_vs_conn_seq_show()` (`ip_vs_conn.c`).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Backend;
use crate::api::Declined;
use crate::config::{Forwarding, Netmask, Protocol};
use crate::report::{Page, Rates, SessionReport, SessionsReport, Totals};

/// The last datagram of a file; a connection that ends without it has broken off.
pub(super) const END: [u8; 1] = [0];
/// Timeouts are shown in ticks of so many a second.
const HZ: u32 = 250;

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// Services and real servers.
    Table,
    /// Sessions.
    Connections,
    /// Sums over all services.
    Statistics,
}

/// Which file a datagram names, if it names one.
pub(super) fn named(datagram: &[u8]) -> Option<File> {
    match datagram {
        b"/proc/net/ip_vs" => Some(File::Table),
        b"/proc/net/ip_vs_conn" => Some(File::Connections),
        b"/proc/net/ip_vs_stats" => Some(File::Statistics),
        _ => None,
    }
}

/// A file that is being read.
pub(super) struct Reading {
    file: File,
    /// Where to go on; `None` at the end.
    next: Option<u64>,
}

impl Reading {
    pub(super) const fn new(file: File) -> Self {
        Self { file, next: Some(0) }
    }

    /// What comes next of its text; `None` at the end.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub(super) fn page(&mut self, backend: &dyn Backend) -> Result<Option<String>, Declined> {
        let Some(offset) = self.next.take() else { return Ok(None) };
        let text = match self.file {
            File::Table => table(backend)?,
            File::Statistics => statistics(backend)?,
            File::Connections => {
                let page = Page { limit: Page::MAX_LIMIT, offset };
                let report = backend.sessions(page)?;
                self.next = report.next;
                connections(&report, offset == 0)
            }
        };
        Ok(Some(text))
    }
}

/// An address in the digits of `/proc`, IPv6 in brackets if `bracketed`.
fn hex(ip: IpAddr, bracketed: bool) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:08X}", ip.to_bits()),
        IpAddr::V6(ip) => {
            let words = ip.segments().map(|word| format!("{word:04x}")).join(":");
            if bracketed { format!("[{words}]") } else { words }
        }
    }
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn table(backend: &dyn Backend) -> Result<String, Declined> {
    let mut text = String::new();
    let all = backend.table(Duration::ZERO)?;
    // Writing to a string does not fail; likewise below.
    let _ = writeln!(text, "IP Virtual Server version 1.2.1 (size={})", all.config.max_sessions);
    text.push_str("Prot LocalAddress:Port Scheduler Flags\n");
    text.push_str("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n");
    for (service, report) in all.services() {
        let ip = service.address.ip();
        let (name, port) = (protocol(service.protocol), service.address.port());
        let _ = write!(text, "{name}  {}:{port:04X} {} ", hex(ip, true), service.scheduler);
        if ip.is_ipv4() {
            text.push_str(if service.ops { "ops  " } else { " " });
        }
        match service.persistent {
            None => text.push('\n'),
            Some(persistent) => {
                let mask = match persistent.netmask {
                    Netmask::V4(mask) => mask.to_bits(),
                    Netmask::V6(prefix) => u32::from(prefix).swap_bytes(),
                };
                let _ = writeln!(text, "persistent {} {mask:08X}", persistent.timeout * HZ);
            }
        }
        for (server, report) in super::with_reports(service, report) {
            let method = match server.forwarding {
                Forwarding::Nat | Forwarding::FullNat => "Masq",
                Forwarding::Dr => "Route",
                Forwarding::Tunnel => "Tunnel",
            };
            let _ = writeln!(
                text,
                "  -> {}:{:04X}      {method:<7} {:<6} {:<10} {:<10}",
                hex(server.address.ip(), true),
                server.address.port(),
                server.weight,
                report.totals.active_connections,
                report.totals.inactive_connections,
            );
        }
    }
    Ok(text)
}

fn connections(report: &SessionsReport, first: bool) -> String {
    let mut text = String::new();
    if first {
        text.push_str(
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n",
        );
    }
    for session in &report.sessions {
        connection(&mut text, session);
    }
    text
}

fn connection(text: &mut String, session: &SessionReport) {
    let end = |end: SocketAddr| format!("{} {:04X}", hex(end.ip(), false), end.port());
    let _ = writeln!(
        text,
        "{:<3} {} {} {} {:<11} {:>7}",
        protocol(session.protocol),
        end(session.client),
        end(session.vip),
        end(session.real_server),
        session.state,
        session.expires_ms / 1_000,
    );
}

fn statistics(backend: &dyn Backend) -> Result<String, Declined> {
    let (mut totals, mut rates) = (Totals::default(), Rates::default());
    for (_, service) in backend.table(Duration::ZERO)?.services() {
        totals.connections += service.totals.connections;
        totals.in_packets += service.totals.in_packets;
        totals.out_packets += service.totals.out_packets;
        totals.in_bytes += service.totals.in_bytes;
        totals.out_bytes += service.totals.out_bytes;
        rates.cps += service.rates.cps;
        rates.in_pps += service.rates.in_pps;
        rates.out_pps += service.rates.out_pps;
        rates.in_bps += service.rates.in_bps;
        rates.out_bps += service.rates.out_bps;
    }
    let row = |[a, b, c, d, e]: [u64; 5]| format!("{a:8X} {b:8X} {c:8X} {d:16X} {e:16X}\n");
    let Totals { connections, in_packets, out_packets, in_bytes, out_bytes, .. } = totals;
    let Rates { cps, in_pps, out_pps, in_bps, out_bps } = rates;
    let lines = [
        "   Total Incoming Outgoing         Incoming         Outgoing\n",
        "   Conns  Packets  Packets            Bytes            Bytes\n",
        &row([connections, in_packets, out_packets, in_bytes, out_bytes]),
        "\n",
        " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n",
        &row([cps, in_pps, out_pps, in_bps, out_bps]),
    ];
    Ok(lines.concat())
}
