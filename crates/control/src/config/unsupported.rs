//! What the format allows but this version does not do: refused with the reason, never ignored.

use super::errors::Problems;
use super::{Config, Forwarding, RealServerConfig, ServiceConfig, TunnelChecksum, TunnelType};

/// Reports every use of a feature that is not built.
pub(super) fn refuse(config: &Config, problems: &mut Problems<'_>) {
    for service in &config.services {
        refuse_service(service, problems);
    }
}

/// Reports those of one service.
pub(super) fn refuse_service(service: &ServiceConfig, problems: &mut Problems<'_>) {
    for server in &service.real_servers {
        refuse_real_server(service, server, problems);
    }
}

fn refuse_real_server(
    service: &ServiceConfig,
    server: &RealServerConfig,
    problems: &mut Problems<'_>,
) {
    match server.forwarding {
        Forwarding::Dr | Forwarding::Tunnel if service.synproxy => problems.add(
            server.line,
            format_args!("real server {} has forwarding \"{}\"", server.address, server.forwarding),
            "synproxy cannot work with it, for its answers bypass the balancer, whose sequence \
             numbers the client has; expected \"nat\" or \"fullnat\"",
        ),
        Forwarding::Nat | Forwarding::FullNat | Forwarding::Dr | Forwarding::Tunnel => {}
    }
    let Some(tunnel) = server.tunnel else { return };
    let has = format!("real server {} has tunnel_checksum \"{}\"", server.address, tunnel.checksum);
    match tunnel.checksum {
        TunnelChecksum::None => {}
        TunnelChecksum::Full if tunnel.kind == TunnelType::Ipip => {
            problems.add(server.line, has, "IPIP has no checksum; expected \"nocsum\"");
        }
        TunnelChecksum::Full => {}
        TunnelChecksum::Remote => problems.add(
            server.line,
            has,
            "it is for packets whose checksum a network card would still fill in, and those of clients \
             have theirs (IPVS sends them as with \"nocsum\"); expected \"nocsum\" or \"csum\"",
        ),
    }
}
