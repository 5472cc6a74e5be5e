//! What a changed file means for a daemon that runs (SPEC D1).
//!
//! Some of what a file says can change under traffic, the rest only with a new start. Nothing is
//! applied unless everything that differs can be.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Config, ConfigError, ConfigErrors, Protocol, RealServerConfig, ServiceConfig};

const RESTART: &str = "restart the daemon to change it, or undo the change";

/// A configuration that can take the place of another one while it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The new configuration, its services and real servers in the old one's order.
    pub config: Config,
    /// What it changes, a line each; empty when nothing.
    pub changes: Vec<String>,
}

impl Config {
    /// How `new` can take this configuration's place at run time.
    ///
    /// `[timeouts]`, `[policy]`, `[synproxy]` but for `wscale` and `secret_file`, `synproxy` and
    /// `defer` of services and `weight` of real servers may differ, and the order of services and of
    /// a service's real servers.
    ///
    /// # Errors
    /// Everything else that differs, with the line in the new file where it has one.
    pub fn reload(&self, new: Self) -> Result<Reload, ConfigErrors> {
        let mut difference = Difference { new: &new, errors: Vec::new(), changes: Vec::new() };
        difference.of_the_whole(self);
        difference.of_the_settings(self);
        let services = difference.of_the_services(self);
        let Difference { errors, changes, .. } = difference;
        if errors.is_empty() {
            Ok(Reload { config: Self { services, ..new }, changes })
        } else {
            Err(ConfigErrors::sorted(errors))
        }
    }
}

struct Difference<'a> {
    new: &'a Config,
    errors: Vec<ConfigError>,
    changes: Vec<String>,
}

impl Difference<'_> {
    fn refuse(&mut self, line: Option<usize>, message: impl Into<String>) {
        let (file, remedy) = (self.new.file.clone(), RESTART.to_owned());
        self.errors.push(ConfigError { file, line, message: message.into(), remedy });
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
        for (differs, what) in [
            (names(old) != names(new), "interfaces"),
            (old.max_sessions != new.max_sessions, "max_sessions"),
            (old.manage_addresses != new.manage_addresses, "manage_addresses"),
            (old.api != new.api, "[api]"),
            (ipvs(old) != ipvs(new), "[ipvs]"),
            (old.synproxy.wscale != new.synproxy.wscale, "[synproxy] wscale"),
            (secret(old) != secret(new), "[synproxy] secret_file"),
            (pools(old) != pools(new), "[[local_addresses]]"),
        ] {
            if differs {
                self.refuse(None, format!("{what} has changed"));
            }
        }
    }

    fn of_the_settings(&mut self, old: &Config) {
        let new = self.new;
        let synproxy = super::SynproxyConfig {
            // The same file on another line is no change.
            secret_file: old.synproxy.secret_file.clone(),
            ..new.synproxy.clone()
        };
        for (differs, what) in [
            (old.synproxy != synproxy, "[synproxy]"),
            (old.timeouts != new.timeouts, "[timeouts]"),
            (old.policy != new.policy, "[policy]"),
        ] {
            if differs {
                self.changes.push(format!("{what} has changed"));
            }
        }
    }

    /// The new services in the old order.
    fn of_the_services(&mut self, old: &Config) -> Vec<ServiceConfig> {
        let new = self.new;
        let mut wanted: HashMap<(SocketAddr, Protocol), &ServiceConfig> =
            new.services.iter().map(|service| (key(service), service)).collect();
        let mut services = Vec::with_capacity(old.services.len());
        for before in &old.services {
            match wanted.remove(&key(before)) {
                Some(service) => services.push(self.of_a_service(before, service)),
                None => self.refuse(None, format!("service {} is gone", before.address)),
            }
        }
        for service in new.services.iter().filter(|service| wanted.contains_key(&key(service))) {
            self.refuse(Some(service.line), format!("service {} is new", service.address));
        }
        services
    }

    fn of_a_service(&mut self, old: &ServiceConfig, new: &ServiceConfig) -> ServiceConfig {
        let address = new.address;
        let on = |on: bool| if on { "on" } else { "off" };
        if old.synproxy != new.synproxy {
            self.changes.push(format!("service {address}: synproxy {}", on(new.synproxy)));
        }
        if old.defer != new.defer {
            self.changes.push(format!("service {address}: defer {}", on(new.defer)));
        }
        let pool = |service: &ServiceConfig| {
            service.local_addresses.as_ref().map(|name| name.value.clone())
        };
        for (differs, what) in [
            (old.scheduler != new.scheduler, "scheduler"),
            (old.scheduler_flags != new.scheduler_flags, "scheduler_flags"),
            (pool(old) != pool(new), "local_addresses"),
        ] {
            if differs {
                self.refuse(Some(new.line), format!("{what} of service {address} has changed"));
            }
        }
        let mut wanted: HashMap<SocketAddr, &RealServerConfig> =
            new.real_servers.iter().map(|server| (server.address, server)).collect();
        let mut real_servers = Vec::with_capacity(old.real_servers.len());
        for before in &old.real_servers {
            let real = before.address;
            let Some(server) = wanted.remove(&real) else {
                self.refuse(
                    Some(new.line),
                    format!("real server {real} of service {address} is gone"),
                );
                continue;
            };
            if before.forwarding != server.forwarding {
                self.refuse(
                    Some(server.line),
                    format!("forwarding of real server {real} has changed"),
                );
            }
            if before.weight != server.weight {
                let weight = server.weight;
                self.changes
                    .push(format!("service {address}: real server {real} has weight {weight}"));
            }
            real_servers.push(server.clone());
        }
        for server in new.real_servers.iter().filter(|new| wanted.contains_key(&new.address)) {
            self.refuse(Some(server.line), format!("real server {} is new", server.address));
        }
        ServiceConfig { real_servers, ..new.clone() }
    }
}

fn key(service: &ServiceConfig) -> (SocketAddr, Protocol) {
    (service.address, service.protocol)
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::Config;

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
        assert_eq!(reload.config.services[0].address.port(), 80, "the old order");
    }

    #[test]
    fn what_may_change_does_and_is_said() {
        let policy = "[policy]\ndefence_udp_drop = false\n[timeouts]\nclose = 3\n[[local";
        let reload = reload(&[
            ("[[local", policy),
            ("synproxy = \"off\"", "synproxy = \"on\"\ndefer = true"),
            ("synproxy = \"on\"", "synproxy = \"off\""),
            ("weight = 1", "weight = 5"),
        ])
        .unwrap();
        let expected = [
            "[timeouts] has changed",
            "[policy] has changed",
            "service 10.0.0.254:80: synproxy off",
            "service 10.0.0.254:80: real server 192.168.7.2:8080 has weight 5",
            "service 10.0.0.254:443: synproxy on",
            "service 10.0.0.254:443: defer on",
        ];
        assert_eq!(reload.changes, expected);
        let [first, second] = &reload.config.services[..] else { panic!("two services") };
        assert!(!first.synproxy && second.synproxy && second.defer);
        assert_eq!(first.real_servers[0].weight, 5);
        assert!(!reload.config.policy.defence_udp_drop);
    }

    #[test]
    fn what_needs_a_new_start_is_refused_with_its_line() {
        for (from, to, message) in [
            ("\"eth1\"", "\"eth2\"", "t.toml: interfaces has changed"),
            ("4096", "8192", "t.toml: max_sessions has changed"),
            ("7.103\"", "7.104\"", "t.toml: [[local_addresses]] has changed"),
            ("max_", "manage_addresses = false\nmax_", "t.toml: manage_addresses has changed"),
            ("[[local", "[synproxy]\nwscale = 3\n[[local", "t.toml: [synproxy] wscale has changed"),
            ("[[local", "[api]\nsocket = \"/x\"\n[[local", "t.toml: [api] has changed"),
            ("\"rr\"", "\"wrr\"", "t.toml:8: scheduler of service 10.0.0.254:80 has changed"),
            (":443", ":444", "t.toml: service 10.0.0.254:443 is gone"),
            (":443", ":444", "t.toml:25: service 10.0.0.254:444 is new"),
            (
                "7.3:",
                "7.4:",
                "t.toml:8: real server 192.168.7.3:8080 of service 10.0.0.254:80 is gone",
            ),
            ("7.3:", "7.4:", "t.toml:20: real server 192.168.7.4:8080 is new"),
            ("\"fullnat\"", "\"nat\"", "t.toml:15: forwarding of real server 192.168.7.2:8080"),
        ] {
            let errors = reload(&[(from, to)]).unwrap_err();
            assert!(errors.contains(message), "{errors}\nlacks {message}");
            assert!(errors.contains(super::RESTART), "{errors}");
        }
    }
}
