//! What belongs together: names that must exist, addresses that must differ, limits over lists.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::errors::{Problems, quote};
use super::index;
use super::{
    AddressRange, Config, Forwarding, Index, LocalAddressPool, Located, MAX_INTERFACES,
    MAX_LOCAL_ADDRESSES, MAX_REAL_SERVERS, MAX_SERVICES, Protocol, RealServerConfig, ServiceConfig,
};

/// Bytes of an interface name, `IFNAMSIZ` less the NUL.
const INTERFACE_NAME_MAX: usize = 15;

/// Reports everything that single values cannot show.
pub(super) fn validate(config: &Config, problems: &mut Problems<'_>) {
    interfaces(config, problems);
    sockets(config, problems);
    let ranges = pools(&config.local_addresses, problems);
    services(config, &ranges, problems);
    toa_goes_past(config, problems);
}

/// How real servers learn who their client is.
fn introduction(service: &ServiceConfig, problems: &mut Problems<'_>) {
    let address = service.address;
    let mut refuse = |what: &str, remedy: &str| {
        problems.add(service.line, format_args!("service {address} {what}"), remedy);
    };
    let udp = service.protocol == Protocol::Udp;
    if service.toa && service.proxy_protocol.is_some() {
        refuse("has both toa and proxy_protocol", "expected one of them");
    }
    if service.toa && udp {
        refuse("has toa and protocol \"udp\"", "TOA is an option of TCP; expected \"tcp\"");
    }
    if service.proxy_protocol.is_none() {
        return;
    }
    if udp {
        let remedy = "its header begins a stream of TCP; expected \"tcp\"";
        refuse("has proxy_protocol and protocol \"udp\"", remedy);
    } else if !service.synproxy {
        refuse(
            "has proxy_protocol without synproxy",
            "the client's own handshake goes to the real server, and leaves no room for a header in \
             the stream; expected synproxy = \"on\", or toa = true",
        );
    }
}

/// Where packets go on as they are, so would a TOA option of the client's own, which a real server
/// that is told of clients by any service would believe.
fn toa_goes_past(config: &Config, problems: &mut Problems<'_>) {
    let mut told = HashMap::new();
    for service in config.services.iter().filter(|service| service.toa) {
        told.extend(service.real_servers.iter().map(|server| (server.address.ip(), service)));
    }
    for service in &config.services {
        let servers = service.real_servers.iter();
        for server in servers.filter(|server| index::is_direct(service, server)) {
            let Some(told) = told.get(&server.address.ip()) else { continue };
            problems.add(
                server.line,
                format_args!(
                    "real server {} has forwarding \"{}\", and service {}{}, which has it too, \
                     has toa",
                    server.address,
                    server.forwarding,
                    told.address,
                    in_line(told.line)
                ),
                "by \"dr\" and \"tunnel\" it gets the client's packets as they are, with its address and \
                 any TOA option that it made up; expected \"nat\" or \"fullnat\", or toa = false",
            );
        }
    }
}

fn interfaces(config: &Config, problems: &mut Problems<'_>) {
    if let Some(first_over) = config.interfaces.get(MAX_INTERFACES) {
        let message = format!("{} interfaces are listed", config.interfaces.len());
        problems.add(first_over.line, message, format_args!("expected at most {MAX_INTERFACES}"));
    }
    let mut seen = HashSet::new();
    for name in &config.interfaces {
        if !is_interface_name(&name.value) {
            problems.add(
                name.line,
                format_args!("interfaces holds {}, no interface name", quote(&name.value)),
                "expected 1 to 15 characters without `/`, `:` or blanks, as `ip link` shows them",
            );
        } else if !seen.insert(&name.value) {
            let message = format!("interface {} is listed twice", quote(&name.value));
            problems.add(name.line, message, "expected each interface once");
        }
    }
}

/// The kernel's `dev_valid_name()`, `net/core/dev.c`.
fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace())
}

fn sockets(config: &Config, problems: &mut Problems<'_>) {
    if let Some(ipvs) = &config.ipvs.socket
        && ipvs.value == config.api.socket
    {
        let message = format!("[api] and [ipvs] share the socket {}", ipvs.value.display());
        problems.add(ipvs.line, message, "expected two different paths");
    }
    if let Some(name) = &config.ipvs.local_addresses {
        named_pool(config, name, problems);
    }
}

/// A range of some pool.
#[derive(Clone, Copy)]
struct PoolRange<'c> {
    pool: &'c LocalAddressPool,
    range: AddressRange,
    line: usize,
}

/// The ranges of every pool, by first address, to find the one that holds an address.
struct PoolRanges<'c>(BTreeMap<IpAddr, PoolRange<'c>>);

impl<'c> PoolRanges<'c> {
    fn holding(&self, address: IpAddr) -> Option<PoolRange<'c>> {
        let (_, candidate) = self.0.range(..=address).next_back()?;
        candidate.range.contains(address).then_some(*candidate)
    }
}

fn pools<'c>(pools: &'c [LocalAddressPool], problems: &mut Problems<'_>) -> PoolRanges<'c> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut all = Vec::new();
    let mut total: u128 = 0;
    for pool in pools {
        if pool.name.is_empty() {
            problems.add(pool.line, "[[local_addresses]] name is empty", "expected a name");
        } else if let Some(first) = names.insert(&pool.name, pool.line) {
            problems.add(
                pool.line,
                format_args!("pool {} is defined twice, first on line {first}", quote(&pool.name)),
                "expected one [[local_addresses]] with all its addresses",
            );
        }
        for Located { value: range, line } in &pool.addresses {
            for end in [range.first(), range.last()] {
                if let Some(why) = unusable(end) {
                    let message = format!("local address {end} is {why}");
                    problems.add(*line, message, "expected unicast addresses");
                    break;
                }
            }
            let within = total <= MAX_LOCAL_ADDRESSES as u128;
            total = total.saturating_add(range.count());
            if within && total > MAX_LOCAL_ADDRESSES as u128 {
                let message = format!(
                    "with this range the pools hold more than {MAX_LOCAL_ADDRESSES} addresses"
                );
                problems.add(*line, message, "expected fewer; each serves some 60,000 sessions");
            }
            all.push(PoolRange { pool, range: *range, line: *line });
        }
    }
    // In the order of addresses a range can only overlap one that reaches furthest before it.
    all.sort_by_key(|entry| (entry.range.first(), entry.line));
    let mut by_first = BTreeMap::new();
    let mut furthest: Option<PoolRange<'c>> = None;
    for entry in all {
        match furthest {
            Some(before) if before.range.contains(entry.range.first()) => {
                let (earlier, later) =
                    if before.line <= entry.line { (before, entry) } else { (entry, before) };
                problems.add(
                    later.line,
                    format_args!(
                        "local addresses {} of pool {} overlap {} of pool {} on line {}",
                        later.range,
                        quote(&later.pool.name),
                        earlier.range,
                        quote(&earlier.pool.name),
                        earlier.line
                    ),
                    "expected each address once over all pools",
                );
                if entry.range.last() > before.range.last() {
                    furthest = Some(entry);
                }
            }
            _ => furthest = Some(entry),
        }
        by_first.entry(entry.range.first()).or_insert(entry);
    }
    PoolRanges(by_first)
}

fn services(config: &Config, ranges: &PoolRanges<'_>, problems: &mut Problems<'_>) {
    if let Some(first_over) = config.services.get(MAX_SERVICES) {
        let message = format!("{} services are defined", config.services.len());
        problems.add(first_over.line, message, format_args!("expected at most {MAX_SERVICES}"));
    }
    let over = config.services.iter().flat_map(|service| &service.real_servers);
    if let Some(first_over) = over.clone().nth(MAX_REAL_SERVERS) {
        let message = format!("{} real servers are defined", over.count());
        let remedy = format!("expected at most {MAX_REAL_SERVERS} over all services");
        problems.add(first_over.line, message, remedy);
    }
    // The first service of each VIP, for messages.
    let mut vips: HashMap<IpAddr, &ServiceConfig> = HashMap::new();
    let mut keys = HashMap::new();
    for service in &config.services {
        vips.entry(service.address.ip()).or_insert(service);
        match keys.get(&(service.address, service.protocol)) {
            None => {
                keys.insert((service.address, service.protocol), service.line);
            }
            Some(first) => problems.add(
                service.line,
                format_args!(
                    "service {}/{} is defined twice, first on line {first}",
                    service.address, service.protocol
                ),
                "expected one [[service]] with all its real servers",
            ),
        }
    }
    for service in &config.services {
        let line_of = |ip: IpAddr| vips.get(&ip).map(|service| service.line);
        self::service(config, ranges, service, line_of, problems);
    }
}

/// Checks a service that takes the place of `old`, or is new, among those that `index` knows; it has
/// no lines.
pub(super) fn one(
    config: &Config,
    index: &Index,
    old: Option<&ServiceConfig>,
    service: &ServiceConfig,
    problems: &mut Problems<'_>,
) {
    if old.is_none() && index.len() >= MAX_SERVICES {
        let message = format!("there are {MAX_SERVICES} services");
        problems.add(0, message, "expected no more");
    }
    let others = index.real_servers() - old.map_or(0, |old| old.real_servers.len());
    if others + service.real_servers.len() > MAX_REAL_SERVERS {
        let message = format!("there are {MAX_REAL_SERVERS} real servers");
        problems.add(0, message, "expected no more over all services");
    }
    let vip = service.address.ip();
    if old.is_none() && index.is_real_server(vip) {
        let message = format!("service {} has the address of a real server", service.address);
        problems.add(0, message, "expected an address that no other host has");
    }
    let ranges = pools(&config.local_addresses, problems);
    let line_of = |ip: IpAddr| (ip == vip || index.is_vip(ip)).then_some(0);
    self::service(config, &ranges, service, line_of, problems);
    toa_goes_past_here(index, old, service, problems);
}

/// [`toa_goes_past`] for one service beside those that `index` knows.
fn toa_goes_past_here(
    index: &Index,
    old: Option<&ServiceConfig>,
    service: &ServiceConfig,
    problems: &mut Problems<'_>,
) {
    for server in &service.real_servers {
        let ip = server.address.ip();
        let before = |of: fn(&ServiceConfig, IpAddr) -> usize| old.map_or(0, |old| of(old, ip));
        let told = service.toa || index.told(ip) > before(index::told);
        let direct = index::direct(service, ip) > 0 || index.direct(ip) > before(index::direct);
        let concerned = service.toa || index::direct(service, ip) > 0;
        if told && direct && concerned {
            let message = format!(
                "real server {} gets packets as they are in one service, and another has toa",
                server.address
            );
            problems.add(0, message, "expected \"nat\" or \"fullnat\", or toa = false");
        }
    }
}

/// Checks a service; `vip` gives the line of one that has the address.
fn service(
    config: &Config,
    ranges: &PoolRanges<'_>,
    service: &ServiceConfig,
    vip: impl Fn(IpAddr) -> Option<usize>,
    problems: &mut Problems<'_>,
) {
    protocol(service, problems);
    let (ip, line) = (service.address.ip(), service.line);
    Address { what: "service address", ip, line }.check(ranges, problems);
    introduction(service, problems);
    let pool = service_pool(config, service, problems);
    if service.address.port() == 0 && service.persistent.is_none() {
        problems.add(
            service.line,
            format_args!(
                "service {} has port 0, which is only for persistent services",
                service.address
            ),
            "expected a port, or persistent = 360",
        );
    }
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    for server in &service.real_servers {
        let ip = server.address.ip();
        Address { what: "real server", ip, line: server.line }.check(ranges, problems);
        port_and_thresholds(service, server, problems);
        if let Some(first) = seen.get(&server.address) {
            problems.add(
                server.line,
                format_args!(
                    "real server {} is listed twice in service {}, first on line {first}",
                    server.address, service.address
                ),
                "expected it once; weight gives it a larger share",
            );
        } else {
            seen.insert(server.address, server.line);
        }
        if let Some(line) = vip(ip) {
            problems.add(
                server.line,
                format_args!(
                    "real server {} has the address of the service {}",
                    server.address,
                    on_line(line)
                ),
                "expected another host; this version delivers nothing to the balancer itself",
            );
        }
        match server.forwarding {
            Forwarding::Nat | Forwarding::FullNat | Forwarding::Dr
                if server.address.is_ipv4() != service.address.is_ipv4() =>
            {
                other_family(service, server, problems);
            }
            Forwarding::FullNat => full_nat(service, server, pool, problems),
            Forwarding::Dr | Forwarding::Tunnel => same_port(service, server, problems),
            Forwarding::Nat => {}
        }
    }
}

/// A place in the file, for messages; what comes from none has line 0.
fn on_line(line: usize) -> String {
    if line == 0 { "here".to_owned() } else { format!("on line {line}") }
}

/// The same in brackets, or nothing.
fn in_line(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" (line {line})") }
}

/// What only one of the protocols can have.
fn protocol(service: &ServiceConfig, problems: &mut Problems<'_>) {
    let ServiceConfig { address, line, .. } = service;
    let mut refuse = |line: usize, what: &str, remedy: &str| {
        let protocol = service.protocol;
        problems.add(line, format_args!("service {address}/{protocol} has {what}"), remedy);
    };
    match service.protocol {
        Protocol::Tcp => {
            if service.ops {
                refuse(*line, "ops", "expected it on \"udp\" only: TCP needs its connections");
            }
            if let Some(timeout) = &service.udp_timeout {
                refuse(timeout.line, "udp_timeout", "expected established_timeout instead");
            }
        }
        Protocol::Udp => {
            if service.synproxy {
                let remedy = "expected synproxy = \"off\": UDP has no handshake to stand in for";
                refuse(*line, "synproxy", remedy);
            }
            if service.defer {
                let remedy = "expected it on \"tcp\" only: UDP has no handshake to wait after";
                refuse(*line, "defer", remedy);
            }
            if let Some(timeout) = &service.established_timeout {
                refuse(timeout.line, "established_timeout", "expected udp_timeout instead");
            }
        }
    }
}

/// A real server's port is the service's to say, and its thresholds must leave room between them.
fn port_and_thresholds(
    service: &ServiceConfig,
    server: &RealServerConfig,
    problems: &mut Problems<'_>,
) {
    match (service.address.port(), server.address.port()) {
        (0, 0) | (1.., 1..) => {}
        // One that may not have port 0 is reported itself.
        (0, _) if service.persistent.is_none() => {}
        (0, _) => problems.add(
            server.line,
            format_args!(
                "real server {} has a port, but service {}{} has port 0",
                server.address,
                service.address,
                in_line(service.line)
            ),
            "expected port 0, for connections keep the port that their client asked for",
        ),
        (_, 0) => problems.add(
            server.line,
            format_args!("real server {} has port 0", server.address),
            "expected a port; 0 is for the real servers of services that have port 0",
        ),
    }
    let (lower, upper) = (server.lower_threshold, server.upper_threshold);
    if lower > upper {
        problems.add(
            server.line,
            format_args!(
                "real server {} has lower_threshold {lower}, above its upper_threshold {upper}",
                server.address
            ),
            "expected lower_threshold to be at most upper_threshold",
        );
    }
}

/// The pool that the service names; a name that no pool has is reported here.
fn service_pool<'c>(
    config: &'c Config,
    service: &ServiceConfig,
    problems: &mut Problems<'_>,
) -> Option<&'c LocalAddressPool> {
    named_pool(config, service.local_addresses.as_ref()?, problems)
}

/// The pool of that name.
fn named_pool<'c>(
    config: &'c Config,
    name: &Located<String>,
    problems: &mut Problems<'_>,
) -> Option<&'c LocalAddressPool> {
    let pool = config.pool(&name.value);
    if pool.is_none() {
        let known: Vec<_> =
            config.local_addresses.iter().take(8).map(|pool| quote(&pool.name)).collect();
        let remedy = match known.as_slice() {
            [] => "expected a [[local_addresses]] of that name".to_owned(),
            _ => format!("expected one of: {}", known.join(", ")),
        };
        let message = format!("no [[local_addresses]] is named {}", quote(&name.value));
        problems.add(name.line, message, remedy);
    }
    pool
}

/// IPv4 or IPv6, for messages.
fn family(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

/// Where nothing is rewritten the real server gets what was sent to the service.
fn same_port(service: &ServiceConfig, server: &RealServerConfig, problems: &mut Problems<'_>) {
    if server.address.port() != service.address.port() {
        problems.add(
            server.line,
            format_args!(
                "real server {} has another port than service {}{}, and \"{}\" leaves \
                 packets as they are",
                server.address,
                service.address,
                in_line(service.line),
                server.forwarding
            ),
            format_args!("expected port {}", service.address.port()),
        );
    }
}

/// NAT and FULLNAT rewrite addresses within a header, and DR nothing; they do not make another
/// header.
fn other_family(service: &ServiceConfig, server: &RealServerConfig, problems: &mut Problems<'_>) {
    let (ours, theirs) = (service.address.is_ipv4(), server.address.is_ipv4());
    problems.add(
        server.line,
        format_args!(
            "real server {} is {}, but service {}{} is {}, and \"{}\" cannot cross families",
            server.address,
            family(theirs),
            service.address,
            in_line(service.line),
            family(ours),
            server.forwarding
        ),
        format_args!("expected an {} address of the real server", family(ours)),
    );
}

fn full_nat(
    service: &ServiceConfig,
    server: &RealServerConfig,
    pool: Option<&LocalAddressPool>,
    problems: &mut Problems<'_>,
) {
    let Some(pool) = pool else {
        // A pool that is named but unknown has its own message already.
        if service.local_addresses.is_none() {
            problems.add(
                server.line,
                format_args!(
                    "real server {} is \"fullnat\", but service {}{} has no \
                     local addresses",
                    server.address,
                    service.address,
                    in_line(service.line)
                ),
                "expected local_addresses = \"NAME\" in the service, naming a [[local_addresses]]",
            );
        }
        return;
    };
    let ipv4 = server.address.is_ipv4();
    let mut addresses = pool.addresses.iter();
    // An empty pool is reported where it is defined.
    if !pool.addresses.is_empty() && !addresses.any(|range| range.value.first().is_ipv4() == ipv4) {
        let family = family(ipv4);
        problems.add(
            server.line,
            format_args!(
                "pool {} (line {}) has no {family} address for real server {}",
                quote(&pool.name),
                pool.line,
                server.address
            ),
            format_args!("expected {family} addresses in the pool"),
        );
    }
}

/// An address that must be unicast and no local address of ours.
struct Address {
    what: &'static str,
    ip: IpAddr,
    line: usize,
}

impl Address {
    fn check(&self, ranges: &PoolRanges<'_>, problems: &mut Problems<'_>) {
        let Self { what, ip, line } = self;
        if let Some(why) = unusable(*ip) {
            let message = format!("{what} {ip} is {why}");
            problems.add(*line, message, "expected a unicast address that hosts can reach");
        }
        if let Some(held) = ranges.holding(*ip) {
            problems.add(
                held.line,
                format_args!(
                    "pool {} holds {ip}, the {what} {}",
                    quote(&held.pool.name),
                    on_line(*line)
                ),
                "expected local addresses that nothing else uses",
            );
        }
    }
}

/// Why no packet of ours may bear the address, if so.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    let this_network = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0);
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || this_network {
        Some("no address of a host (0.0.0.0/8 and :: mean \"this one\")")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if broadcast {
        Some("the broadcast address")
    } else if ip.is_loopback() {
        Some("a loopback address, which no packet on a wire may bear")
    } else if let IpAddr::V6(v6) = ip
        && v6.to_ipv4_mapped().is_some()
    {
        Some("an IPv4 address mapped into IPv6, which no packet on a wire may bear")
    } else if let IpAddr::V6(v6) = ip
        && v6.is_unicast_link_local()
    {
        Some("a link-local address, which routers do not forward and every link has again")
    } else {
        None
    }
}
