//! Flags for a sidecar that starts its agent and looks after it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse_duration;

/// What to start, and how it is looked after.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agent process")]
pub struct SuperviseSettings {
    /// The agent's program and its arguments, after `--`. The sidecar starts it, waits for its probe, restarts it when it
    /// ends, and stops it with itself. It has to listen on 127.0.0.1:$PORT, which is --app's port.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,

    /// What becomes of the agent when the sidecar is killed: `adopt` lets it run for the next start of the sidecar, which goes
    /// on with it; `kill` ends it with the sidecar.
    #[arg(long, env = "PILOTFISH_ON_SIDECAR_LOSS", value_name = "WHAT", default_value = "adopt")]
    pub on_sidecar_loss: OnSidecarLoss,

    /// How long the agent may take to end after SIGTERM before it is killed (Docker's stop time).
    #[arg(long, env = "PILOTFISH_AGENT_STOP", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub agent_stop: Duration,

    /// How long the agent may take to become ready before it is started anew.
    #[arg(long, env = "PILOTFISH_AGENT_START", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub agent_start: Duration,

    /// The cgroup (version 2) that the agent is put into, a folder under /sys/fs/cgroup; made when it is not there. Without it
    /// the agent's processes are found by their group, their parents and a mark in their environment.
    #[arg(long, env = "PILOTFISH_AGENT_CGROUP", value_name = "DIR")]
    pub agent_cgroup: Option<PathBuf>,

    /// Where the agent's output goes: `inherit` (the sidecar's own stdout and stderr), `file` (agent.log in --state-dir, begun
    /// anew at 8 MiB with one predecessor, agent.log.1), or `off`. At most 2,000 lines and 1 MiB a second; what is more is
    /// dropped and counted, the agent never waits.
    #[arg(long, env = "PILOTFISH_AGENT_LOG", value_name = "WHERE", default_value = "inherit")]
    pub agent_log: AgentLog,

    /// All lines of the agent as log records of OpenTelemetry too, where a collector takes such. Without this only those that
    /// name a trace (`traceparent`, `trace_id=...`, `"trace_id":"..."`), so that they are found from it.
    #[arg(long, env = "PILOTFISH_AGENT_LOG_OTLP")]
    pub agent_log_otlp: bool,

    /// A duty that the sidecar does not have, as an AgentCluster's `responsibilities` leave it out: `task-coordination` (no probes:
    /// the agent is ready as soon as it runs), `failure-recovery` (it is not started anew), `performance-optimization` (what it
    /// uses is not measured). Repeat it, or separate several by commas.
    #[arg(long, env = "PILOTFISH_AGENT_WITHOUT", value_name = "DUTY", value_delimiter = ',')]
    pub agent_without: Vec<Duty>,

    /// Calls that the agent takes at a time, as other sidecars are told; 0: no limit.
    #[arg(long = "agent-capacity", env = "PILOTFISH_AGENT_CAPACITY", value_name = "N", default_value_t = 0)]
    pub capacity: u32,
}

impl SuperviseSettings {
    /// Whether the sidecar starts its agent.
    pub fn is_on(&self) -> bool {
        !self.command.is_empty()
    }

    /// Whether the sidecar has a duty.
    pub fn does(&self, duty: Duty) -> bool {
        !self.agent_without.contains(&duty)
    }
}

/// What a sidecar does for the agent that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Duty {
    /// Probes say when it is ready.
    TaskCoordination,
    /// It is started anew when it ends.
    FailureRecovery,
    /// What it uses is measured.
    PerformanceOptimization,
}

/// Where the agent's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgentLog {
    /// To the sidecar's stdout and stderr.
    Inherit,
    /// To `agent.log` in the state folder.
    File,
    /// Nowhere.
    Off,
}

/// What becomes of an agent whose sidecar is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnSidecarLoss {
    /// It runs on, and the next sidecar takes it over.
    Adopt,
    /// It ends.
    Kill,
}
