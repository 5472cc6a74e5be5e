//! What is found out before anything is touched: about a configuration, and about the machine that it
//! is for.

use std::path::Path;

use anyhow::{Context, Result};
use seawall_control::config::{Config, SharedSecret};
use seawall_datapath::netlink::Netlink;
use seawall_datapath::requirements;

use super::interfaces::Interfaces;
use super::setup::{self, Ways};

/// How much `seawall check` looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// What the file says.
    File,
    /// That, and whether it goes with this machine.
    Machine,
}

/// What the machine has for a configuration.
pub(super) struct Ground {
    pub(super) secret: Option<SharedSecret>,
    pub(super) netlink: Netlink,
    pub(super) interfaces: Interfaces,
    pub(super) gateways: Ways,
}

/// Looks at the machine: the secret file, privileges and kernel, interfaces, routes. Touches nothing.
///
/// # Errors
/// The first of these that is not as the configuration, or Seawall itself, needs it.
pub(super) fn ground(config: &Config) -> Result<Ground> {
    let secret = config.read_secret()?;
    requirements::check()?;
    let mut netlink = Netlink::open()?;
    let interfaces = Interfaces::find(config, &mut netlink)?;
    let gateways = setup::gateways(config, &interfaces, &mut netlink)?;
    Ok(Ground { secret, netlink, interfaces, gateways })
}

/// Checks a file as [`run`](super::run) does before it touches anything; says what was checked.
///
/// What a start does besides cannot be checked beside a daemon that runs: that the sockets and the
/// `state` directory are free, and that what the last daemon has left can be taken over.
///
/// # Errors
/// Everything wrong with the file; or else that, and why, it does not go with this machine.
pub(crate) fn check(path: &Path, scope: Scope) -> Result<String> {
    let config = Config::load(path)?;
    let servers: usize = config.services.iter().map(|service| service.real_servers.len()).sum();
    let what = format!("{} services, {servers} real servers", config.services.len());
    let file = format!("{}: the file is correct ({what})", path.display());
    match scope {
        Scope::File => Ok(format!("{file}; nothing of this machine was looked at")),
        Scope::Machine => {
            ground(&config).with_context(|| {
                format!("{}: the file is correct, but not on this machine", path.display())
            })?;
            Ok(format!("{file}; so are interfaces, routes and privileges on this machine"))
        }
    }
}
