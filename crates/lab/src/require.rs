//! What a test needs and a machine may lack: then it is skipped, and says so; under
//! `SEAWALL_REQUIRE_ROOT=1`, as in continuous integration, it fails instead.

use std::fmt::Display;

use crate::namespace::Error;

/// The network, or `None` with a message where this process may not make it.
///
/// # Panics
///
/// With the error, when it is not about privileges or when tests must not be skipped.
pub fn root<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.is_permission() => {
            missing(format_args!("needs root: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Says that a test is skipped, and why.
///
/// # Panics
///
/// When tests must not be skipped.
pub fn missing(why: impl Display) {
    let required = std::env::var_os("SEAWALL_REQUIRE_ROOT").is_some_and(|value| value == "1");
    assert!(!required, "SEAWALL_REQUIRE_ROOT=1, but: {why}");
    println!("skipped: {why}");
}
