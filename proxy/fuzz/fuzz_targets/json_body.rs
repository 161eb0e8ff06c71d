//! Any bytes as the start of a JSON body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotfish_proxy::request::decode::json::fuzz(bytes));
