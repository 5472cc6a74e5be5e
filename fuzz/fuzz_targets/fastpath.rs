//! What is run is in `fuzz/src/bodies/fastpath.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_fuzz::fastpath(data));
