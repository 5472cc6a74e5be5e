//! The attack suite: every flood that a SYN proxy is for, against the real daemon, while legitimate
//! clients ask for pages.
//!
//! During each attack all legitimate requests succeed (at the session limit: new ones are refused
//! and counted, established ones go on), the daemon's memory stays within what its sessions
//! account for, the counters account for every packet that XDP received, and the reason that the
//! attack is expected to be dropped for has counted all of it. Who says what XDP received is not
//! the daemon but the kernel, which counts a veth's frames as it shows them to XDP
//! ([`received`](crate::tap::received)).
//!
//! | attack | what it costs the attacker | counted as | what protects |
//! |---|---|---|---|
//! | `syn`, `syn-payload` | a packet each, from any address | `synproxy_cookie_sent` | the answer is made of the SYN, in XDP; nothing is kept |
//! | `syn-options` | the same | `synproxy_cookie_sent`, `synproxy_syn_malformed` | bounded parser; answers hold options of our own only |
//! | `syn-no-server` | the same | `synproxy_no_dest` | no answer where nobody would serve |
//! | `syn-fin`, `xmas`, `null` | the same | `tcp_flags_impossible` | a table of possible flags |
//! | `syn-ack`, `rst` | the same | `defence_tcp_drop` | no session, no cookie to check |
//! | `ack`, `fin` | the same; one in 2^23 opens a session | `synproxy_bad_ack` | one keyed hash a packet |
//! | `ack-replay`, `ack-replay-old` | a handshake of one's own, then a packet each | `synproxy_bad_ack` | the hash covers addresses, ports and time |
//! | `udp` | a packet each | `defence_udp_drop` | the VIP has no UDP service |
//! | `udp-service` | a packet each, from any address; the real servers answer it | `punt_new_udp`, `ring_full_unproven`, `conn_exceeded_udp` | unconfirmed sessions of UDP have a quarter of the table, all of UDP half; nothing is evicted; a ring of their own |
//! | `fragments` | the same | `defence_ip_frag_drop` | nothing is put together here |
//! | `extension-headers` | the same | `ip6_extension_header` | no walk along a chain that the sender chooses |
//! | `wrong-mac` | the same, on the same link | `not_our_mac` | compared with the interface's |
//! | `ip-checksum`, `ip-options` | a packet each | `ip_checksum_bad`, `ip_options` | checked before anything is decided |
//! | `truncated` | the same | `ip_header_malformed`, `tcp_header_malformed` | every length is held against the frame |
//! | `idle` | a real address and a connection's memory for each | `sessions_established` | `max_sessions`, 256 bytes a session, the timeout of ESTABLISHED |
//! | `idle-defer` | a real address for each | `synproxy_null_ack` | `defer`: no session before there is data |
//! | `slow` | a real address, a byte a second | `sessions_established` | as `idle`; how long a request may take is the server's business |
//! | `session-limit` | as many connections as there is room for | `conn_exceeded` | the table is full, and what is in it goes on |
//! | `ports` | as many connections as a pool has ports | `lport_exhausted` | pools are the services' own |
//! | `embryo` | one real address | `punt_limited` | 32 frames a session reach the engine before it is established |
//! | `rst-off-path` | a packet each, from the addresses of both ends; in some 65,000 one lies in a window of 64 KiB, if the port is right | `defence_tcp_drop`, `local_no_session`, `forward_in`, `forward_out` | a reset outside the window changes nothing, and the hosts take only one that is exact (RFC 5961) |
//! | `icmp` | a packet each | `icmp_invalid`, `pass_not_ours` | the quoted number must be in flight |

mod census;
mod frames;
mod options;
mod peers;
mod run;
mod scene;
mod stage;

use std::time::Duration;

pub use run::{Counted, Report};
pub use stage::{Family, Stage};

use frames::{Aim, Wave};
use scene::{Deeds, Scene};
use stage::Room;

/// Why an attack could not be made; what it did is in its [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network cannot be changed.
    #[error(transparent)]
    Network(#[from] crate::namespace::Error),
    /// The kernel refuses a program of the lab.
    #[error(transparent)]
    Program(#[from] crate::flood::Error),
    /// The daemon does not answer.
    #[error(transparent)]
    Daemon(#[from] seawall_control::api::ClientError),
    /// The operating system refuses something, or the daemon does not start.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// A request failed before the attack began.
    #[error("before the attack: {0}")]
    Request(#[from] crate::http::Error),
    /// Something else is not as it must be.
    #[error("{0}")]
    Unexpected(String),
}

/// How hard to attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Force {
    /// How long each attack lasts, but for those that take a time of their own.
    pub duration: Duration,
    /// Frames a second of those that are frames; 0 means as many as the machine can.
    pub rate: u32,
}

#[derive(Clone, Copy)]
enum Work {
    /// Frames from the attacker.
    Frames(fn(Aim) -> Vec<Wave>),
    /// Whatever it takes.
    Acts(fn(&Scene<'_>) -> Result<Deeds, Error>),
}

/// An attack of the suite.
#[derive(Clone, Copy)]
pub struct Attack {
    /// What it is called on the command line, the family left out.
    pub name: &'static str,
    /// What it consists of.
    pub about: &'static str,
    /// Over which IP version.
    pub family: Family,
    /// Whether it has to wait for something, for about two minutes.
    pub waits: bool,
    room: Room,
    work: Work,
}

impl Attack {
    /// What the command calls it: the name, and `-6` over IPv6.
    pub fn title(&self) -> String {
        match self.family {
            Family::V4 => self.name.to_owned(),
            Family::V6 => format!("{}-6", self.name),
        }
    }

    /// Makes it. What went wrong with it is in the report.
    ///
    /// # Errors
    ///
    /// When it could not be made.
    pub fn run(&self, stage: &mut Stage, force: Force) -> Result<Report, Error> {
        run::run(self, stage, force)
    }
}

/// Every attack over that family, those that wait last.
pub fn all(family: Family) -> Vec<Attack> {
    let frames = |name, about, waves| Attack {
        name,
        about,
        family,
        waits: false,
        room: Room::Ample,
        work: Work::Frames(waves),
    };
    let acts = |name, about, acts| Attack {
        name,
        about,
        family,
        waits: false,
        room: Room::Ample,
        work: Work::Acts(acts),
    };
    let mut all = vec![
        frames("syn", "SYNs of Linux clients", frames::syn_plain),
        frames("syn-payload", "SYNs with data", frames::syn_payload),
        frames("syn-options", "SYNs with malformed and unknown options", frames::syn_options),
        frames("syn-no-server", "SYNs to a service without usable servers", frames::syn_no_server),
        frames("syn-fin", "SYN+FIN and other impossible flags", frames::syn_fin),
        frames("xmas", "FIN, PSH and URG", frames::xmas),
        frames("null", "no flag at all, or none that counts", frames::null),
        frames("syn-ack", "SYN/ACKs", frames::syn_ack),
        frames("ack", "ACKs with random cookies", frames::ack),
        frames("rst", "resets", frames::rst),
        frames("fin", "FINs", frames::fin),
        acts("ack-replay", "ACKs with cookies of other ports and clients", scene::ack_replay),
        frames("udp", "UDP to all ports", frames::udp),
        frames("fragments", "first, middle and last fragments", frames::fragments),
        frames("wrong-mac", "frames for somebody else's MAC address", frames::wrong_mac),
        frames("truncated", "frames that end too early, lengths that lie", frames::truncated),
        acts("idle", "clients that connect and never send", scene::idle),
        acts("idle-defer", "the same to a service with `defer`", scene::idle_defer),
        acts("slow", "clients that send a byte a second", scene::slow),
        acts("ports", "clients that take every local port", scene::ports),
        acts("embryo", "a client that floods its unestablished session", scene::embryo),
        acts("rst-off-path", "resets over all ports, both ways", scene::rst_off_path),
        acts("icmp", "ICMP errors over all ports, both ways", scene::icmp),
    ];
    match family {
        Family::V4 => {
            all.push(frames("ip-checksum", "wrong header checksums", frames::ip_checksum));
            all.push(frames("ip-options", "IPv4 options", frames::ip_options));
        }
        Family::V6 => all.push(frames(
            "extension-headers",
            "hop-by-hop, routing and destination options headers",
            frames::extension_headers,
        )),
    }
    let limit = acts("session-limit", "clients that take every session", scene::session_limit);
    all.push(Attack { room: Room::Scarce, ..limit });
    let about = "datagrams to a UDP service";
    let share = acts("udp-service", about, scene::udp_service);
    all.push(Attack { room: Room::Scarce, ..share });
    let old = acts("ack-replay-old", "ACKs with cookies of two epochs ago", scene::ack_replay_old);
    all.push(Attack { waits: true, ..old });
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::frames::Aim;
    use super::{Family, Work, all};
    use crate::flood_layout::TEMPLATES;
    use crate::frame::Link;

    #[test]
    fn titles_are_unique_and_every_wave_can_be_sent() {
        let attacks: Vec<_> = Family::ALL.into_iter().flat_map(all).collect();
        let titles: HashSet<_> = attacks.iter().map(super::Attack::title).collect();
        assert_eq!(titles.len(), attacks.len());
        let link = Link { destination: [2, 0, 0, 0, 0, 1], source: [2, 0, 0, 0, 0, 2] };
        for attack in &attacks {
            if let Work::Frames(waves) = attack.work {
                let waves = waves(Aim { link, family: attack.family });
                assert!((1..=TEMPLATES as usize).contains(&waves.len()), "{}", attack.title());
                for wave in waves {
                    let len = wave.template.bytes.len() as u32;
                    let fields = &wave.template.fields;
                    assert!(fields.iter().all(|field| field.offset + field.width <= len));
                }
            }
        }
    }
}
