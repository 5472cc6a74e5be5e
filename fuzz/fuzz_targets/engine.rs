//! What is run is in `fuzz/src/bodies/engine.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_fuzz::engine(data));
