//! What is run with any bytes. A panic is a find.

mod engine;
mod fastpath;
mod input;
mod model;

mod tables;
mod wire;

pub(crate) use engine::engine;
pub(crate) use fastpath::fastpath;
pub(crate) use wire::wire;
