//! `make sim`: runs seeds, each twice, and tells of the first that fails with all its events.

use std::process::ExitCode;

use clap::Parser;
use pilotfish_sim::{Options, simulate, sweep};

/// Seeds between two lines of progress.
const PROGRESS: u64 = 100;

/// Runs a small mesh on a simulated network, seed by seed, each seed twice.
#[derive(Debug, Parser)]
#[command(name = "pilotfish-sim")]
struct Flags {
    /// How many seeds.
    #[arg(long, env = "SEEDS", default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, env = "FIRST", default_value_t = 1)]
    first: u64,
    /// Plant a bug, to see it found: a POST is sent again after a reset.
    #[arg(long, env = "BUG")]
    bug: bool,
    /// Print the events of the first seed also when all is well.
    #[arg(long)]
    events: bool,
}

fn main() -> ExitCode {
    let Flags { seeds, first, bug, events } = Flags::parse();
    let options = Options { bug };
    if events {
        simulate(first, options).events.iter().for_each(|event| println!("{event}"));
    }
    let done = sweep(first, seeds, options, |good| {
        if good.is_multiple_of(PROGRESS) {
            println!("sim: {good} seeds are good");
        }
    });
    if let Some((_, report)) = &done.failed {
        println!("{report}");
        return ExitCode::FAILURE;
    }
    println!(
        "sim: {} seeds from {first}, each twice: {} calls, {} of them executed, nothing wrong",
        done.seeds, done.calls, done.executed
    );
    for (end, n) in &done.ends {
        println!("sim: {n:>8} {end}");
    }
    ExitCode::SUCCESS
}
