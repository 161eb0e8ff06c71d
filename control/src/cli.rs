//! Commands and their flags.

pub mod check;
pub mod completion;
pub mod schema;
pub mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Pilotfish: a service mesh for AI agents.
#[derive(Debug, Parser)]
#[command(name = "pilotfish", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane.
    Serve(Box<serve::Serve>),
    /// Say everything that is wrong with configuration files, at once.
    Check(check::Check),
    /// Print JSON Schema of the kinds that are read.
    Schema(schema::Schema),
    /// Print a completion script for a shell.
    Completion(completion::Completion),
}

/// Runs the command that the arguments name. Usage errors end with 2.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Schema(schema) => schema.run(),
        Command::Completion(completion) => completion.run(),
    }
}
