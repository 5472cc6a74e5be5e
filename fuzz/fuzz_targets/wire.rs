//! What is run is in `fuzz/src/bodies/wire.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_fuzz::wire(data));
