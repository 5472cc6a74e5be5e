//! A client and a real server that keep their own numbers, and check that what one says is what
//! the other hears.

use crate::support::balancer::Setup;
use crate::support::family::Family;
use crate::support::packet::{ACK, Opt, RST, SYN, Segment};
use crate::support::stage::{Stage, clock_of};

/// What an end says about itself in its SYN or SYN/ACK, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) isn: u32,
    pub(crate) mss: Option<u16>,
    pub(crate) sack: bool,
    pub(crate) scale: Option<u8>,
    /// Its clock when it begins.
    pub(crate) clock: Option<u32>,
    /// The window field of its segments.
    pub(crate) window: u16,
}

impl Offer {
    pub(crate) const CLIENT: Self = Self {
        isn: 0x1111_1111,
        mss: Some(1460),
        sack: true,
        scale: Some(9),
        clock: Some(1_000),
        window: 1_000,
    };

    pub(crate) const SERVER: Self = Self {
        isn: 0x7777_7777,
        mss: Some(1460),
        sack: true,
        scale: Some(9),
        clock: Some(0x7fff_fff0),
        window: 500,
    };

    pub(crate) fn options(&self, echo: u32) -> Vec<Opt> {
        let mut options = Vec::new();
        options.extend(self.mss.map(Opt::Mss));
        options.extend(self.sack.then_some(Opt::SackPermitted));
        options.extend(self.clock.map(|value| Opt::Timestamps(value, echo)));
        options.extend(self.scale.map(Opt::Scale));
        options
    }

    /// Only what both understand is in use (RFC 7323, RFC 2018): what `self` may answer with.
    pub(crate) fn limited_to(self, syn: &Segment) -> Self {
        let has = |kind: u8| syn.options.iter().any(|option| option.bytes()[0] == kind);
        Self {
            sack: self.sack && has(4),
            scale: self.scale.filter(|_| has(3)),
            clock: self.clock.filter(|_| has(8)),
            ..self
        }
    }
}

/// One end: what it has said and heard, in its own numbers.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) offer: Offer,
    /// The next number that it sends.
    pub(crate) next: u32,
    /// The next number that it expects.
    pub(crate) expects: u32,
    /// The ISN that it saw of the other end.
    pub(crate) saw: u32,
    /// Its clock now, if timestamps are in use.
    pub(crate) clock: Option<u32>,
    /// The latest clock of the other end that it heard, and of its own that was heard.
    pub(crate) heard: u32,
    said: u32,
    pub(crate) window: u16,
    /// The shift by which it reads the other's windows, and the other reads its.
    pub(crate) reads_by: u8,
    pub(crate) read_by: u8,
}

impl End {
    fn segment(&self, like: &Segment, flags: u16, payload: &[u8]) -> Segment {
        let mut segment = Segment {
            seq: self.next,
            ack: self.expects,
            flags,
            window: self.window,
            payload: payload.to_vec(),
            options: Vec::new(),
            ..like.clone()
        };
        if let Some(clock) = self.clock {
            segment.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(clock, self.heard)];
        }
        segment
    }

    /// Its clock goes on.
    pub(crate) fn tick(&mut self, by: u32) {
        self.clock = self.clock.map(|clock| clock.wrapping_add(by));
    }
}

/// What a segment takes of the sequence space.
pub(crate) fn space(segment: &Segment) -> u32 {
    segment.payload.len() as u32 + u32::from(segment.flags & 2 != 0) + u32::from(segment.flags & 1)
}

/// A balancer with one connection through it.
pub(crate) struct Conversation {
    pub(crate) stage: Stage,
    pub(crate) client: End,
    pub(crate) server: End,
    /// The SYN/ACK that the client got, and its first ACK.
    pub(crate) cookie: Segment,
    pub(crate) first: Segment,
    /// The SYN that the real server got.
    pub(crate) syn: Segment,
    /// What real servers got before it.
    pub(crate) resets: Vec<Segment>,
    to_server: Segment,
    to_client: Segment,
}

pub(crate) const PORT: u16 = 40_000;

impl Conversation {
    /// The client's handshake, up to the SYN to a real server.
    #[track_caller]
    pub(crate) fn begin(setup: &Setup, offer: Offer) -> Self {
        Self::begin_on(Stage::new(setup), PORT, offer)
    }

    /// The same through a balancer that has run before.
    #[track_caller]
    pub(crate) fn begin_on(mut stage: Stage, port: u16, offer: Offer) -> Self {
        let like = stage.client_says(port, SYN, offer.isn, 0);
        let syn = Segment { options: offer.options(0), window: 0xffff, ..like.clone() };
        stage.client(&syn);
        let cookie = stage.one_to_client();
        assert_eq!((cookie.flags, cookie.ack), (SYN | ACK, offer.isn.wrapping_add(1)));
        let agreed = offer.limited_to(&cookie);
        let (heard, _) = clock_of(&cookie).unwrap_or_default();
        if agreed.clock.is_some() {
            assert_eq!(clock_of(&cookie).map(|clock| clock.1), offer.clock, "TSecr of the SYN/ACK");
        }
        let ours = scale_of(&cookie);
        assert_eq!(ours.is_some(), agreed.scale.is_some(), "scaling is agreed or it is not");
        let clock = agreed.clock.map(|clock| clock.wrapping_add(5));
        let client = End {
            offer: agreed,
            next: offer.isn.wrapping_add(1),
            expects: cookie.seq.wrapping_add(1),
            saw: cookie.seq,
            clock,
            heard,
            said: clock.unwrap_or(0),
            window: offer.window,
            reads_by: ours.unwrap_or(0),
            read_by: agreed.scale.unwrap_or(0),
        };
        let first = client.segment(&like, ACK, b"");
        stage.client(&first);
        stage.round();
        // What is left of an earlier connection from this port is reset first (SPEC A12).
        let (resets, syns) = stage.to_servers.drain(..).partition(|sent| sent.flags & RST != 0);
        stage.to_servers = syns;
        let syn = stage.one_to_server();
        assert_eq!((syn.flags, syn.ack), (SYN, 0));
        let to_client = crate::support::stage::answer(&syn, ACK, 0, 0);
        let server = End {
            offer: Offer::SERVER,
            next: 0,
            expects: syn.seq.wrapping_add(1),
            saw: syn.seq,
            clock: None,
            heard: clock_of(&syn).unwrap_or_default().0,
            said: 0,
            window: 0,
            reads_by: scale_of(&syn).unwrap_or(0),
            read_by: 0,
        };
        Self { stage, client, server, cookie, first, syn, resets, to_server: like, to_client }
    }

    /// A SYN/ACK of the real server to the SYN at hand.
    pub(crate) fn accepts(&mut self, offer: Offer) -> Segment {
        let agreed = offer.limited_to(&self.syn);
        self.server = End {
            offer: agreed,
            next: offer.isn.wrapping_add(1),
            expects: self.syn.seq.wrapping_add(1),
            saw: self.syn.seq,
            clock: agreed.clock,
            heard: clock_of(&self.syn).unwrap_or_default().0,
            said: agreed.clock.unwrap_or(0),
            window: offer.window,
            reads_by: if agreed.scale.is_some() { self.client.read_by } else { 0 },
            read_by: agreed.scale.unwrap_or(0),
        };
        if agreed.clock.is_none() {
            self.client.clock = None;
        }
        self.to_client = crate::support::stage::answer(&self.syn, ACK, 0, 0);
        Segment {
            options: agreed.options(self.server.heard),
            window: u16::try_from(u32::from(offer.window) << self.server.read_by)
                .unwrap_or(u16::MAX),
            ..crate::support::stage::answer(
                &self.syn,
                SYN | ACK,
                offer.isn,
                self.syn.seq.wrapping_add(1),
            )
        }
    }

    /// The whole handshake, each segment of it checked.
    #[track_caller]
    pub(crate) fn open(setup: &Setup, client: Offer, server: Offer) -> Self {
        let mut talk = Self::begin(setup, client);
        talk.establish(server);
        talk
    }

    /// The real server's part of it.
    #[track_caller]
    pub(crate) fn establish(&mut self, server: Offer) {
        let accept = self.accepts(server);
        self.stage.server(&accept);
        self.stage.round();
        let kept = self.stage.one_to_server();
        let first = self.first.clone();
        if self.client.clock.is_some() {
            let (value, echo) = clock_of(&kept).expect("timestamps");
            assert_eq!(value, self.server.heard, "TSval of the SYN once more");
            assert_eq!(Some(echo), self.server.clock, "TSecr exactly as sent");
        }
        self.hears_at_server(&first, &kept);
    }

    /// A segment of the client as it would send it now.
    pub(crate) fn client_segment(&self, flags: u16, payload: &[u8]) -> Segment {
        self.client.segment(&self.to_server, flags, payload)
    }

    /// A segment of the real server as it would send it now.
    pub(crate) fn server_segment(&self, flags: u16, payload: &[u8]) -> Segment {
        self.server.segment(&self.to_client, flags, payload)
    }

    /// The client says something and the real server hears it.
    #[track_caller]
    pub(crate) fn client_says(&mut self, flags: u16, payload: &[u8]) -> Segment {
        let said = self.client_segment(flags, payload);
        self.client_sends(&said)
    }

    /// The client sends this segment, and the real server hears it.
    #[track_caller]
    pub(crate) fn client_sends(&mut self, said: &Segment) -> Segment {
        self.stage.client(said);
        self.stage.round();
        let heard = self.stage.one_to_server();
        assert!(self.stage.to_client.is_empty());
        self.client.next = said.seq.wrapping_add(space(said));
        if let Some((value, _)) = clock_of(said) {
            self.client.said = value;
        }
        self.hears_at_server(said, &heard);
        heard
    }

    /// The real server says something and the client hears it.
    #[track_caller]
    pub(crate) fn server_says(&mut self, flags: u16, payload: &[u8]) -> Segment {
        let said = self.server_segment(flags, payload);
        self.server_sends(&said)
    }

    /// The real server sends this segment, and the client hears it.
    #[track_caller]
    pub(crate) fn server_sends(&mut self, said: &Segment) -> Segment {
        self.stage.server(said);
        self.stage.round();
        let heard = self.stage.one_to_client();
        assert!(self.stage.to_servers.is_empty());
        self.server.next = said.seq.wrapping_add(space(said));
        if let Some((value, _)) = clock_of(said) {
            self.server.said = value;
        }
        self.hears_at_client(said, &heard);
        heard
    }

    #[track_caller]
    pub(crate) fn hears_at_server(&mut self, said: &Segment, heard: &Segment) {
        same(said, heard, (&self.client, &self.server));
        assert!(said.window == 0 || heard.window > 0, "an open window never looks shut");
        let bytes = u32::from(said.window) << self.client.read_by;
        let read = u32::from(heard.window) << self.server.reads_by;
        assert_eq!(read, bytes.min(0xffff << self.server.reads_by), "the client's window");
        hear(&mut self.server, heard);
    }

    #[track_caller]
    pub(crate) fn hears_at_client(&mut self, said: &Segment, heard: &Segment) {
        same(said, heard, (&self.server, &self.client));
        let bytes = u32::from(said.window) << self.server.read_by;
        let read = u32::from(heard.window) << self.client.reads_by;
        let step = 1 << self.client.reads_by;
        if said.window == 0 {
            assert_eq!(read, 0, "a shut window");
        } else {
            assert!(heard.window > 0, "an open window never looks shut");
            let most = 0xffff << self.client.reads_by;
            let exact = bytes.min(most) / step * step;
            assert_eq!(read, exact.max(step), "the real server's window");
        }
        hear(&mut self.client, heard);
    }

    /// Both sides close in order, and all times out.
    #[track_caller]
    pub(crate) fn close(mut self, family: Family) {
        assert_eq!(self.stage.family, family);
        let fin = crate::support::packet::FIN;
        self.client_says(fin | ACK, b"");
        self.server_says(fin | ACK, b"");
        self.client_says(ACK, b"");
        self.end();
    }

    /// Everything times out and nothing is left or sent.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.stage.pass(1_000_000);
        assert!(self.stage.to_client.is_empty(), "{:?}", self.stage.to_client);
        assert!(self.stage.to_servers.is_empty(), "{:?}", self.stage.to_servers);
        self.stage.balancer.assert_empty();
    }
}

/// Notes what an end has heard.
fn hear(end: &mut End, heard: &Segment) {
    if heard.seq == end.expects {
        end.expects = heard.seq.wrapping_add(space(heard));
        if end.clock.is_some()
            && let Some((value, _)) = clock_of(heard)
        {
            assert!(value.wrapping_sub(end.heard) < 1 << 31, "RFC 7323: PAWS");
            end.heard = value;
        }
    }
}

/// What was heard is what was said, each in the numbers of its own end.
#[track_caller]
fn same(said: &Segment, heard: &Segment, (from, to): (&End, &End)) {
    assert_eq!(said.flags, heard.flags);
    assert_eq!(said.payload, heard.payload);
    assert_eq!(
        said.seq.wrapping_sub(from.offer.isn),
        heard.seq.wrapping_sub(to.saw),
        "sequence number"
    );
    let has_ack = said.flags & ACK != 0;
    if has_ack {
        let (theirs, ours) =
            (said.ack.wrapping_sub(from.saw), heard.ack.wrapping_sub(to.offer.isn));
        assert_eq!(theirs, ours, "acknowledgment number");
    } else {
        assert_eq!(heard.ack, said.ack);
    }
    assert_eq!(said.options.len(), heard.options.len(), "{heard:?}");
    for (said, heard) in said.options.iter().zip(&heard.options) {
        match (said, heard) {
            (Opt::Timestamps(_, echo), Opt::Timestamps(_, got)) if from.clock.is_some() => {
                // RFC 7323, section 3.2: without ACK it means nothing.
                if !has_ack {
                    continue;
                }
                // An end echoes the clock of the other that it heard last.
                assert_eq!(*echo, from.heard, "the script");
                assert_eq!(*got, to.said, "TSecr is exactly what was sent");
            }
            (Opt::Sack(said), Opt::Sack(heard)) => {
                let by = |blocks: &[(u32, u32)], isn: u32| -> Vec<_> {
                    let from = |edge: u32| edge.wrapping_sub(isn);
                    blocks.iter().map(|(left, right)| (from(*left), from(*right))).collect()
                };
                assert_eq!(by(said, from.saw), by(heard, to.offer.isn), "SACK");
            }
            (said, heard) => assert_eq!(said, heard),
        }
    }
}

/// The window scale that a segment offers.
pub(crate) fn scale_of(segment: &Segment) -> Option<u8> {
    segment.options.iter().find_map(|option| match option {
        Opt::Scale(shift) => Some(*shift),
        _ => None,
    })
}

/// The MSS that a segment offers.
pub(crate) fn mss_of(segment: &Segment) -> Option<u16> {
    segment.options.iter().find_map(|option| match option {
        Opt::Mss(mss) => Some(*mss),
        _ => None,
    })
}
