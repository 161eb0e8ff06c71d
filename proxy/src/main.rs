//! `pilotfish-proxy`: flags and exit codes, nothing else.

use std::process::ExitCode;

use clap::Parser;
use pilotfish_proxy::bootstrap::Settings;
use pilotfish_proxy::server;

fn main() -> ExitCode {
    match server::run(Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
