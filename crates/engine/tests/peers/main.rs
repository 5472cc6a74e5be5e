//! Bugs that users of other SYN proxies reported or that their sources show, one test each, named
//! after the project and the number of its issue. `docs/peers-tests.md` lists all, with the tests
//! of other crates that show the rest.

#[path = "../scripted/conversation.rs"]
#[allow(dead_code, reason = "the scripts use the rest")]
mod conversation;
mod floods;
mod handshakes;
mod offers;
#[path = "../support/mod.rs"]
mod support;
