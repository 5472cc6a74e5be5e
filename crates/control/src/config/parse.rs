//! From text to [`Config`]: syntax, types and ranges of single values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::address_range::AddressRangeError;
use super::errors::{Problems, quote};
use super::persistence;
use super::section::Section;
use super::words::{
    Forwarding, Protocol, ProxyProtocol, Scheduler, SchedulerFlag, TunnelChecksum, TunnelType,
};
use super::{
    AddressRange, ApiConfig, Config, DEFAULT_API_SOCKET, DEFAULT_STATE, IpvsConfig,
    LocalAddressPool, Located, PolicyConfig, RealServerConfig, ServiceConfig, SynproxyConfig,
    TimeoutsConfig, TunnelConfig,
};

/// The longest that a session may be idle, in seconds.
pub(crate) const WEEK: u32 = 7 * 86_400;
const ON_OFF: &[(&str, bool)] = &[("on", true), ("off", false)];
const INTERFACES: &str = "the interfaces to attach to, as in interfaces = [\"eth0\", \"eth1\"]";
const SOCKET_PATH: &str = "an absolute path of at most 107 bytes";
/// Bytes of `sun_path`, less the NUL (`man 7 unix`).
const SOCKET_PATH_MAX: usize = 107;
const STATE: &str = "an absolute path, as in \"/sys/fs/bpf/seawall\"";
const VIP: &str = "\"IP:PORT\", as in \"10.0.0.254:80\"";
const REAL_SERVER: &str = "\"IP:PORT\", as in \"192.168.7.2:8080\"";
const RANGES: &str = "a list such as [\"192.168.7.100-192.168.7.103\", \"192.168.7.110\"]";

/// What could be read of the file; `None` when nothing useful could. Problems are in `problems`.
pub(super) fn parse(name: &str, text: &str, problems: &mut Problems<'_>) -> Option<Config> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut last_line = 0;
    for error in &syntax {
        let span = error.span().unwrap_or(0..0);
        let line = problems.line(span.clone());
        // What follows the first error of a line is mostly its echo.
        if line == last_line {
            continue;
        }
        last_line = line;
        let what = error.message().trim().replace('\n', ", ");
        let message = match text.get(span).map(str::trim) {
            None | Some("") => format!("not valid TOML: {what}"),
            Some(place) => format!("not valid TOML: {what} at {}", quote(place)),
        };
        let remedy = if what == "duplicate key" {
            "expected each key and each [table] once"
        } else {
            "expected TOML, as in: key = \"value\""
        };
        problems.add(line, message, remedy);
    }
    if !syntax.is_empty() {
        // The tree recovered from a broken file lacks whatever was broken: judging it would
        // bury the cause under consequences.
        return None;
    }
    if document.get_ref().is_empty() {
        let remedy = format!("expected at least {INTERFACES}");
        problems.add(1, "the file configures nothing", remedy);
        return None;
    }
    let mut top = Section::new(document.get_ref(), "", 1);
    let config = Config {
        file: name.to_owned(),
        interfaces: interfaces(&mut top, problems),
        max_sessions: top.integer(problems, "max_sessions", 1024..=16_777_216, 1_048_576),
        max_persistence_templates: top.integer(
            problems,
            "max_persistence_templates",
            1..=16_777_216,
            262_144,
        ),
        manage_addresses: top.boolean(problems, "manage_addresses", true),
        state: state(&mut top, problems),
        api: api(&mut top, problems),
        ipvs: ipvs(&mut top, problems),
        synproxy: synproxy(&mut top, problems),
        timeouts: timeouts(&mut top, problems),
        policy: policy(&mut top, problems),
        local_addresses: top
            .tables(problems, "local_addresses", "[[local_addresses]]")
            .into_iter()
            .filter_map(|section| pool(section, problems))
            .collect(),
        services: top
            .tables(problems, "service", "[[service]]")
            .into_iter()
            .filter_map(|section| service(section, problems))
            .collect(),
    };
    top.finish(problems);
    Some(config)
}

fn interfaces(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<Located<String>> {
    let Some(list) = top.required_strings(problems, "interfaces", INTERFACES) else {
        return Vec::new();
    };
    if list.value.is_empty() {
        problems.add(list.line, "interfaces is empty", format_args!("expected {INTERFACES}"));
    }
    list.value
        .into_iter()
        .map(|name| Located { value: name.value.to_owned(), line: name.line })
        .collect()
}

/// The table `key`, or an empty one when it is absent, so that defaults have one place.
fn with_section<T>(
    top: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
    table: [&'static str; 2],
    read: impl FnOnce(&mut Section<'_, '_>, &mut Problems<'_>) -> T,
) -> T {
    let [key, title] = table;
    let empty = DeTable::new();
    let mut section =
        top.table(problems, key, title).unwrap_or_else(|| Section::new(&empty, title, 1));
    let value = read(&mut section, problems);
    section.finish(problems);
    value
}

fn api(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> ApiConfig {
    with_section(top, problems, ["api", "[api]"], |section, problems| ApiConfig {
        socket: socket_path(section, problems)
            .map_or_else(|| PathBuf::from(DEFAULT_API_SOCKET), |socket| socket.value),
        metrics: section
            .string(problems, "metrics", "\"IP:PORT\", as in \"127.0.0.1:9380\"")
            .and_then(|text| {
                let name = section.name("metrics");
                endpoint(text, &name, "\"IP:PORT\", as in \"127.0.0.1:9380\"", problems)
            }),
    })
}

fn ipvs(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> IpvsConfig {
    with_section(top, problems, ["ipvs", "[ipvs]"], |section, problems| IpvsConfig {
        socket: socket_path(section, problems),
        local_addresses: pool_name(section, problems),
    })
}

fn state(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> PathBuf {
    let Some(text) = top.string(problems, "state", STATE) else {
        return PathBuf::from(DEFAULT_STATE);
    };
    let path = PathBuf::from(text.value);
    if !path.is_absolute() || path.file_name().is_none() || text.value.contains('\0') {
        let message = format!("state is {}", quote(text.value));
        problems.add(text.line, message, format_args!("expected {STATE}"));
    }
    path
}

/// `local_addresses` where it names a pool.
fn pool_name(
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Located<String>> {
    let name = section.string(problems, "local_addresses", "the name of a [[local_addresses]]")?;
    Some(Located { value: name.value.to_owned(), line: name.line })
}

fn socket_path(
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Located<PathBuf>> {
    let text = section.string(problems, "socket", SOCKET_PATH)?;
    let path = PathBuf::from(text.value);
    let usable = path.is_absolute()
        && path.file_name().is_some()
        && text.value.len() <= SOCKET_PATH_MAX
        && !text.value.ends_with('/')
        && !text.value.contains('\0');
    if !usable {
        let message = format!("{} is {}", section.name("socket"), quote(text.value));
        problems.add(text.line, message, format_args!("expected {SOCKET_PATH}"));
    }
    usable.then_some(Located { value: path, line: text.line })
}

fn secret_file(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<Located<PathBuf>> {
    let expected = "an absolute path, as in \"/etc/seawall/secret\"";
    let text = section.string(p, "secret_file", expected)?;
    let path = PathBuf::from(text.value);
    if !path.is_absolute() || text.value.contains('\0') {
        let message = format!("{} is {}", section.name("secret_file"), quote(text.value));
        p.add(text.line, message, format_args!("expected {expected}"));
        return None;
    }
    Some(Located { value: path, line: text.line })
}

fn synproxy(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> SynproxyConfig {
    with_section(top, problems, ["synproxy", "[synproxy]"], |section, p| {
        let synproxy = SynproxyConfig {
            init_mss: section.integer(p, "init_mss", 536..=65_495, 1452),
            sack: section.boolean(p, "sack", true),
            wscale: section.integer(p, "wscale", 0..=14, 7),
            timestamp: section.boolean(p, "timestamp", true),
            synack_ttl: section.integer(p, "synack_ttl", 1..=255, 64),
            syn_retry: section.integer(p, "syn_retry", 0..=6, 3),
            ack_store: section.integer(p, "ack_store", 1..=64, 16),
            ack_store_bytes: section.integer(p, "ack_store_bytes", 1460..=1_048_576, 24_576),
            ack_store_total_bytes: section.integer(
                p,
                "ack_store_total_bytes",
                1460..=u32::MAX,
                67_108_864,
            ),
            conn_reuse: section.boolean(p, "conn_reuse", true),
            conn_reuse_close: section.boolean(p, "conn_reuse_close", true),
            conn_reuse_time_wait: section.boolean(p, "conn_reuse_time_wait", true),
            conn_reuse_fin_wait: section.boolean(p, "conn_reuse_fin_wait", true),
            conn_reuse_close_wait: section.boolean(p, "conn_reuse_close_wait", true),
            conn_reuse_last_ack: section.boolean(p, "conn_reuse_last_ack", true),
            ack_storm_thresh: section.integer(p, "ack_storm_thresh", 0..=u16::MAX, 10),
            secret_file: secret_file(section, p),
        };
        let (one, all) = (synproxy.ack_store_bytes, synproxy.ack_store_total_bytes);
        if all < one {
            let message = format!(
                "[synproxy] ack_store_total_bytes, {all}, is less than ack_store_bytes, {one}"
            );
            p.add(section.line, message, "expected room for one session at least");
        }
        synproxy
    })
}

fn timeouts(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> TimeoutsConfig {
    with_section(top, problems, ["timeouts", "[timeouts]"], |section, problems| {
        let mut seconds = |key, default| {
            Duration::from_secs(section.integer(problems, key, 1..=WEEK, default).into())
        };
        TimeoutsConfig {
            established: seconds("established", 900),
            syn_sent: seconds("syn_sent", 120),
            syn_recv: seconds("syn_recv", 60),
            fin_wait: seconds("fin_wait", 120),
            time_wait: seconds("time_wait", 10),
            close: seconds("close", 10),
            close_wait: seconds("close_wait", 60),
            last_ack: seconds("last_ack", 30),
            udp: seconds("udp", 300),
        }
    })
}

fn policy(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> PolicyConfig {
    with_section(top, problems, ["policy", "[policy]"], |section, problems| PolicyConfig {
        defence_udp_drop: section.boolean(problems, "defence_udp_drop", true),
        defence_ip_frag_drop: section.boolean(problems, "defence_ip_frag_drop", true),
        conn_expire_tcp_rst: section.boolean(problems, "conn_expire_tcp_rst", true),
        expire_nodest_conn: section.boolean(problems, "expire_nodest_conn", false),
        expire_quiescent_template: section.boolean(problems, "expire_quiescent_template", false),
    })
}

fn pool(mut section: Section<'_, '_>, problems: &mut Problems<'_>) -> Option<LocalAddressPool> {
    let name = section.required_string(problems, "name", "a name for services to refer to");
    let ranges = section.required_strings(problems, "addresses", RANGES);
    let port_min = section.integer(problems, "port_min", 1025..=65_535, 5000);
    let port_max = section.integer(problems, "port_max", 1025..=65_535, 65_535);
    let (line, list_name) = (section.line, section.name("addresses"));
    section.finish(problems);
    if port_min > port_max {
        let message =
            format!("[[local_addresses]] port_min {port_min} is above port_max {port_max}");
        problems.add(line, message, "expected port_min to be at most port_max");
    }
    let mut addresses = Vec::new();
    if let Some(ranges) = ranges {
        if ranges.value.is_empty() {
            let message = format!("{list_name} is empty");
            problems.add(ranges.line, message, format_args!("expected {RANGES}"));
        }
        for text in ranges.value {
            match text.value.parse::<AddressRange>() {
                Ok(value) => addresses.push(Located { value, line: text.line }),
                Err(error) => {
                    let remedy = match error {
                        AddressRangeError::Prefix => {
                            "expected its first and last usable address, \
                             as in \"192.168.7.1-192.168.7.254\""
                        }
                        _ => "expected \"FIRST-LAST\" or one address",
                    };
                    let message = format!("{list_name} holds {}: {error}", quote(text.value));
                    problems.add(text.line, message, remedy);
                }
            }
        }
    }
    let name = name?.value.to_owned();
    Some(LocalAddressPool { name, addresses, port_min, port_max, line })
}

fn service(mut section: Section<'_, '_>, problems: &mut Problems<'_>) -> Option<ServiceConfig> {
    let name = section.name("address");
    let address = section
        .required_string(problems, "address", VIP)
        .and_then(|text| endpoint_or_any_port(text, &name, VIP, problems));
    let protocol = protocol(&mut section, problems);
    let scheduler = section.choice(problems, "scheduler", Scheduler::WORDS);
    let scheduler = scheduler.map_or(Scheduler::Wrr, |word| word.value);
    let scheduler_flags = scheduler_flags(&mut section, scheduler, problems);
    let persistent =
        persistence::read(&mut section, problems, address.is_none_or(|it| it.is_ipv4()));
    let synproxy = section.choice(problems, "synproxy", ON_OFF).is_some_and(|word| word.value);
    let defer = section.boolean(problems, "defer", false);
    let mut seconds = |key| {
        let seconds = section.optional_integer(problems, key, 1..=WEEK)?;
        let value = Duration::from_secs(seconds.value.into());
        Some(Located { value, line: seconds.line })
    };
    let established_timeout = seconds("established_timeout");
    let udp_timeout = seconds("udp_timeout");
    let ops = section.boolean(problems, "ops", false);
    let toa = section.boolean(problems, "toa", false);
    let proxy_protocol = section.choice(problems, "proxy_protocol", ProxyProtocol::WORDS);
    let local_addresses = pool_name(&mut section, problems);
    let real_servers = section
        .tables(problems, "real_server", "[[service.real_server]]")
        .into_iter()
        .filter_map(|section| real_server(section, problems))
        .collect();
    let line = section.line;
    section.finish(problems);
    Some(ServiceConfig {
        address: address?,
        protocol: protocol?.value,
        persistent,
        scheduler,
        scheduler_flags,
        synproxy,
        defer,
        established_timeout,
        udp_timeout,
        ops,
        toa,
        proxy_protocol: proxy_protocol.map(|word| word.value),
        local_addresses,
        real_servers,
        line,
    })
}

/// Those of `scheduler`; others are reported.
fn scheduler_flags(
    section: &mut Section<'_, '_>,
    scheduler: Scheduler,
    problems: &mut Problems<'_>,
) -> Vec<SchedulerFlag> {
    let known = SchedulerFlag::WORDS.iter();
    let own: Vec<_> = known.filter(|(_, flag)| flag.scheduler() == scheduler).collect();
    let expected = match own.as_slice() {
        [] => format!("no flags, for scheduler \"{scheduler}\" has none"),
        own => {
            let words: Vec<_> = own.iter().map(|(word, _)| quote(word)).collect();
            format!("a list of {}, the flags of scheduler \"{scheduler}\"", words.join(" and "))
        }
    };
    let name = section.name("scheduler_flags");
    let given = section.strings(problems, "scheduler_flags", &expected);
    let given = given.map_or(Vec::new(), |given| given.value);
    for (at, word) in given.iter().enumerate() {
        let holds = format!("{name} holds {}", quote(word.value));
        if !own.iter().any(|(own, _)| *own == word.value) {
            problems.add(word.line, holds, format_args!("expected {expected}"));
        } else if given.iter().take(at).any(|before| before.value == word.value) {
            problems.add(word.line, format_args!("{holds} twice"), "expected each flag once");
        }
    }
    let is_given = |word: &str| given.iter().any(|given| given.value == word);
    own.iter().filter(|(word, _)| is_given(word)).map(|(_, flag)| *flag).collect()
}

fn real_server(
    mut section: Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<RealServerConfig> {
    let name = section.name("address");
    let address = section
        .required_string(problems, "address", REAL_SERVER)
        .and_then(|text| endpoint_or_any_port(text, &name, REAL_SERVER, problems));
    let forwarding = section.required_choice(problems, "forwarding", Forwarding::WORDS);
    let weight = section.integer(problems, "weight", 0..=65_535, 1);
    let upper_threshold = section.integer(problems, "upper_threshold", 0..=u32::MAX, 0);
    let lower_threshold = section.integer(problems, "lower_threshold", 0..=u32::MAX, 0);
    let line = section.line;
    let forwarding = forwarding.map(|word| word.value);
    let tunnel = tunnel(&mut section, forwarding, problems);
    section.finish(problems);
    Some(RealServerConfig {
        address: address?,
        forwarding: forwarding?,
        tunnel,
        weight,
        upper_threshold,
        lower_threshold,
        line,
    })
}

/// The protocol of a service; for what IPVS has beside it, why it is not here.
fn protocol(
    section: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Located<Protocol>> {
    if section.peek("fwmark").is_some() {
        let why = "none: marks are netfilter's, and XDP forwards packets before it has seen them; \
                   address and protocol in its place";
        section.read(problems, "fwmark", why, |_| None::<()>);
    }
    if section.peek("protocol").and_then(|value| value.as_str()) == Some("sctp") {
        let why = "\"tcp\" or \"udp\": SCTP, whose ends have several addresses, and a handshake and \
                   a checksum of their own, is not balanced";
        return section.read(problems, "protocol", why, |_| None);
    }
    section.required_choice(problems, "protocol", Protocol::WORDS)
}

/// How packets are wrapped, where they are.
fn tunnel(
    section: &mut Section<'_, '_>,
    forwarding: Option<Forwarding>,
    problems: &mut Problems<'_>,
) -> Option<TunnelConfig> {
    let kind = section.choice(problems, "tunnel_type", TunnelType::WORDS);
    let port = section.integer(problems, "tunnel_port", 1..=65_535, 0);
    let checksum = section.choice(problems, "tunnel_checksum", TunnelChecksum::WORDS);
    let given = kind.is_some() || port != 0 || checksum.is_some();
    let line = section.line;
    match forwarding? {
        Forwarding::Tunnel => {}
        other => {
            if given {
                problems.add(
                    line,
                    format_args!("a real server has forwarding \"{other}\" and tunnel_ keys"),
                    "expected them with forwarding = \"tunnel\" only",
                );
            }
            return None;
        }
    }
    let kind = kind.map_or(TunnelType::Ipip, |word| word.value);
    if kind == TunnelType::Gue && port == 0 {
        let message = "a real server has tunnel_type \"gue\" without tunnel_port";
        problems.add(line, message, "expected the UDP port that it takes GUE on, 1 to 65535");
    } else if kind != TunnelType::Gue && port != 0 {
        problems.add(
            line,
            format_args!("a real server has tunnel_type \"{kind}\" and a tunnel_port"),
            "expected tunnel_port with \"gue\" only: the others have no ports",
        );
    }
    let checksum = checksum.map_or(TunnelChecksum::None, |word| word.value);
    Some(TunnelConfig { kind, port, checksum })
}

/// `IP:PORT` with a port that is not 0, or a problem at the text's line.
fn endpoint(
    text: Located<&str>,
    name: &str,
    expected: &str,
    problems: &mut Problems<'_>,
) -> Option<SocketAddr> {
    let (line, written) = (text.line, text.value);
    let address = endpoint_or_any_port(text, name, expected, problems)?;
    if address.port() != 0 {
        return Some(address);
    }
    let message = format!("{name} is {}, and port 0 is none", quote(written));
    problems.add(line, message, format_args!("expected {expected}"));
    None
}

/// `IP:PORT`, port 0 included, or a problem at the text's line.
fn endpoint_or_any_port(
    text: Located<&str>,
    name: &str,
    expected: &str,
    problems: &mut Problems<'_>,
) -> Option<SocketAddr> {
    let why = match text.value.parse::<SocketAddr>() {
        // A link-local address has its zone by right; where none is wanted, `validate` says so.
        Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 && !v6.ip().is_unicast_link_local() => {
            ", and only link-local addresses have a zone"
        }
        Ok(address) => return Some(address),
        Err(_) if text.value.parse::<std::net::IpAddr>().is_ok() => ", without a port",
        Err(_) => "",
    };
    let message = format!("{name} is {}{why}", quote(text.value));
    problems.add(text.line, message, format_args!("expected {expected}"));
    None
}
