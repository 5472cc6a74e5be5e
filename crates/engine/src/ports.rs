//! Local addresses and ports for FULLNAT (SPEC C6).

use std::collections::HashSet;

use seawall_fastpath::family::Version;
use seawall_fastpath::{Endpoint, Transport};

use crate::desired::LocalPool;

/// Ports tried for one connection over all addresses (LVS: `fullnat_lport_tries`).
pub(crate) const MAX_TRIES: u32 = 10_000;

/// A pool and where its next search starts.
#[derive(Debug)]
pub(crate) struct Ports {
    pool: LocalPool,
    next_address: usize,
    next_port: Vec<u32>,
    /// Real servers towards which nothing was free since the last port was: no search is made
    /// for them, or whoever can open sessions could make each cost [`MAX_TRIES`] look-ups. At
    /// most two for each real server.
    exhausted: HashSet<(Transport, Endpoint)>,
}

impl Ports {
    pub(crate) fn new(pool: LocalPool) -> Self {
        let next_port = vec![0; pool.addresses.len()];
        Self { pool, next_address: 0, next_port, exhausted: HashSet::new() }
    }

    /// A session has ended; its port may be one of these.
    pub(crate) fn port_freed(&mut self) {
        self.exhausted.clear();
    }

    /// The next endpoint towards `real` that `is_free` for `transport`, each of which has all ports to
    /// itself: addresses of its family in turn, on each the
    /// ports in turn, and the next address before giving up. `None` after [`MAX_TRIES`] ports or when
    /// all were tried.
    pub(crate) fn allocate(
        &mut self,
        transport: Transport,
        real: Endpoint,
        is_free: impl Fn(Endpoint) -> bool,
    ) -> Option<Endpoint> {
        if self.exhausted.contains(&(transport, real)) {
            return None;
        }
        let count = self.pool.addresses.len();
        let family = Version::of(real.address);
        let of_family = self.pool.addresses.iter().filter(|own| Version::of(**own) == family);
        let of_family = of_family.count().max(1) as u32;
        let ports = u32::from(self.pool.port_max) + 1 - u32::from(self.pool.port_min);
        let tries = MAX_TRIES.div_ceil(of_family).min(ports);
        for _ in 0..count {
            let at = self.next_address % count;
            self.next_address = at + 1;
            let address = *self.pool.addresses.get(at)?;
            if Version::of(address) != family {
                continue;
            }
            let next = self.next_port.get_mut(at)?;
            for _ in 0..tries {
                let port = self.pool.port_min + (*next % ports) as u16;
                *next = (*next + 1) % ports;
                let endpoint = Endpoint { address, port };
                if is_free(endpoint) {
                    return Some(endpoint);
                }
            }
        }
        self.exhausted.insert((transport, real));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use crate::desired::LocalPool;
    use seawall_fastpath::{Addr, Endpoint, Transport};
    use std::collections::HashSet;

    const REAL: Endpoint = Endpoint { address: Addr::v4(99), port: 80 };

    fn ports(addresses: u32, port_min: u16, port_max: u16) -> Ports {
        let addresses = (1..=addresses).map(Addr::v4).collect();
        Ports::new(LocalPool { addresses, port_min, port_max })
    }

    /// PEERS (d), alibaba/LVS #12: "no port available" while other addresses had some.
    #[test]
    fn every_port_of_every_address_before_giving_up() {
        let mut ports = ports(3, 65_530, 65_535);
        let mut taken = HashSet::new();
        let real = REAL;
        while let Some(endpoint) =
            ports.allocate(Transport::Tcp, real, |endpoint| !taken.contains(&endpoint))
        {
            assert!((65_530..=65_535).contains(&endpoint.port));
            assert!(taken.insert(endpoint));
        }
        assert_eq!(taken.len(), 18);
        let freed = *taken.iter().next().unwrap();
        taken.remove(&freed);
        assert_eq!(ports.allocate(Transport::Tcp, real, |_| panic!("searched again")), None);
        assert!(ports.allocate(Transport::Udp, real, |_| true).is_some(), "ports of its own");
        ports.port_freed();
        assert_eq!(
            ports.allocate(Transport::Tcp, real, |endpoint| !taken.contains(&endpoint)),
            Some(freed)
        );
    }

    /// SPEC, "Interface": a pool may mix families, and a session takes what leads to its server.
    #[test]
    fn an_address_is_of_the_real_servers_family() {
        let v4 = [Addr::v4(1), Addr::v4(2)];
        let v6 = [Addr([0xfd00 << 48, 1]), Addr([0xfd00 << 48, 2])];
        let addresses = vec![v4[0], v6[0], v6[1], v4[1]];
        let mut ports = Ports::new(LocalPool { addresses, port_min: 5000, port_max: 5000 });
        for family in [v4, v6] {
            let real = Endpoint { address: family[0], port: 80 };
            let got =
                [(); 2].map(|()| ports.allocate(Transport::Tcp, real, |_| true).unwrap().address);
            assert!(family.iter().all(|address| got.contains(address)), "{got:?}");
            assert_eq!(ports.allocate(Transport::Tcp, real, |_| false), None);
        }
    }

    #[test]
    fn addresses_take_turns() {
        let mut ports = ports(2, 5000, 65_535);
        let got: Vec<_> =
            (0..4).filter_map(|_| ports.allocate(Transport::Tcp, REAL, |_| true)).collect();
        let expected = [(1, 5000), (2, 5000), (1, 5001), (2, 5001)];
        assert_eq!(
            got.iter().map(|e| (e.address.as_v4().unwrap(), e.port)).collect::<Vec<_>>(),
            expected
        );
    }
}
