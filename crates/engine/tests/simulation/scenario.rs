//! What a seed stands for.

use seawall_engine::{Forwarding, Introduction, Netmask, Persistence, ProxyProtocol};
use seawall_fastpath::TcpState;
use seawall_fastpath::layout::{NO_SCALE, switch};

use crate::host::Tuning;
use crate::network::Weather;
use crate::support::balancer::Setup;
use crate::support::family::{FAMILIES, Family};
use crate::support::random::Random;

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Bytes that the client sends.
    pub(crate) request: usize,
    /// Bytes that the server sends.
    pub(crate) answer: usize,
    /// The client closes when its request is written, not when it has the answer.
    pub(crate) client_closes_early: bool,
    /// The server answers only when it has the whole request.
    pub(crate) server_waits: bool,
    /// The server closes when its answer is written, not when it has the request too.
    pub(crate) server_closes_early: bool,
    /// Milliseconds before it begins.
    pub(crate) pause: u64,
    /// The client's port.
    pub(crate) port: u16,
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) weather: Weather,
    pub(crate) mtu: usize,
    pub(crate) client: Tuning,
    pub(crate) server: Tuning,
    /// Longest wait between a record and the engine's round, in milliseconds.
    pub(crate) laziness: u64,
    /// The engine dies again and again, and another takes over.
    pub(crate) dies: bool,
    pub(crate) exchanges: Vec<Exchange>,
}

/// Half of them small, few large, up to 200 kB.
fn size(random: &mut Random) -> usize {
    match random.below(16) {
        0 | 1 => 0,
        2..=7 => random.below(1_000),
        8..=12 => random.below(10_000),
        13 | 14 => random.below(50_000),
        _ => random.below(200_001),
    }
}

fn tuning(random: &mut Random, patience: u64) -> Tuning {
    Tuning {
        // No less than our SYN/ACK offers: smoltcp stalls for good when a window shrinks.
        receive: random.pick(&[16_384, 65_535, 70_000, 200_000]),
        send: random.pick(&[2_000, 16_384, 65_535]),
        timestamps: random.below(3) > 0,
        patience,
    }
}

impl Scenario {
    /// What `seed` stands for.
    pub(crate) fn new(seed: u64) -> Self {
        let mut scenario = Self::plain(seed);
        scenario.widen(&mut Random(seed ^ 0x57ac_c0de << 32));
        scenario.introduce(&mut Random(seed ^ 0x0001_7d0c << 32));
        scenario
    }

    /// The same with an engine that dies again and again; a third of the services are persistent.
    pub(crate) fn of_mortals(seed: u64) -> Self {
        let mut scenario = Self { dies: true, ..Self::new(seed) };
        if Random(seed ^ 0xdead << 32).below(3) == 0 {
            let netmask = match scenario.setup.family {
                Family::V4 => Netmask::v4(u32::MAX),
                Family::V6 => Netmask::v6(128),
            };
            scenario.setup.persistence = Some(Persistence { timeout: 20_000, netmask });
        }
        scenario
    }

    /// Half of them tell real servers who their client is.
    fn introduce(&mut self, random: &mut Random) {
        let proxy = [ProxyProtocol::V1, ProxyProtocol::V2].map(Introduction::Proxy);
        self.setup.introduction = match random.below(8) {
            0..4 => Introduction::None,
            4 | 5 if self.setup.synproxy => random.pick(&proxy),
            _ => Introduction::Toa,
        };
    }

    /// Both families, slower paths, a lazier daemon, storms and stores of other sizes. A
    /// generator of its own, so that [`Self::plain`] stands for what it stood for.
    fn widen(&mut self, random: &mut Random) {
        self.setup.family = random.pick(&FAMILIES);
        if self.setup.family == Family::V6 {
            // RFC 8200, section 5: no link is narrower.
            self.mtu = self.mtu.max(1_280);
        }
        if random.below(4) == 0 {
            self.weather.delay = random.pick(&[5, 50, 150, 400]);
            self.weather.jitter = random.pick(&[0, 5, 100]);
        }
        if random.below(4) == 0 {
            self.weather.repeat = random.pick(&[10, 300]);
            self.weather.reorder = random.pick(&[10, 300]);
        }
        if random.below(4) == 0 {
            self.laziness = random.pick(&[20, 100]);
        }
        self.be_patient();
        self.setup.config.ack_storm_threshold = random.pick(&[10, 10, 10, 3, 0, 65_535]);
        if random.below(3) == 0 {
            self.setup.config.store.bytes = random.pick(&[4_000, 24 << 10, 65_536]);
        }
        if random.below(8) == 0 {
            self.setup.config.init_mss = random.pick(&[536, 1_220, 8_940]);
        }
    }

    /// What `seed` stood for when the bugs that have names were found.
    pub(crate) fn plain(seed: u64) -> Self {
        let mut random = Random(seed);
        let random = &mut random;
        let loss = random.u64() % 301 * (random.u64() % 301) / 300;
        let weather = Weather {
            loss: random.pick(&[0, loss, loss]),
            repeat: random.pick(&[0, 0, 50, 200]),
            reorder: random.pick(&[0, 0, 50, 200]),
            delay: random.pick(&[0, 1, 20]),
            jitter: random.pick(&[0, 1, 10]),
        };
        let exchange = |random: &mut Random| Exchange {
            request: size(random),
            answer: size(random),
            client_closes_early: random.below(2) == 0,
            server_waits: random.below(2) == 0,
            server_closes_early: random.below(2) == 0,
            pause: random.pick(&[0, 0, 300, 2_000, 15_000]),
            port: random.pick(&[40_000, 40_000, 40_000, 40_001]),
        };
        let count = 1 + random.below(4);
        let mut exchanges: Vec<_> = (0..count).map(|_| exchange(random)).collect();
        for exchange in &mut exchanges {
            if weather.loss > 60 {
                exchange.request %= 20_000;
                exchange.answer %= 20_000;
            }
            // A client that says nothing until it is spoken to may wait for ever, if its ACK is
            // lost: a SYN proxy cannot know (SPEC E).
            exchange.client_closes_early |= exchange.request == 0;
        }
        let mut setup = setup(random);
        let (client, server) = (tuning(random, 1_000_000), tuning(random, 1_000_000));
        if server.receive < 65_535 {
            // In units of 16 KiB such a window is always zero.
            setup.config.window_scale = setup.config.window_scale.min(7);
        }
        let mut scenario = Self {
            seed,
            setup,
            weather,
            mtu: random.pick(&[1500, 1500, 1400, 600]),
            client,
            server,
            laziness: random.pick(&[0, 0, 1, 5]),
            dies: false,
            exchanges,
        };
        scenario.be_patient();
        scenario
    }

    /// smoltcp's retransmissions back off beyond the default timeouts.
    fn be_patient(&mut self) {
        if self.weather.loss > 0 || self.weather.reorders() {
            for state in
                [TcpState::FinWait, TcpState::TimeWait, TcpState::CloseWait, TcpState::LastAck]
            {
                self.setup.config.timeouts.set(state, 900_000);
            }
        }
    }
}

impl Scenario {
    /// Whether this run may meet a limit. Without the proxy a client that takes its port back can
    /// find the real server in LAST_ACK, where smoltcp ignores a SYN (RFC 9293, section
    /// 3.10.7.4, wants a challenge ACK). And where half-closed sessions are not reused, the old
    /// real server resets a client whose last FIN was never seen to pass.
    pub(crate) const fn is_limit(&self, reuses: bool) -> bool {
        let overtakes = self.weather.reorders() || self.weather.loss > 0;
        let all = self.setup.config.switches & switch::reuse(TcpState::FinWait) != 0;
        reuses && overtakes && !(self.setup.synproxy && all)
    }
}

fn setup(random: &mut Random) -> Setup {
    let mut setup = Setup {
        forwarding: random.pick(&[Forwarding::Nat, Forwarding::FullNat]),
        synproxy: random.below(4) > 0,
        one_armed: random.below(3) == 0,
        servers: 1 + random.below(3) as u32,
        ports: (5000, random.pick(&[5015, 65_535])),
        resolved: random.below(2) == 0,
        key: random.u64(),
        ..Setup::default()
    };
    setup.now = match random.below(3) {
        // The millisecond clocks wrap while it runs.
        0 => (1 << 32) - random.u64() % 60_000,
        _ => 1_000_000 + random.u64() % (1 << 40),
    };
    let config = &mut setup.config;
    config.window_scale = random.pick(&[0, 3, 7, 14, NO_SCALE]);
    config.timestamp_offset = random.u64() >> 8;
    config.syn_retry = 8;
    for option in [switch::SACK, switch::TIMESTAMP] {
        if random.below(4) == 0 {
            config.switches &= !option;
        }
    }
    if random.below(2) == 0 {
        for state in [TcpState::FinWait, TcpState::CloseWait, TcpState::LastAck] {
            config.switches |= switch::reuse(state);
        }
    }
    if random.below(8) == 0 {
        config.store.segments = 2;
    }
    setup
}
