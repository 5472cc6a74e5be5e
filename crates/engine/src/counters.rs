//! What the engine counts: in the header, where the next engine goes on.

use seawall_fastpath::Reason;
use seawall_fastpath::layout::COUNTER_CELLS;

seawall_fastpath::counters! {
    /// An event that the engine counts.
    pub enum Counter;
    /// Whether something was refused or lost.
    fn is_drop -> bool;
    OkAck, false, "synproxy_ok_ack",
        "An accepted ACK that opened a session.", "";
    AckDuplicate, false, "synproxy_ack_duplicate",
        "An accepted ACK whose session was open already: a retransmission.", "";
    Reused, false, "synproxy_conn_reused",
        "A new handshake replaced a session that was over.", "";
    ReusedClose, false, "synproxy_conn_reused_close",
        "A new handshake replaced a session in CLOSE.", "";
    ReusedTimeWait, false, "synproxy_conn_reused_timewait",
        "A new handshake replaced a session in TIME_WAIT.", "";
    ReusedFinWait, false, "synproxy_conn_reused_finwait",
        "A new handshake replaced a session in FIN_WAIT.", "";
    ReusedCloseWait, false, "synproxy_conn_reused_closewait",
        "A new handshake replaced a session in CLOSE_WAIT.", "";
    ReusedLastAck, false, "synproxy_conn_reused_lastack",
        "A new handshake replaced a session in LAST_ACK.", "";
    Opened, false, "sessions_opened",
        "Sessions opened, with and without the proxy, and of UDP.", "";
    Established, false, "sessions_established",
        "Proxied sessions whose real server completed its handshake.", "";
    Adopted, false, "sessions_adopted",
        "Sessions that a daemon took over from the one before it.", "";
    OrphanSlot, false, "adopt_orphan_slots",
        "Sessions that a daemon found half made, half ended or twice, and ended.", "";
    OrphanEntry, false, "adopt_orphan_entries",
        "Index entries that a daemon found to lead nowhere, and removed.", "";
    OrphanTemplate, false, "adopt_orphan_templates",
        "Persistence templates that a daemon found to be of nobody, and freed.", "";
    RecordStale, false, "record_stale",
        "Records that waited for a daemon for longer than a cookie lives.", "";
    Expired, false, "sessions_expired",
        "Sessions whose timeout ran out.", "";
    SynSent, false, "rs_syn_sent",
        "First SYNs to a real server.", "";
    SynRetransmitted, false, "rs_syn_retransmitted",
        "SYNs sent to a real server again.",
        "Look for loss, or for a real server that does not answer.";
    SecondServer, false, "rs_second_tried",
        "A real server did not answer and another was tried.",
        "See which real server has no established sessions, and mend it or set its weight to 0.";
    RsError, true, "synproxy_rs_error",
        "No real server answered; the client was reset.",
        "Check the real servers, their routes and their firewalls.";
    RsRefused, true, "rs_refused",
        "A real server refused the connection; the client was reset.",
        "Nothing listens on the real server's port, or its firewall rejects.";
    RsBareAck, false, "rs_bare_ack",
        "A real server answered our SYN for a connection of its own past; it was reset.", "";
    RsInvalid, true, "rs_segment_invalid",
        "A segment of a real server that fits no handshake.", "";
    ClientAborted, false, "client_aborted",
        "A client reset its connection before the real server had answered.", "";
    EarlyStored, false, "early_stored",
        "Segments kept until the real server had answered.", "";
    EarlyDuplicate, false, "early_duplicate",
        "Segments that were kept already.", "";
    EarlyInvalid, true, "early_invalid",
        "Segments outside the window that our SYN/ACK offered.", "";
    QueueFull, true, "synproxy_synsend_qlen",
        "Segments that came before the real server had answered and found the store full; the client sends them again.",
        "Raise `ack_store`, `ack_store_bytes` or `ack_store_total_bytes`, or see why real servers answer slowly.";
    Exceeded, true, "conn_exceeded",
        "Connections refused at the limit of sessions.",
        "Raise `max_sessions`, or lower the timeouts.";
    ExceededUnproxied, true, "conn_exceeded_unproxied",
        "Connections to services without the proxy refused at their share of the sessions.",
        "Set `synproxy = \"on\"` for the service under attack.";
    ExceededUdp, true, "conn_exceeded_udp",
        "Datagrams refused because sessions of UDP, or those that are not confirmed, have their share of the table.",
        "If real clients are hit, raise `max_sessions` or lower the timeout of UDP.";
    ExpiredUnconfirmed, false, "udp_expired_early",
        "Unconfirmed sessions of UDP that ended early because many were.", "";
    ExceededTemplates, true, "conn_exceeded_template",
        "Connections to persistent services that were scheduled without a template, for there was none left.",
        "Raise `max_persistence_templates`, or lower `persistent` of the services.";
    NoDestination, true, "synproxy_ack_no_dest",
        "Accepted handshakes, or first packets without the proxy or of UDP, for which no real server was left.",
        "Give a real server of the service a weight above 0.";
    PortsExhausted, true, "lport_exhausted",
        "No local port was free towards the real server.",
        "Add local addresses to the pool of the service.";
    Conflict, true, "conn_conflict",
        "Under NAT, the client already has a connection from that port to that real server through another service.",
        "Use FULLNAT, or give the services different real-server ports.";
    ExpiredNoServer, false, "conn_expired_nodest",
        "Sessions ended with their removed real server, by `expire_nodest_conn`.", "";
    IndexFull, true, "index_full",
        "The session index had no room.", "";
    VlanUnknown, true, "vlan_unknown",
        "Connections from a VLAN that the host has no interface in.",
        "Add the VLAN interface, or keep the VLAN off this port of the switch.";
    NextHopsFull, true, "next_hops_full",
        "More neighbours than the next-hop table holds.", "";
    Unresolved, false, "next_hop_unresolved",
        "A SYN waited for the MAC address of its next hop.",
        "If it goes on, see `ip neigh` for the real server or the gateway towards it.";
    PassedOn, false, "passed_on",
        "Packets that reached the engine after their session was established or placed it, and were forwarded.", "";
    PassOnFailed, true, "pass_on_failed",
        "Such packets that could not be forwarded.", "";
    TooBig, true, "pass_on_too_big",
        "Such packets that were larger than the link they must leave by; their sender was told what fits.",
        "Give the interfaces on both sides one MTU, or lower `init_mss`.";
    ToaAdded, false, "fullnat_add_toa_ok",
        "Segments that told a real server by a TOA option who its client is.", "";
    ToaHeadFull, false, "fullnat_add_toa_head_full",
        "Of those, segments that lost other options to make room for it.", "";
    ToaTooLong, false, "fullnat_add_toa_fail_len",
        "Segments too long to have a TOA option beside their payload: a bare ACK with it went first.",
        "The client ignores the MSS that it was told, or the path to the real server is narrower than `init_mss` allows for.";
    ProxyHeader, false, "proxy_protocol_sent",
        "PROXY headers sent for the first time.", "";
    ProxyHeaderAgain, false, "proxy_protocol_retransmitted",
        "PROXY headers, or a part of one, sent again.",
        "Look for loss, or for a real server that is too busy to read.";
    ProxyHeaderFailed, true, "proxy_protocol_failed",
        "A real server accepted, but never acknowledged its PROXY header; both ends were reset.",
        "Check the real server: its receive window stays shut, or its path loses segments.";
    RecordInvalid, true, "record_invalid",
        "Records that named no session or service, or held no segment.", "";
}

/// What the engine leaves free at the end of the header's counters, for the datapath's.
pub const DATAPATH_COUNTERS: usize = 8;

const _: () = assert!(Counter::ALL.len() + DATAPATH_COUNTERS <= COUNTER_CELLS);

/// Stands for the names of all counters, the packet path's too, in their order (FNV-1a).
#[must_use]
pub fn counter_names() -> u64 {
    let engine = Counter::ALL.iter().map(|counter| counter.name());
    let names = Reason::ALL.iter().map(|reason| reason.name()).chain(engine);
    names.flat_map(|name| name.bytes().chain([0])).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
