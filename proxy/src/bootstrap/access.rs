//! Settings of who may call whom, besides what documents say.

use clap::{Args, ValueEnum};

/// What a call has to bring, and what one who is refused is told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Who may call whom")]
pub struct AccessSettings {
    /// What becomes of a call of the mesh whose sidecar does not say for whom it is (the chain of who asked whom, which each sidecar
    /// signs): `accept` takes it for the caller's own, `require` refuses it with 403 `delegation-required`. Sidecars that are too old,
    /// whose key signs nothing, or that an agent goes past by a CONNECT tunnel send no chain. An AgentSecurityPolicy requires it too
    /// (`authentication.delegation_required`).
    #[arg(
        long = "delegation",
        env = "PILOTFISH_DELEGATION",
        value_name = "WHETHER",
        default_value = "accept"
    )]
    pub delegation: MissingChain,

    /// What one who is refused is told: `full` says what is wrong and which policy refuses, `brief` only the reason's word and the
    /// trace, by which `pilotfish why` and the audit log tell the rest.
    #[arg(long = "refusals", env = "PILOTFISH_REFUSALS", value_name = "HOW", default_value = "full")]
    pub refusals: RefusalDetail,
}

/// What becomes of a call of the mesh without a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingChain {
    /// It is the caller's own.
    Accept,
    /// It is refused.
    Require,
}

/// What one who is refused is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RefusalDetail {
    /// What is wrong, for people.
    Full,
    /// The reason's word and the trace.
    Brief,
}
