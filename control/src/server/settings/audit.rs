//! Flags of the audit log's store.

use clap::Args;

use super::traces::disk;

/// How what sidecars decided is kept.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Audit log")]
pub struct AuditSettings {
    /// Disk that the audit logs of all sidecars may take, in the folder `audit` of --data; the oldest records go first. They go
    /// earlier when an AgentSecurityPolicy says how long they are kept (`retention_policy`). A record takes some 450 bytes.
    #[arg(long, env = "PILOTFISH_AUDIT_DISK", value_name = "SIZE", default_value = "4GiB", value_parser = disk)]
    pub audit_disk: u64,
}
