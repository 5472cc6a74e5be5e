//! What Seawall's XDP programs have in common.
#![no_std]
#![feature(asm_experimental_arch)]

mod frame;

pub use frame::{Packet, Window, hidden};

/// Nothing panics: the programs do not link if anything could.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
