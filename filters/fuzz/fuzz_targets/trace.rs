//! Any bytes as the headers of a trace.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pilotfish_filters::trace::fuzz(data));
