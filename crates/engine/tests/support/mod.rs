//! What the engine's tests share: a balancer of engine and native packet path, driven as the
//! daemon drives it, and segments written byte by byte.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test crate uses a part of it")]

pub(crate) mod balancer;
pub(crate) mod family;
pub(crate) mod introduction;
pub(crate) mod model;
#[path = "../../../fastpath/tests/support/packet.rs"]
pub(crate) mod packet;
#[path = "../../../fastpath/tests/support/random.rs"]
pub(crate) mod random;
pub(crate) mod stage;
