//! PeerAuthentication, AuthorizationPolicy and RequestAuthentication.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Meta, StringMap};

/// Whom a policy is for: labels, or objects by name. Both empty: every workload of the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Labels of the workloads.
    pub selector: StringMap,
    /// Objects by name.
    pub targets: Vec<TargetRef>,
}

/// An object by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRef {
    /// API group; empty: core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; `None`: the policy's.
    pub namespace: Option<String>,
}

/// Whether peers must speak mTLS.
#[derive(Debug, Clone)]
pub struct PeerAuthentication {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Labels of the workloads that it is for; empty: all.
    pub selector: StringMap,
    /// The mode; `None`: inherited.
    pub mode: Option<MtlsMode>,
    /// The mode of single ports.
    pub port_level: BTreeMap<u16, Option<MtlsMode>>,
}

/// Whether peers must speak mTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MtlsMode {
    /// Plaintext.
    Disable,
    /// Either. Istio's default; here STRICT once a sidecar has an identity.
    Permissive,
    /// mTLS only.
    Strict,
}

/// Who may call what.
#[derive(Debug, Clone)]
pub struct AuthorizationPolicy {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Whom it is for.
    pub scope: Scope,
    /// What a matching rule does.
    pub action: AuthorizationAction,
    /// The provider of `CUSTOM`.
    pub provider: Option<String>,
    /// Rules; any one is enough. ALLOW without rules denies all.
    pub rules: Vec<AuthorizationRule>,
}

/// Istio's annotation of AuthorizationPolicies that are decided and not enforced.
pub const DRY_RUN: &str = "istio.io/dry-run";

/// What the value of [`DRY_RUN`] says, written in any way in which Istio reads a boolean (Go's `strconv.ParseBool`); `None`: nothing.
pub fn dry_run(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether a document's annotations ask for a dry run.
pub(crate) fn is_dry_run(meta: &Meta) -> bool {
    meta.annotations.get(DRY_RUN).and_then(|value| dry_run(value)) == Some(true)
}

impl AuthorizationPolicy {
    /// Whether it is decided and not enforced.
    pub fn is_dry_run(&self) -> bool {
        is_dry_run(&self.meta)
    }
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthorizationAction {
    /// Allow (the default).
    #[default]
    Allow,
    /// Deny.
    Deny,
    /// Log.
    Audit,
    /// Ask a provider.
    Custom,
}

/// From any of, to any of, when all of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationRule {
    /// Callers; empty: any.
    pub from: Vec<AuthorizationSource>,
    /// Operations; empty: any.
    pub to: Vec<AuthorizationOperation>,
    /// Conditions, all of them.
    pub when: Vec<AuthorizationCondition>,
}

/// Values of which one must match, and values of which none may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// One must match; empty: any.
    pub any_of: Vec<String>,
    /// None may match.
    pub none_of: Vec<String>,
}

/// A caller; all parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationSource {
    /// Identities from certificates.
    pub principals: Values,
    /// Identities from tokens.
    pub request_principals: Values,
    /// Namespaces.
    pub namespaces: Values,
    /// Service accounts.
    pub service_accounts: Values,
    /// Addresses of the peer.
    pub ip_blocks: Values,
    /// Addresses of the original client.
    pub remote_ip_blocks: Values,
    /// Trust domains.
    pub trust_domains: Values,
}

/// An operation; all parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationOperation {
    /// Hosts.
    pub hosts: Values,
    /// Ports.
    pub ports: Values,
    /// Methods.
    pub methods: Values,
    /// Paths.
    pub paths: Values,
}

/// A condition on an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationCondition {
    /// The attribute, `request.headers[x]`.
    pub key: String,
    /// Its values.
    pub values: Values,
}

/// Whose tokens are valid.
#[derive(Debug, Clone)]
pub struct RequestAuthentication {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Whom it is for.
    pub scope: Scope,
    /// Issuers; a token of any one is enough.
    pub jwt_rules: Vec<JwtRule>,
}

/// An issuer and where its tokens are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// `iss`.
    pub issuer: String,
    /// `aud`, any one; empty: any, or none, as Istio compiles it.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub jwks_uri: Option<String>,
    /// The keys themselves.
    pub jwks: Option<String>,
    /// Headers with an optional prefix of the value.
    pub from_headers: Vec<(String, Option<String>)>,
    /// Query parameters.
    pub from_params: Vec<String>,
    /// Cookies.
    pub from_cookies: Vec<String>,
    /// Header for the payload.
    pub output_payload_to_header: Option<String>,
    /// The token is sent on.
    pub forward_original_token: bool,
    /// Header and claim to copy.
    pub output_claim_to_headers: Vec<(String, String)>,
    /// For fetching keys.
    pub timeout: Option<Duration>,
    /// Claims that are lists separated by spaces.
    pub space_delimited_claims: Vec<String>,
    /// A request without a token is refused.
    pub required: bool,
}
