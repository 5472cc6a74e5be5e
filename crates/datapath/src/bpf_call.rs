//! The calls of bpf(2) that aya has not.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: libc::c_long = 0;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO: libc::c_long = 15;
const LINK_DETACH: libc::c_long = 34;

/// A map that no program knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// `BPF_MAP_TYPE_*`.
    pub(crate) kind: u32,
    /// Bytes of a key.
    pub(crate) key: u32,
    /// Bytes of a value.
    pub(crate) value: u32,
    /// Entries.
    pub(crate) entries: u32,
    /// `BPF_F_*`.
    pub(crate) flags: u32,
}

/// `union bpf_attr` for `BPF_MAP_CREATE`, up to the name (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct MapCreate {
    shape: [u32; 5],
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// Creates a map.
pub(crate) fn create_map(name: &CStr, shape: &Shape) -> io::Result<OwnedFd> {
    let Shape { kind, key, value, entries, flags } = *shape;
    let shape = [kind, key, value, entries, flags];
    let mut attr = MapCreate { shape, inner_map: 0, numa_node: 0, name: [0; 16] };
    // The last byte stays zero.
    for (to, from) in attr.name.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    let fd = call(MAP_CREATE, &attr)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens what is pinned at a path.
pub(crate) fn pinned(path: &CStr) -> io::Result<OwnedFd> {
    /// `union bpf_attr` for `BPF_OBJ_GET`.
    #[repr(C)]
    struct Get {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let fd = call(OBJ_GET, &Get { path: path.as_ptr() as u64, fd: 0, flags: 0 })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link from its interface at once, whoever else holds it.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    call(LINK_DETACH, &link.as_raw_fd()).map(drop)
}

/// The interface that an XDP link is on; 0 when that is gone, or the link detached.
pub(crate) fn link_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    /// `struct bpf_link_info`, up to `xdp.ifindex`, in words.
    const INTERFACE: usize = 4;
    /// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
    #[repr(C)]
    struct GetInfo {
        fd: i32,
        len: u32,
        info: u64,
    }
    let mut info = [0_u32; 16];
    let attr = GetInfo {
        fd: link.as_raw_fd(),
        len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    call(OBJ_GET_INFO, &attr)?;
    Ok(std::hint::black_box(&info)[INTERFACE])
}

fn call<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is as long as is said, without padding; the kernel takes what is beyond it for
    // zero. What it points to, if anything, lives in the callers until this returns, and is written
    // by no more than the length that is said.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
