//! The audit log: one record for each decision, chained by hashes, from a sidecar to the control plane's store.

use serde::{Deserialize, Serialize};

/// One record. Empty fields are left out. No payload, no query, no credential is ever in it.
///
/// A record is written as one line of JSON whose last field is `hash`: SHA-256 over the line with the hash of the record before in the
/// place of its own. The line, not this struct, is what is chained: it is stored and sent as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditRecord {
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// When, nanoseconds since 1970.
    pub time_ns: u64,
    /// What it is about.
    pub what: AuditWhat,
    /// `namespace/name` of the agent whose sidecar decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// `inbound` or `outbound`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub direction: String,
    /// Who called: a SPIFFE ID without its scheme, else an address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub caller: String,
    /// `ISSUER/SUBJECT` of a token that was valid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_principal: String,
    /// For whom the caller acts: the original principal first, then each agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// What was asked: `POST /v1/messages`, `mcp tools/call search`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The host that was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The permission that the call needs, `nlp:process`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub permission: String,
    /// What it is about, `conversations/17`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// The class of the data.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub classification: String,
    /// The policy and rule that decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// `allowed`, `denied`; of a dry run `would-deny`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// The reason's word, when it was denied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What a person should know, redacted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The trace, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditWhat {
    /// A call was let through, or refused.
    #[default]
    Decision,
    /// An answer was held back.
    Answer,
    /// Classified data was touched (`log_data_access`).
    Access,
    /// Something unusual (`alert_on_anomalies`).
    Anomaly,
    /// An agent was quarantined or restricted, or is no more.
    Action,
    /// The log begins, or goes on after its process ended; `detail` says whether records may be missing.
    Start,
    /// Records that could not be kept: `detail` says how many, and since when.
    Gap,
    /// Older records were erased as the retention policy says; the first that is left follows.
    Erased,
    /// The process ended in order.
    End,
}

/// Lines of one sidecar's log, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditBatch {
    /// Which chain: 32 hexadecimal digits, the same for as long as the log's folder is.
    pub chain: String,
    /// The hash of the record before the first of them.
    #[serde(default)]
    pub prev: String,
    /// The lines, without line ends.
    pub lines: Vec<String>,
}

/// The control plane has these lines on its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTaken {
    /// Which chain.
    pub chain: String,
    /// Up to and including this one.
    pub seq: u64,
}
