//! Any bytes as the sidecar's `chunked` parser reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotfish_proxy::http::h1::chunked::fuzz(bytes));
