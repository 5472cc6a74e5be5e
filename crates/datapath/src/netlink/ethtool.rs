//! Offloads and driver names, through `ioctl(SIOCETHTOOL)` (`linux/ethtool.h`).

use std::ffi::CStr;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use super::{Error, Result};

/// `ETHTOOL_GDRVINFO`.
const GET_DRIVER: u32 = 0x03;

/// Work that an interface does for the kernel and that a packet program in front of it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Transmit checksums are left to the interface; on a veth nobody ever computes them.
    TxChecksum,
    /// TCP segments longer than the MTU are left to the interface to cut.
    Tso,
    /// The same, cut just before the driver.
    Gso,
    /// Received segments are merged before the stack sees them.
    Gro,
    /// VLAN tags of received frames are taken away and handed on beside them, where a packet
    /// program does not see them.
    VlanReceive,
}

impl Offload {
    const fn get_command(self) -> u32 {
        match self {
            Self::TxChecksum => 0x16,
            Self::Tso => 0x1e,
            Self::Gso => 0x23,
            Self::Gro => 0x2b,
            Self::VlanReceive => 0x25,
        }
    }

    const fn set_command(self) -> u32 {
        match self {
            Self::TxChecksum => 0x17,
            Self::Tso => 0x1f,
            Self::Gso => 0x24,
            Self::Gro => 0x2c,
            Self::VlanReceive => 0x26,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::TxChecksum => "transmit checksumming",
            Self::Tso => "TCP segmentation offload",
            Self::Gso => "generic segmentation offload",
            Self::Gro => "generic receive offload",
            Self::VlanReceive => "VLAN tag stripping",
        }
    }

    /// Its bit where the command is about several (`ETH_FLAG_*`).
    const fn bit(self) -> Option<u32> {
        match self {
            Self::TxChecksum | Self::Tso | Self::Gso | Self::Gro => None,
            Self::VlanReceive => Some(1 << 8),
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInformation {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<DriverInformation>() == 196);

/// The command structures of `SIOCETHTOOL` that this file uses.
///
/// # Safety
///
/// The kernel reads and writes as many bytes as the structure belonging to the command in the
/// first field has: the type must be at least that long, and valid for any bytes.
unsafe trait Command {}

// SAFETY: `ethtool_value` is two u32 for every command of `Offload`.
unsafe impl Command for Value {}

// SAFETY: `ethtool_drvinfo` has 196 bytes, asserted above, and only integers.
unsafe impl Command for DriverInformation {}

/// Switches an offload of an interface of this thread's namespace.
///
/// # Errors
///
/// [`Error::Refused`] when there is no such interface or it cannot.
pub fn set_offload(interface: &str, offload: Offload, enable: Switch) -> Result<()> {
    let data = match (offload.bit(), enable) {
        (None, Switch::On) => 1,
        (None, Switch::Off) => 0,
        (Some(bit), Switch::On) => value(interface, offload)? | bit,
        (Some(bit), Switch::Off) => value(interface, offload)? & !bit,
    };
    let mut value = Value { command: offload.set_command(), data };
    run(interface, &mut value)
        .map_err(|source| refused("set", format!("{} of {interface}", offload.name()), source))
}

/// Whether an offload is to be on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// The interface does the work.
    On,
    /// The kernel does the work.
    Off,
}

/// Whether an offload of an interface of this thread's namespace is on.
///
/// # Errors
///
/// [`Error::Refused`] when there is no such interface or it does not tell.
pub fn offload(interface: &str, offload: Offload) -> Result<bool> {
    let value = value(interface, offload)?;
    Ok(value & offload.bit().unwrap_or(u32::MAX) != 0)
}

fn value(interface: &str, offload: Offload) -> Result<u32> {
    let mut value = Value { command: offload.get_command(), data: 0 };
    run(interface, &mut value)
        .map_err(|source| refused("read", format!("{} of {interface}", offload.name()), source))?;
    Ok(value.data)
}

/// The name of the driver behind an interface of this thread's namespace: `veth`, `virtio_net`,
/// `ixgbe` …
///
/// # Errors
///
/// [`Error::Refused`] when there is no such interface or its driver does not tell.
pub fn driver(interface: &str) -> Result<String> {
    let mut information =
        DriverInformation { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    run(interface, &mut information)
        .map_err(|source| refused("read", format!("the driver of {interface}"), source))?;
    let name = CStr::from_bytes_until_nul(&information.driver).unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

fn refused(request: &'static str, object: String, source: io::Error) -> Error {
    Error::Refused { request, object, explanation: None, source }
}

fn run<C: Command>(interface: &str, command: &mut C) -> io::Result<()> {
    // Any socket will do; one of UDP needs no privilege to open.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain bytes, and all zero is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    // One byte stays zero: the kernel wants the name terminated.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name) {
        *target = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    // SAFETY: the descriptor is open, `request` is a whole ifreq whose name is terminated, and its
    // data points to a command structure that is long enough for what the kernel reads and writes
    // (the contract of `Command`) and that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
