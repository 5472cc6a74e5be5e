//! What smoltcp does not do, from peers that follow a script and check every segment they get
//! (SPEC A3 to A14): odd options, closed windows, wrapping numbers, closes and resets at every
//! moment, requests larger than the store.

mod clocks;
mod closing;
mod conversation;
mod early;
mod numbers;
mod offers;
mod preface;
mod repeats;
mod resets;
mod reuse;
mod sacks;
mod storms;
#[path = "../support/mod.rs"]
mod support;
mod toa;
mod windows;
