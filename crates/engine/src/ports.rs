//! Local addresses and ports for FULLNAT (SPEC C6).

use std::collections::{HashMap, VecDeque};

use seawall_fastpath::family::Version;
use seawall_fastpath::{Addr, Endpoint, Transport};

use crate::desired::LocalPool;

/// Ports tried for one connection over all addresses (LVS: `fullnat_lport_tries`).
pub(crate) const MAX_TRIES: u32 = 10_000;

/// Ports that are noted while they are short towards a real server. When so many are free, or half
/// of all, they are short no longer, and the searches that find nothing cost a few look-ups a port.
const MAX_FREED: usize = 1_024;

/// A pool and where its next search starts.
#[derive(Debug)]
pub(crate) struct Ports {
    pool: LocalPool,
    next_address: usize,
    next_port: Vec<u32>,
    /// Real servers towards which a search found nothing. At most two for each real server that has
    /// sessions, with [`MAX_FREED`] ports (24 KiB) each.
    short: HashMap<(Transport, Endpoint), Shortage>,
}

/// Searches towards a real server have found nothing since one last did.
#[derive(Debug, Default)]
struct Shortage {
    /// Ports that they have tried. When it is all of them no further search is made, or whoever can
    /// open sessions could make each cost [`MAX_TRIES`] look-ups: only what is freed is given.
    tried: u32,
    /// What sessions have given back, longest ago first.
    freed: VecDeque<Endpoint>,
}

impl Ports {
    pub(crate) fn new(pool: LocalPool) -> Self {
        let next_port = vec![0; pool.addresses.len()];
        Self { pool, next_address: 0, next_port, short: HashMap::new() }
    }

    /// A session towards `real` has given back `local`, which may be one of these.
    pub(crate) fn port_freed(&mut self, transport: Transport, real: Endpoint, local: Endpoint) {
        let Some(shortage) = self.short.get_mut(&(transport, real)) else { return };
        let LocalPool { addresses, port_min, port_max } = &self.pool;
        if !addresses.contains(&local.address) || !(*port_min..=*port_max).contains(&local.port) {
            return;
        }
        shortage.freed.push_back(local);
        let freed = shortage.freed.len();
        if freed >= MAX_FREED || freed as u32 * 2 >= self.all(real) {
            self.short.remove(&(transport, real));
        }
    }

    /// Whether most ports towards `real` are taken.
    pub(crate) fn is_short(&self, transport: Transport, real: Endpoint) -> bool {
        let shortage = self.short.get(&(transport, real));
        shortage.is_some_and(|shortage| shortage.tried >= self.all(real))
    }

    /// How many ports sessions towards `real` can have.
    fn all(&self, real: Endpoint) -> u32 {
        self.addresses_for(real) * self.ports()
    }

    fn addresses_for(&self, real: Endpoint) -> u32 {
        let family = Version::of(real.address);
        let own = self.pool.addresses.iter().filter(|own| Version::of(**own) == family);
        own.count() as u32
    }

    /// Ports of each address.
    fn ports(&self) -> u32 {
        u32::from(self.pool.port_max) + 1 - u32::from(self.pool.port_min)
    }

    /// Goes on where another engine may have been: on each address behind its longest run of free
    /// ports begins, of those that `used` does not list for it.
    pub(crate) fn adopt(&mut self, used: &mut HashMap<Addr, Vec<u16>>) {
        let (first, last) = (self.pool.port_min, self.pool.port_max);
        for (address, next) in self.pool.addresses.iter().zip(&mut self.next_port) {
            let Some(ports) = used.get_mut(address) else { continue };
            ports.retain(|port| (first..=last).contains(port));
            ports.sort_unstable();
            let after = ports.iter().skip(1).map(|port| u32::from(*port));
            // Behind the last one the run goes on at the front.
            let front =
                ports.first().map(|port| u32::from(*port) + u32::from(last) + 1 - u32::from(first));
            let runs = ports.iter().zip(after.chain(front));
            let longest = runs.max_by_key(|(port, next)| next - u32::from(**port));
            if let Some((port, _)) = longest {
                let count = u32::from(last) + 1 - u32::from(first);
                *next = (u32::from(*port) + 1 - u32::from(first)) % count;
            }
        }
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
        let (of_family, ports, all) = (self.addresses_for(real), self.ports(), self.all(real));
        if let Some(shortage) = self.short.get_mut(&(transport, real))
            && shortage.tried >= all
        {
            // Another pool may have the same address.
            return std::iter::from_fn(|| shortage.freed.pop_front()).find(|local| is_free(*local));
        }
        let count = self.pool.addresses.len();
        let family = Version::of(real.address);
        let tries = MAX_TRIES.div_ceil(of_family.max(1)).min(ports);
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
                    self.short.remove(&(transport, real));
                    return Some(endpoint);
                }
            }
        }
        let shortage = self.short.entry((transport, real)).or_default();
        shortage.tried = shortage.tried.saturating_add(tries * of_family);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use crate::desired::LocalPool;
    use seawall_fastpath::{Addr, Endpoint, Transport};
    use std::collections::{HashMap, HashSet};

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
        for (transport, real, local) in [
            (Transport::Udp, real, freed),
            (Transport::Tcp, Endpoint { port: 81, ..real }, freed),
            (Transport::Tcp, real, Endpoint { port: 5000, ..freed }),
            (Transport::Tcp, real, Endpoint { address: Addr::v4(9), ..freed }),
        ] {
            ports.port_freed(transport, real, local);
        }
        assert_eq!(ports.allocate(Transport::Tcp, real, |_| panic!("searched again")), None);
        ports.port_freed(Transport::Tcp, real, freed);
        assert!(ports.is_short(Transport::Tcp, real));
        assert_eq!(ports.allocate(Transport::Tcp, real, |at| at == freed), Some(freed));
        assert_eq!(ports.allocate(Transport::Tcp, real, |_| panic!("searched again")), None);
        for endpoint in taken.into_iter().take(9) {
            assert!(ports.is_short(Transport::Tcp, real), "until half are free");
            ports.port_freed(Transport::Tcp, real, endpoint);
        }
        assert!(!ports.is_short(Transport::Tcp, real));
        assert!(ports.short.is_empty(), "nothing is left of it");
    }

    /// Where the ports of a search are taken, the next search begins behind them.
    #[test]
    fn a_search_that_finds_nothing_ends_the_searches_only_when_all_were_tried() {
        let mut ports = ports(2, 10_000, 29_999);
        let free = |endpoint: Endpoint| endpoint.port == 29_999;
        for search in 1..4 {
            assert_eq!(ports.allocate(Transport::Tcp, REAL, free), None, "{search}");
            assert!(!ports.is_short(Transport::Tcp, REAL));
        }
        assert!(ports.allocate(Transport::Tcp, REAL, free).is_some());
        assert!(ports.short.is_empty());
        for search in 1..5 {
            assert_eq!(ports.allocate(Transport::Tcp, REAL, |_| false), None);
            assert_eq!(ports.is_short(Transport::Tcp, REAL), search == 4, "{search}");
        }
        for number in 0..1_023 {
            let local = Endpoint { address: Addr::v4(1), port: 10_000 + number };
            ports.port_freed(Transport::Tcp, REAL, local);
        }
        assert!(ports.is_short(Transport::Tcp, REAL));
        ports.port_freed(Transport::Tcp, REAL, Endpoint { address: Addr::v4(2), port: 10_000 });
        assert!(!ports.is_short(Transport::Tcp, REAL));
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
    fn the_search_goes_on_behind_the_ports_in_use() {
        let address = Addr::v4(1);
        for (used, next) in [
            (vec![5000, 5001, 5002], 5003),
            (vec![5002, 5000, 5001, 5009], 5003),
            (vec![5001, 5008, 5009, 5007, 6000], 5002),
            (vec![5009, 5008], 5000),
            (vec![5003, 5003], 5004),
            ((5000..=5009).collect(), 5000),
            (vec![4999, 7000], 5000),
        ] {
            let mut ports = ports(1, 5000, 5009);
            ports.adopt(&mut HashMap::from([(address, used)]));
            assert_eq!(ports.allocate(Transport::Tcp, REAL, |_| true).unwrap().port, next);
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
