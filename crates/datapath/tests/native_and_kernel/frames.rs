//! Frames at random: from clients, from real servers, and from nobody in particular.

use seawall_fastpath::layout::{Tunnel, flag};

use crate::FAMILY;
use crate::damage::{LONGEST, damage, noise};
use crate::options;
use crate::scene::{ANY_PORT, OVERLOADED, UNPROXIED_UNUSABLE};
use crate::support::icmp;
use crate::support::packet::{ACK, FIN, IP, Ip, Opt, PSH, RST, SYN, Segment, tcp_at};
use crate::support::random::Random;
use crate::support::tunnel::Outer;
use crate::support::world::{
    CLIENT, DATAGRAMS, DATAGRAMS_UNUSABLE, DEFERRED, INSIDE_MAC, LOCAL, OUTSIDE_MAC, PROXIED,
    Session, TCP, UNPROXIED, UNUSABLE, VIP, from_client, host,
};

/// Handshakes that are remembered.
const HANDSHAKES: usize = 32;
/// More segments than one handshake may send up (`embryo::MAX_PUNTED`).
const BURST: usize = 40;

/// Which interface a frame comes in on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Outside,
    Inside,
}

/// A frame to try.
pub(crate) struct Case {
    /// What it is meant to be, and what was done to it.
    pub(crate) what: String,
    pub(crate) side: Side,
    pub(crate) frame: Vec<u8>,
    /// The SYN that it is, if its answer is of interest.
    pub(crate) syn: Option<Segment>,
}

/// A client that has its SYN/ACK.
#[derive(Clone)]
struct Handshake {
    syn: Segment,
    answer: Segment,
}

fn is_one_way(session: &Session) -> bool {
    session.numbers.flags & flag::ONE_WAY != 0
}

/// The generator.
pub(crate) struct Frames {
    pub(crate) random: Random,
    sessions: Vec<Session>,
    handshakes: Vec<Handshake>,
    burst: Option<(Handshake, usize)>,
    /// A bare acknowledgment that is being repeated, and how often it still is.
    storm: Option<(Side, Segment, usize)>,
}

impl Frames {
    pub(crate) fn new(random: Random, sessions: Vec<Session>) -> Self {
        Self { random, sessions, handshakes: Vec::new(), burst: None, storm: None }
    }

    /// Remembers the SYN/ACK that `syn` got, whose ACK is going to come.
    pub(crate) fn answered(&mut self, syn: Segment, answer: Segment) {
        if self.handshakes.len() == HANDSHAKES {
            let at = self.random.below(HANDSHAKES);
            self.handshakes.swap_remove(at);
        }
        self.handshakes.push(Handshake { syn, answer });
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Case {
        match self.random.below(16) {
            0 => return self.error(),
            1 | 2 => return self.datagram(),
            _ => {}
        }
        let (what, mut side, mut segment) = match self.random.below(20) {
            0..4 => self.syn(),
            4..8 => self.cookie_ack(),
            8..16 => self.of_session(),
            16 | 17 => self.stray(),
            18 => self.for_service(),
            _ => {
                let mac = self.random.pick(&[OUTSIDE_MAC, INSIDE_MAC]);
                let frame = noise(&mut self.random, mac);
                return Case { what: "noise".into(), side: Side::Outside, frame, syn: None };
            }
        };
        if self.random.below(6) == 0 {
            segment.tags = self.tags();
        }
        let mut frame = segment.bytes();
        let mut what = what.to_owned();
        if self.random.below(6) == 0 {
            what = format!("{what}, {}", damage(&mut self.random, &mut frame));
        }
        if self.random.below(40) == 0 {
            side = if side == Side::Outside { Side::Inside } else { Side::Outside };
            what.push_str(", at the other interface");
        }
        let syn = (segment.flags & (SYN | ACK) == SYN).then_some(segment);
        Case { what, side, frame, syn }
    }

    /// A datagram: of a session, for a service, or for nobody.
    fn datagram(&mut self) -> Case {
        let session = self.sessions[self.random.below(self.sessions.len())];
        let (what, side, mut segment) = match self.random.below(8) {
            0..3 => ("a client's datagram", Side::Outside, session.client_segment()),
            3..6 => ("a real server's datagram", Side::Inside, session.real_server_segment()),
            6 => {
                let to = self.random.pick(&[DATAGRAMS, DATAGRAMS, DATAGRAMS_UNUSABLE, ANY_PORT]);
                ("a datagram to a service", Side::Outside, from_client(to))
            }
            _ => {
                let (_, side, segment) = self.stray();
                ("a stray datagram", side, segment)
            }
        };
        segment.payload = self.payload(LONGEST - 200);
        if self.random.below(6) == 0 {
            segment.tags = self.tags();
        }
        let mut frame = match self.random.below(8) {
            0 => segment.datagram_without_checksum(),
            _ => segment.datagram(),
        };
        let mut what = what.to_owned();
        match self.random.below(8) {
            // What damage is for reaches as far as a TCP header. (A real server behind a tunnel may speak
            // the other version, whose headers may be shorter.)
            0 if frame.len() >= TCP + 20 => {
                what = format!("{what}, {}", damage(&mut self.random, &mut frame));
            }
            1 => {
                let at = tcp_at(&frame) + self.random.below(8);
                if let Some(byte) = frame.get_mut(at) {
                    *byte = self.random.u32() as u8;
                }
                what.push_str(", another UDP header");
            }
            _ => {}
        }
        Case { what, side, frame, syn: None }
    }

    /// One to three VLAN tags; two are read.
    fn tags(&mut self) -> Vec<u32> {
        let count = self.random.pick(&[1, 1, 2, 2, 3]);
        let tag = |random: &mut Random| random.pick(&[0x8100, 0x88a8]) << 16 | random.u32() >> 16;
        (0..count).map(|_| tag(&mut self.random)).collect()
    }

    /// An ICMP error about a segment that we sent.
    fn error(&mut self) -> Case {
        let session = self.sessions[self.random.below(self.sessions.len())];
        if self.random.below(3) == 0
            && let Some(case) = self.error_in_a_tunnel(&session)
        {
            return case;
        }
        let outside = is_one_way(&session) || self.random.below(2) == 0;
        let (side, mut about) = if outside {
            (Side::Outside, session.sent_to_client())
        } else {
            (Side::Inside, session.sent_to_real_server())
        };
        let by = self.random.u32();
        about.seq = about.seq.wrapping_add(self.random.pick(&[0, 0, by >> 16, by]));
        about.flags = self.flags();
        self.fill(&mut about);
        if self.random.below(4) == 0 {
            about.tags = self.tags();
        }
        let mac = if side == Side::Outside { OUTSIDE_MAC } else { INSIDE_MAC };
        let by = self.random.u32();
        let any = self.random.below(60);
        let error = icmp::Error {
            from: self.random.pick(&[host(0x0909_0909), about.destination.0]),
            to: about.source.0,
            kind: self.random.pick(&[1, 2, 3, 3, 4, 5, 11, 12, 128]),
            code: self.random.below(8) as u8,
            rest: self.random.u32(),
            ttl: self.random.pick(&[0, 1, 64, 64, 64, 255]),
            quote: self.random.pick(&[8, 20, 40, 200, any]),
        };
        let mut frame = if self.random.below(3) == 0 {
            error.about_datagram(mac, &about)
        } else {
            error.bytes(mac, &about)
        };
        let what = if self.random.below(4) == 0 {
            let at = self.random.below(frame.len());
            frame[at] ^= by as u8;
            "a broken ICMP error"
        } else {
            "an ICMP error"
        };
        Case { what: what.into(), side, frame, syn: None }
    }

    /// A router's error about a packet that we wrapped.
    fn error_in_a_tunnel(&mut self, session: &Session) -> Option<Case> {
        if session.numbers.flags & flag::TUNNEL == 0 {
            return None;
        }
        let by = self.random.u32();
        let mut segment = session.client_segment();
        segment.seq = segment.seq.wrapping_sub(self.random.pick(&[0, 0, by >> 16, by]));
        segment.payload = self.random.bytes(60);
        let outer = Outer {
            source: session.local.0,
            destination: session.real.0 + self.random.pick(&[0, 0, 0, 1]),
            tunnel: Tunnel::from_bits(session.numbers.a),
            ttl: 9,
            tos: 0,
            fragment: [0; 4],
            port: 50_000,
        };
        let packet = segment.bytes().split_off(IP);
        let wrapped = outer.frame(INSIDE_MAC, INSIDE_MAC, FAMILY, &packet).split_off(IP);
        let any = self.random.below(200);
        let quoted = wrapped.len().min(self.random.pick(&[128, 128, any]));
        let is_v4 = outer.source.as_v4().is_some();
        let error = icmp::Error {
            from: outer.destination + 9,
            to: outer.source,
            kind: self.random.pick(if is_v4 { &[3, 3, 11] } else { &[2, 2, 1] }),
            code: if is_v4 { 4 } else { 0 },
            rest: self.random.pick(&[1_400, 1_300, 600, 0, by]),
            ttl: 60,
            quote: quoted,
        };
        let mut frame = error.quoting(INSIDE_MAC, &wrapped[..quoted]);
        if self.random.below(4) == 0 {
            let at = self.random.below(frame.len());
            frame[at] ^= by as u8;
        }
        let what = "an error about a wrapped packet".into();
        Some(Case { what, side: Side::Inside, frame, syn: None })
    }

    fn payload(&mut self, header: usize) -> Vec<u8> {
        let length = match self.random.below(8) {
            0..4 => 0,
            4 | 5 => self.random.below(100),
            6 => LONGEST - header,
            _ => self.random.below(LONGEST - header + 1),
        };
        self.random.bytes(length)
    }

    /// Options and payload; nothing else of `segment` changes.
    fn fill(&mut self, segment: &mut Segment) {
        segment.options = if segment.flags & SYN != 0 {
            options::of_syn(&mut self.random)
        } else {
            options::of_segment(&mut self.random, segment.ack)
        };
        if self.random.below(20) == 0 {
            segment.raw_options = Some(options::raw(&mut self.random));
        }
        segment.payload = self.payload(94);
    }

    fn service(&mut self) -> (Ip, u16) {
        let restricted = (VIP, self.random.pick(&[84, 85, 86, 88]));
        self.random.pick(&[
            PROXIED,
            PROXIED,
            PROXIED,
            restricted,
            DEFERRED,
            UNPROXIED,
            UNUSABLE,
            UNPROXIED_UNUSABLE,
            OVERLOADED[0],
            OVERLOADED[1],
            ANY_PORT,
        ])
    }

    fn syn(&mut self) -> (&'static str, Side, Segment) {
        let mut segment = from_client(self.service());
        segment.source = (CLIENT.0 + self.random.below(16) as u32, self.random.u32() as u16);
        if self.random.below(4) == 0 {
            let at = self.random.below(self.sessions.len());
            (segment.source, segment.destination) =
                (self.sessions[at].client, self.sessions[at].vip);
        }
        let any = self.random.u32();
        segment.seq = self.random.pick(&[u32::MAX, 0, any]);
        segment.flags = SYN | self.random.pick(&[0, 0, 0, 0x0c0, 0x1c0]);
        self.fill(&mut segment);
        if self.random.below(2) == 0 {
            segment.payload.clear();
        }
        ("a SYN", Side::Outside, segment)
    }

    /// What a client sends once it has its SYN/ACK, or would have sent had it got one.
    fn cookie_ack(&mut self) -> (&'static str, Side, Segment) {
        if self.handshakes.is_empty() {
            return self.syn();
        }
        let Handshake { syn, answer } = match self.burst.take() {
            Some((handshake, 0)) => handshake,
            Some((handshake, left)) => {
                self.burst = Some((handshake.clone(), left - 1));
                handshake
            }
            None => {
                let handshake = self.handshakes[self.random.below(self.handshakes.len())].clone();
                if self.random.below(60) == 0 {
                    self.burst = Some((handshake.clone(), BURST));
                }
                handshake
            }
        };
        let mut ack = from_client(syn.destination);
        ack.source = syn.source;
        (ack.seq, ack.ack) = (syn.seq.wrapping_add(1), answer.seq.wrapping_add(1));
        ack.flags = self.random.pick(&[ACK, ACK, ACK, ACK | PSH, ACK | FIN]);
        ack.payload = self.payload(66);
        let value = answer.options.iter().find_map(|option| {
            if let Opt::Timestamps(value, _) = option { Some(*value) } else { None }
        });
        if let Some(value) = value {
            ack.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(self.random.u32(), value)];
        }
        let what = match self.random.below(12) {
            0 => {
                ack.seq = ack.seq.wrapping_add(self.random.u32() >> 20);
                "a later segment of a handshake"
            }
            1 => {
                ack.ack = ack.ack.wrapping_add(1 << self.random.below(32));
                "a cookie with one more bit"
            }
            2 => {
                ack.ack = self.random.u32();
                "a forged cookie"
            }
            3 => {
                let echo =
                    value.unwrap_or(0).wrapping_sub(self.random.pick(&[1 << 18, 1 << 31, 9]));
                ack.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(1, echo)];
                "a cookie with another echo"
            }
            4 => {
                self.fill(&mut ack);
                "a cookie with any options"
            }
            _ => "a cookie",
        };
        (what, Side::Outside, ack)
    }

    fn of_session(&mut self) -> (&'static str, Side, Segment) {
        if let Some((side, segment, left)) = self.storm.take() {
            if left > 0 {
                self.storm = Some((side, segment.clone(), left - 1));
            }
            return ("the same acknowledgment again", side, segment);
        }
        let session = self.sessions[self.random.below(self.sessions.len())];
        let outside = is_one_way(&session) || self.random.below(2) == 0;
        let (what, side, mut segment) = if outside {
            ("a client's segment", Side::Outside, session.client_segment())
        } else {
            ("a real server's segment", Side::Inside, session.real_server_segment())
        };
        let by = self.random.u32();
        segment.seq = segment.seq.wrapping_add(self.random.pick(&[0, 0, by >> 20, by]));
        let by = self.random.u32();
        segment.ack = segment.ack.wrapping_add(self.random.pick(&[0, 0, by >> 20, by]));
        segment.flags = self.flags();
        segment.window = self.random.pick(&[0, 1, 0x2000, 0xffff, by as u16]);
        segment.ttl = self.random.pick(&[0, 1, 2, 57, 64, 255, 57, 64, 255, 128]);
        segment.tos = by as u8;
        segment.urgent = self.random.pick(&[0, by as u16]);
        self.fill(&mut segment);
        if !is_one_way(&session) && self.random.below(10) == 0 {
            (segment.flags, segment.payload) = (ACK, Vec::new());
            self.storm = Some((side, segment.clone(), 4));
        } else if side == Side::Inside && self.random.below(3) == 0 {
            segment.flags = RST | ACK;
            segment.ack = session.cookie.wrapping_add(1).wrapping_add(session.numbers.f);
        } else if self.random.below(6) == 0 {
            self.end_at_edge(&session, side, &mut segment);
        }
        (what, side, segment)
    }

    /// Makes `segment` a FIN or RST that ends where the window of the other side does, or a little
    /// before or after.
    fn end_at_edge(&mut self, session: &Session, side: Side, segment: &mut Segment) {
        let ((ack, window), sub) = match side {
            Side::Outside => (session.known_out, 0),
            Side::Inside => (session.known_in, session.numbers.d),
        };
        segment.flags = self.random.pick(&[RST, RST | ACK, FIN | ACK]);
        segment.payload.clear();
        let length = u32::from(segment.flags & FIN != 0);
        let by = self.random.below(4) as u32;
        segment.seq =
            ack.wrapping_add(window).wrapping_add(by).wrapping_sub(length).wrapping_sub(sub);
    }

    /// Mostly those of a live connection; at times any twelve bits.
    fn flags(&mut self) -> u16 {
        let any = self.random.u32() as u16 & 0xfff;
        self.random.pick(&[
            ACK,
            ACK,
            ACK,
            ACK | PSH,
            ACK | PSH,
            ACK | FIN,
            ACK | FIN | PSH,
            RST,
            RST | ACK,
            SYN,
            SYN,
            SYN | ACK,
            0,
            any,
        ])
    }

    /// For one of our addresses, but no service and no session; or for nobody here.
    fn stray(&mut self) -> (&'static str, Side, Segment) {
        let port = self.random.u32() as u16;
        let to = self.random.pick(&[
            (VIP, port),
            (LOCAL.0, port),
            (LOCAL.0, 80),
            (host(0x0808_0808), 53),
        ]);
        let side = self.random.pick(&[Side::Outside, Side::Inside]);
        let mut segment = from_client(to);
        if side == Side::Inside {
            segment.destination_mac = INSIDE_MAC;
        }
        segment.flags = self.flags();
        self.fill(&mut segment);
        ("a stray", side, segment)
    }

    fn for_service(&mut self) -> (&'static str, Side, Segment) {
        let mut segment = from_client(self.service());
        segment.source.1 = self.random.u32() as u16;
        segment.flags = self.flags();
        (segment.seq, segment.ack) = (self.random.u32(), self.random.u32());
        self.fill(&mut segment);
        ("a segment to a service", Side::Outside, segment)
    }
}
