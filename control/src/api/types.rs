//! Requests and answers of the API as JSON; the server and the command line share them.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/version` | | [`Version`] |
//! | `POST /v1/tokens` | [`NewToken`] | [`Token`] |
//! | `POST /v1/apply` | [`Submission`] | [`Applied`], 422 [`Failure`] with diagnostics, 409 [`Failure`] when somebody was faster |
//! | `POST /v1/diff` | [`Submission`] | [`Diff`] |
//! | `GET /v1/resources?kind=K&namespace=N&name=X` | | list of [`Resource`] |
//! | `DELETE /v1/resources/{kind}/{namespace}/{name}` | | [`Applied`] |
//! | `GET /v1/history?limit=N` | | list of [`Commit`], newest first |
//! | `POST /v1/rollback` | [`Rollback`] | [`Applied`] |
//! | `GET /v1/status` | | [`FleetStatus`] |
//! | `GET /v1/wait?version=V&timeout_ms=T` | | [`Waited`]; answers as soon as it is decided |
//! | `GET /v1/agents?capability=C&constraint=X` | | [`Agents`] |
//! | `GET /v1/graph?window=60s` | | [`Graph`]: who calls whom; 10s to 1h |
//! | `GET /v1/placement` | | [`PlacementView`]; 421 when another control plane leads |
//! | `GET /v1/placement/explain?agent=NS/NAME` | | [`Placed`] |
//! | `POST /v1/placement/scale` | [`Scale`] | [`Done`] |
//! | `POST /v1/placement/rebalance` | [`Rebalance`] | [`Moved`] |
//! | `POST /v1/nodes/mark` | [`MarkNode`] | [`Done`] |
//! | `GET /v1/replicas/tail?replica=ID&lines=N` | | [`TailLines`] |
//! | `POST /v1/nodes/stream` | frames of `pilotfish_config::wire::node` | frames |
//! | `POST /v1/explain` | [`Question`] | [`Explanation`] |
//! | `POST /v1/authz/explain` | [`AuthzQuestion`] | [`AuthzAnswer`] |
//! | `GET /v1/authz/explain?from=NS/A&to=NS/B&method=M&path=P&host=H` | | [`AuthzAnswer`] |
//! | `GET /v1/authz/matrix?namespace=N&method=M&path=P&capability=C&tool=T` | | [`AuthzMatrix`] |
//! | `GET /v1/alerts` | | [`Alerts`] |
//! | `GET /v1/analysis?trace=ID` | | [`super::analysis::TraceAnalysis`] |
//! | `GET /v1/analysis?workflow=W` | | [`super::analysis::WorkflowAnalysis`] |
//! | `GET /v1/changes?window=1h&since=24h` | | [`super::analysis::Comparison`] |
//! | `POST /v1/revoke` | [`AgentName`] | [`Done`] |
//! | `POST /v1/readmit` | [`AgentName`] | [`Done`] |
//! | `GET /v1/actions` | | [`Actions`]: who is quarantined or restricted |
//! | `POST /v1/actions` | [`Act`] | [`Done`] |
//! | `GET /v1/audit?agent=A&caller=C&denied=true&since=1h&until=T&trace=ID&policy=P&limit=N` | | list of [`crate::audit::Row`], newest first |
//! | `GET /v1/audit/verify?agent=A` | | list of [`pilotfish_audit::Report`] |
//! | `GET /v1/audit/holders` | | list of [`crate::audit::Holder`]: control planes of the store, each with the logs that came to it |
//! | `GET /v1/policies/report?name=P&namespace=N` | | [`PolicyReports`] |
//! | `GET /v1/trust` | | [`TrustStatus`] |
//! | `POST /v1/trust/roots` | [`Pem`] | [`TrustStatus`]: trusts one more root |
//! | `DELETE /v1/trust/roots/{fingerprint}` | | [`TrustStatus`] |
//! | `POST /v1/backup` | | the archive's bytes; on the Unix socket only, since it holds the authority's keys |
//! | `POST /v1/administrators` | [`NewAdministrator`] | [`Joined`]: a certificate instead of the token |
//! | `POST /v1/ui` | | [`Link`] |
//! | `POST /v1/join` | [`Join`] | [`Joined`], 403 [`Failure`] for every bad token alike, 429 |
//! | `POST /v1/renew` | [`Renew`] | [`Joined`] |
//! | `GET /v1/tap`, `GET /v1/why` | | see [`super::live`] |
//! | `POST /v1/stream` | frames of `pilotfish_config::wire` | frames |
//!
//! Every refusal is a [`Failure`]. Sidecars' requests need their certificate, `join` a token, the rest an administrator.

mod actions;
mod authz;
mod graph;
mod placement;
mod policy;

use std::collections::BTreeMap;

pub use actions::Act;
pub use authz::{
    AuthzAnswer, AuthzAsks, AuthzCalls, AuthzCell, AuthzMatrix, AuthzPolicy, AuthzQuestion, AuthzRole,
};
pub use graph::{CapabilityTraffic, Graph, GraphEdge, GraphNode, GraphTraffic};
use pilotfish_config::wire::node::Usage;
pub use pilotfish_config::wire::{Action as Held, Actions, Failure, Hold, Join, Joined, Renew};
use pilotfish_config::wire::{Key, RefusedVersion, Status};
pub use placement::{
    AgentPlacement, Explanation as Placed, GpuRow, Mark, MarkNode, Moved, NodeRow, PlacementView, Rebalance,
    ReplicaRow, Scale, TailLines,
};
pub use policy::{Enforced, Framework, FrameworkLine, PolicyLine, PolicyReport, PolicyReports, PolicyRole};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Something was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// What, in a sentence.
    pub message: String,
}

/// Versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Version {
    /// The program's.
    pub build: String,
    /// The protocol's, `major.minor`.
    pub wire: String,
    /// The newest version of the documents.
    pub documents: u64,
    /// Which control plane answers.
    pub control: String,
    /// The trust domain.
    pub trust_domain: String,
}

/// A join token is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// The agent that it is for.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// How long it is valid, seconds (3600 by default, at most 30 days).
    pub ttl_seconds: u64,
    /// How often it may be used (1 by default).
    pub uses: u32,
    /// For a node, whose name is in `agent`; `namespace` is empty.
    #[serde(default)]
    pub node: bool,
}

/// A join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// The secret; it holds the authority's fingerprint too, and is shown this once.
    pub token: String,
    /// When it ends, seconds since 1970.
    pub expires: u64,
}

/// Documents to apply, or to compare.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Submission {
    /// Files with their texts.
    pub files: Vec<File>,
    /// The namespace of documents that name none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Validate and say what would change; store nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Remove what is stored and not in `files`, within the namespaces that `files` touch.
    #[serde(default)]
    pub prune: bool,
    /// Without Pilotfish's additions to Istio.
    #[serde(default)]
    pub strict_istio: bool,
    /// For the history; the command line makes one of the file names.
    #[serde(default)]
    pub summary: String,
    /// Refuse if this is not the newest version: what an editor started from.
    #[serde(default)]
    pub base: Option<u64>,
    /// Hosts of registered agents, which need no document; the control plane fills them in.
    #[serde(skip)]
    pub registered: Vec<String>,
}

/// A file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct File {
    /// Its name as its author knows it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a change does to one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is new.
    Created,
    /// It differs.
    Changed,
    /// It is as it was.
    Unchanged,
    /// It goes.
    Removed,
}

/// One document of a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// What happens to it.
    pub action: Action,
}

/// What a change came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// The new version; the old one when nothing differs or on a dry run.
    pub version: u64,
    /// Each document.
    pub changes: Vec<Change>,
    /// Warnings.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What would change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Diff {
    /// Documents that differ, with both texts.
    pub documents: Vec<Difference>,
    /// Sidecars that would get something else.
    pub sidecars: Vec<SidecarDiff>,
    /// Warnings.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One document that would change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Difference {
    /// Which.
    pub key: Key,
    /// How.
    pub action: Action,
    /// As it is, as YAML.
    pub before: Option<String>,
    /// As it would be, as YAML.
    pub after: Option<String>,
}

/// What one sidecar would see of a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SidecarDiff {
    /// Its agent.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// How many instances.
    pub instances: usize,
    /// The documents that concern it.
    pub changes: Vec<Change>,
}

/// A stored document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resource {
    /// Which.
    pub key: Key,
    /// The version that changed it last.
    pub version: u64,
    /// Where its author wrote it.
    pub source: String,
    /// As JSON.
    pub body: Box<RawValue>,
    /// As YAML.
    pub yaml: String,
}

/// A version of the documents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Commit {
    /// Its number.
    pub version: u64,
    /// Who made it.
    pub author: String,
    /// When, seconds since 1970.
    pub time: u64,
    /// What for.
    pub summary: String,
    /// How many documents it has.
    pub documents: usize,
    /// What it changed.
    pub changes: Vec<Change>,
}

/// A rollback is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rollback {
    /// To which version; the result is a new version with its documents.
    pub version: u64,
}

/// Every sidecar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetStatus {
    /// The newest version of the documents.
    pub documents: u64,
    /// The newest version of the whole state (documents, endpoints, trust) that was rendered.
    pub version: u64,
    /// Whether nobody may call whom no ALLOW policy lets in (`pilotfish serve --default-deny`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default_deny: bool,
    /// Who is quarantined or restricted, by agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Held>,
    /// Sidecars, by namespace, agent and instance.
    pub sidecars: Vec<SidecarStatus>,
}

/// One sidecar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SidecarStatus {
    /// Its agent.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// Its process.
    pub instance: String,
    /// Whether its stream is open here.
    pub connected: bool,
    /// How its agent is.
    pub status: Status,
    /// Why, when not ready.
    #[serde(default)]
    pub detail: Option<String>,
    /// Its inbound listener.
    pub address: Option<String>,
    /// The version of the documents within each step: made for it, sent to it, taken by it, served by all its workers.
    pub rendered: u64,
    /// Sent.
    pub distributed: u64,
    /// Taken.
    pub accepted: u64,
    /// Served.
    pub serving: u64,
    /// The last version that it refused, and why.
    #[serde(default)]
    pub refused: Option<RefusedVersion>,
    /// When it was last heard, seconds since 1970.
    pub last_contact: u64,
    /// When its certificate ends, seconds since 1970.
    #[serde(default)]
    pub certificate_expires: Option<u64>,
    /// Its program's version.
    pub build: String,
    /// It is too old to sign the chain of who asked whom: its calls are refused where one is required.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsigned: bool,
}

/// What waiting for a version came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waited {
    /// Whether every sidecar that it concerns serves it.
    pub done: bool,
    /// How many it concerns.
    pub concerned: usize,
    /// Those that do not serve it: not yet, or because they refused it (then with reasons).
    pub missing: Vec<SidecarStatus>,
}

/// Who can do something, the best first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agents {
    /// Those who can.
    pub agents: Vec<AgentRow>,
    /// Those who cannot, and why, when something was asked for.
    #[serde(default)]
    pub others: Vec<AgentRow>,
    /// Who is quarantined or restricted, by agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Held>,
}

/// One instance of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its name.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// Its process.
    pub instance: String,
    /// Its sidecar's inbound listener.
    pub address: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is.
    pub status: Status,
    /// Microseconds, as measured by the sidecars that call it; none until measured.
    pub latency_us: Option<u64>,
    /// 0 to 1.
    pub success: Option<f32>,
    /// Calls in flight.
    pub in_flight: u32,
    /// Its place among those who can, from 1.
    pub rank: Option<usize>,
    /// Why it is none of them.
    #[serde(default)]
    pub why_not: Option<String>,
    /// What it uses, when its sidecar supervises it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Why some sidecars send it no calls, and how many do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// An agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentName {
    /// Its name.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// A node, whose name is in `agent`; `namespace` is empty.
    #[serde(default)]
    pub node: bool,
}

/// Which rule and endpoint would this request get?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// From the sidecar of this agent.
    pub agent: String,
    /// In this namespace.
    pub namespace: String,
    /// `GET`.
    pub method: String,
    /// `http://host/path`, or `host/path`.
    pub url: String,
    /// Headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body, for rules that look into it.
    #[serde(default)]
    pub body: Option<String>,
}

/// The answer, for people and machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// One line a step, as a person should read them.
    pub lines: Vec<String>,
    /// The rule's name.
    pub rule: Option<String>,
    /// The cluster.
    pub cluster: Option<String>,
    /// Candidates, the likeliest first: address, and why or why not.
    pub candidates: Vec<(String, String)>,
    /// The refusal's word, when it would be refused.
    pub refused: Option<String>,
}

/// Whom the mesh trusts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustStatus {
    /// The own trust domain.
    pub trust_domain: String,
    /// Roots of the own domain.
    pub roots: Vec<Root>,
    /// Roots of federated domains.
    pub federated: Vec<Root>,
    /// The intermediate that signs here.
    pub issuer: Root,
    /// SPIFFE IDs that are revoked.
    pub revoked: Vec<String>,
}

/// A certificate of an authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// Its trust domain.
    pub trust_domain: String,
    /// Its subject.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub fingerprint: String,
    /// When it ends, seconds since 1970.
    pub expires: u64,
}

/// A certificate as PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pem {
    /// The text.
    pub pem: String,
}

/// A certificate for an administrator is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewAdministrator {
    /// The name, for history and log: `spiffe://<trust domain>/ns/pilotfish-system/admin/<name>`.
    pub name: String,
    /// A certificate signing request, PEM; its key never leaves the one who asks.
    pub csr: String,
    /// How long it is valid, seconds (at most 90 days): it cannot be renewed.
    pub ttl_seconds: u64,
}

/// A link that opens the page once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    /// The URL.
    pub url: String,
}

/// Rules, and what they say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alerts {
    /// Which control plane answers: each looks at what it hears itself.
    pub control: String,
    /// When rules were evaluated last, seconds since 1970; 0: not yet.
    pub evaluated: u64,
    /// Every rule, those that are there by default first.
    pub rules: Vec<AlertRuleRow>,
    /// What is pending, fires, or was resolved within 15 minutes; what fires first, then by severity.
    pub alerts: Vec<AlertRow>,
}

/// A rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlertRuleRow {
    /// `namespace/name`.
    pub name: String,
    /// `error-rate`, `latency`, `saturation`, `agent-unavailable`.
    #[serde(rename = "type")]
    pub what: String,
    /// `info`, `warning`, `critical`.
    pub severity: String,
    /// What has to hold, for people.
    pub condition: String,
    /// It is there without a document.
    pub default: bool,
    /// It is not evaluated.
    pub disabled: bool,
    /// `inactive`, `pending` or `firing`.
    pub state: String,
}

/// A rule that holds for an agent, or did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlertRow {
    /// The rule, `namespace/name`.
    pub rule: String,
    /// The rule's type.
    #[serde(rename = "type")]
    pub what: String,
    /// The rule's severity.
    pub severity: String,
    /// The agent, `namespace/name`, or the host that is called.
    pub agent: String,
    /// `pending`, `firing` or `resolved`.
    pub state: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// What was measured last while it held: a share, seconds, calls in flight, instances.
    pub value: f64,
    /// What it is compared with.
    pub threshold: f64,
    /// The value for people.
    pub shown: String,
    /// The threshold for people.
    pub shown_threshold: String,
    /// One sentence with the numbers.
    pub summary: String,
    /// What tells it apart, as Alertmanager gets it.
    pub labels: BTreeMap<String, String>,
    /// What it says to people, as Alertmanager gets it.
    pub annotations: BTreeMap<String, String>,
}
