//! What the format allows but this version does not do: refused with the reason, never ignored.

use super::errors::Problems;
use super::{Config, Forwarding, RealServerConfig, ServiceConfig};

/// Reports every use of a feature that is not built.
pub(super) fn refuse(config: &Config, problems: &mut Problems<'_>) {
    for service in &config.services {
        for server in &service.real_servers {
            refuse_real_server(service, server, problems);
        }
    }
}

fn refuse_real_server(
    service: &ServiceConfig,
    server: &RealServerConfig,
    problems: &mut Problems<'_>,
) {
    match server.forwarding {
        Forwarding::Nat | Forwarding::FullNat => {}
        Forwarding::Dr | Forwarding::Tunnel => problems.add(
            server.line,
            format_args!("real server {} has forwarding \"{}\"", server.address, server.forwarding),
            if service.synproxy {
                "synproxy cannot work with it, for its answers bypass the balancer, whose sequence \
                 numbers the client has; expected \"nat\" or \"fullnat\""
            } else {
                "this version forwards by \"nat\" and \"fullnat\" only; expected one of them"
            },
        ),
    }
}
