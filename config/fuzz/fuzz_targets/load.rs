//! `cargo fuzz run load` in `config`: any bytes as a configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pilotfish_config::fuzz(data));
