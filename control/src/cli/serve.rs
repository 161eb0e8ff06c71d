//! `pilotfish serve`: the control plane.

use std::process::ExitCode;

use clap::Args;

use crate::server::{self, Settings};

/// Run the control plane: identities, configuration and the catalogue for a fleet of sidecars.
///
/// The first start makes a certificate authority, a trust domain and an administrator's token, which is printed once
/// on standard output and kept as a hash only. On the same machine the other commands need no token: they use the
/// Unix socket in --data. SIGTERM or SIGINT ends it in order, a second one at once; sidecars go on with what they
/// have and come back by themselves.
///
/// Ends with 0 after a signal, with 1 when it cannot start or cannot go on (one sentence on standard error says why),
/// with 2 when it was called wrongly.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    /// Serves until a signal.
    pub fn run(self) -> ExitCode {
        match server::run(self.settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("pilotfish serve: {failure}");
                ExitCode::FAILURE
            }
        }
    }
}
