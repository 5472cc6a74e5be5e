//! What a changed file means for a daemon that runs (SPEC D1).
//!
//! Most of what a file says can change under traffic, the rest only with a new start. Nothing is
//! applied unless everything that differs can be.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

use super::{
    Config, ConfigError, ConfigErrors, Located, PolicyConfig, Protocol, ProxyProtocol,
    RealServerConfig, ServiceConfig, SynproxyConfig, TimeoutsConfig, TunnelConfig,
};

const RESTART: &str = "restart the daemon to change it, or undo the change";

/// A configuration that can take the place of another one while it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The new configuration.
    pub config: Config,
    /// Where each of its services has been.
    pub services: Vec<Place>,
    /// What it changes, a line each; empty when nothing.
    pub changes: Vec<String>,
}

/// What one configuration has otherwise than another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where each service of the new one has been.
    pub services: Vec<Place>,
    /// What a reload changes, a line each; empty when nothing.
    pub changes: Vec<String>,
    /// What only a new start can change, in the order of the new file; a reload is refused unless
    /// this is empty.
    pub restart: Vec<ConfigError>,
}

impl Difference {
    /// This, if a reload can bring it about.
    ///
    /// # Errors
    /// Everything that only a new start can change.
    pub fn at_run_time(self) -> Result<Self, ConfigErrors> {
        if self.restart.is_empty() { Ok(self) } else { Err(ConfigErrors::sorted(self.restart)) }
    }
}

/// Where a service of a new configuration was in the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place among the services; `None` if it is new.
    pub service: Option<usize>,
    /// The places of its real servers among those it had, likewise.
    pub real_servers: Vec<Option<usize>>,
}

impl Place {
    /// The place of `new`, which takes that of `old` at `service`, or is new.
    pub fn new(service: Option<usize>, old: Option<&ServiceConfig>, new: &ServiceConfig) -> Self {
        let old = old.map_or(&[][..], |old| &old.real_servers);
        let before = places(old.iter().map(|server| server.address));
        let servers = new.real_servers.iter();
        let real_servers = servers.map(|server| before.get(&server.address).copied()).collect();
        Self { service, real_servers }
    }
}

impl Config {
    /// This configuration with the services of `served` that come from no file, but for those that
    /// it has itself.
    ///
    /// # Errors
    /// What is wrong with them together.
    pub fn with_others_of(mut self, served: &Self) -> Result<Self, ConfigErrors> {
        let own: HashSet<_> = self.services.iter().map(key).collect();
        let others = served.services.iter();
        let others = others.filter(|service| service.line == 0 && !own.contains(&key(service)));
        self.services.extend(others.cloned());
        self.check_all()
    }

    /// What `new` has otherwise than this configuration, which is served.
    ///
    /// Services and real servers may differ in everything, and so may `[timeouts]`, `[policy]` and
    /// `[synproxy]` but for `wscale` and `secret_file`; the rest needs a new start.
    pub fn difference(&self, new: &Self) -> Difference {
        let mut comparison = Comparison { new, restart: Vec::new(), changes: Vec::new() };
        comparison.of_the_whole(self);
        comparison.of_the_settings(self);
        let services = comparison.of_the_services(self);
        let Comparison { mut restart, changes, .. } = comparison;
        restart.sort_by_key(|error| error.line);
        Difference { services, changes, restart }
    }

    /// How `new` can take this configuration's place at run time.
    ///
    /// # Errors
    /// Everything that only a new start can change.
    pub fn reload(&self, new: Self) -> Result<Reload, ConfigErrors> {
        let Difference { services, changes, .. } = self.difference(&new).at_run_time()?;
        Ok(Reload { config: new, services, changes })
    }
}

struct Comparison<'a> {
    new: &'a Config,
    restart: Vec<ConfigError>,
    changes: Vec<String>,
}

impl Comparison<'_> {
    fn refuse(&mut self, line: Option<usize>, message: String) {
        let (file, remedy) = (self.new.file.clone(), RESTART.to_owned());
        self.restart.push(ConfigError { file, line, message, remedy });
    }

    /// What only a new start can change.
    fn of_the_whole(&mut self, old: &Config) {
        let new = self.new;
        let names = |config: &Config| -> Vec<_> {
            config.interfaces.iter().map(|name| name.value.clone()).collect()
        };
        let pools = |config: &Config| -> Vec<_> {
            let pool = |pool: &super::LocalAddressPool| {
                let ranges: Vec<_> = pool.addresses.iter().map(|range| range.value).collect();
                (pool.name.clone(), ranges, pool.port_min, pool.port_max)
            };
            config.local_addresses.iter().map(pool).collect()
        };
        let ipvs = |config: &Config| config.ipvs.socket.as_ref().map(|path| path.value.clone());
        let secret =
            |config: &Config| config.synproxy.secret_file.as_ref().map(|path| path.value.clone());
        let secret_line = new.synproxy.secret_file.as_ref().map(|path| path.line);
        let ipvs_line = new.ipvs.socket.as_ref().map(|path| path.line);
        let pools_line = new.local_addresses.first().map(|pool| pool.line);
        let names_line = new.interfaces.first().map(|name| name.line);
        for (differs, line, what) in [
            (names(old) != names(new), names_line, "interfaces"),
            (old.max_sessions != new.max_sessions, None, "max_sessions"),
            (
                old.max_persistence_templates != new.max_persistence_templates,
                None,
                "max_persistence_templates",
            ),
            (old.manage_addresses != new.manage_addresses, None, "manage_addresses"),
            (old.state != new.state, None, "state"),
            (old.api != new.api, None, "[api]"),
            (ipvs(old) != ipvs(new), ipvs_line, "[ipvs]"),
            (old.synproxy.wscale != new.synproxy.wscale, None, "[synproxy] wscale"),
            (secret(old) != secret(new), secret_line, "[synproxy] secret_file"),
            (pools(old) != pools(new), pools_line, "[[local_addresses]]"),
        ] {
            if differs {
                self.refuse(line, format!("{what} has changed"));
            }
        }
    }

    fn of_the_settings(&mut self, old: &Config) {
        for (now, before) in settings(self.new).into_iter().zip(settings(old)) {
            let Setting { section, key, value } = now;
            if value != before.value {
                self.changes.push(format!("{section} {key} {value}, was {}", before.value));
            }
        }
    }

    fn of_the_services(&mut self, old: &Config) -> Vec<Place> {
        let new = self.new;
        let before: HashMap<_, _> = places(old.services.iter().map(key));
        let mut there = vec![false; old.services.len()];
        let mut places = Vec::with_capacity(new.services.len());
        for service in &new.services {
            let at = before.get(&key(service)).copied();
            if let Some(there) = at.and_then(|at| there.get_mut(at)) {
                *there = true;
            }
            let real_servers = match at.and_then(|at| old.services.get(at)) {
                Some(before) => self.of_a_service(before, service),
                None => {
                    self.changes.push(format!("service {}: new", name(service)));
                    vec![None; service.real_servers.len()]
                }
            };
            places.push(Place { service: at, real_servers });
        }
        for (service, _) in old.services.iter().zip(there).filter(|(_, there)| !there) {
            self.changes.push(format!("service {}: removed", name(service)));
        }
        places
    }

    /// Where the real servers of `new` have been.
    fn of_a_service(&mut self, old: &ServiceConfig, new: &ServiceConfig) -> Vec<Option<usize>> {
        let name = name(new);
        let mut change = |what: String| self.changes.push(format!("service {name}: {what}"));
        let on = |on: bool| if on { "on" } else { "off" };
        if old.synproxy != new.synproxy {
            change(format!("synproxy {}", on(new.synproxy)));
        }
        if old.defer != new.defer {
            change(format!("defer {}", on(new.defer)));
        }
        if old.toa != new.toa {
            change(format!("toa {}", on(new.toa)));
        }
        if old.proxy_protocol != new.proxy_protocol {
            let version = new.proxy_protocol.map_or("off", ProxyProtocol::word);
            change(format!("proxy_protocol {version}"));
        }
        if old.persistent != new.persistent {
            change(match new.persistent {
                None => "no longer persistent".to_owned(),
                Some(persistent) => format!("persistent {persistent}"),
            });
        }
        if old.scheduler != new.scheduler {
            change(format!("scheduler {}", new.scheduler));
        }
        if old.scheduler_flags != new.scheduler_flags {
            change("other scheduler_flags".to_owned());
        }
        let seconds = |timeout: &Option<Located<Duration>>| {
            timeout.as_ref().map(|timeout| timeout.value.as_secs())
        };
        for (key, before, now) in [
            ("established_timeout", &old.established_timeout, &new.established_timeout),
            ("udp_timeout", &old.udp_timeout, &new.udp_timeout),
        ] {
            if seconds(before) != seconds(now) {
                let now = seconds(now).map_or("as [timeouts] has it".to_owned(), |s| s.to_string());
                change(format!("{key} {now}"));
            }
        }
        if old.ops != new.ops {
            change(format!("ops {}", on(new.ops)));
        }
        if pool(old) != pool(new) {
            change(format!("local_addresses {}", pool(new).unwrap_or("none")));
        }
        let before: HashMap<_, _> = places(old.real_servers.iter().map(|server| server.address));
        let mut there = vec![false; old.real_servers.len()];
        let mut places = Vec::with_capacity(new.real_servers.len());
        for server in &new.real_servers {
            let real = server.address;
            let at = before.get(&real).copied();
            places.push(at);
            if let Some(there) = at.and_then(|at| there.get_mut(at)) {
                *there = true;
            }
            let Some(before) = at.and_then(|at| old.real_servers.get(at)) else {
                change(format!("real server {real} new"));
                continue;
            };
            if before.weight != server.weight {
                change(format!("real server {real} has weight {}", server.weight));
            }
            for (before, now, what) in [
                (before.upper_threshold, server.upper_threshold, "upper_threshold"),
                (before.lower_threshold, server.lower_threshold, "lower_threshold"),
            ] {
                if before != now {
                    change(format!("real server {real} has {what} {now}"));
                }
            }
            if before.forwarding != server.forwarding || before.tunnel != server.tunnel {
                change(format!("real server {real} by {}", way(server)));
            }
        }
        for (server, _) in old.real_servers.iter().zip(there).filter(|(_, there)| !there) {
            change(format!("real server {} removed", server.address));
        }
        places
    }
}

fn places<K: Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    keys.enumerate().map(|(at, key)| (key, at)).collect()
}

/// How a real server is reached, in words.
fn way(server: &RealServerConfig) -> String {
    match server.tunnel {
        None => server.forwarding.to_string(),
        Some(TunnelConfig { kind, port: 0, checksum }) => format!("tunnel, {kind}, {checksum}"),
        Some(TunnelConfig { kind, port, checksum }) => {
            format!("tunnel, {kind}, port {port}, {checksum}")
        }
    }
}

fn key(service: &ServiceConfig) -> (SocketAddr, Protocol) {
    (service.address, service.protocol)
}

/// A service as changes name it: its address, and its protocol if that is not TCP.
fn name(service: &ServiceConfig) -> String {
    match service.protocol {
        Protocol::Tcp => service.address.to_string(),
        protocol @ Protocol::Udp => format!("{}/{protocol}", service.address),
    }
}

/// A key that a reload can change, with its value in words.
struct Setting {
    section: &'static str,
    key: &'static str,
    value: String,
}

/// All of them, always in this order.
fn settings(config: &Config) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut add = |section, key, value: &dyn ToString| {
        all.push(Setting { section, key, value: value.to_string() });
    };
    // Taken apart, so that no key can be forgotten here.
    let SynproxyConfig {
        init_mss,
        sack,
        wscale: _,
        timestamp,
        synack_ttl,
        syn_retry,
        ack_store,
        ack_store_bytes,
        ack_store_total_bytes,
        conn_reuse,
        conn_reuse_close,
        conn_reuse_time_wait,
        conn_reuse_fin_wait,
        conn_reuse_close_wait,
        conn_reuse_last_ack,
        ack_storm_thresh,
        secret_file: _,
    } = &config.synproxy;
    let synproxy: [(&'static str, &dyn ToString); 15] = [
        ("init_mss", init_mss),
        ("sack", sack),
        ("timestamp", timestamp),
        ("synack_ttl", synack_ttl),
        ("syn_retry", syn_retry),
        ("ack_store", ack_store),
        ("ack_store_bytes", ack_store_bytes),
        ("ack_store_total_bytes", ack_store_total_bytes),
        ("conn_reuse", conn_reuse),
        ("conn_reuse_close", conn_reuse_close),
        ("conn_reuse_time_wait", conn_reuse_time_wait),
        ("conn_reuse_fin_wait", conn_reuse_fin_wait),
        ("conn_reuse_close_wait", conn_reuse_close_wait),
        ("conn_reuse_last_ack", conn_reuse_last_ack),
        ("ack_storm_thresh", ack_storm_thresh),
    ];
    synproxy.into_iter().for_each(|(key, value)| add("[synproxy]", key, value));
    let TimeoutsConfig {
        established,
        syn_sent,
        syn_recv,
        fin_wait,
        time_wait,
        close,
        close_wait,
        last_ack,
        udp,
    } = &config.timeouts;
    for (key, value) in [
        ("established", established),
        ("syn_sent", syn_sent),
        ("syn_recv", syn_recv),
        ("fin_wait", fin_wait),
        ("time_wait", time_wait),
        ("close", close),
        ("close_wait", close_wait),
        ("last_ack", last_ack),
        ("udp", udp),
    ] {
        add("[timeouts]", key, &value.as_secs());
    }
    let PolicyConfig {
        defence_udp_drop,
        defence_ip_frag_drop,
        conn_expire_tcp_rst,
        expire_nodest_conn,
        expire_quiescent_template,
    } = &config.policy;
    for (key, value) in [
        ("defence_udp_drop", defence_udp_drop),
        ("defence_ip_frag_drop", defence_ip_frag_drop),
        ("conn_expire_tcp_rst", conn_expire_tcp_rst),
        ("expire_nodest_conn", expire_nodest_conn),
        ("expire_quiescent_template", expire_quiescent_template),
    ] {
        add("[policy]", key, value);
    }
    let pool = config.ipvs.local_addresses.as_ref().map_or("none", |name| name.value.as_str());
    add("[ipvs]", "local_addresses", &pool);
    all
}

fn pool(service: &ServiceConfig) -> Option<&str> {
    service.local_addresses.as_ref().map(|name| name.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::{Config, Place};

    const FILE: &str = r#"interfaces = ["eth0", "eth1"]
max_sessions = 4096

[[local_addresses]]
name = "default"
addresses = ["192.168.7.100-192.168.7.103"]

[[service]]
address = "10.0.0.254:80"
protocol = "tcp"
scheduler = "rr"
synproxy = "on"
local_addresses = "default"

[[service.real_server]]
address = "192.168.7.2:8080"
forwarding = "fullnat"
weight = 1

[[service.real_server]]
address = "192.168.7.3:8080"
forwarding = "fullnat"
weight = 1

[[service]]
address = "10.0.0.254:443"
protocol = "tcp"
scheduler = "rr"
synproxy = "off"
"#;

    fn config(text: &str) -> Config {
        parse(text).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The file with `from` replaced, reloaded.
    fn reload(changes: &[(&str, &str)]) -> Result<super::Reload, String> {
        let mut text = FILE.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        config(FILE).reload(config(&text)).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_same_file_and_one_moved_about_change_nothing() {
        assert_eq!(reload(&[]).unwrap().changes, [""; 0]);
        let lines = reload(&[("[[local", "# a comment\n\n[[local")]).unwrap();
        assert_eq!(lines.changes, [""; 0]);
        let (head, services) = FILE.split_once("[[service]]\n").unwrap();
        let (first, second) = services.split_once("[[service]]\n").unwrap();
        let moved = config(&format!("{head}[[service]]\n{second}[[service]]\n{first}"));
        let reload = config(FILE).reload(moved).unwrap();
        assert_eq!(reload.changes, [""; 0]);
        let places = [
            Place { service: Some(1), real_servers: vec![] },
            Place { service: Some(0), real_servers: vec![Some(0), Some(1)] },
        ];
        assert_eq!(reload.services, places);
    }

    #[test]
    fn what_may_change_does_and_is_said() {
        let policy = "[policy]\ndefence_udp_drop = false\n[timeouts]\nclose = 3\n[[local";
        let reload = reload(&[
            ("[[local", policy),
            ("synproxy = \"off\"", "synproxy = \"on\"\ndefer = true\nproxy_protocol = \"v2\""),
            ("synproxy = \"on\"", "synproxy = \"off\"\ntoa = true"),
            ("weight = 1", "weight = 5"),
        ])
        .unwrap();
        let expected = [
            "[timeouts] close 3, was 10",
            "[policy] defence_udp_drop false, was true",
            "service 10.0.0.254:80: synproxy off",
            "service 10.0.0.254:80: toa on",
            "service 10.0.0.254:80: real server 192.168.7.2:8080 has weight 5",
            "service 10.0.0.254:443: synproxy on",
            "service 10.0.0.254:443: defer on",
            "service 10.0.0.254:443: proxy_protocol v2",
        ];
        assert_eq!(reload.changes, expected);
        let [first, second] = &reload.config.services[..] else { panic!("two services") };
        assert!(!first.synproxy && second.synproxy && second.defer);
        assert_eq!(first.real_servers[0].weight, 5);
        assert!(!reload.config.policy.defence_udp_drop);
    }

    #[test]
    fn protocols_and_timeouts_of_a_services_own() {
        let reload = reload(&[
            ("\"tcp\"\n", "\"tcp\"\nestablished_timeout = 9\n"),
            ("443\"\nprotocol = \"tcp\"", "443\"\nprotocol = \"udp\"\nops = true"),
        ])
        .unwrap();
        let expected = [
            "service 10.0.0.254:80: established_timeout 9",
            "service 10.0.0.254:443/udp: new",
            "service 10.0.0.254:443: removed",
        ];
        assert_eq!(reload.changes, expected);
        let Ok(back) = reload.config.reload(config(FILE)) else { panic!("refused") };
        assert_eq!(
            back.changes[0],
            "service 10.0.0.254:80: established_timeout as [timeouts] has it"
        );
    }

    #[test]
    fn persistence_and_thresholds_change() {
        let reload = reload(&[
            ("[[local", "[policy]\nexpire_quiescent_template = true\n[[local"),
            ("synproxy = \"on\"", "synproxy = \"on\"\npersistent = 60\nnetmask = 24"),
            ("weight = 1", "weight = 1\nupper_threshold = 9\nlower_threshold = 3"),
        ])
        .unwrap();
        let expected = [
            "[policy] expire_quiescent_template true, was false",
            "service 10.0.0.254:80: persistent 60 mask 255.255.255.0",
            "service 10.0.0.254:80: real server 192.168.7.2:8080 has upper_threshold 9",
            "service 10.0.0.254:80: real server 192.168.7.2:8080 has lower_threshold 3",
        ];
        assert_eq!(reload.changes, expected);
        let back = reload.config.reload(config(FILE)).unwrap();
        assert_eq!(back.changes[1], "service 10.0.0.254:80: no longer persistent");
    }

    #[test]
    fn services_and_real_servers_come_and_go() {
        let reload = reload(&[
            ("7.2:", "7.4:"),
            (":443", ":444"),
            ("\"rr\"", "\"wrr\""),
            ("\"rr\"", "\"wrr\""),
        ])
        .unwrap();
        let expected = [
            "service 10.0.0.254:80: scheduler wrr",
            "service 10.0.0.254:80: real server 192.168.7.4:8080 new",
            "service 10.0.0.254:80: real server 192.168.7.2:8080 removed",
            "service 10.0.0.254:444: new",
            "service 10.0.0.254:443: removed",
        ];
        assert_eq!(reload.changes, expected);
        let places = [
            Place { service: Some(0), real_servers: vec![None, Some(1)] },
            Place { service: None, real_servers: vec![] },
        ];
        assert_eq!(reload.services, places);
        assert_eq!(reload.config.services[1].address.port(), 444);
    }

    #[test]
    fn the_way_to_a_real_server_changes() {
        let server = "address = \"192.168.7.2:8080\"\nforwarding = \"fullnat\"";
        let port = ("0.254:80\"", "0.254:8080\"");
        let to = |keys: &str| server.replace("fullnat\"", &format!("tunnel\"\n{keys}"));
        let gue = to("tunnel_type = \"gue\"\ntunnel_port = 6080\n");
        let off = ("synproxy = \"on\"", "synproxy = \"off\"");
        let changes = reload(&[off, port, (server, &gue)]).unwrap().changes;
        assert!(changes.contains(&"service 10.0.0.254:8080: new".to_owned()), "{changes:?}");
        let old = config(&FILE.replacen(off.0, off.1, 1).replacen(port.0, port.1, 1));
        let new = |keys: &str| {
            let text = FILE.replacen(off.0, off.1, 1).replacen(port.0, port.1, 1);
            config(&text.replacen(server, &to(keys), 1))
        };
        let gre = "tunnel_type = \"gre\"\ntunnel_checksum = \"csum\"\n";
        let gue = "tunnel_type = \"gue\"\ntunnel_port = 6080\n";
        for (from, to, words) in [
            (old, new(""), "tunnel, ipip, nocsum"),
            (new(""), new(gre), "tunnel, gre, csum"),
            (new(gre), new(gue), "tunnel, gue, port 6080, nocsum"),
        ] {
            let changes = from.reload(to).unwrap().changes;
            let expected =
                format!("service 10.0.0.254:8080: real server 192.168.7.2:8080 by {words}");
            assert_eq!(changes, [expected]);
        }
    }

    #[test]
    fn what_needs_a_new_start_is_refused() {
        for (from, to, message) in [
            ("\"eth1\"", "\"eth2\"", "t.toml:1: interfaces has changed"),
            ("4096", "8192", "t.toml: max_sessions has changed"),
            (
                "max_",
                "max_persistence_templates = 9\nmax_",
                "t.toml: max_persistence_templates has changed",
            ),
            ("7.103\"", "7.104\"", "t.toml:4: [[local_addresses]] has changed"),
            ("max_", "manage_addresses = false\nmax_", "t.toml: manage_addresses has changed"),
            ("[[local", "[synproxy]\nwscale = 3\n[[local", "t.toml: [synproxy] wscale has changed"),
            ("[[local", "[api]\nsocket = \"/x\"\n[[local", "t.toml: [api] has changed"),
        ] {
            let errors = reload(&[(from, to)]).unwrap_err();
            assert!(errors.contains(message), "{errors}\nlacks {message}");
            assert!(errors.contains(super::RESTART), "{errors}");
        }
    }

    /// A difference says all of it, whether or not a reload can bring it about.
    #[test]
    fn what_differs_is_said_beside_what_needs_a_new_start() {
        let text = FILE.replacen("4096", "8192", 1).replacen("weight = 1", "weight = 5", 1);
        let text = text.replacen("\"eth1\"", "\"eth2\"", 1);
        let difference = config(FILE).difference(&config(&text));
        let weight = "service 10.0.0.254:80: real server 192.168.7.2:8080 has weight 5";
        assert_eq!(difference.changes, [weight]);
        let restart: Vec<_> = difference.restart.iter().map(|error| &error.message[..]).collect();
        assert_eq!(restart, ["max_sessions has changed", "interfaces has changed"]);
        let refused = difference.at_run_time().unwrap_err();
        assert_eq!(refused.errors().len(), 2);
        assert_eq!(refused, config(FILE).reload(config(&text)).unwrap_err());
    }

    /// Every key of the sections that a reload changes is one that it says.
    #[test]
    fn a_change_of_any_setting_is_said() {
        let of = |section: &str, keys: &[(&str, &str)]| {
            for (key, value) in keys {
                let section = format!("[{section}]\n{key} = {value}\n[[local");
                let changes = reload(&[("[[local", &section)]).unwrap().changes;
                assert_eq!(changes.len(), 1, "{key}");
                assert!(changes[0].contains(&format!(" {key} {value}, was ")), "{changes:?}");
            }
        };
        of(
            "synproxy",
            &[
                ("init_mss", "1400"),
                ("sack", "false"),
                ("timestamp", "false"),
                ("synack_ttl", "63"),
                ("syn_retry", "2"),
                ("ack_store", "15"),
                ("ack_store_bytes", "20000"),
                ("ack_store_total_bytes", "1000000"),
                ("conn_reuse", "false"),
                ("conn_reuse_close", "false"),
                ("conn_reuse_time_wait", "false"),
                ("conn_reuse_fin_wait", "false"),
                ("conn_reuse_close_wait", "false"),
                ("conn_reuse_last_ack", "false"),
                ("ack_storm_thresh", "11"),
            ],
        );
        let timeouts = ["established", "syn_sent", "syn_recv", "fin_wait", "time_wait", "close"];
        let timeouts = timeouts.into_iter().chain(["close_wait", "last_ack", "udp"]);
        of("timeouts", &timeouts.map(|key| (key, "77")).collect::<Vec<_>>());
        of(
            "policy",
            &[
                ("defence_udp_drop", "false"),
                ("defence_ip_frag_drop", "false"),
                ("conn_expire_tcp_rst", "false"),
                ("expire_nodest_conn", "true"),
                ("expire_quiescent_template", "true"),
            ],
        );
        let pool = "[ipvs]\nsocket = \"/i\"\nlocal_addresses = \"default\"\n[[local";
        let none = "[ipvs]\nsocket = \"/i\"\n[[local";
        let [none, pool] = [none, pool].map(|to| config(&FILE.replacen("[[local", to, 1)));
        let changes = none.reload(pool).unwrap().changes;
        assert_eq!(changes, ["[ipvs] local_addresses default, was none"]);
    }
}
