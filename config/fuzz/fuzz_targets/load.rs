//! `cargo fuzz run load corpus` in `config/fuzz`: any bytes as a configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pilotfish_config::fuzz(data));
