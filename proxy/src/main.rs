//! `pilotfish-proxy`: flags and exit codes, nothing else.

use std::process::ExitCode;

use clap::Parser;
use pilotfish_proxy::admin::ask;
use pilotfish_proxy::bootstrap::Settings;
use pilotfish_proxy::server;
use pilotfish_proxy::supervise;

/// Each worker allocates from a heap of its own; the system's allocator costs 3 % more CPU for a small request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ask::WORD) {
        return ask::main(arguments);
    }
    if let Some(code) = supervise::run_as(std::env::args_os()) {
        return code;
    }
    match server::run(Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}
