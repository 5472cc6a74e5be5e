//! Numbers of generic netlink (`linux/netlink.h`, `linux/genetlink.h`) and of IPVS's family
//! (`linux/ip_vs.h`).

/// Flags of a netlink message.
pub(super) mod nlm {
    pub(in crate::ipvs) const REQUEST: u16 = 0x1;
    pub(in crate::ipvs) const MULTI: u16 = 0x2;
    pub(in crate::ipvs) const ACK: u16 = 0x4;
    pub(in crate::ipvs) const DUMP: u16 = 0x300;
}

/// Types below this one are netlink's own.
pub(super) const NLMSG_MIN_TYPE: u16 = 0x10;
pub(super) const NLMSG_ERROR: u16 = 0x2;
pub(super) const NLMSG_DONE: u16 = 0x3;

/// The family that resolves names of families.
pub(super) const GENL_ID_CTRL: u16 = 0x10;
/// The number that we give to the family `IPVS`; the kernel's are given as families come.
pub(super) const IPVS_ID: u16 = 0x1c;
pub(super) const IPVS_NAME: &str = "IPVS";
pub(super) const IPVS_VERSION: u8 = 1;

/// Commands and attributes of [`GENL_ID_CTRL`].
pub(super) mod ctrl {
    pub(in crate::ipvs) const NAME: &str = "nlctrl";
    pub(in crate::ipvs) const VERSION: u8 = 2;
    pub(in crate::ipvs) const NEWFAMILY: u8 = 1;
    pub(in crate::ipvs) const GETFAMILY: u8 = 3;
    pub(in crate::ipvs) const FAMILY_ID: u16 = 1;
    pub(in crate::ipvs) const FAMILY_NAME: u16 = 2;
    pub(in crate::ipvs) const FAMILY_VERSION: u16 = 3;
    pub(in crate::ipvs) const HDRSIZE: u16 = 4;
    pub(in crate::ipvs) const MAXATTR: u16 = 5;
}

/// `IPVS_CMD_*`.
pub(super) mod cmd {
    pub(in crate::ipvs) const NEW_SERVICE: u8 = 1;
    pub(in crate::ipvs) const SET_SERVICE: u8 = 2;
    pub(in crate::ipvs) const DEL_SERVICE: u8 = 3;
    pub(in crate::ipvs) const GET_SERVICE: u8 = 4;
    pub(in crate::ipvs) const NEW_DEST: u8 = 5;
    pub(in crate::ipvs) const SET_DEST: u8 = 6;
    pub(in crate::ipvs) const DEL_DEST: u8 = 7;
    pub(in crate::ipvs) const GET_DEST: u8 = 8;
    pub(in crate::ipvs) const NEW_DAEMON: u8 = 9;
    pub(in crate::ipvs) const DEL_DAEMON: u8 = 10;
    pub(in crate::ipvs) const GET_DAEMON: u8 = 11;
    pub(in crate::ipvs) const SET_CONFIG: u8 = 12;
    pub(in crate::ipvs) const GET_CONFIG: u8 = 13;
    pub(in crate::ipvs) const SET_INFO: u8 = 14;
    pub(in crate::ipvs) const GET_INFO: u8 = 15;
    pub(in crate::ipvs) const ZERO: u8 = 16;
    pub(in crate::ipvs) const FLUSH: u8 = 17;
}

/// `IPVS_CMD_ATTR_*`.
pub(super) mod attr {
    pub(in crate::ipvs) const SERVICE: u16 = 1;
    pub(in crate::ipvs) const DEST: u16 = 2;
    pub(in crate::ipvs) const DAEMON: u16 = 3;
    pub(in crate::ipvs) const TIMEOUT_TCP: u16 = 4;
    pub(in crate::ipvs) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(in crate::ipvs) const TIMEOUT_UDP: u16 = 6;
    pub(in crate::ipvs) const MAX: u32 = 6;
}

/// `IPVS_SVC_ATTR_*`.
pub(super) mod svc {
    pub(in crate::ipvs) const AF: u16 = 1;
    pub(in crate::ipvs) const PROTOCOL: u16 = 2;
    pub(in crate::ipvs) const ADDR: u16 = 3;
    pub(in crate::ipvs) const PORT: u16 = 4;
    pub(in crate::ipvs) const FWMARK: u16 = 5;
    pub(in crate::ipvs) const SCHED_NAME: u16 = 6;
    pub(in crate::ipvs) const FLAGS: u16 = 7;
    pub(in crate::ipvs) const TIMEOUT: u16 = 8;
    pub(in crate::ipvs) const NETMASK: u16 = 9;
    pub(in crate::ipvs) const STATS: u16 = 10;
    pub(in crate::ipvs) const PE_NAME: u16 = 11;
    pub(in crate::ipvs) const STATS64: u16 = 12;
}

/// `IPVS_DEST_ATTR_*`.
pub(super) mod dest {
    pub(in crate::ipvs) const ADDR: u16 = 1;
    pub(in crate::ipvs) const PORT: u16 = 2;
    pub(in crate::ipvs) const FWD_METHOD: u16 = 3;
    pub(in crate::ipvs) const WEIGHT: u16 = 4;
    pub(in crate::ipvs) const U_THRESH: u16 = 5;
    pub(in crate::ipvs) const L_THRESH: u16 = 6;
    pub(in crate::ipvs) const ACTIVE_CONNS: u16 = 7;
    pub(in crate::ipvs) const INACT_CONNS: u16 = 8;
    pub(in crate::ipvs) const PERSIST_CONNS: u16 = 9;
    pub(in crate::ipvs) const STATS: u16 = 10;
    pub(in crate::ipvs) const ADDR_FAMILY: u16 = 11;
    pub(in crate::ipvs) const STATS64: u16 = 12;
    pub(in crate::ipvs) const TUN_TYPE: u16 = 13;
    pub(in crate::ipvs) const TUN_PORT: u16 = 14;
    pub(in crate::ipvs) const TUN_FLAGS: u16 = 15;
}

/// `IPVS_STATS_ATTR_*`.
pub(super) mod stats {
    pub(in crate::ipvs) const CONNS: u16 = 1;
    pub(in crate::ipvs) const INPKTS: u16 = 2;
    pub(in crate::ipvs) const OUTPKTS: u16 = 3;
    pub(in crate::ipvs) const INBYTES: u16 = 4;
    pub(in crate::ipvs) const OUTBYTES: u16 = 5;
    pub(in crate::ipvs) const CPS: u16 = 6;
    pub(in crate::ipvs) const INPPS: u16 = 7;
    pub(in crate::ipvs) const OUTPPS: u16 = 8;
    pub(in crate::ipvs) const INBPS: u16 = 9;
    pub(in crate::ipvs) const OUTBPS: u16 = 10;
}

/// `IPVS_INFO_ATTR_*`.
pub(super) mod info {
    pub(in crate::ipvs) const VERSION: u16 = 1;
    pub(in crate::ipvs) const CONN_TAB_SIZE: u16 = 2;
    /// `IP_VS_VERSION_CODE`, 1.2.1.
    pub(in crate::ipvs) const VERSION_CODE: u32 = 0x0001_0201;
}

/// `IP_VS_SVC_F_*`.
pub(super) mod svc_flag {
    pub(in crate::ipvs) const PERSISTENT: u32 = 0x1;
    pub(in crate::ipvs) const HASHED: u32 = 0x2;
    pub(in crate::ipvs) const ONEPACKET: u32 = 0x4;
    pub(in crate::ipvs) const SCHED1: u32 = 0x8;
    pub(in crate::ipvs) const SCHED2: u32 = 0x10;
    pub(in crate::ipvs) const SCHED3: u32 = 0x20;
}

/// `IP_VS_CONN_F_*`: how a destination's packets are forwarded.
pub(super) mod fwd {
    pub(in crate::ipvs) const MASK: u32 = 0x7;
    pub(in crate::ipvs) const MASQ: u32 = 0;
    pub(in crate::ipvs) const TUNNEL: u32 = 2;
    pub(in crate::ipvs) const DROUTE: u32 = 3;
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_*` and `IP_VS_TUNNEL_ENCAP_FLAG_*`.
pub(super) mod tun {
    pub(in crate::ipvs) const IPIP: u8 = 0;
    pub(in crate::ipvs) const GUE: u8 = 1;
    pub(in crate::ipvs) const GRE: u8 = 2;
    pub(in crate::ipvs) const CSUM: u16 = 1;
    pub(in crate::ipvs) const REMCSUM: u16 = 2;
}

pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
pub(super) const IPPROTO_TCP: u16 = 6;
pub(super) const IPPROTO_UDP: u16 = 17;
