//! A run: hosts, links and balancer on one clock, until nothing is left to happen.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use std::collections::HashMap;
use std::net::IpAddr;

use seawall_engine::{Counter, Forwarding, Introduction};
use seawall_fastpath::Reason;

use crate::host::{Host, Place};
use crate::network::{Network, To};
use crate::scenario::{Exchange, Scenario};
use crate::support::balancer::{
    Balancer, CLIENT_MAC, OUTSIDE, SERVER_PORT, Setup, interface_mac, server_mac,
};
use crate::support::introduction::{proxy_header, toa};
use crate::support::model::Model;
use crate::support::packet::{Ip, RST, SYN, Segment};
use crate::support::random::Random;

/// Attempts at one connection, where the network was too bad for one.
const ATTEMPTS: usize = 4;
/// How long the world rests before a further attempt, in milliseconds: longer than anything of
/// the failed one lives.
const REST: u64 = 1_300_000;
/// Longest a connection may take, in milliseconds.
const LIMIT: u64 = 3_600_000;
/// One step in so many is the engine's last.
const DEATHS: usize = 40;
/// Steps of the clock that one run may take.
const STEPS: u64 = 400_000;

/// One end of a connection and what it has done.
struct End {
    handle: SocketHandle,
    /// Which connection it is of, for the bytes that it should see.
    number: u64,
    exchange: Exchange,
    /// What is to come before what it receives.
    header: Vec<u8>,
    /// How much of that has come.
    introduced: usize,
    sent: usize,
    received: usize,
    closed: bool,
}

pub(crate) struct Run<'s> {
    scenario: &'s Scenario,
    random: Random,
    balancer: Balancer,
    network: Network,
    client: Host,
    servers: Vec<Host>,
    listeners: Vec<SocketHandle>,
    accepted: Vec<(usize, End)>,
    /// What the last connection begun is to do.
    exchange: Option<Exchange>,
    /// The client's end of the connection at hand.
    current: Option<End>,
    now: u64,
    engine_at: u64,
    /// For when the engine dies, and how.
    deaths: Random,
    /// When another one takes over from it; 0 while it lives.
    returns_at: u64,
    steps: u64,
    attempts: u64,
    pub(crate) failed: u64,
    /// Where the last SYN/ACK of a server to a port began.
    answered: HashMap<(usize, u16), u32>,
    /// What the client was told in this connection: the first number, and how far it went.
    told: (u32, u32),
    /// Resets to the client from beyond what it was told: of its last connection.
    strays: u64,
}

/// The byte at `at` of what one side of connection `number` sends: the same nowhere else.
fn byte(number: u64, from_client: bool, at: usize) -> u8 {
    let mixed = (at as u64 ^ number << 32 ^ u64::from(from_client) << 60)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u8
}

impl<'s> Run<'s> {
    pub(crate) fn new(scenario: &'s Scenario) -> Self {
        let setup = &scenario.setup;
        let (now, seed) = (setup.now, scenario.seed);
        let family = setup.family;
        let place = |address: Ip, mac, interface| Place {
            family,
            address,
            mac,
            gateway: interface_mac(interface),
            mtu: scenario.mtu,
            seed: seed ^ (address.0 as u64) << 32,
        };
        let server = |number| {
            let place = place(family.server(number), server_mac(number), setup.inside());
            Host::new(place, now)
        };
        let mut run = Self {
            scenario,
            random: Random(!seed),
            balancer: Balancer::new(setup),
            network: Network::new(scenario.weather, seed.wrapping_add(1) << 8),
            client: Host::new(place(family.client(), CLIENT_MAC, OUTSIDE), now),
            servers: (0..setup.servers).map(server).collect(),
            listeners: Vec::new(),
            accepted: Vec::new(),
            exchange: None,
            current: None,
            now,
            engine_at: u64::MAX,
            deaths: Random(seed ^ 0xdead << 32),
            returns_at: 0,
            steps: 0,
            attempts: 0,
            failed: 0,
            answered: HashMap::new(),
            told: (0, 0),
            strays: 0,
        };
        for number in 0..run.servers.len() {
            let listener = run.listen(number);
            run.listeners.push(listener);
        }
        run
    }

    /// A socket that listens at a server. It is the last in the set, and the only one: smoltcp
    /// asks sockets in order, and one that listens takes a SYN of any connection.
    fn listen(&mut self, number: usize) -> SocketHandle {
        let handle = self.servers[number].add(&self.scenario.server, true);
        let socket = self.servers[number].socket(handle);
        socket.listen(SERVER_PORT).expect("a closed socket");
        handle
    }

    /// Runs all connections, one after the other, and then until everything has timed out.
    pub(crate) fn all(&mut self) {
        for exchange in &self.scenario.exchanges {
            let mut done = false;
            for attempt in 0..ATTEMPTS {
                if self.connection(exchange, if attempt == 0 { exchange.pause } else { REST }) {
                    done = true;
                    break;
                }
                self.failed += 1;
            }
            assert!(done, "{ATTEMPTS} attempts failed: {exchange:?}");
        }
        self.settle();
    }

    /// What may end a connection without anybody being at fault, when frames are lost: no answer
    /// from any real server, an idle session, an ACK or a segment that came after its time.
    fn excuses(&self) -> u64 {
        let engine = [
            Counter::RsError,
            Counter::Expired,
            Counter::PortsExhausted,
            Counter::ProxyHeaderFailed,
        ];
        let engine: u64 = engine.iter().map(|counter| self.balancer.engine.counter(*counter)).sum();
        let reasons = [Reason::BadAck, Reason::TcpDrop, Reason::LocalNoSession];
        engine + reasons.iter().map(|reason| self.balancer.reason(*reason)).sum::<u64>()
    }

    /// Runs one connection until both ends have all bytes and have closed. Says whether it
    /// succeeded.
    fn connection(&mut self, exchange: &Exchange, pause: u64) -> bool {
        let begin = self.now + pause;
        while self.now < begin {
            self.step(begin);
        }
        self.attempts += 1;
        self.exchange = Some(*exchange);
        let (begun, excuses, deadline) = (self.now, self.excuses(), self.now + LIMIT);
        let strays = self.strays;
        let reuses = self.balancer.engine.session_count() > 0;
        let handle = self.client.add(&self.scenario.client, false);
        self.client.connect(handle, exchange.port, self.scenario.setup.family.vip());
        self.current = Some(End {
            handle,
            number: self.attempts,
            exchange: *exchange,
            header: Vec::new(),
            introduced: 0,
            sent: 0,
            received: 0,
            closed: false,
        });
        let succeeded = loop {
            self.poll_client();
            let state = self.client.socket(handle).state();
            if matches!(state, State::Closed | State::TimeWait) && self.is_complete() {
                break true;
            }
            if state == State::Closed || self.now >= deadline {
                let stray = reuses && self.strays > strays;
                let known = stray || self.scenario.is_limit(reuses);
                // An end whose segments were lost for so long gives up.
                let gave_up = self.now - begun >= self.scenario.client.patience;
                let lost = self.scenario.weather.loss > 0;
                let excused = known || lost && (gave_up || self.excuses() > excuses);
                assert!(excused, "the connection ended: {state:?} {}", self.tell());
                break false;
            }
            self.step(deadline);
        };
        self.current = None;
        // It takes its port back at once, as `tcp_tw_reuse` does.
        self.client.sockets.remove(handle);
        succeeded
    }

    /// Whether both ends of a connection have all bytes and have closed, at one server only.
    fn is_complete(&self) -> bool {
        let Some(end) = &self.current else { return false };
        let of_this = |(_, server): &&(usize, End)| server.number == end.number;
        let mut servers = self.accepted.iter().filter(of_this).map(|(_, server)| server);
        let (Some(server), None) = (servers.next(), servers.next()) else { return false };
        end.closed
            && server.closed
            && (end.sent, end.received) == (server.received, server.sent)
            && (end.sent, end.received) == (end.exchange.request, end.exchange.answer)
    }

    fn tell(&self) -> String {
        let Some(end) = &self.current else { return String::new() };
        let servers: Vec<_> = self
            .accepted
            .iter()
            .filter(|(_, server)| server.number == end.number)
            .map(|(_, server)| (server.sent, server.received, server.closed))
            .collect();
        let counters: Vec<_> = Counter::ALL
            .iter()
            .map(|counter| (counter.name(), self.balancer.engine.counter(*counter)))
            .chain(Reason::ALL.iter().map(|r| (r.name(), self.balancer.reason(*r))))
            .filter(|(_, value)| *value > 0)
            .collect();
        format!(
            "connection {} of {:?}: client sent {} received {} closed {}; servers {servers:?}; \
             {counters:?}; {:?}",
            end.number, end.exchange, end.sent, end.received, end.closed, self.scenario
        )
    }

    /// Everything that happens next, at one moment not after `limit`.
    fn step(&mut self, limit: u64) {
        self.poll_all();
        self.steps += 1;
        assert!(self.steps < STEPS, "a storm: {:?}", self.scenario);
        let hosts = self.servers.iter_mut().map(|host| host.next_poll(self.now));
        let hosts = hosts.min().unwrap_or(u64::MAX).min(self.client.next_poll(self.now));
        let engine = match self.returns_at {
            0 => self.engine_at.min(self.balancer.next_round()),
            returns_at => returns_at,
        };
        let next = self.network.next_arrival().min(engine).min(hosts);
        // A stack may want to be asked again at once; links without delay take no time either.
        let soonest = if self.network.next_arrival() <= self.now { 0 } else { 1 };
        self.now = next.max(self.now + soonest).min(limit.max(self.now));
        self.balancer.set_now(self.now);
        while let Some((to, frame)) = self.network.arrived(self.now) {
            match to {
                To::Balancer(interface) => {
                    let sent = self.balancer.receive(interface, &frame);
                    self.send(sent);
                }
                To::Client => {
                    self.tell_client(&Segment::read(&frame));
                    self.client.receive(&frame);
                    self.poll_client();
                }
                To::Server(number) => {
                    self.check_toa(number, &frame);
                    self.servers[number].receive(&frame);
                    self.poll_server(number);
                }
            }
        }
        if !self.engine_lives() {
            return;
        }
        if self.balancer.has_records() && self.engine_at == u64::MAX {
            self.engine_at = self.now + self.random.u64() % (self.scenario.laziness + 1);
        }
        if self.now >= self.engine_at || self.now >= self.balancer.next_round() {
            self.engine_at = u64::MAX;
            let sent = self.balancer.round();
            self.send(sent);
        }
    }

    /// Lets the engine die and another one take over, where that is the scenario; says whether one
    /// lives.
    fn engine_lives(&mut self) -> bool {
        let servers = 0..self.scenario.setup.servers;
        if self.returns_at > 0 {
            if self.now < self.returns_at {
                return false;
            }
            self.returns_at = 0;
            self.balancer.restart(servers);
        } else if self.scenario.dies && self.deaths.below(DEATHS) == 0 {
            match self.deaths.below(3) {
                0 => {
                    // All is said and done: nobody can tell the next engine from it.
                    let sent = self.balancer.round();
                    self.send(sent);
                    let before = Model::of(&self.balancer);
                    self.balancer.restart(servers);
                    assert_eq!(Model::of(&self.balancer), before, "{}", self.tell());
                    return true;
                }
                // What it was about to send is lost.
                1 => drop(self.balancer.work()),
                // Records wait for the next one.
                _ => {}
            }
            self.returns_at = self.now + self.deaths.pick(&[1, 1, 50, 1_000, 4_000]);
            return false;
        }
        true
    }

    /// Frames of the balancer go to whoever has the MAC on the link.
    fn send(&mut self, frames: impl IntoIterator<Item = (u32, Vec<u8>)>) {
        let inside = self.scenario.setup.inside();
        for (interface, frame) in frames {
            let server =
                (0..self.servers.len()).find(|number| frame[..6] == server_mac(*number as u32));
            let (to, expected) = match server {
                Some(number) => (To::Server(number), inside),
                None => (To::Client, OUTSIDE),
            };
            assert_eq!(interface, expected, "the wrong interface");
            self.network.send(self.now, to, frame);
        }
    }

    /// Notes what the client hears, to tell a reset that its last connection sent: cookies of one
    /// tuple are near each other, and smoltcp takes any reset in its window (RFC 5961 wants the
    /// exact number).
    fn tell_client(&mut self, segment: &Segment) {
        if segment.flags & SYN != 0 {
            self.told = (segment.seq, 1);
        }
        let at = segment.seq.wrapping_sub(self.told.0);
        if segment.flags & RST != 0 {
            self.strays += u64::from(at > self.told.1 + 1);
        } else if at <= self.told.1 + 1 {
            self.told.1 = self.told.1.max(at + segment.payload.len() as u32);
        }
    }

    fn poll_all(&mut self) {
        self.poll_client();
        for number in 0..self.servers.len() {
            self.poll_server(number);
        }
    }

    /// Lets the client's stack work, then its application, then its stack again.
    fn poll_client(&mut self) {
        for _ in 0..2 {
            for frame in self.client.poll(self.now) {
                self.network.send(self.now, To::Balancer(OUTSIDE), frame);
            }
            if let Some(end) = &mut self.current {
                end.work(&mut self.client, true);
            }
        }
    }

    /// The same at a server.
    fn poll_server(&mut self, number: usize) {
        let inside = self.scenario.setup.inside();
        for _ in 0..2 {
            for frame in self.servers[number].poll(self.now) {
                let said = Segment::read(&frame);
                if said.flags & SYN != 0 {
                    self.answered.insert((number, said.destination.1), said.seq);
                }
                self.network.send(self.now, To::Balancer(inside), frame);
            }
            let listener = self.listeners[number];
            if self.servers[number].socket(listener).state() != State::Listen {
                self.listeners[number] = self.listen(number);
            }
            self.accept(number);
            for (at, end) in &mut self.accepted {
                if *at == number {
                    end.work(&mut self.servers[number], false);
                }
            }
        }
    }

    /// Takes the connections that have opened at a server.
    fn accept(&mut self, number: usize) {
        let listener = self.listeners[number];
        let handles: Vec<_> = self.servers[number].sockets.iter().map(|(at, _)| at).collect();
        for handle in handles.into_iter().filter(|handle| *handle != listener) {
            let known = |(at, end): &(usize, End)| *at == number && end.handle == handle;
            if self.accepted.iter().any(known) {
                continue;
            }
            let socket = self.servers[number].socket(handle);
            match socket.state() {
                // One whose handshake was reset listens again, and is in the way.
                State::Listen => socket.abort(),
                State::Closed | State::SynReceived => {}
                _ => {
                    let Some(exchange) = self.exchange else { continue };
                    let header = self.header(&exchange);
                    self.accepted.push((
                        number,
                        End {
                            handle,
                            number: self.attempts,
                            exchange,
                            header,
                            introduced: 0,
                            sent: 0,
                            received: 0,
                            closed: false,
                        },
                    ));
                }
            }
        }
    }

    /// What a server gets before what the client says.
    fn header(&self, exchange: &Exchange) -> Vec<u8> {
        let Setup { family, introduction, .. } = self.scenario.setup;
        match introduction {
            Introduction::None | Introduction::Toa => Vec::new(),
            Introduction::Proxy(protocol) => {
                proxy_header(protocol, (family.client(), exchange.port), family.vip())
            }
        }
    }

    /// A TOA module at a server reads the option from the segment that completes a handshake: it
    /// must be there, and right.
    fn check_toa(&mut self, number: usize, frame: &[u8]) {
        let Setup { family, introduction, forwarding, .. } = self.scenario.setup;
        let full_nat = forwarding == Forwarding::FullNat;
        if introduction != Introduction::Toa || !full_nat {
            return;
        }
        let segment = Segment::read(frame);
        let completes = |isn: &u32| segment.ack == isn.wrapping_add(1);
        let answered = self.answered.get(&(number, segment.source.1));
        if segment.flags & (SYN | RST) != 0 || !answered.is_some_and(completes) {
            return;
        }
        let from = (IpAddr::from(segment.source.0), segment.source.1);
        let pending = self.servers[number].sockets.iter().any(|(_, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            let remote = socket.remote_endpoint().map(|end| (IpAddr::from(end.addr), end.port));
            socket.state() == State::SynReceived && remote == Some(from)
        });
        if let Some(exchange) = self.exchange.filter(|_| pending) {
            let expected = toa((family.client(), exchange.port));
            // What is of the connection before has its port.
            let other = toa((family.client(), exchange.port ^ 1));
            let first = segment.options.first();
            assert!(first == Some(&expected) || first == Some(&other), "{segment:?}");
        }
    }

    /// Lets everything time out, and insists that nothing is left.
    fn settle(&mut self) {
        let end = self.now + REST;
        while self.now < end {
            self.step(end);
        }
        self.balancer.assert_empty();
        for number in 0..self.servers.len() {
            let listener = self.listeners[number];
            let handles: Vec<_> = self.servers[number].sockets.iter().map(|(at, _)| at).collect();
            for handle in handles.into_iter().filter(|handle| *handle != listener) {
                let socket = self.servers[number].socket(handle);
                assert_eq!(socket.state(), State::Closed, "a server's end is left");
            }
        }
    }
}

impl End {
    /// What the application at this end does.
    fn work(&mut self, host: &mut Host, is_client: bool) {
        let (number, exchange) = (self.number, self.exchange);
        let socket = host.socket(self.handle);
        let (to_send, to_receive) = if is_client {
            (exchange.request, exchange.answer)
        } else {
            (exchange.answer, exchange.request)
        };
        while socket.can_recv() {
            let got = socket.recv(|bytes| {
                let expected = self.header.get(self.introduced..).unwrap_or_default();
                let len = expected.len().min(bytes.len());
                if len > 0 {
                    assert_eq!(bytes[..len], expected[..len], "the PROXY header");
                    self.introduced += len;
                    return (len, 0);
                }
                for (at, got) in bytes.iter().enumerate() {
                    let at = self.received + at;
                    assert!(at < to_receive, "byte {at} of {to_receive}: too many");
                    assert_eq!(*got, byte(number, !is_client, at), "byte {at} of {to_receive}");
                }
                (bytes.len(), bytes.len())
            });
            self.received += got.unwrap_or(0);
        }
        let may_send = is_client || !exchange.server_waits || self.received == to_receive;
        while may_send && self.sent < to_send && socket.can_send() {
            let sent = socket.send(|room| {
                let len = room.len().min(to_send - self.sent);
                for (at, to) in room.iter_mut().take(len).enumerate() {
                    *to = byte(number, is_client, self.sent + at);
                }
                (len, len)
            });
            self.sent += sent.unwrap_or(0);
        }
        let early =
            if is_client { exchange.client_closes_early } else { exchange.server_closes_early };
        let open = !matches!(socket.state(), State::SynSent | State::Closed);
        if !self.closed && open && self.sent == to_send && (early || self.received == to_receive) {
            self.closed = true;
            socket.close();
        }
    }
}
