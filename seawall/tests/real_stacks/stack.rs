//! What the cases of the matrix are made of.

use std::net::IpAddr;

use seawall_lab::Host;
use seawall_lab::topology::{LOCAL_ADDRESSES, LOCAL_ADDRESSES6, VIP, VIP6};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.address(),
            Self::V6 => host.address6(),
        }
    }

    pub(crate) const fn vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(VIP),
            Self::V6 => IpAddr::V6(VIP6),
        }
    }

    /// The first and the last local address.
    pub(crate) const fn local_addresses(self) -> [IpAddr; 2] {
        match self {
            Self::V4 => [IpAddr::V4(LOCAL_ADDRESSES[0]), IpAddr::V4(LOCAL_ADDRESSES[3])],
            Self::V6 => [IpAddr::V6(LOCAL_ADDRESSES6[0]), IpAddr::V6(LOCAL_ADDRESSES6[3])],
        }
    }

    /// Bytes of the IP and TCP headers without options, which the MSS leaves out.
    pub(crate) const fn headers(self) -> u32 {
        match self {
            Self::V4 => 40,
            Self::V6 => 60,
        }
    }
}

/// How a service reaches its real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    pub(crate) family: Family,
    pub(crate) forwarding: &'static str,
}

/// The families that the daemon balances, each both ways.
pub(crate) const WAYS: [Way; 4] = [
    Way { family: Family::V4, forwarding: "fullnat" },
    Way { family: Family::V4, forwarding: "nat" },
    Way { family: Family::V6, forwarding: "fullnat" },
    Way { family: Family::V6, forwarding: "nat" },
];

/// Which options a host uses: its kernel's switches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stack {
    timestamps: u8,
    sack: u8,
    window_scaling: u8,
    ecn: u8,
}

impl Stack {
    pub(crate) const ALL: Self = Self::numbered(0b1111);
    pub(crate) const NONE: Self = Self::numbered(0);

    /// One of 16: a bit an option.
    pub(crate) const fn numbered(number: u8) -> Self {
        Self {
            timestamps: number & 1,
            sack: number >> 1 & 1,
            window_scaling: number >> 2 & 1,
            ecn: number >> 3 & 1,
        }
    }

    pub(crate) fn apply(self, host: &Host) {
        let Self { timestamps, sack, window_scaling, ecn } = self;
        for (name, value) in [
            ("timestamps", timestamps),
            ("sack", sack),
            ("window_scaling", window_scaling),
            ("ecn", ecn),
        ] {
            let name = format!("net.ipv4.tcp_{name}");
            host.namespace.sysctl(&name, &value.to_string()).unwrap();
        }
    }
}

/// A client and the real server that it meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) client: Stack,
    pub(crate) server: Stack,
}

impl Pair {
    pub(crate) const ALL: Self = Self { client: Stack::ALL, server: Stack::ALL };
    pub(crate) const NONE: Self = Self { client: Stack::NONE, server: Stack::NONE };

    /// Each of the 16 stacks with each.
    pub(crate) fn every() -> Vec<Self> {
        let stacks = || (0..16).map(Stack::numbered);
        stacks().flat_map(|client| stacks().map(move |server| Self { client, server })).collect()
    }

    /// A stack that has all options and one that lacks one or all, either way round; both all, both
    /// none.
    pub(crate) fn uneven() -> Vec<Self> {
        let all = Stack::ALL;
        let lacking = [0b1110, 0b1101, 0b1011, 0b0111, 0].map(Stack::numbered);
        let mut pairs = vec![Self::ALL, Self::NONE];
        for stack in lacking {
            pairs.push(Self { client: all, server: stack });
            pairs.push(Self { client: stack, server: all });
        }
        pairs
    }
}
