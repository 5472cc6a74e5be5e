//! A client and real servers that say what the test tells them to.

use seawall_fastpath::Reason;

use super::balancer::{
    Balancer, CLIENT_MAC, Framed, OUTSIDE, SERVER_PORT, Setup, interface_mac, server_mac,
};
use super::family::Family;
use super::packet::{ACK, Ip, Opt, RST, SYN, Segment};

pub(crate) const CLIENT_ISN: u32 = 0xffff_fff0;
pub(crate) const SERVER_ISN: u32 = 0x1234_5678;
pub(crate) const CLIENT_PORT: u16 = 40_000;
/// The client's clock, and the real server's.
pub(crate) const CLIENT_CLOCK: u32 = 1_000;
pub(crate) const SERVER_CLOCK: u32 = 0x7fff_ffff;

/// What a SYN with everything offers.
pub(crate) fn all_options() -> Vec<Opt> {
    vec![Opt::Mss(1460), Opt::SackPermitted, Opt::Timestamps(CLIENT_CLOCK, 0), Opt::Scale(9)]
}

/// The answer of a real server to `to`, which it received.
pub(crate) fn answer(to: &Segment, flags: u16, seq: u32, ack: u32) -> Segment {
    Segment {
        source_mac: to.destination_mac,
        destination_mac: to.source_mac,
        source: to.destination,
        destination: to.source,
        seq,
        ack,
        flags,
        window: 5_000,
        options: Vec::new(),
        payload: Vec::new(),
        ..to.clone()
    }
}

/// The real server's SYN/ACK to `syn`.
pub(crate) fn syn_ack(syn: &Segment, options: Vec<Opt>) -> Segment {
    Segment { options, ..answer(syn, SYN | ACK, SERVER_ISN, syn.seq.wrapping_add(1)) }
}

/// A balancer and what it has sent.
pub(crate) struct Stage {
    pub(crate) balancer: Balancer,
    pub(crate) family: Family,
    inside: u32,
    any_port: bool,
    start: u64,
    asked: u16,
    /// The client from now on.
    pub(crate) from: Ip,
    /// The service that clients ask from now on.
    pub(crate) service: u16,
    pub(crate) to_client: Vec<Segment>,
    pub(crate) to_servers: Vec<Segment>,
}

impl Stage {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self {
            balancer: Balancer::new(setup),
            family: setup.family,
            inside: setup.inside(),
            any_port: setup.any_port,
            start: setup.now,
            asked: 0,
            from: setup.family.client(),
            service: 0,
            to_client: Vec::new(),
            to_servers: Vec::new(),
        }
    }

    /// A segment of the client of port `port` to the VIP.
    pub(crate) fn client_says(&self, port: u16, flags: u16, seq: u32, ack: u32) -> Segment {
        let (vip, first_port) = self.family.vip();
        Segment {
            source_mac: CLIENT_MAC,
            destination_mac: interface_mac(OUTSIDE),
            tags: Vec::new(),
            tos: 0,
            ident: 1,
            ttl: 64,
            source: (self.from, port),
            destination: (vip, first_port + self.service),
            seq,
            ack,
            flags,
            window: 1_000,
            urgent: 0,
            options: Vec::new(),
            raw_options: None,
            payload: Vec::new(),
        }
    }

    /// The interface that real servers are on.
    pub(crate) const fn inside(&self) -> u32 {
        self.inside
    }

    /// SYNs dropped for their options.
    pub(crate) fn malformed_syns(&self) -> u64 {
        self.balancer.reason(Reason::SynMalformed)
    }

    /// Milliseconds since the start.
    pub(crate) fn elapsed(&self) -> u64 {
        self.balancer.now() - self.start
    }

    pub(crate) fn take(&mut self, frames: impl IntoIterator<Item = Framed>) {
        for (interface, frame) in frames {
            let segment = Segment::read(&frame);
            if segment.destination_mac == CLIENT_MAC {
                assert_eq!(interface, OUTSIDE);
                self.to_client.push(segment);
            } else {
                assert_eq!(interface, self.inside);
                let server = self.family.server_number(segment.destination.0);
                assert_eq!(segment.destination_mac, server_mac(server));
                assert!(self.any_port || segment.destination.1 == SERVER_PORT);
                self.to_servers.push(segment);
            }
        }
    }

    /// XDP gets a client's segment.
    pub(crate) fn client(&mut self, segment: &Segment) {
        let sent = self.balancer.receive(OUTSIDE, &segment.bytes());
        self.take(sent);
    }

    /// XDP gets a real server's segment.
    pub(crate) fn server(&mut self, segment: &Segment) {
        let sent = self.balancer.receive(self.inside, &segment.bytes());
        self.take(sent);
    }

    /// The engine works.
    pub(crate) fn round(&mut self) {
        let sent = self.balancer.round();
        self.take(sent);
    }

    /// Lets `milliseconds` pass, the engine working as its timers want.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.balancer.now() + milliseconds;
        while self.balancer.now() < end {
            let next = self.balancer.next_round().clamp(self.balancer.now() + 1, end);
            self.balancer.set_now(next);
            self.round();
        }
    }

    /// The one segment that went to real servers since the last call.
    #[track_caller]
    pub(crate) fn one_to_server(&mut self) -> Segment {
        let mut sent = std::mem::take(&mut self.to_servers);
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.remove(0)
    }

    /// The one segment that went to the client since the last call.
    #[track_caller]
    pub(crate) fn one_to_client(&mut self) -> Segment {
        let mut sent = std::mem::take(&mut self.to_client);
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.remove(0)
    }

    /// The client's handshake with those options in its SYN, up to the SYN to a real server.
    /// Gives the client's first segment, to send more like it, and that SYN.
    #[track_caller]
    pub(crate) fn open(&mut self, port: u16, options: Vec<Opt>) -> (Segment, Segment) {
        let first = self.prove(port, options);
        (first, self.one_to_server())
    }

    /// An established connection of the client; its first segment, the SYN that its real server had,
    /// and which that is.
    #[track_caller]
    pub(crate) fn establish(&mut self, port: u16) -> (Segment, Segment, u32) {
        let (first, syn) = self.open(port, all_options());
        self.server(&syn_ack(&syn, all_options()));
        self.round();
        self.to_servers.clear();
        let server = self.family.server_number(syn.destination.0);
        (first, syn, server)
    }

    /// A handshake of the client, from a port that it has not used, that it gives up at once; which
    /// real server it would have had.
    #[track_caller]
    pub(crate) fn ask(&mut self) -> u32 {
        self.asked += 1;
        let (first, syn) = self.open(self.asked, all_options());
        self.client(&Segment { flags: RST, ..first });
        self.round();
        self.to_servers.clear();
        self.family.server_number(syn.destination.0)
    }

    /// The same, whatever comes of it.
    #[track_caller]
    pub(crate) fn prove(&mut self, port: u16, options: Vec<Opt>) -> Segment {
        let first = self.accept(port, options);
        self.round();
        first
    }

    /// The same, up to the ACK that waits for the engine.
    #[track_caller]
    pub(crate) fn accept(&mut self, port: u16, options: Vec<Opt>) -> Segment {
        let with_clock = options.iter().any(|option| matches!(option, Opt::Timestamps(..)));
        let syn = Segment { options, ..self.client_says(port, SYN, CLIENT_ISN, 0) };
        self.client(&syn);
        let cookie = self.one_to_client();
        assert_eq!((cookie.flags, cookie.ack), (SYN | ACK, CLIENT_ISN.wrapping_add(1)));
        let mut first = self.client_says(port, ACK, cookie.ack, cookie.seq.wrapping_add(1));
        if with_clock {
            let clock = clock_of(&cookie).expect("timestamps").0;
            let clocks = Opt::Timestamps(CLIENT_CLOCK + 5, clock);
            first.options = vec![Opt::Nop, Opt::Nop, clocks];
        }
        self.client(&first);
        first
    }
}

/// The timestamps of a segment.
pub(crate) fn clock_of(segment: &Segment) -> Option<(u32, u32)> {
    segment.options.iter().find_map(|option| match option {
        Opt::Timestamps(value, echo) => Some((*value, *echo)),
        _ => None,
    })
}

/// `first` with payload, `offset` bytes on.
pub(crate) fn data(first: &Segment, offset: u32, payload: &[u8]) -> Segment {
    Segment { seq: first.seq.wrapping_add(offset), payload: payload.to_vec(), ..first.clone() }
}
