//! Any bytes as a Cookie header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pilotfish_filters::affinity::fuzz(data));
