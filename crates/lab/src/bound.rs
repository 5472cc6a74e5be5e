//! The least that XDP can do with a frame: what a bench holds everything else against.

use aya::Ebpf;
use aya::maps::DevMap;
use aya::programs::{ProgramFd, XdpMode};

use crate::flood::{Error, OBJECT, attach, xdp};
use crate::flood_layout::program;
use crate::{Host, Namespace, link_layout};

/// What a program does with every frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Leaves it to the kernel.
    Pass,
    /// Drops it.
    Drop,
    /// Sends it back, with addresses and ports swapped.
    Reflect,
}

/// Programs that are attached until this is dropped.
#[derive(Debug)]
pub struct BoundPrograms {
    _programs: Vec<Ebpf>,
}

impl BoundPrograms {
    /// Attaches one to an interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(namespace: &Namespace, interface: &str, bound: Bound) -> Result<Self, Error> {
        let name = match bound {
            Bound::Pass => program::PASS,
            Bound::Drop => program::DROP_COUNT,
            Bound::Reflect => program::REFLECT,
        };
        Ok(Self { _programs: vec![namespace.run(|| attach(interface, name))?] })
    }

    /// Sends every frame that comes in at one of two interfaces of a host out of the other,
    /// unchanged.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses.
    pub fn redirect(host: &Host, between: [&'static str; 2]) -> Result<Self, Error> {
        let [one, other] = between;
        let half = |from: &str, to: &'static str| {
            let to = host.interface(to).ok_or(Error::Missing(to))?.index;
            // A device map takes interfaces of the namespace of the thread that writes it.
            host.namespace.run(|| redirect(from, to))
        };
        Ok(Self { _programs: vec![half(one, other)?, half(other, one)?] })
    }
}

fn redirect(from: &str, to: u32) -> Result<Ebpf, Error> {
    use link_layout::{map, program};
    let mut ebpf = Ebpf::load(OBJECT)?;
    let out = ebpf.map_mut(map::OUT).ok_or(Error::Missing(map::OUT))?;
    let mut out = DevMap::try_from(out)?;
    out.set(0, to, None::<&ProgramFd>, 0)?;
    let program = xdp(&mut ebpf, program::REDIRECT)?;
    program.load()?;
    program.attach(from, XdpMode::Driver)?;
    Ok(ebpf)
}
