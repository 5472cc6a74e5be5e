//! `engine`: any sequence of what clients, real servers and time do, with noise between, against
//! [`super::model`]: which sessions exist and in which state. At the end nothing is left.

use std::collections::{HashMap, HashSet};

use seawall_engine::{Counter, Forwarding};
use seawall_fastpath::layout::switch;
use seawall_fastpath::{Reason, TcpState};

use super::input::Input;
use super::model::{Act, Connection, Expected};
use crate::support::balancer::Setup;
use crate::support::family::FAMILIES;
use crate::support::packet::{ACK, FIN, Opt, RST, SYN, Segment};
use crate::support::stage::{Stage, all_options, answer, clock_of};

const CLIENTS: usize = 4;
const FIRST_PORT: u16 = 40_000;
/// Bytes of a data segment.
const DATA: usize = 10;
/// Longer than anything lives.
const END: u64 = 2_000_000;

/// A client, its connection if it has one, and the SYN that its real server got last.
#[derive(Default)]
struct Client {
    connection: Option<Connection>,
    syn: Option<Segment>,
    isn: u32,
    /// All cookies that it has had.
    cookies: HashSet<u32>,
}

struct Run {
    stage: Stage,
    setup: Setup,
    clients: [Client; CLIENTS],
}

/// See the module.
pub(crate) fn engine(data: &[u8]) {
    let mut input = Input(data);
    let setup = setup(&mut input);
    let mut run = Run { stage: Stage::new(&setup), setup, clients: Default::default() };
    while !input.is_empty() {
        let at = input.below(CLIENTS);
        match input.below(17) {
            0..=2 => run.connect(at, &mut input),
            3 | 4 => run.answers(at, &mut input),
            5 => run.act(at, true, Act::Data),
            6 => run.act(at, false, Act::Data),
            7 => run.act(at, true, Act::Fin),
            8 => run.act(at, false, Act::Fin),
            9 => run.act(at, input.bit(), Act::Reset),
            10 => run.wait(u64::from(input.u8())),
            11 => run.wait(u64::from(input.u16()) * 4),
            12 => run.stage.balancer.answers ^= run.setup.servers > 1,
            13 => run.far_off(at, &mut input),
            14 => run.anything(&mut input),
            15 => run.operator(&mut input),
            _ => run.syn_only(at, &mut input),
        }
        run.check();
    }
    run.stage.balancer.answers = true;
    run.wait(END);
    run.stage.balancer.assert_empty();
}

fn setup(input: &mut Input<'_>) -> Setup {
    let mut setup = Setup {
        family: input.pick(&FAMILIES),
        forwarding: input.pick(&[Forwarding::FullNat, Forwarding::Nat]),
        one_armed: input.bit(),
        servers: 1 + input.below(3) as u32,
        sessions: input.pick(&[64, 8, 2]),
        ports: (5_000, input.pick(&[6_000, 5_003, 5_000])),
        ..Setup::default()
    };
    for state in [TcpState::FinWait, TcpState::CloseWait, TcpState::LastAck] {
        setup.config.switches |= switch::reuse(state);
    }
    setup.config.syn_retry = 3;
    setup
}

fn port(at: usize) -> u16 {
    FIRST_PORT + at as u16
}

impl Run {
    fn now(&self) -> u64 {
        self.stage.balancer.now()
    }

    fn refusals(&self) -> u64 {
        let engine = &self.stage.balancer.engine;
        [Counter::Exceeded, Counter::PortsExhausted, Counter::Conflict, Counter::NoDestination]
            .iter()
            .map(|counter| engine.counter(*counter))
            .sum()
    }

    /// Takes what has been sent, and notes the SYNs.
    fn take(&mut self) {
        for segment in self.stage.to_servers.drain(..) {
            if segment.flags != SYN {
                continue;
            }
            let sessions = self.stage.balancer.engine.sessions(0, 0, 64);
            let owner = sessions.iter().find(|(_, session)| {
                session.state == TcpState::SynSent
                    && session.ends.local.port == segment.source.1
                    && session.ends.real.address == segment.destination.0.into()
                    && session.ends.local.address == segment.source.0.into()
            });
            if let Some((_, session)) = owner {
                let at = usize::from(session.ends.client.port - FIRST_PORT);
                self.clients[at].syn = Some(segment);
            }
        }
        self.stage.to_client.clear();
    }

    /// A client's handshake, whatever it has now. Established sessions only forward the SYN.
    fn connect(&mut self, at: usize, input: &mut Input<'_>) {
        // Never near the numbers of the connection before.
        let isn = self.clients[at].isn.wrapping_add(0x3100_0000 + u32::from(input.u16()));
        let offers = input.below(3);
        let options = if offers == 0 { Vec::new() } else { all_options() };
        let state = self.clients[at].connection.map(|connection| connection.state);
        let syn = Segment { options, ..self.stage.client_says(port(at), SYN, isn, 0) };
        self.take();
        self.stage.client(&syn);
        if state == Some(TcpState::Established) {
            assert!(self.stage.to_client.is_empty(), "a cookie in spite of a session");
            self.seen_by_syn(at);
            self.take();
            return;
        }
        let cookie = self.stage.one_to_client();
        if state == Some(TcpState::SynSent) {
            return self.take();
        }
        self.clients[at].isn = isn;
        if !self.clients[at].cookies.insert(cookie.seq) {
            // One MAC in 2^23 is another's; what has been accepted a moment ago under this number
            // would pass for the same handshake.
            self.wait(1_000);
        }
        let mut first =
            self.stage.client_says(port(at), ACK, cookie.ack, cookie.seq.wrapping_add(1));
        if let Some((clock, _)) = clock_of(&cookie) {
            first.options = vec![Opt::Nop, Opt::Nop, Opt::Timestamps(1_005, clock)];
        }
        let refusals = self.refusals();
        self.stage.client(&first);
        self.stage.round();
        self.clients[at].syn = None;
        self.take();
        let refused = self.refusals() > refusals;
        self.clients[at].connection = (!refused).then(|| Connection {
            state: TcpState::SynSent,
            seen: self.now(),
            client: isn.wrapping_add(1),
            server: 0,
            cookie: cookie.seq,
            client_isn: isn,
            server_sees: 0,
            server_isn: 0,
            early_fin: false,
        });
    }

    /// A real server is removed and added again in one reload, and a service comes and goes:
    /// nobody notices.
    fn operator(&mut self, input: &mut Input<'_>) {
        let now = self.now();
        let engine = &mut self.stage.balancer.engine;
        let report = engine.services().swap_remove(0);
        let at = input.below(report.servers.len());
        let (server, spec) = (at as u32, report.servers[at].spec);
        engine.remove_server(0, server);
        assert_eq!(engine.add_server(0, spec), Some(server));
        let mut other = report.spec;
        other.address.port += 1;
        let number = engine.add_service(other);
        assert_eq!(number, 1);
        let new = engine.add_server(number, spec);
        assert_eq!(new, Some(0));
        engine.settle(now);
        engine.remove_service(number);
        engine.settle(now);
    }

    /// A forwarded SYN is a packet of the session.
    fn seen_by_syn(&mut self, at: usize) {
        let now = self.now();
        if !self.stage.to_servers.is_empty()
            && let Some(connection) = &mut self.clients[at].connection
        {
            connection.seen = now;
        }
    }

    /// Only a SYN: it leaves nothing behind.
    fn syn_only(&mut self, at: usize, input: &mut Input<'_>) {
        let syn = self.stage.client_says(port(at), SYN, input.u32(), 0);
        self.take();
        self.stage.client(&syn);
        self.stage.round();
        let state = self.clients[at].connection.map(|connection| connection.state);
        if state == Some(TcpState::Established) {
            self.seen_by_syn(at);
        }
        self.take();
    }

    /// The real server answers the SYN at hand.
    fn answers(&mut self, at: usize, input: &mut Input<'_>) {
        let (now, limited) = (self.now(), self.limited());
        let before = self.clients[at].connection;
        let Client { connection: Some(connection), syn: Some(syn), .. } = &mut self.clients[at]
        else {
            return;
        };
        if connection.state != TcpState::SynSent {
            return;
        }
        let next = syn.seq.wrapping_add(1);
        let isn = input.u32();
        match input.below(8) {
            0 => {
                self.stage.server(&answer(syn, RST | ACK, 0, next));
                connection.state = TcpState::Close;
            }
            1 => {
                // Of a connection of the past: asked again, at once or by the timer.
                self.stage.server(&answer(syn, ACK, isn, next.wrapping_add(77)));
                self.stage.round();
                return self.take();
            }
            kind => {
                let options = if kind < 5 { Vec::new() } else { all_options() };
                let accept = Segment { options, ..answer(syn, SYN | ACK, isn, next) };
                self.stage.server(&accept);
                connection.state =
                    if connection.early_fin { TcpState::CloseWait } else { TcpState::Established };
                connection.server_isn = isn;
                connection.server_sees = syn.seq;
                connection.server = isn.wrapping_add(1);
            }
        }
        connection.seen = now;
        if self.limited() > limited {
            // It has said too much for a session that is not established: not heard.
            self.clients[at].connection = before;
        }
        self.stage.round();
        self.take();
    }

    fn limited(&self) -> u64 {
        self.stage.balancer.reason(Reason::PuntLimited)
    }

    /// One end says something in its turn, and the other acknowledges it.
    fn act(&mut self, at: usize, from_client: bool, act: Act) {
        let now = self.now();
        let Some(connection) = self.clients[at].connection else { return };
        if connection.state == TcpState::SynSent {
            if from_client {
                self.act_early(at, act);
            }
            return;
        }
        let Some(syn) = self.clients[at].syn.clone() else { return };
        if connection.server_isn == 0 && connection.server == 0 {
            // Refused: the real server has no half.
            return;
        }
        let mut next = connection;
        let to_client = connection.server.wrapping_sub(connection.server_isn);
        let seen_by_client = connection.cookie.wrapping_add(to_client);
        let by_client = connection.client.wrapping_sub(connection.client_isn);
        let seen_by_server = connection.server_sees.wrapping_add(by_client);
        let (flags, payload) = match act {
            Act::Data => (ACK, vec![7; DATA]),
            Act::Fin => (FIN | ACK, Vec::new()),
            Act::Reset => (RST | ACK, Vec::new()),
        };
        let len = match act {
            Act::Data => DATA as u32,
            Act::Fin => 1,
            Act::Reset => 0,
        };
        let client_says = |seq, ack, flags| self.stage.client_says(port(at), flags, seq, ack);
        let server_says = |seq, ack, flags| answer(&syn, flags, seq, ack);
        if from_client {
            let said = client_says(connection.client, seen_by_client, flags);
            self.stage.client(&Segment { payload, ..said });
            next.client = connection.client.wrapping_add(len);
            if act != Act::Reset {
                let ack = seen_by_server.wrapping_add(len);
                self.stage.server(&server_says(connection.server, ack, ACK));
            }
        } else {
            let said = server_says(connection.server, seen_by_server, flags);
            let ack = client_says(connection.client, seen_by_client.wrapping_add(len), ACK);
            self.stage.server(&Segment { payload, ..said });
            next.server = connection.server.wrapping_add(len);
            if act != Act::Reset {
                self.stage.client(&ack);
            }
        }
        next.state = Connection::after(connection.state, from_client, act);
        next.seen = now;
        self.clients[at].connection = Some(next);
        self.stage.round();
        self.take();
    }

    /// The client goes on while its real server is asked.
    fn act_early(&mut self, at: usize, act: Act) {
        let Some(connection) = &mut self.clients[at].connection else { return };
        let seen = connection.cookie.wrapping_add(1);
        let says = |flags, seq| self.stage.client_says(port(at), flags, seq, seen);
        let (said, taken) = match act {
            Act::Data => {
                let said = says(ACK, connection.client);
                (Segment { payload: vec![7; DATA], ..said }, DATA as u32)
            }
            Act::Fin => (says(FIN | ACK, connection.client), 1),
            Act::Reset => (says(RST, connection.client), 0),
        };
        if act != Act::Reset && connection.early_fin {
            return;
        }
        let stored = self.stage.balancer.engine.counter(Counter::EarlyStored);
        self.stage.client(&said);
        self.stage.round();
        let kept = self.stage.balancer.engine.counter(Counter::EarlyStored) > stored;
        if kept {
            connection.client = connection.client.wrapping_add(taken);
            connection.early_fin |= act == Act::Fin;
        }
        let aborts = self.stage.balancer.engine.session_count();
        let limited = self.stage.balancer.reason(seawall_fastpath::Reason::PuntLimited) > 0;
        if act == Act::Reset && !(limited && aborts > 0) {
            self.clients[at].connection = None;
        }
        self.take();
        if limited {
            self.adopt(at);
        }
    }

    /// Takes over what the engine says, where what a client may send is limited.
    fn adopt(&mut self, at: usize) {
        if !self.states().contains_key(&port(at)) {
            self.clients[at].connection = None;
        }
    }

    /// RST, FIN and data from far outside the window, from both ends: nobody believes them.
    fn far_off(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(connection) = self.clients[at].connection else { return };
        let away = 0x2000_0000 + (u32::from(input.u16()) << 14);
        let flags = input.pick(&[RST, RST | ACK, FIN | ACK]);
        let seen = connection.cookie.wrapping_add(1);
        let seq = connection.client.wrapping_add(away);
        let said = self.stage.client_says(port(at), flags, seq, seen);
        self.stage.client(&said);
        if let Some(syn) = &self.clients[at].syn
            && connection.state != TcpState::SynSent
        {
            let seq = connection.server.wrapping_add(away);
            self.stage.server(&answer(syn, flags, seq, syn.seq.wrapping_add(1)));
        }
        self.stage.round();
        let last: HashMap<_, _> = self
            .stage
            .balancer
            .engine
            .sessions(self.now(), 0, 64)
            .into_iter()
            .map(|(_, session)| (session.ends.client.port, session.idle))
            .collect();
        if last.get(&port(at)) == Some(&0)
            && let Some(connection) = &mut self.clients[at].connection
            && connection.state != TcpState::SynSent
        {
            connection.seen = self.stage.balancer.now();
        }
        self.take();
    }

    /// Bytes from the street.
    fn anything(&mut self, input: &mut Input<'_>) {
        let mut segment = self.stage.client_says(1_000, 0, input.u32(), input.u32());
        segment.flags = input.u16() & 0x1ff & !SYN;
        segment.source.1 = input.u16() % 30_000;
        let mut frame = segment.bytes();
        let at = usize::from(input.u8()) % frame.len();
        // Ports apart, so that it is not a client of ours.
        let tcp = frame.len() - 20;
        if !(tcp..tcp + 4).contains(&at) {
            frame[at] ^= input.u8();
        }
        let _ = self.stage.balancer.receive(1, &frame);
        self.stage.round();
        self.take();
    }

    /// Time passes; what may have expired is looked up, what must not have is checked.
    fn wait(&mut self, milliseconds: u64) {
        let end = self.now() + milliseconds;
        while self.now() < end {
            let next = self.stage.balancer.next_round().clamp(self.now() + 1, end);
            self.stage.balancer.set_now(next);
            self.stage.round();
            self.take();
        }
    }

    fn states(&self) -> HashMap<u16, TcpState> {
        let sessions = self.stage.balancer.engine.sessions(self.now(), 0, 64);
        let count = sessions.len();
        let states: HashMap<_, _> = sessions
            .into_iter()
            .map(|(_, session)| (session.ends.client.port, session.state))
            .collect();
        assert_eq!(states.len(), count, "two sessions of one client");
        states
    }

    /// The engine knows what the model knows.
    fn check(&mut self) {
        let (states, now) = (self.states(), self.now());
        let timeouts = self.setup.config.timeouts;
        for (at, client) in self.clients.iter_mut().enumerate() {
            let state = states.get(&port(at)).copied();
            let expected = match &client.connection {
                Some(connection) => connection.expected(&timeouts, now),
                None => Expected::Gone,
            };
            let right = match expected {
                Expected::In(expected) => state == Some(expected),
                Expected::Gone => state.is_none(),
                Expected::InOrGone(expected) => state.is_none_or(|state| state == expected),
            };
            assert!(right, "client {at}: {state:?}, but {expected:?} of {:?}", client.connection);
            if state.is_none() {
                client.connection = None;
            }
        }
    }
}
