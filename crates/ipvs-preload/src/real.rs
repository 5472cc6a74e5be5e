//! The C library's own functions, which this library's hide.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{FILE, c_char, c_int, c_uint, c_void, msghdr, size_t, sockaddr, socklen_t, ssize_t};

/// A function that is looked for once.
pub(crate) struct Next<F> {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
    kind: std::marker::PhantomData<F>,
}

impl<F: Copy> Next<F> {
    /// The next one of that name, in the order in which libraries were loaded.
    ///
    /// # Safety
    /// `F` is the type of a pointer to the function of that name.
    const unsafe fn new(name: &'static CStr) -> Self {
        assert!(size_of::<F>() == size_of::<*mut c_void>());
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()), kind: std::marker::PhantomData }
    }

    /// The function. Ends the program if there is none, as one that is linked to it could not begin.
    pub(crate) fn get(&self) -> F {
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: the name ends with a NUL.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            if found.is_null() {
                std::process::abort();
            }
            self.found.store(found, Ordering::Relaxed);
        }
        // SAFETY: `new` demands that this is the type, and has seen that the sizes are equal.
        unsafe { std::mem::transmute_copy(&found) }
    }
}

/// Functions with their C names and types.
macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($type:ty),*) -> $result:ty;)*) => {
        $(pub(crate) static $name: Next<unsafe extern "C" fn($($type),*) -> $result> =
            // SAFETY: the types are those of the C library's headers.
            unsafe { Next::new($symbol) };)*
    };
}

functions! {
    SOCKET = c"socket": fn(c_int, c_int, c_int) -> c_int;
    BIND = c"bind": fn(c_int, *const sockaddr, socklen_t) -> c_int;
    GETSOCKNAME = c"getsockname": fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int;
    SETSOCKOPT = c"setsockopt": fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;
    GETSOCKOPT = c"getsockopt": fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;
    SENDMSG = c"sendmsg": fn(c_int, *const msghdr, c_int) -> ssize_t;
    SENDTO = c"sendto":
        fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
    RECVMSG = c"recvmsg": fn(c_int, *mut msghdr, c_int) -> ssize_t;
    RECVFROM = c"recvfrom":
        fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
    CLOSE = c"close": fn(c_int) -> c_int;
    FOPEN = c"fopen": fn(*const c_char, *const c_char) -> *mut FILE;
    FOPEN64 = c"fopen64": fn(*const c_char, *const c_char) -> *mut FILE;
}

/// `open(2)` and its kin take a mode only for some flags; whoever has given none has left what this
/// passes on undefined, and the C library does not look at it.
pub(crate) type Open = unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int;
/// `openat(2)`, likewise.
pub(crate) type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, c_uint) -> c_int;

// SAFETY: on the processors that Linux and Rust share, variadic integers are passed as others are.
pub(crate) static OPEN: Next<Open> = unsafe { Next::new(c"open") };
// SAFETY: as above.
pub(crate) static OPEN64: Next<Open> = unsafe { Next::new(c"open64") };
// SAFETY: as above.
pub(crate) static OPENAT: Next<OpenAt> = unsafe { Next::new(c"openat") };
