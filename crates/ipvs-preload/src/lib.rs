//! `libipvs_preload.so`: with it, stock ipvsadm and keepalived drive Seawall instead of the kernel's
//! IPVS.
//!
//! ```text
//! SEAWALL_IPVS_SOCKET=/run/seawall/ipvs.sock LD_PRELOAD=…/libipvs_preload.so ipvsadm -Ln
//! ```
//!
//! A socket of generic netlink becomes a connection of sequenced packets to that Unix socket; what a
//! program does with it that a Unix socket cannot is answered here. `/proc/net/ip_vs`, `…_conn` and
//! `…_stats` are read from there too. Everything else, and everything without
//! `SEAWALL_IPVS_SOCKET`, goes to the C library as it is. Programs of generic netlink that want other
//! families than `IPVS` must not be run with it: they find none.
//!
//! The kernel's own IPVS is never touched while the variable is set: its older socket options
//! (`IP_VS_SO_*`), which both tools try next, are not there. A daemon that ends before it has answered
//! is an error to whoever has asked, and the next request goes to the daemon that has come in its
//! place.

#![allow(unsafe_code, reason = "the functions of the C library are what this takes the place of")]

pub mod calls;
mod descriptors;
mod lost;
mod proc_files;
mod real;
mod remote;

/// Sets `errno`; the result of what failed.
fn fail(error: libc::c_int) -> libc::c_int {
    // SAFETY: the place of this thread's `errno`.
    unsafe { *libc::__errno_location() = error };
    -1
}
