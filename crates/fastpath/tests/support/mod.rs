//! What tests of whole packets share. Nothing here uses the code under test to build, read or
//! judge a packet: bytes, checksums and options are done again, plainly.

pub(crate) mod icmp;
pub(crate) mod packet;
pub(crate) mod random;
pub(crate) mod splice;
pub(crate) mod tunnel;
pub(crate) mod world;
