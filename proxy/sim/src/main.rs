//! `make sim`: runs seeds, each twice, and tells of the first that fails with all its events.

use std::process::ExitCode;

use clap::Parser;
use pilotfish_sim::{Options, simulate};

/// Seeds between two lines of progress.
const PROGRESS: u64 = 100;

/// Runs a small mesh on a simulated network, seed by seed.
#[derive(Debug, Parser)]
#[command(name = "pilotfish-sim")]
struct Flags {
    /// How many seeds; each runs twice, and both runs must be the same.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Print the events of each run also when all is well.
    #[arg(long)]
    events: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (mut calls, mut executed) = (0, 0);
    for seed in flags.first..flags.first.saturating_add(flags.seeds) {
        let run = simulate(seed, Options::default());
        let again = simulate(seed, Options::default());
        calls += run.calls.0;
        executed += run.calls.1;
        if flags.events {
            run.events.iter().for_each(|event| println!("{event}"));
        }
        if run.wrong.is_empty() && run.hash == again.hash {
            if (seed + 1 - flags.first).is_multiple_of(PROGRESS) {
                println!(
                    "sim: seeds {} to {seed} are good ({calls} calls, {executed} executed)",
                    flags.first
                );
            }
            continue;
        }
        println!("{}", pilotfish_sim::mesh::report(&run, &again));
        return ExitCode::FAILURE;
    }
    println!("sim: {} seeds, each twice: {calls} calls, {executed} executed, nothing wrong", flags.seeds);
    ExitCode::SUCCESS
}
