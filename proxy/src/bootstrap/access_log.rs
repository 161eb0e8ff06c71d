//! Settings of the access log.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pilotfish_filters::expression::Expression;

use crate::telemetry::access_log::fields::Fields;

/// Which calls the log tells of, what of them, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access log")]
pub struct AccessLogSettings {
    /// One line for each finished request. Telemetry documents (`accessLogging`) come before this: they switch the log on, as
    /// text unless this says json, and off.
    #[arg(long = "access-log", env = "PILOTFISH_ACCESS_LOG", value_name = "FORMAT", default_value = "off")]
    pub form: AccessLogFormat,

    /// Where access log lines go; appended to. [default: standard error]
    #[arg(long = "access-log-file", env = "PILOTFISH_ACCESS_LOG_FILE", value_name = "PATH")]
    pub file: Option<PathBuf>,

    /// What a line has, in this order, after its time: names separated by commas, or `all`. Known: direction, peer, protocol,
    /// method, authority, path, status, reason, rule, cluster, endpoint, request_id, duration_us, request_bytes, response_bytes,
    /// trace_id, tries, agent, caller, capability, workflow, policies (those by default), and span_id, sampled, scheme, spoken,
    /// streams, decoded_us, routed_us, admitted_us, connected_us, answered_us. What is not known of a call is left out of its line.
    #[arg(
        long = "access-log-fields",
        env = "PILOTFISH_ACCESS_LOG_FIELDS",
        value_name = "NAMES",
        default_value = "default",
        hide_default_value = true
    )]
    pub fields: Fields,

    /// Only calls for which this condition holds, in CEL: `response.code >= 400`, `request.duration > 2s && !call.sampled`,
    /// `request.headers['x-tenant'] == 'a'`. A filter in a Telemetry document comes before this.
    #[arg(long = "access-log-filter", env = "PILOTFISH_ACCESS_LOG_FILTER", value_name = "CONDITION")]
    pub filter: Option<Expression>,

    /// Sends log records of OpenTelemetry as well, to the collector of --otlp-endpoint; with or without lines of its own.
    #[arg(long = "access-log-otlp", env = "PILOTFISH_ACCESS_LOG_OTLP")]
    pub otlp: bool,
}

/// The form of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormat {
    /// No access log.
    Off,
    /// `key=value` pairs for people.
    Text,
    /// One JSON object a line.
    Json,
}
