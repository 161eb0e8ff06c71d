//! Any bytes as the host of a request.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pilotfish_filters::route::fuzz(data));
