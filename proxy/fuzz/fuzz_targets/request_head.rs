//! Any bytes as the sidecar's `request_head` parser reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotfish_proxy::http::h1::parse::fuzz_request(bytes));
