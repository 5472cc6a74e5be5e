//! A small HTTP/1.1 server and client, as the peers of a load balancer: each server answers
//! differently, and large transfers carry the [pattern](crate::pattern) both sides can compute.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the server's own body |
//! | `GET /bytes/N` | N bytes of the pattern |
//! | `POST /upload` | `SHA256 LENGTH` of what arrived, in hex and decimal |
//!
//! Every answer names its server in `X-Server`.

mod client;
mod head;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Connection, Error, ErrorKind, Payload, Response, Timeouts, Transfer};
pub use client::{download, get, upload};
pub use server::{HttpServer, ServerSpec};

/// Bytes moved at a time by transfers.
const CHUNK: usize = 64 * 1024;

/// A digest as lower-case hexadecimal.
fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
