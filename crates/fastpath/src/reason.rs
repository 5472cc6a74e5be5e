//! Every outcome of a packet, with its counter.

/// What an outcome means for the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Given to the kernel.
    Passed,
    /// Answered, forwarded or punted.
    Served,
    /// Dropped.
    Dropped,
}

/// Makes an enumeration of counters: each with a value of its own kind, a name, what it means
/// that it rose, and what an operator can do about it (empty where there is nothing to do).
#[macro_export]
macro_rules! counters {
    (
        $(#[$about:meta])* pub enum $Counters:ident; $(#[$of:meta])* fn $kind:ident -> $Kind:ty;
        $($variant:ident, $value:expr, $name:literal, $meaning:literal, $remedy:literal;)*
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u32)]
        pub enum $Counters {
            $(#[doc = $meaning] $variant,)*
        }

        impl $Counters {
            /// All of them, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The counter's name; LVS's where LVS has one.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means that the counter rose.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What an operator can do about it; empty where there is nothing to do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            $(#[$of])*
            #[must_use]
            pub const fn $kind(self) -> $Kind {
                match self { $(Self::$variant => $value,)* }
            }
        }
    };
}

use Outcome::{Dropped, Passed, Served};

counters! {
    /// Why a packet got its verdict. A packet that XDP receives counts under exactly one of
    /// these, so their sum is the number of packets received.
    pub enum Reason;
    /// What became of the packet.
    fn outcome -> Outcome;
    PassNotIp, Passed, "pass_not_ip",
        "Neither IPv4 nor IPv6, or behind more than two VLAN tags; left to the kernel.", "";
    PassNotOurs, Passed, "pass_not_ours",
        "Not for a service, a session or a local address in use; left to the kernel.", "";
    Cookie, Served, "synproxy_cookie_sent",
        "A SYN was answered with a SYN cookie.", "";
    SynEstablished, Served, "synproxy_syn_established",
        "A SYN on an established session went to the real server, whose challenge ACK makes a client that lost its state reset it.", "";
    Accepted, Served, "synproxy_ack_accepted",
        "An ACK with a valid cookie went to the engine.", "";
    Embryo, Served, "synproxy_early_segment",
        "A segment that followed an accepted ACK closely went to the engine.", "";
    ForwardIn, Served, "forward_in",
        "A packet of a session was translated and sent to the real server.", "";
    ForwardOut, Served, "forward_out",
        "A packet of a session was translated and sent to the client.", "";
    IcmpIn, Served, "icmp_in",
        "An ICMP error about a session was translated and sent to the real server.", "";
    IcmpOut, Served, "icmp_out",
        "An ICMP error about a session was translated and sent to the client.", "";
    TooBig, Served, "icmp_too_big_sent",
        "A segment of a session was larger than the link it must leave by; its sender was told what fits.", "";
    PuntClient, Served, "punt_client",
        "A client's segment went to the engine because its session is not established.", "";
    PuntRealServer, Served, "punt_real_server",
        "A real server's segment went to the engine: its handshake, or a SYN/ACK sent again.", "";
    PuntUnproxied, Served, "punt_new",
        "A SYN to a service without the proxy went to the engine, or a segment whose real server is still to hear who its client is.", "";
    PuntDatagram, Served, "punt_new_udp",
        "A datagram to a UDP service that belongs to no session went to the engine.", "";
    BadAck, Dropped, "synproxy_bad_ack",
        "An ACK without a session whose cookie is wrong or too old.",
        "Many at a steady rate are an ACK flood, and nothing need be done. A few after a restart are handshakes begun before it.";
    NullAck, Dropped, "synproxy_null_ack",
        "An ACK without payload to a service with `defer`; the handshake waits for data.", "";
    NoDestination, Dropped, "synproxy_no_dest",
        "A SYN to a service none of whose real servers takes connections.",
        "Give a real server of the service a weight above 0.";
    NoDestinationUnproxied, Dropped, "no_dest",
        "A SYN to a service without the proxy, or a datagram to a UDP service, none of whose real servers takes connections.",
        "Give a real server of the service a weight above 0.";
    Overloaded, Dropped, "synproxy_overloaded",
        "A SYN to a service all of whose real servers have as many connections as they may.",
        "Raise `upper_threshold` of the real servers, or add some.";
    OverloadedUnproxied, Dropped, "overloaded",
        "A SYN to a service without the proxy all of whose real servers have as many connections as they may.",
        "Raise `upper_threshold` of the real servers, or add some.";
    SynMalformed, Dropped, "synproxy_syn_malformed",
        "A SYN to a proxied service whose TCP options run over the header or have a wrong length.", "";
    SynHeartbeat, Dropped, "synproxy_syn_heartbeat",
        "A SYN to a proxied service while the daemon is gone or stuck.",
        "Start the daemon again, or see why it does not answer.";
    SynResizeFailed, Dropped, "synproxy_syn_resize_failed",
        "A SYN to a proxied service that the driver left no room to answer in.", "";
    SynLimited, Dropped, "synproxy_syn_limited",
        "A second SYN within a second on an established session.", "";
    AckStorm, Dropped, "synproxy_ackstorm",
        "A bare ACK of a loop in which both sides repeat themselves; dropping it ends the loop.", "";
    NoServer, Dropped, "conn_nodest",
        "A client's packet on a session whose real server has been removed.",
        "Quiesce a real server with weight 0 before its removal, or set `expire_nodest_conn`.";
    RsForgot, Dropped, "synproxy_rs_forgot",
        "A real server refused a SYN on an established session that it had lost; the session was closed, and the client's next SYN starts anew.", "";
    OptionsMalformed, Dropped, "tcp_options_malformed",
        "TCP options run over the header or have a wrong length.", "";
    TcpDrop, Dropped, "defence_tcp_drop",
        "TCP to a service that is neither a SYN nor an ACK and belongs to no session: ACK, FIN, RST and SYN/ACK floods, or segments of a session that has expired.",
        "If real clients are hit, raise the timeout of the state in which their sessions expire.";
    UdpDrop, Dropped, "defence_udp_drop",
        "UDP to a VIP without a UDP service on that port, or with IP options.",
        "If the VIP serves UDP itself, set `defence_udp_drop = false` under [policy].";
    UdpMalformed, Dropped, "udp_header_malformed",
        "A UDP header whose length contradicts the packet.", "";
    UdpChecksumMissing, Dropped, "udp6_checksum_missing",
        "UDP over IPv6 without a checksum, which receivers must not take.",
        "Look for a tunnel that leaves the checksum out (RFC 6936); it cannot be balanced.";
    FragmentDrop, Dropped, "defence_ip_frag_drop",
        "A fragment of TCP, UDP or ICMP to a VIP or a local address.",
        "If clients fragment for good reason, set `defence_ip_frag_drop = false` under [policy].";
    FlagsImpossible, Dropped, "tcp_flags_impossible",
        "A combination of TCP flags that no TCP sends: null, Xmas, SYN+FIN and the like.", "";
    IpMalformed, Dropped, "ip_header_malformed",
        "An IP header whose lengths contradict the frame, or whose source no host can have: a group, broadcast, loopback.", "";
    IpChecksum, Dropped, "ip_checksum_bad",
        "The checksum of the IP header is wrong.",
        "If it rises steadily, look for a broken cable, switch or network card.";
    IpOptions, Dropped, "ip_options",
        "An IPv4 header with options, to a service or a session.", "";
    ExtensionHeader, Dropped, "ip6_extension_header",
        "An IPv6 packet with an extension header to a VIP or a local address.", "";
    IcmpInvalid, Dropped, "icmp_invalid",
        "An ICMP error about a session whose quoted sequence number the session does not have in flight.",
        "Many are an attack that tries to slow sessions down, and nothing need be done.";
    TcpMalformed, Dropped, "tcp_header_malformed",
        "A TCP header whose length contradicts the packet.", "";
    NotOurMac, Dropped, "not_our_mac",
        "For a service or a session, but the frame is addressed to another host.",
        "A promiscuous interface or a flooding switch; a VRRP backup sees these.";
    LocalNoSession, Dropped, "local_no_session",
        "To a port of a local address that no session uses: late packets of a real server.", "";
    HeartbeatStale, Dropped, "heartbeat_stale",
        "An ACK that completes a handshake, a SYN to a service without the proxy or the first datagram of a UDP session, while the daemon is gone or stuck; established sessions go on.",
        "Start the daemon again, or see why it does not answer.";
    RingFullProven, Dropped, "ring_full_proven",
        "The ring for proven traffic was full.",
        "The engine cannot keep up with new connections; give the daemon more CPU time.";
    RingFullUnproven, Dropped, "ring_full_unproven",
        "The ring for services without the proxy and for UDP was full, as under a flood.",
        "Set `synproxy = \"on\"` for the TCP service under attack.";
    PuntLimited, Dropped, "punt_limited",
        "More frames than one client may send to the engine before its handshake is done.", "";
    NextHopMissing, Dropped, "next_hop_missing",
        "The MAC address of the next hop is not known.",
        "See `ip neigh` for the real server or the gateway towards it.";
    TtlExceeded, Dropped, "ttl_exceeded",
        "The packet's time to live ran out here.", "";
    MtuExceeded, Dropped, "mtu_exceeded",
        "The packet is larger than the MTU of the interface it must leave by, and its sender cannot be told: it is an ICMP error or IPv4 without \"don't fragment\", or the MTU is less than IP allows.",
        "Give the interfaces on both sides one MTU, or lower `init_mss`.";
    ResizeFailed, Dropped, "resize_failed",
        "The driver left no room to put VLAN tags on a frame.", "";
    NotSetUp, Dropped, "not_set_up",
        "The program met an empty table; it is being set up or torn down.", "";
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn names_are_unique_and_numbers_dense() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
            assert!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count() == 1);
            assert!(!reason.meaning().is_empty());
        }
    }
}
