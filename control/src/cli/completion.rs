//! `pilotfish completion`: completion scripts for shells.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell.
///
/// It knows commands, flags, formats and kinds; packages install it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(pilotfish completion bash)
  pilotfish completion zsh > ~/.zfunc/_pilotfish
  pilotfish completion fish > ~/.config/fish/completions/pilotfish.fish")]
pub struct Completion {
    /// The shell.
    shell: Shell,
}

impl Completion {
    /// Prints.
    pub fn run(self) -> ExitCode {
        clap_complete::generate(self.shell, &mut super::command(), "pilotfish", &mut std::io::stdout());
        ExitCode::SUCCESS
    }
}
