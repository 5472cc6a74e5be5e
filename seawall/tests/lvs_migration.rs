//! `docs/lvs-migration.md` names everything that it should: every key of ours, and every sysctl,
//! counter, flag and keyword of LVS.

use std::collections::BTreeSet;

use seawall_control::config::{Config, Scheduler, SchedulerFlag};
use seawall_engine::Counter;
use seawall_engine::scheduler::Kind;
use seawall_fastpath::Reason;

const DOCUMENT: &str = include_str!("../../docs/lvs-migration.md");

/// alibaba/LVS v3, `ip_vs_ctl.c`: what lies under `/proc/sys/net/ipv4/vs`.
const SYSCTLS: &str = "debug_level amemthresh am_droprate drop_entry drop_packet secure_tcp \
    cache_bypass expire_nodest_conn expire_quiescent_template sync_threshold nat_icmp_send \
    timeout_established timeout_synsent timeout_synrecv timeout_finwait timeout_timewait \
    timeout_close timeout_closewait timeout_lastack timeout_listen timeout_synack \
    fullnat_timestamp_remove_entry fullnat_mss_adjust_entry fullnat_conn_reused_entry \
    fullnat_toa_entry fullnat_lport_min fullnat_lport_max fullnat_lport_tries synproxy_init_mss \
    synproxy_sack synproxy_wscale synproxy_timestamp synproxy_synack_ttl synproxy_defer \
    synproxy_conn_reuse synproxy_conn_reuse_close synproxy_conn_reuse_time_wait \
    synproxy_conn_reuse_fin_wait synproxy_conn_reuse_close_wait synproxy_conn_reuse_last_ack \
    synproxy_ack_skb_store_thresh synproxy_ack_storm_thresh synproxy_syn_retry defence_tcp_drop \
    defence_udp_drop defence_frag_drop conn_expire_tcp_rst fast_response_xmit \
    fast_response_xmit_inside csum_offload reserve_core conn_max_num";

/// alibaba/LVS v3, `ip_vs_stats.c`: the lines of `/proc/net/ip_vs_ext_stats`.
const COUNTERS: &str = "synproxy_rs_error synproxy_null_ack synproxy_bad_ack synproxy_ok_ack \
    synproxy_syn_cnt synproxy_ackstorm synproxy_synsend_qlen synproxy_conn_reused \
    synproxy_conn_reused_close synproxy_conn_reused_timewait synproxy_conn_reused_finwait \
    synproxy_conn_reused_closewait synproxy_conn_reused_lastack synproxy_no_dest \
    defence_ip_frag_drop defence_tcp_drop defence_udp_drop fullnat_add_toa_ok \
    fullnat_add_toa_fail_len fullnat_add_toa_head_full fullnat_add_toa_fail_mem \
    fullnat_add_toa_fail_proto fullnat_conn_reused fullnat_conn_reused_close fast_xmit_reject \
    fast_xmit_pass fast_xmit_skb_copy fast_xmit_no_mac fast_xmit_synproxy_save fast_xmit_dev_lost \
    fast_xmit_reject_inside fast_xmit_pass_inside fast_xmit_synproxy_save_inside rst_in_syn_sent \
    rst_out_syn_sent rst_in_established rst_out_established gro_pass lro_reject \
    xmit_unexpected_mtu conn_sched_unreach conn_exceeded";

/// Of LVS's keepalived, `check_parser.c`, and of DPVS's.
const KEYWORDS: &str = "local_address_group virtual_server virtual_server_group delay_loop \
    lb_algo protocol persistence_timeout persistence_granularity est_timeout ha_suspend \
    virtualhost alpha omega quorum hysteresis quorum_up quorum_down sorry_server syn_proxy \
    laddr_group_name vip_bind_dev real_server weight uthreshold lthreshold inhibit_on_failure \
    notify_up notify_down TCP_CHECK HTTP_GET SSL_GET SMTP_CHECK MISC_CHECK establish_timeout \
    proxy_protocol expire_quiescent_conn quic hash_target bps limit_proportion \
    deny_address_group daddr_group_name allow_address_group waddr_group_name tunnel_group";

/// Of `dpvs.conf`, `synproxy { … }`.
const DPVS: &str = "mss ttl sack wscale timestamp close_client_window defer_rs_syn \
    rs_syn_max_retry ack_storm_thresh max_ack_saved conn_reuse_state";

/// What stands between backticks, cut into words, without the code blocks.
fn words() -> Vec<&'static str> {
    let prose = DOCUMENT.split("```").step_by(2);
    let quoted = prose.flat_map(|text| text.split('`').skip(1).step_by(2));
    quoted.flat_map(|quoted| quoted.split(|c: char| !c.is_alphanumeric() && c != '_')).collect()
}

#[track_caller]
fn insist<'a>(names: impl IntoIterator<Item = &'a str>) {
    let words = words();
    let missing: Vec<_> = names.into_iter().filter(|name| !words.contains(name)).collect();
    assert!(missing.is_empty(), "docs/lvs-migration.md does not name {missing:?}");
}

/// The keys of a table, as the error about one that does not exist lists them.
fn keys(table: &str) -> Vec<String> {
    let text = format!("interfaces = [\"eth0\"]\n{table}\n0123456789 = 1\n");
    let errors = Config::parse("t", &text).unwrap_err().to_string();
    let line = errors.lines().find(|line| line.contains("unknown key")).expect(&errors);
    let (_, list) = line.split_once("expected one of: ").expect(line);
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_of_the_configuration_is_there() {
    for (table, least) in [
        ("[synproxy]", 17),
        ("[timeouts]", 8),
        ("[policy]", 2),
        ("[[local_addresses]]", 4),
        ("[[service]]", 8),
    ] {
        let keys = keys(table);
        assert!(keys.len() >= least, "{table}: {keys:?}");
        insist(keys.iter().map(String::as_str).filter(|key| *key != "real_server"));
    }
}

#[test]
fn every_counter_that_sounds_like_lvs_is_there() {
    let ours = Reason::ALL.iter().map(|reason| reason.name());
    let ours = ours.chain(Counter::ALL.iter().map(|counter| counter.name()));
    let like = |name: &&str| {
        ["synproxy_", "defence_", "conn_", "lport_"].iter().any(|start| name.starts_with(start))
    };
    insist(ours.filter(like));
}

#[test]
fn everything_of_lvs_and_dpvs_is_there() {
    for list in [SYSCTLS, COUNTERS, KEYWORDS, DPVS] {
        insist(list.split_whitespace());
    }
    let prose: String = DOCUMENT.split("```").step_by(2).collect();
    for flag in ["-A", "-E", "-D", "-t", "-u", "-f", "-s", "-p", "-M", "-o", "-j", "-V", "-a", "-e"]
        .into_iter()
        .chain(["-d", "-r", "-g", "-i", "-m", "-b", "-w", "-x", "-y", "-P", "-Q", "-G", "-z"])
        .chain(["-L", "-c", "-J", "-F", "-k", "-2", "-H", "--set", "--stats", "--rate"])
        .chain(["--timeout", "--start-daemon", "--conn-timeout", "--proxy-protocol"])
        .chain(["--dest-check", "--expire-quiescent", "--sockpair"])
    {
        let named = prose.split('`').skip(1).step_by(2).flat_map(|quoted| quoted.split([' ', '/']));
        assert!(named.into_iter().any(|word| word == flag), "{flag}");
    }
}

#[test]
fn every_scheduler_is_there() {
    insist(Scheduler::WORDS.iter().map(|(word, _)| *word));
    let prose: String = DOCUMENT.split("```").step_by(2).collect();
    for (flag, _) in SchedulerFlag::WORDS {
        assert!(prose.contains(&format!("`{flag}`")), "{flag}");
    }
}

#[test]
fn every_scheduler_is_served() {
    let ours: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(ours, Scheduler::WORDS.iter().map(|(word, _)| *word).collect());
}

#[test]
fn the_example_is_a_configuration() {
    let blocks: Vec<_> = DOCUMENT.split("```toml\n").skip(1).collect();
    assert_eq!(blocks.len(), 1);
    let (example, _) = blocks[0].split_once("```").unwrap();
    let config = Config::parse("example", example).unwrap();
    assert_eq!(config.services[0].real_servers.len(), 2);
    assert!(config.synproxy.secret_file.is_some() && config.not_yet_served().is_empty());
}

/// What the document says of a default is what the code does.
#[test]
fn defaults_are_the_codes() {
    let config = Config::parse("t", "interfaces = [\"eth0\"]").unwrap();
    let (proxy, times) = (&config.synproxy, &config.timeouts);
    let (udp, fragments) = (config.policy.defence_udp_drop, config.policy.defence_ip_frag_drop);
    // Our key is in the third column of these tables, its default in the sixth.
    let proxy = [
        ("`init_mss`", proxy.init_mss.to_string()),
        ("`sack`", proxy.sack.to_string()),
        ("`wscale`", proxy.wscale.to_string()),
        ("`timestamp`", proxy.timestamp.to_string()),
        ("`synack_ttl`", proxy.synack_ttl.to_string()),
        ("`syn_retry`", proxy.syn_retry.to_string()),
        ("`ack_store`", proxy.ack_store.to_string()),
        ("`ack_store_bytes`", proxy.ack_store_bytes.to_string()),
        ("`ack_store_total_bytes`", proxy.ack_store_total_bytes.to_string()),
        ("`ack_storm_thresh`", proxy.ack_storm_thresh.to_string()),
        ("`conn_reuse`", proxy.conn_reuse.to_string()),
        ("`conn_reuse_close`", proxy.conn_reuse_close.to_string()),
        ("`conn_reuse_time_wait`", proxy.conn_reuse_time_wait.to_string()),
        ("`conn_reuse_fin_wait`", proxy.conn_reuse_fin_wait.to_string()),
        ("`conn_reuse_close_wait`", proxy.conn_reuse_close_wait.to_string()),
        ("`conn_reuse_last_ack`", proxy.conn_reuse_last_ack.to_string()),
        ("`[policy] defence_udp_drop`", udp.to_string()),
        ("`[policy] defence_ip_frag_drop`", fragments.to_string()),
    ];
    // Here in the sixth and the seventh.
    let times = [
        ("`established`", times.established),
        ("`syn_sent`", times.syn_sent),
        ("`syn_recv`", times.syn_recv),
        ("`fin_wait`", times.fin_wait),
        ("`time_wait`", times.time_wait),
        ("`close`", times.close),
        ("`close_wait`", times.close_wait),
        ("`last_ack`", times.last_ack),
        ("`udp`", times.udp),
    ];
    let times = times.map(|(key, time)| (key, time.as_secs().to_string()));
    for (columns, defaults) in [([3, 6], &proxy[..]), ([6, 7], &times[..])] {
        for (key, value) in defaults {
            let rows = DOCUMENT.lines().filter(|line| line.starts_with('|'));
            let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
            let said: Vec<_> = cells.filter(|cells| cells.get(columns[0]) == Some(key)).collect();
            assert_eq!(said.len(), 1, "{key}: {said:?}");
            assert_eq!(said[0].get(columns[1]), Some(&value.as_str()), "{key}");
        }
    }
}
