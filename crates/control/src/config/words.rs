//! The words of the configuration: protocols, schedulers, forwarding methods.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A word list: the enum, its TOML spellings, and printing by the same table.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value with the word that means it.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)*];

            /// The word in the configuration and in reports.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// Transport protocol of a service.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

words! {
    /// How packets reach a real server and come back.
    Forwarding {
        /// Destination address and port rewritten; the real server routes back through us.
        Nat = "nat",
        /// Source rewritten too, to a local address of ours.
        FullNat = "fullnat",
        /// Only the destination MAC changes; the real server answers the client itself.
        Dr = "dr",
        /// Encapsulated; the real server answers the client itself.
        Tunnel = "tunnel",
    }
}

words! {
    /// What packets are wrapped in; ipvsadm's `--tun-type`.
    TunnelType {
        /// IP in IP.
        Ipip = "ipip",
        /// Generic UDP Encapsulation.
        Gue = "gue",
        /// Generic Routing Encapsulation.
        Gre = "gre",
    }
}

words! {
    /// The checksum of UDP or GRE; ipvsadm's `--tun-nocsum`, `--tun-csum` and `--tun-remcsum`.
    TunnelChecksum {
        /// None.
        None = "nocsum",
        /// The whole packet's.
        Full = "csum",
        /// The packet's own is left to the other end.
        Remote = "remcsum",
    }
}

words! {
    /// How a real server is chosen for a new connection; names and meaning are IPVS's.
    Scheduler {
        /// Round robin.
        Rr = "rr",
        /// Weighted round robin.
        Wrr = "wrr",
        /// Least connections.
        Lc = "lc",
        /// Weighted least connections.
        Wlc = "wlc",
        /// Locality-based least connections.
        Lblc = "lblc",
        /// Locality-based least connections with replication.
        Lblcr = "lblcr",
        /// Destination hashing.
        Dh = "dh",
        /// Source hashing.
        Sh = "sh",
        /// Shortest expected delay.
        Sed = "sed",
        /// Never queue.
        Nq = "nq",
        /// Weighted failover.
        Fo = "fo",
        /// Weighted overflow.
        Ovf = "ovf",
        /// Maglev hashing.
        Mh = "mh",
    }
}

words! {
    /// How a scheduler does so; ipvsadm's `--sched-flags`.
    SchedulerFlag {
        /// `sh`: what hashes to a real server that takes nothing goes to another.
        ShFallback = "sh-fallback",
        /// `sh`: the client's port is hashed too.
        ShPort = "sh-port",
        /// `mh`: what hashes to a real server that takes nothing goes to another.
        MhFallback = "mh-fallback",
        /// `mh`: the client's port is hashed too.
        MhPort = "mh-port",
    }
}

words! {
    /// Versions of HAProxy's PROXY protocol.
    ProxyProtocol {
        /// A line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

impl SchedulerFlag {
    /// Whose flag it is.
    pub const fn scheduler(self) -> Scheduler {
        match self {
            Self::ShFallback | Self::ShPort => Scheduler::Sh,
            Self::MhFallback | Self::MhPort => Scheduler::Mh,
        }
    }
}
