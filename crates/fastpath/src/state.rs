//! IPVS's TCP state machine (Linux, `net/netfilter/ipvs/ip_vs_proto_tcp.c`, `tcp_states`).

/// The state of a session, under IPVS's names. The numbers are the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing known; the state of a free slot.
    #[default]
    None = 0,
    /// Both handshakes done, data flows.
    Established = 1,
    /// The client's handshake is done, the real server's is not.
    SynSent = 2,
    /// A service without the proxy: the client's SYN went to the real server.
    SynRecv = 3,
    /// The real server has sent its FIN.
    FinWait = 4,
    /// Both have sent their FIN.
    TimeWait = 5,
    /// Reset.
    Close = 6,
    /// The client has sent its FIN.
    CloseWait = 7,
    /// IPVS's LAST_ACK; its table leads there only from itself.
    LastAck = 8,
}

/// How many states there are.
pub const STATES: usize = 9;

/// What a segment means to the state machine; RST before SYN before FIN before ACK, as
/// `tcp_state_idx` ranks them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Event {
    /// SYN is set.
    Syn = 0,
    /// FIN is set.
    Fin = 1,
    /// Only ACK is set.
    Ack = 2,
    /// RST is set.
    Rst = 3,
}

/// Which way a segment goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// Client to real server.
    Inbound = 0,
    /// Real server to client.
    Outbound = 1,
}

impl TcpState {
    /// The state with this number, if there is one.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait,
            5 => Self::TimeWait,
            6 => Self::Close,
            7 => Self::CloseWait,
            8 => Self::LastAck,
            _ => Self::None,
        }
    }

    /// The name that `ipvsadm -Lc` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
        }
    }

    /// Where `event`, seen going `direction`, leads: one row of IPVS's table as nine 4-bit
    /// numbers in a word, which in the packet path is a shift instead of a load.
    #[inline(always)]
    #[must_use]
    pub const fn next(self, direction: Direction, event: Event) -> Self {
        let row = match (direction, event) {
            (Direction::Inbound, Event::Syn) => SYN_IN,
            (Direction::Inbound, Event::Fin) => FIN_IN,
            (Direction::Inbound, Event::Ack) => ACK_IN,
            (Direction::Inbound, Event::Rst) => RST_IN,
            (Direction::Outbound, Event::Syn) => SYN_OUT,
            (Direction::Outbound, Event::Fin) => FIN_OUT,
            (Direction::Outbound, Event::Ack) => ACK_OUT,
            (Direction::Outbound, Event::Rst) => RST_OUT,
        };
        Self::from_bits((row >> (self as u8 * 4) & 0xf) as u8)
    }

    /// The same, going in, where the other direction is never seen (IPVS: `TCP_DIR_INPUT_ONLY`, for DR
    /// and TUNNEL).
    #[inline(always)]
    #[must_use]
    pub const fn next_input_only(self, event: Event) -> Self {
        let row = match event {
            Event::Syn => SYN_IN,
            Event::Fin => FIN_IN_ONLY,
            Event::Ack => ACK_IN,
            Event::Rst => RST_IN,
        };
        Self::from_bits((row >> (self as u8 * 4) & 0xf) as u8)
    }
}

use TcpState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, SynRecv as SR,
    SynSent as SS, TimeWait as TW,
};

const fn row(next: [TcpState; STATES]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < STATES {
        bits |= (next[at] as u64) << (at * 4);
        at += 1;
    }
    bits
}

//                                  from: NO, ES, SS, SR, FW, TW, CL, CW, LA
const SYN_IN: u64 = row([SR, ES, ES, SR, SR, SR, SR, SR, SR]);
const FIN_IN: u64 = row([CL, CW, SS, TW, TW, TW, CL, CW, LA]);
const ACK_IN: u64 = row([CL, ES, SS, ES, FW, TW, CL, CW, CL]);
const RST_IN: u64 = row([CL, CL, CL, SR, CL, CL, CL, CL, LA]);
/// Of the rows for the one direction, the only one that differs.
const FIN_IN_ONLY: u64 = row([CL, FW, SS, TW, FW, TW, CL, CW, LA]);
const SYN_OUT: u64 = row([SS, ES, SS, SR, SS, SS, SS, SS, SS]);
const FIN_OUT: u64 = row([TW, FW, SS, TW, FW, TW, CL, TW, LA]);
const ACK_OUT: u64 = row([ES, ES, SS, ES, FW, TW, CL, CW, LA]);
const RST_OUT: u64 = row([CL, CL, SS, CL, CL, TW, CL, CL, CL]);

#[cfg(test)]
mod tests {
    use super::{Direction, Event, TcpState};

    /// IPVS, `tcp_states`: the ways a connection ends.
    #[test]
    fn ends_as_in_ipvs() {
        use {Direction::*, Event::*, TcpState::*};
        for (from, direction, event, to) in [
            (Established, Inbound, Fin, CloseWait),
            (CloseWait, Outbound, Fin, TimeWait),
            (Established, Outbound, Fin, FinWait),
            (FinWait, Inbound, Fin, TimeWait),
            (Established, Inbound, Rst, Close),
            (Established, Outbound, Rst, Close),
            (TimeWait, Outbound, Rst, TimeWait),
            (TimeWait, Inbound, Rst, Close),
            (SynRecv, Inbound, Ack, Established),
            (SynRecv, Outbound, Syn, SynRecv),
            (SynSent, Inbound, Ack, SynSent),
            (Established, Inbound, Syn, Established),
            (TimeWait, Inbound, Syn, SynRecv),
            (LastAck, Inbound, Ack, Close),
            (Close, Inbound, Fin, Close),
        ] {
            assert_eq!(from.next(direction, event), to, "{from:?} {direction:?} {event:?}");
        }
    }

    /// IPVS, `tcp_states`, `INPUT-ONLY`.
    #[test]
    fn one_direction_ends_as_in_ipvs() {
        use {Event::*, TcpState::*};
        for (from, event, to) in [
            (SynRecv, Ack, Established),
            (SynRecv, Rst, SynRecv),
            (SynRecv, Fin, TimeWait),
            (Established, Fin, FinWait),
            (Established, Rst, Close),
            (FinWait, Fin, FinWait),
            (FinWait, Ack, FinWait),
            (FinWait, Rst, Close),
            (FinWait, Syn, SynRecv),
            (TimeWait, Syn, SynRecv),
            (CloseWait, Fin, CloseWait),
            (Close, Ack, Close),
        ] {
            assert_eq!(from.next_input_only(event), to, "{from:?} {event:?}");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        for bits in 0..=u8::MAX {
            let state = TcpState::from_bits(bits);
            assert!(state as u8 == bits || state == TcpState::None);
        }
    }
}
