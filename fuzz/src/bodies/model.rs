//! What the engine should know: one state a client, moved by what both ends did.

use seawall_engine::Timeouts;
use seawall_fastpath::TcpState;

/// Milliseconds by which a session may outlive its timeout.
const SLACK: u64 = 200;
/// Handshakes: 1 + 2 + 4 + 8 s with each of two real servers, and once more with each from another
/// local port if that remembers the first.
const ONE_SERVER: u64 = 15_000;
const TWO_SERVERS: u64 = 60_000;

/// What is expected of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// It is in this state.
    In(TcpState),
    /// There is none.
    Gone,
    /// It may be either by now.
    InOrGone(TcpState),
}

/// One client's connection as its two ends see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) state: TcpState,
    /// When the last segment passed.
    pub(crate) seen: u64,
    /// Next numbers of the client, as it counts, and of the real server, as it counts.
    pub(crate) client: u32,
    pub(crate) server: u32,
    /// First numbers: what the client sees of the real server, and the other way round.
    pub(crate) cookie: u32,
    pub(crate) client_isn: u32,
    pub(crate) server_sees: u32,
    pub(crate) server_isn: u32,
    /// The client has sent its FIN while the real server was asked.
    pub(crate) early_fin: bool,
}

/// What an end does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Data,
    Fin,
    Reset,
}

impl Connection {
    /// IPVS's table, as far as segments in order lead through it.
    pub(crate) fn after(state: TcpState, from_client: bool, act: Act) -> TcpState {
        use TcpState::{Close, CloseWait, Established, FinWait, TimeWait};
        match (state, from_client, act) {
            (state, _, Act::Data) => state,
            (TimeWait, false, Act::Reset) => TimeWait,
            (_, _, Act::Reset) => Close,
            (Established, true, Act::Fin) => CloseWait,
            (Established, false, Act::Fin) => FinWait,
            (CloseWait, false, Act::Fin) | (FinWait, true, Act::Fin) => TimeWait,
            (state, _, Act::Fin) => state,
        }
    }

    /// What is expected at `now`.
    pub(crate) fn expected(&self, timeouts: &Timeouts, now: u64) -> Expected {
        let idle = now - self.seen;
        let (least, most) = match self.state {
            TcpState::SynSent => (ONE_SERVER, TWO_SERVERS),
            state => (timeouts.get(state), timeouts.get(state)),
        };
        if idle < least {
            Expected::In(self.state)
        } else if idle > most + SLACK {
            Expected::Gone
        } else {
            Expected::InOrGone(self.state)
        }
    }
}
