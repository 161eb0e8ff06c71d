//! Any bytes as what a caller asks for and how narrow its wishes are.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pilotfish_filters::capability::constraint::fuzz(data));
