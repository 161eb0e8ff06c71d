//! Settings of the audit log.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Bytes;

/// Which decisions are recorded, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Audit log")]
pub struct AuditSettings {
    /// Which decisions about who may call whom are recorded: `denied` records what is refused, what an AUDIT policy matches and
    /// what a dry run would decide otherwise, `all` every inbound decision, `off` only what an AgentSecurityPolicy asks for
    /// (`audit_all_actions`, `log_data_access`). No payload, no query, no header is recorded.
    #[arg(long = "audit", env = "PILOTFISH_AUDIT", value_name = "WHICH", default_value = "denied")]
    pub which: AuditLevel,

    /// Folder of the log: lines of JSON, chained by hashes, a new file each 16 MiB or hour; `pilotfish audit verify DIR` finds
    /// whatever was changed. [default: `audit` in the state folder of a member of a mesh; else none: records are kept in memory
    /// until a collector of OpenTelemetry has them]
    #[arg(long = "audit-dir", env = "PILOTFISH_AUDIT_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Disk that the log may take. The oldest records go first, as soon as the control plane has them; a record says which went.
    /// They go earlier when an AgentSecurityPolicy says how long they are kept (`retention_policy`). A record takes some 350 bytes.
    #[arg(long = "audit-disk", env = "PILOTFISH_AUDIT_DISK", value_name = "SIZE", default_value = "1GiB", value_parser = disk)]
    pub disk: Bytes,

    /// Refuse calls with 503 `audit-unavailable` while their records cannot be kept (the disk is full, say). Without it they go
    /// on, and a record says how many records are missing since when.
    #[arg(long = "audit-required", env = "PILOTFISH_AUDIT_REQUIRED")]
    pub required: bool,
}

/// The least that keeps files of a useful size.
const LEAST: u64 = 1 << 20;

fn disk(text: &str) -> Result<Bytes, String> {
    let bytes: Bytes = text.parse()?;
    match bytes.0 {
        LEAST.. => Ok(bytes),
        _ => Err("at least 1MiB".into()),
    }
}

/// Which decisions are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLevel {
    /// None but those that a policy asks for.
    Off,
    /// Refusals, and what AUDIT policies and dry runs are about.
    Denied,
    /// Every inbound decision.
    All,
}
