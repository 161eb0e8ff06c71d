//! Any bytes as the sidecar's `response_head` parser reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotfish_proxy::http::h1::parse::fuzz_response(bytes));
