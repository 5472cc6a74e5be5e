//! The file format as a whole: SPEC's example, every error with its line, and mutations.

use proptest::prelude::*;

use super::*;

/// SPEC, "Interface that tests rely on", verbatim.
const SPEC_EXAMPLE: &str = r#"interfaces = ["eth0", "eth1"]          # XDP on each; one is enough (one-armed)
max_sessions = 1048576

[api]
socket = "/run/seawall/api.sock"       # JSON over HTTP
metrics = "127.0.0.1:9380"             # Prometheus at /metrics

[ipvs]
socket = "/run/seawall/ipvs.sock"      # IPVS generic netlink; SEAWALL_IPVS_SOCKET names it to libipvs_preload.so

[synproxy]                             # names and defaults follow LVS's sysctls where LVS has one
init_mss = 1452
sack = true
wscale = 7
timestamp = true

[[local_addresses]]
name = "default"
addresses = ["192.168.7.100-192.168.7.103"]   # IPv4 and IPv6 may be mixed; a session takes one that the route to its RS leaves by

[[service]]
address = "10.0.0.254:80"              # or "[2001:db8::1]:443"
protocol = "tcp"
scheduler = "wrr"
synproxy = "on"                        # off | on
defer = false
local_addresses = "default"

[[service.real_server]]
address = "192.168.7.2:8080"
forwarding = "fullnat"                 # nat | fullnat | dr | tunnel
weight = 1
"#;

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse("t.toml", text)
}

#[test]
fn spec_example() {
    let config = parse(SPEC_EXAMPLE).unwrap();
    let names: Vec<_> =
        config.interfaces.iter().map(|name| (name.value.as_str(), name.line)).collect();
    assert_eq!(names, [("eth0", 1), ("eth1", 1)]);
    let service = &config.services[0];
    assert_eq!((service.address, service.line), ("10.0.0.254:80".parse().unwrap(), 21));
    assert!(service.synproxy && !service.defer);
    assert_eq!((service.protocol, service.scheduler), (Protocol::Tcp, Scheduler::Wrr));
    let server = RealServerConfig {
        address: "192.168.7.2:8080".parse().unwrap(),
        forwarding: Forwarding::FullNat,
        tunnel: None,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        line: 29,
    };
    assert_eq!(service.real_servers, [server]);
    let pool = config.pool("default").unwrap();
    assert_eq!(pool.addresses[0].value.count(), 4);
    assert_eq!((pool.port_min, pool.port_max, pool.line), (5000, 65535, 17));
    assert_eq!(
        config.not_yet_served(),
        ["[api] metrics: this version serves no Prometheus metrics; nothing listens on \
             127.0.0.1:9380",]
    );
}

#[test]
fn defaults() {
    let config = parse("interfaces = [\"eth0\"]").unwrap();
    assert_eq!(config.max_sessions, 1 << 20);
    assert_eq!(config.max_persistence_templates, 1 << 18);
    assert!(config.manage_addresses);
    assert_eq!(config.api.socket, PathBuf::from("/run/seawall/api.sock"));
    let synproxy = SynproxyConfig {
        init_mss: 1452,
        sack: true,
        wscale: 7,
        timestamp: true,
        synack_ttl: 64,
        syn_retry: 3,
        ack_store: 16,
        ack_store_bytes: 24_576,
        ack_store_total_bytes: 67_108_864,
        conn_reuse: true,
        conn_reuse_close: true,
        conn_reuse_time_wait: true,
        conn_reuse_fin_wait: true,
        conn_reuse_close_wait: true,
        conn_reuse_last_ack: true,
        ack_storm_thresh: 10,
        secret_file: None,
    };
    assert_eq!(config.synproxy, synproxy);
    let seconds = Duration::from_secs;
    let timeouts = TimeoutsConfig {
        established: seconds(900),
        syn_sent: seconds(120),
        syn_recv: seconds(60),
        fin_wait: seconds(120),
        time_wait: seconds(10),
        close: seconds(10),
        close_wait: seconds(60),
        last_ack: seconds(30),
        udp: seconds(300),
    };
    assert_eq!(config.timeouts, timeouts);
    let policy = PolicyConfig {
        defence_udp_drop: true,
        defence_ip_frag_drop: true,
        conn_expire_tcp_rst: true,
        expire_nodest_conn: false,
        expire_quiescent_template: false,
    };
    assert_eq!(config.policy, policy);
    assert!(config.not_yet_served().is_empty());
}

#[test]
fn optional_parts_of_a_service() {
    let config = parse(
        "interfaces = [\"eth0\"]\n[[service]]\naddress = \"10.0.0.1:80\"\nprotocol = \"tcp\"\n\
         [[service.real_server]]\naddress = \"10.1.0.1:80\"\nforwarding = \"nat\"\nweight = 0\n",
    )
    .unwrap();
    let service = &config.services[0];
    assert!(!service.synproxy && !service.defer && service.local_addresses.is_none());
    assert_eq!((service.persistent, service.real_servers[0].upper_threshold), (None, 0));
    assert_eq!((service.scheduler, service.real_servers[0].weight), (Scheduler::Wrr, 0));
}

#[test]
fn persistence_and_thresholds() {
    let persistent = |address: &str, keys: &str| {
        let text = format!(
            "interfaces = [\"eth0\"]\n[[service]]\naddress = \"{address}\"\nprotocol = \"tcp\"\n{keys}\n"
        );
        parse(&text).unwrap_or_else(|errors| panic!("{errors}")).services[0].persistent
    };
    let mask = |mask: &str| Netmask::V4(mask.parse().unwrap());
    let expected = |timeout, netmask| Some(PersistenceConfig { timeout, netmask });
    let all = mask("255.255.255.255");
    assert_eq!(persistent("10.0.0.1:80", "persistent = true"), expected(360, all));
    assert_eq!(persistent("10.0.0.1:80", "persistent = false"), None);
    assert_eq!(persistent("10.0.0.1:0", "persistent = 2678400"), expected(2_678_400, all));
    let given = persistent("10.0.0.1:80", "persistent = 9\nnetmask = \"255.255.0.0\"");
    assert_eq!(given, expected(9, mask("255.255.0.0")));
    assert_eq!(given.unwrap().to_string(), "9 mask 255.255.0.0");
    assert_eq!(
        persistent("10.0.0.1:80", "persistent = 9\nnetmask = 24"),
        expected(9, mask("255.255.255.0"))
    );
    let given = persistent("[2001:db8::1]:80", "persistent = 9\nnetmask = 64");
    assert_eq!(given, expected(9, Netmask::V6(64)));
    assert_eq!(
        persistent("[2001:db8::1]:0", "persistent = 9").unwrap().to_string(),
        "9",
        "all of the address"
    );
    let text = SPEC_EXAMPLE.to_owned() + "upper_threshold = 4294967295\nlower_threshold = 7\n";
    let server = parse(&text).unwrap().services[0].real_servers[0].clone();
    assert_eq!((server.upper_threshold, server.lower_threshold), (u32::MAX, 7));
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    let error = Config::load(&missing).unwrap_err().to_string();
    let expected = format!("{}: cannot be read: ", missing.display());
    assert!(error.starts_with(&expected) && error.contains("--config FILE"), "{error}");

    let path = dir.path().join("bad.toml");
    std::fs::write(&path, b"interfaces = [\"a\"]\n\n\xff").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.ends_with("bad.toml:3: is not UTF-8 text; expected a TOML file in UTF-8"));

    std::fs::write(&path, SPEC_EXAMPLE).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.file, path.display().to_string());
    let error = config.error_at(1, "no interface eth0", "expected one of: lo").to_string();
    assert_eq!(error, format!("{}:1: no interface eth0; expected one of: lo", config.file));
}

proptest! {
    /// A file with a few bytes replaced, inserted or removed is accepted or refused, each problem
    /// on one line that names a line of the file.
    #[test]
    fn mutations_never_panic(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..4, "\\PC{0,6}|[\\[\\]\"=\n.#0-9-]{0,4}"),
            1..6,
        ),
    ) {
        let mut text: Vec<char> = SPEC_EXAMPLE.chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.errors().is_empty());
            for error in errors.errors() {
                let line = error.line.unwrap_or(0);
                prop_assert!((1..=text.matches('\n').count() + 1).contains(&line), "{}", error);
                prop_assert!(!error.to_string().contains('\n'), "{:?}", error);
            }
        }
    }

    /// Values of any kind in the place of a valid one.
    #[test]
    fn foreign_values_never_panic(
        line in 0_usize..34,
        value in prop_oneof![
            Just("1979-05-27T07:32:00Z"), Just("nan"), Just("-inf"), Just("{}"), Just("[[]]"),
            Just("0xffffffffffffffff"), Just("[{a.b = 1}]"), Just("\"\\u0000\""), Just("\"\""),
            Just("'255.255.255.255:65535'"), Just("['0.0.0.0-255.255.255.255']"),
            Just("['::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff']"), Just("'[fe80::1%9]:1'"),
        ],
    ) {
        let edited: Vec<String> = SPEC_EXAMPLE
            .lines()
            .enumerate()
            .map(|(i, text)| match text.split_once(" = ") {
                Some((key, _)) if i == line => format!("{key} = {value}"),
                _ => text.to_owned(),
            })
            .collect();
        let _ = parse(&edited.join("\n"));
    }
}

/// The same address and port may be of both protocols; each takes what is its own.
#[test]
fn services_of_udp() {
    let config = parse(
        "interfaces = [\"eth0\"]\n[timeouts]\nudp = 60\n\
         [[service]]\naddress = \"10.0.0.1:53\"\nprotocol = \"udp\"\nops = true\nudp_timeout = 5\n\
         [[service]]\naddress = \"10.0.0.1:53\"\nprotocol = \"tcp\"\nestablished_timeout = 7\n",
    )
    .unwrap();
    assert_eq!(config.timeouts.udp, Duration::from_secs(60));
    let [udp, tcp] = &config.services[..] else { panic!("two services") };
    assert_eq!((udp.protocol, udp.ops), (Protocol::Udp, true));
    assert_eq!((tcp.protocol, tcp.ops), (Protocol::Tcp, false));
    let seconds = |timeout: &Option<Located<Duration>>| timeout.as_ref().map(|t| t.value.as_secs());
    assert_eq!((seconds(&udp.udp_timeout), seconds(&udp.established_timeout)), (Some(5), None));
    assert_eq!((seconds(&tcp.udp_timeout), seconds(&tcp.established_timeout)), (None, Some(7)));
}
