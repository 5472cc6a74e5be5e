//! Stock tools of LVS, unmodified, drive Seawall by its IPVS socket and the preload library (SPEC D3).
//! Needs root, ipvsadm, keepalived and user-mode Linux; `SEAWALL_REQUIRE_ROOT=1` makes a skip a failure.

mod keepalived;
mod recorded;
mod scale;
mod stage;
mod traffic;

const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");
