//! Every error of the file format: its line, what it says, and that nothing else is reported.

use super::tests::parse;
use super::*;

/// The problems of `text`, one a line.
fn errors(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("accepted: {config:#?}"),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// A file of one interface and what `rest` adds from line 2 on.
fn with(rest: &str) -> String {
    format!("interfaces = [\"eth0\"]\n{rest}")
}

#[test]
fn errors_of_single_values() {
    let cases = [
        ("interfaces = []", "1: interfaces is empty; expected the interfaces to attach to"),
        ("max_sessions = 2000", "1: interfaces is missing; expected the interfaces"),
        ("interfaces = \"eth0\"", "1: interfaces is \"eth0\"; expected the interfaces"),
        ("interfaces = [\n\"eth0\",\n7]", "3: interfaces holds 7; expected the interfaces"),
        ("interfaces = [\n\"a\",\n\"a\"]", "3: interface \"a\" is listed twice; expected each"),
        ("interfaces = [\"abcdefghijklmnop\"]", "1: interfaces holds \"abcdefghijklmnop\", no"),
        ("interfaces = [\"a b\"]", "1: interfaces holds \"a b\", no interface name; expected 1 to"),
        ("", "1: the file configures nothing; expected at least the interfaces"),
        ("# a comment", "1: the file configures nothing; expected"),
    ];
    for (text, expected) in cases {
        assert_first(text, expected);
    }
    let cases = [
        ("max_sessions = 1000", "2: max_sessions is 1000; expected an integer 1024 to 16777216"),
        ("max_sessions = -1", "2: max_sessions is -1; expected an integer 1024"),
        ("max_sessions = 1e6", "2: max_sessions is 1e6; expected an integer 1024"),
        ("max_sessions = 99999999999999999999999", "2: max_sessions is 99999999999999999999999; "),
        ("manage_addresses = 1", "2: manage_addresses is 1; expected true or false"),
        (
            "max_session = 2000",
            "2: unknown key `max_session` at the top level; did you mean `max_sessions`?",
        ),
        ("colour = 1", "2: unknown key `colour` at the top level; expected one of: interfaces, "),
        ("api = 1", "2: api is 1; expected a table, [api]"),
        (
            "[api]\nsocket = \"api.sock\"",
            "3: [api] socket is \"api.sock\"; expected an absolute path",
        ),
        ("[api]\nsocket = \"/\"", "3: [api] socket is \"/\"; expected an absolute path"),
        ("[api]\nmetrics = \"9380\"", "3: [api] metrics is \"9380\"; expected \"IP:PORT\""),
        ("[api]\nsockt = \"/a\"", "3: unknown key `sockt` in [api]; did you mean `socket`?"),
        (
            "[ipvs]\nlocal_addresses = \"nonesuch\"",
            "3: no [[local_addresses]] is named \"nonesuch\"; expected a [[local_addresses]] of that",
        ),
        (
            "[ipvs]\nsocket = \"/run/seawall/api.sock\"",
            "3: [api] and [ipvs] share the socket /run/seawall/api.sock; expected two",
        ),
        (
            "[synproxy]\ninit_mss = 535",
            "3: [synproxy] init_mss is 535; expected an integer 536 to 65495",
        ),
        ("[synproxy]\nwscale = 15", "3: [synproxy] wscale is 15; expected an integer 0 to 14"),
        (
            "[synproxy]\nsynack_ttl = 0",
            "3: [synproxy] synack_ttl is 0; expected an integer 1 to 255",
        ),
        ("[synproxy]\nsyn_retry = 7", "3: [synproxy] syn_retry is 7; expected an integer 0 to 6"),
        (
            "[synproxy]\nack_store = 65",
            "3: [synproxy] ack_store is 65; expected an integer 1 to 64",
        ),
        (
            "[synproxy]\nack_store_bytes = 9000\nack_store_total_bytes = 8000",
            "2: [synproxy] ack_store_total_bytes, 8000, is less than ack_store_bytes, 9000; expected room",
        ),
        ("[synproxy]\nsack = \"on\"", "3: [synproxy] sack is \"on\"; expected true or false"),
        (
            "[timeouts]\nestablished = 0",
            "3: [timeouts] established is 0; expected an integer 1 to 604800",
        ),
        (
            "[timeouts]\nestablised = 9",
            "3: unknown key `establised` in [timeouts]; did you mean `established`?",
        ),
        (
            "[synproxy]\nack_storm_thresh = 65536",
            "3: [synproxy] ack_storm_thresh is 65536; expected an integer 0 to 65535",
        ),
        (
            "[synproxy]\nsecret_file = \"secret\"",
            "3: [synproxy] secret_file is \"secret\"; expected an absolute path, as in \"/etc/",
        ),
        (
            "[synproxy]\nsecret_file = 7",
            "3: [synproxy] secret_file is 7; expected an absolute path, as in \"/etc/seawall/secret\"",
        ),
        (
            "[policy]\ndefence-udp-drop = true",
            "3: unknown key `defence-udp-drop` in [policy]; did you mean `defence_udp_drop`?",
        ),
        ("x = [", "2: not valid TOML: "),
        (
            "max_sessions = 2000\nmax_sessions = 3000",
            "3: not valid TOML: duplicate key at \"max_sessions\"; expected each key and each [table] once",
        ),
    ];
    for (rest, expected) in cases {
        assert_first(&with(rest), expected);
    }
}

#[track_caller]
fn assert_first(text: &str, expected: &str) {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{text:?}: {errors:#?}");
    let expected = format!("t.toml:{expected}");
    assert!(errors[0].starts_with(&expected), "{text:?}\n got {}\nwant {expected}", errors[0]);
}

/// A file with a pool on line 2, a service on line 5 and a real server on line 9 (10, 11), where
/// `from` is replaced by `to`.
fn edited(from: &str, to: &str) -> String {
    let base = with(
        "[[local_addresses]]\nname = \"p\"\naddresses = [\"10.1.0.100-10.1.0.103\"]\n\
         [[service]]\naddress = \"10.0.0.1:80\"\nprotocol = \"tcp\"\nlocal_addresses = \"p\"\n\
         [[service.real_server]]\naddress = \"10.1.0.1:80\"\nforwarding = \"fullnat\"\n",
    );
    assert!(parse(&base).is_ok());
    assert!(base.contains(from), "{from:?} is not in the file");
    base.replacen(from, to, 1)
}

#[test]
fn errors_of_services_and_pools() {
    let service = "[[service]]\naddress = \"10.0.0.1:80\"\nprotocol = \"tcp\"\n";
    let again = format!("forwarding = \"fullnat\"\n{service}");
    let other_pool = "[[local_addresses]]\nname = \"q\"\naddresses = [\"10.1.0.103\"]\n[[service]]";
    let same_name = "[[local_addresses]]\nname = \"p\"\naddresses = [\"10.9.0.1\"]\n[[service]]";
    let twice = "forwarding = \"fullnat\"\n\
         [[service.real_server]]\naddress = \"10.1.0.1:80\"\nforwarding = \"nat\"";
    let fullnat = "forwarding = \"fullnat\"";
    let cases = [
        (
            "10.0.0.1:80",
            "10.0.0.1",
            "6: [[service]] address is \"10.0.0.1\", without a port; expected \"IP:PORT\"",
        ),
        (
            "10.0.0.1:80",
            "10.0.0.1:0",
            "5: service 10.0.0.1:0 has port 0, which is only for persistent services; expected a port, or",
        ),
        (
            "address = \"10.0.0.1:80\"",
            "address = \"10.0.0.1:0\"\npersistent = true",
            "10: real server 10.1.0.1:80 has a port, but service 10.0.0.1:0 (line 5) has port 0; expected",
        ),
        ("10.1.0.1:80", "10.1.0.1:0", "9: real server 10.1.0.1:0 has port 0; expected a port"),
        (
            "\"tcp\"",
            "\"tcp\"\npersistent = 0",
            "8: [[service]] persistent is 0; expected true (for 360 s), false, or an integer 1 to 2678400",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\npersistent = 9\nnetmask = \"24\"",
            "9: [[service]] netmask is \"24\"; expected a netmask such as \"255.255.255.0\", or a prefix",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\npersistent = 9\nnetmask = 33",
            "9: [[service]] netmask is 33; expected a netmask such as",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nnetmask = 24",
            "8: [[service]] netmask has no effect; expected \"persistent\" too",
        ),
        (
            fullnat,
            "forwarding = \"fullnat\"\nupper_threshold = 5\nlower_threshold = 6",
            "9: real server 10.1.0.1:80 has lower_threshold 6, above its upper_threshold 5; expected",
        ),
        (
            "10.0.0.1:80",
            "www:80",
            "6: [[service]] address is \"www:80\"; expected \"IP:PORT\", as in",
        ),
        ("10.0.0.1:80", "0.0.0.0:80", "5: service address 0.0.0.0 is no address of a host"),
        (
            "10.0.0.1:80",
            "224.0.0.5:80",
            "5: service address 224.0.0.5 is a multicast address; expected a unicast",
        ),
        (
            "10.0.0.1:80",
            "255.255.255.255:80",
            "5: service address 255.255.255.255 is the broadcast address; expected",
        ),
        ("10.0.0.1:80", "127.0.0.1:80", "5: service address 127.0.0.1 is a loopback address"),
        (
            "10.0.0.1:80",
            "10.1.0.101:80",
            "4: pool \"p\" holds 10.1.0.101, the service address on line 5; expected local",
        ),
        (
            "10.0.0.1:80",
            "[2001:db8::1]:80",
            "9: real server 10.1.0.1:80 is IPv4, but service [2001:db8::1]:80 (line 5) is IPv6, and \"fullnat\" cannot cross families; expected an IPv6 address",
        ),
        (
            "10.1.0.1:80",
            "[2001:db8::1]:80",
            "9: real server [2001:db8::1]:80 is IPv6, but service 10.0.0.1:80 (line 5) is IPv4, and",
        ),
        (
            "10.0.0.1:80",
            "[2001:db8::1]",
            "6: [[service]] address is \"[2001:db8::1]\"; expected \"IP:PORT\"",
        ),
        (
            "10.0.0.1:80",
            "[2001:db8::1%2]:80",
            "6: [[service]] address is \"[2001:db8::1%2]:80\", and only link-local addresses have",
        ),
        (
            "address = \"10.0.0.1:80\"\n",
            "",
            "5: [[service]] address is missing; expected \"IP:PORT\"",
        ),
        (
            "protocol = \"tcp\"\n",
            "",
            "5: [[service]] protocol is missing; expected \"tcp\" or \"udp\"",
        ),
        (
            "\"tcp\"",
            "\"sctp\"",
            "7: [[service]] protocol is \"sctp\"; expected \"tcp\" or \"udp\": SCTP, whose ends",
        ),
        ("\"tcp\"", "\"icmp\"", "7: [[service]] protocol is \"icmp\"; expected \"tcp\" or \"udp\""),
        (
            "protocol = \"tcp\"\n",
            "protocol = \"tcp\"\nfwmark = 7\n",
            "8: [[service]] fwmark is 7; expected none: marks are netfilter's",
        ),
        (
            "\"tcp\"",
            "\"udp\"\nsynproxy = \"on\"",
            "5: service 10.0.0.1:80/udp has synproxy; expected synproxy = \"off\": UDP has no handshake",
        ),
        (
            "\"tcp\"",
            "\"udp\"\ndefer = true",
            "5: service 10.0.0.1:80/udp has defer; expected it on \"tcp\" only",
        ),
        (
            "\"tcp\"",
            "\"udp\"\nestablished_timeout = 9",
            "8: service 10.0.0.1:80/udp has established_timeout; expected udp_timeout instead",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nudp_timeout = 9",
            "8: service 10.0.0.1:80/tcp has udp_timeout; expected established_timeout instead",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nops = true",
            "5: service 10.0.0.1:80/tcp has ops; expected it on \"udp\" only",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nestablished_timeout = 0",
            "8: [[service]] established_timeout is 0; expected an integer 1 to 604800",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nscheduler_flags = [\"sh-port\"]",
            "8: [[service]] scheduler_flags holds \"sh-port\"; expected no flags, for scheduler \"wrr\"",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nscheduler = \"mh\"\nscheduler_flags = [\"mh-port\",\n\"sh-port\"]",
            "10: [[service]] scheduler_flags holds \"sh-port\"; expected a list of \"mh-fallback\" and",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nscheduler = \"sh\"\nscheduler_flags = [\"sh-port\", \"sh-port\"]",
            "9: [[service]] scheduler_flags holds \"sh-port\" twice; expected each flag once",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nscheduler = \"sh\"\nscheduler_flags = \"sh-port\"",
            "9: [[service]] scheduler_flags is \"sh-port\"; expected a list of \"sh-fallback\" and",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nscheduler = \"best\"",
            "8: [[service]] scheduler is \"best\"; expected one of \"rr\", \"wrr\", \"lc\"",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nsynproxy = true",
            "8: [[service]] synproxy is true; expected \"on\" or \"off\"",
        ),
        (
            "\"tcp\"",
            "\"tcp\"\nsynprox = \"on\"",
            "8: unknown key `synprox` in [[service]]; did you mean `synproxy`?",
        ),
        (
            "local_addresses = \"p\"\n",
            "",
            "8: real server 10.1.0.1:80 is \"fullnat\", but service 10.0.0.1:80 (line 5) has no local addresses; expected local_addresses = ",
        ),
        (
            "local_addresses = \"p\"\n",
            "local_addresses = \"x\"\n",
            "8: no [[local_addresses]] is named \"x\"; expected one of: \"p\"",
        ),
        (
            "10.1.0.1:80",
            "10.0.0.1:81",
            "9: real server 10.0.0.1:81 has the address of the service on line 5; expected another host",
        ),
        (
            "10.1.0.1:80",
            "10.1.0.100:80",
            "4: pool \"p\" holds 10.1.0.100, the real server on line 9; expected",
        ),
        (
            "10.1.0.1:80",
            "239.1.1.1:80",
            "9: real server 239.1.1.1 is a multicast address; expected",
        ),
        (
            "forwarding = \"fullnat\"\n",
            "",
            "9: [[service.real_server]] forwarding is missing; expected one of \"nat\"",
        ),
        (
            fullnat,
            "forwarding = \"masq\"",
            "11: [[service.real_server]] forwarding is \"masq\"; expected one of \"nat\"",
        ),
        (
            fullnat,
            "forwarding = \"nat\"\ntunnel_type = \"gre\"",
            "9: a real server has forwarding \"nat\" and tunnel_ keys; expected them with",
        ),
        (
            fullnat,
            "forwarding = \"tunnel\"\ntunnel_type = \"vxlan\"",
            "12: [[service.real_server]] tunnel_type is \"vxlan\"; expected one of \"ipip\"",
        ),
        (
            fullnat,
            "forwarding = \"tunnel\"\ntunnel_type = \"gue\"",
            "9: a real server has tunnel_type \"gue\" without tunnel_port; expected the UDP port",
        ),
        (
            fullnat,
            "forwarding = \"tunnel\"\ntunnel_port = 6080",
            "9: a real server has tunnel_type \"ipip\" and a tunnel_port; expected tunnel_port with",
        ),
        (
            fullnat,
            "forwarding = \"tunnel\"\ntunnel_checksum = \"csum\"",
            "9: real server 10.1.0.1:80 has tunnel_checksum \"csum\"; IPIP has no checksum",
        ),
        (
            fullnat,
            "forwarding = \"tunnel\"\ntunnel_type = \"gre\"\ntunnel_checksum = \"remcsum\"",
            "9: real server 10.1.0.1:80 has tunnel_checksum \"remcsum\"; it is for packets whose",
        ),
        (
            "\"fullnat\"\n",
            "\"nat\"\nweight = 65536\n",
            "12: [[service.real_server]] weight is 65536; expected an integer 0 to 65535",
        ),
        (
            fullnat,
            twice,
            "12: real server 10.1.0.1:80 is listed twice in service 10.0.0.1:80, first on line 9; expected",
        ),
        (
            fullnat,
            &again,
            "12: service 10.0.0.1:80/tcp is defined twice, first on line 5; expected one [[service]]",
        ),
        ("name = \"p\"\n", "", "2: [[local_addresses]] name is missing; expected a name"),
        (
            "[\"10.1.0.100-10.1.0.103\"]",
            "[]",
            "4: [[local_addresses]] addresses is empty; expected a list",
        ),
        (
            "10.1.0.100-10.1.0.103",
            "10.1.0.0/24",
            "4: [[local_addresses]] addresses holds \"10.1.0.0/24\": a prefix is not a range; expected its first",
        ),
        (
            "10.1.0.100-10.1.0.103",
            "10.1.0.9-10.1.0.3",
            "4: [[local_addresses]] addresses holds \"10.1.0.9-10.1.0.3\": its last",
        ),
        (
            "10.1.0.100-10.1.0.103",
            "10.2.0.0-10.3.0.0",
            "4: with this range the pools hold more than 65536 addresses; expected fewer",
        ),
        (
            "10.1.0.100-10.1.0.103",
            "0.0.0.0-0.0.0.9",
            "4: local address 0.0.0.0 is no address of a host",
        ),
        (
            "[[service]]",
            "port_min = 1024\n[[service]]",
            "5: [[local_addresses]] port_min is 1024; expected an integer 1025 to 65535",
        ),
        (
            "[[service]]",
            "port_min = 6000\nport_max = 5999\n[[service]]",
            "2: [[local_addresses]] port_min 6000 is above port_max 5999; expected",
        ),
        (
            "[[service]]",
            other_pool,
            "7: local addresses 10.1.0.103 of pool \"q\" overlap 10.1.0.100-10.1.0.103 of pool \"p\" on line 4; expected",
        ),
        ("[[service]]", same_name, "5: pool \"p\" is defined twice, first on line 2; expected one"),
    ];
    for (from, to, expected) in cases {
        let mut text = edited(from, to);
        if expected.starts_with("2: [[local_addresses]] name") {
            text = text.replace("local_addresses = \"p\"\n", "").replace("\"fullnat\"", "\"nat\"");
        }
        assert_first(&text, expected);
    }
}

#[test]
fn direct_routing_with_the_proxy_says_why_not() {
    let text = edited("\"tcp\"", "\"tcp\"\nsynproxy = \"on\"").replace("fullnat", "tunnel");
    assert_first(&text, "10: real server 10.1.0.1:80 has forwarding \"tunnel\"; synproxy cannot");
}

#[test]
fn dr_and_tunnels_leave_the_port_and_only_tunnels_cross_families() {
    for forwarding in ["dr", "tunnel"] {
        let text = edited("10.1.0.1:80", "10.1.0.1:81").replace("fullnat", forwarding);
        assert_first(
            &text,
            &format!(
                "9: real server 10.1.0.1:81 has another port than service 10.0.0.1:80 (line 5), and \
                 \"{forwarding}\" leaves packets as they are; expected port 80"
            ),
        );
    }
    let across = edited("10.1.0.1:80", "[2001:db8::1]:80");
    assert_first(
        &across.replace("fullnat", "dr"),
        "9: real server [2001:db8::1]:80 is IPv6, but service 10.0.0.1:80 (line 5) is IPv4, and \
         \"dr\" cannot cross families",
    );
    super::tests::parse(&across.replace("fullnat", "tunnel")).unwrap();
}

/// As by ipvsadm's `-a -u`, with `-g` and `-i` too.
#[test]
fn datagrams_go_by_every_way() {
    for forwarding in ["nat", "fullnat", "dr", "tunnel"] {
        let text =
            edited("\"tcp\"", "\"udp\"").replace("\"fullnat\"", &format!("\"{forwarding}\""));
        super::tests::parse(&text).unwrap_or_else(|error| panic!("{forwarding}: {error}"));
    }
}

#[test]
fn real_servers_that_get_packets_as_they_are_are_told_of_no_client() {
    for forwarding in ["dr", "tunnel"] {
        let text = edited("\"tcp\"", "\"tcp\"\ntoa = true").replace("fullnat", forwarding);
        assert_first(
            &text,
            &format!(
                "10: real server 10.1.0.1:80 has forwarding \"{forwarding}\", and service 10.0.0.1:80 \
                 (line 5), which has it too, has toa; by \"dr\" and \"tunnel\" it gets"
            ),
        );
        let other = text.replace("toa = true\n", "")
            + "\n[[service]]\naddress = \"10.0.0.1:90\"\n\
            protocol = \"tcp\"\ntoa = true\n[[service.real_server]]\naddress = \"10.1.0.1:99\"\n\
            forwarding = \"nat\"\n";
        assert_first(
            &other,
            &format!(
                "9: real server 10.1.0.1:80 has forwarding \"{forwarding}\", and service 10.0.0.1:90"
            ),
        );
        let proxied = "\"tcp\"\nsynproxy = \"on\"\nproxy_protocol = \"v2\"";
        let text = edited("\"tcp\"", proxied).replace("fullnat", forwarding);
        assert!(super::tests::parse(&text).is_err());
    }
}

#[test]
fn a_pool_must_have_an_address_of_the_real_servers_family() {
    let text = edited("10.1.0.100-10.1.0.103", "2001:db8::1");
    assert_first(
        &text,
        "9: pool \"p\" (line 2) has no IPv4 address for real server 10.1.0.1:80; exp",
    );
    let text = edited("10.0.0.1:80", "[2001:db8::1]:80").replace("10.1.0.1:80", "[2001:db8::2]:80");
    assert_first(
        &text,
        "9: pool \"p\" (line 2) has no IPv6 address for real server [2001:db8::2]:80;",
    );
    let both = text.replace("10.1.0.103\"", "10.1.0.103\", \"2001:db8::3-2001:db8::4\"");
    assert!(parse(&both).is_ok());
}

#[test]
fn nat_does_not_cross_families_either() {
    let text = edited("10.1.0.1:80", "[2001:db8::2]:80").replace("fullnat", "nat");
    assert_first(
        &text,
        "9: real server [2001:db8::2]:80 is IPv6, but service 10.0.0.1:80 (line 5)",
    );
}

#[test]
fn ipv6_addresses_that_no_wire_carries() {
    const MAPPED: &str = "an IPv4 address mapped into IPv6, which no packet on a wire may bear";
    const LINK: &str =
        "a link-local address, which routers do not forward and every link has again";
    let text = edited("10.1.0.100-10.1.0.103", "2001:db8::64-2001:db8::67")
        .replace("10.0.0.1:80", "[2001:db8::1]:80")
        .replace("10.1.0.1:80", "[2001:db8::2]:80");
    assert!(parse(&text).is_ok());
    for (address, why) in [
        ("::ffff:10.9.0.1", MAPPED),
        ("fe80::1", LINK),
        ("febf::1", LINK),
        ("::1", "a loopback address"),
        ("::", "no address of a host"),
        ("ff02::1", "a multicast address"),
    ] {
        let shown: std::net::IpAddr = address.parse().unwrap();
        for (from, to, what) in [
            ("[2001:db8::1]:80", format!("[{address}]:80"), "5: service address"),
            ("[2001:db8::2]:80", format!("[{address}]:80"), "9: real server"),
            ("2001:db8::64-2001:db8::67", address.to_owned(), "4: local address"),
        ] {
            assert_first(&text.replace(from, &to), &format!("{what} {shown} is {why}"));
        }
    }
    // With its zone, as tools print it, it is no better.
    let text = text.replace("[2001:db8::2]:80", "[fe80::2%3]:80");
    assert_first(&text, &format!("9: real server fe80::2 is {LINK}; expected a unicast"));
}

/// SPEC C7: what has no meaning is refused, with the reason.
#[test]
fn a_client_is_introduced_in_one_way_that_works() {
    let service = |keys: &str| with(&format!("[[service]]\naddress = \"10.0.0.1:80\"\n{keys}"));
    let (tcp, udp) = ("protocol = \"tcp\"\n", "protocol = \"udp\"\n");
    let proxied = format!("{tcp}synproxy = \"on\"\n");
    for (keys, expected) in [
        (
            format!("{proxied}toa = true\nproxy_protocol = \"v1\""),
            "has both toa and proxy_protocol; ",
        ),
        (format!("{udp}toa = true"), "has toa and protocol \"udp\"; TOA is an option of TCP"),
        (format!("{udp}proxy_protocol = \"v2\""), "has proxy_protocol and protocol \"udp\"; "),
        (
            format!("{tcp}proxy_protocol = \"v2\""),
            "has proxy_protocol without synproxy; the client",
        ),
    ] {
        let all = errors(&service(&keys)).join("\n");
        let expected = format!("t.toml:2: service 10.0.0.1:80 {expected}");
        assert!(all.contains(&expected), "{all}\nlacks {expected}");
    }
    let wrong = service(&format!("{proxied}proxy_protocol = \"v3\""));
    assert_first(&wrong, "6: [[service]] proxy_protocol is \"v3\"; expected \"v1\" or \"v2\"");
    for (keys, toa, version) in [
        ("toa = true", true, None),
        ("proxy_protocol = \"v1\"", false, Some(ProxyProtocol::V1)),
        ("proxy_protocol = \"v2\"", false, Some(ProxyProtocol::V2)),
        ("", false, None),
    ] {
        let config = parse(&service(&format!("{proxied}{keys}"))).unwrap();
        assert_eq!((config.services[0].toa, config.services[0].proxy_protocol), (toa, version));
    }
}

#[test]
fn a_wide_range_hides_no_later_overlap() {
    let text = with(
        "[[local_addresses]]\nname = \"p\"\naddresses = [\n\"10.1.0.0-10.1.0.99\",\n\
         \"10.1.0.5\",\n\"10.1.0.50\"]\n",
    );
    let lines: Vec<_> = errors(&text).iter().map(|error| error[..9].to_owned()).collect();
    assert_eq!(lines, ["t.toml:6:", "t.toml:7:"]);
}

#[test]
fn every_problem_is_reported_in_the_order_of_lines() {
    let text = edited("10.1.0.1:80", "10.1.0.1")
        .replace("protocol = \"tcp\"", "protocol = \"tpc\"")
        .replace("interfaces = [\"eth0\"]", "interfaces = [\"eth/0\"]");
    let lines: Vec<_> = errors(&text).iter().map(|error| error[..10].to_owned()).collect();
    assert_eq!(lines, ["t.toml:1: ", "t.toml:7: ", "t.toml:10:"]);
}

#[test]
fn lists_have_limits() {
    let names: Vec<_> = (0..33).map(|i| format!("\"e{i}\"")).collect();
    let text = format!("interfaces = [{}]", names.join(","));
    assert_first(&text, "1: 33 interfaces are listed; expected at most 32");

    let service =
        |port| format!("[[service]]\naddress = \"10.0.0.1:{port}\"\nprotocol = \"tcp\"\n");
    let services: String = (1..=MAX_SERVICES + 1).map(service).collect();
    assert_first(&with(&services), "49154: 16385 services are defined; expected at most 16384");

    let server = |i: usize| {
        let (host, port) = (i / 60_000 + 1, i % 60_000 + 1);
        format!("[[service.real_server]]\naddress=\"10.1.0.{host}:{port}\"\nforwarding=\"nat\"\n")
    };
    let servers: String = (0..=MAX_REAL_SERVERS).map(server).collect();
    let text = with(&format!("{}{servers}", service(80)));
    assert_first(&text, "786437: 262145 real servers are defined; expected at most 262144");
}
