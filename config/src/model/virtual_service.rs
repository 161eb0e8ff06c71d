//! VirtualService: which requests go where.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Cors, ExportTo, Fault, HeaderEdits, Host, Meta, Mirror, ResourceKey, Retry, Source, StringMap,
    StringMatch, UriRegexRewrite,
};

/// Routing rules for one or more hosts.
#[derive(Debug, Clone)]
pub struct VirtualService {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// The hosts that it is for, resolved. Empty: a delegate, to be skipped when hosts are indexed.
    pub hosts: Vec<Host>,
    /// Gateways that it is for; `mesh` (every sidecar) when none is written.
    pub gateways: Vec<String>,
    /// Rules in order; the first that matches wins. Delegates are merged in.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS pass-through (not enforced yet).
    pub tls: Vec<TlsRoute>,
    /// Rules for opaque TCP (not enforced yet).
    pub tcp: Vec<TcpRoute>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// The delegates whose rules are in `http`.
    pub delegates: Vec<ResourceKey>,
}

impl VirtualService {
    /// Whether sidecars apply it: `mesh` is among its gateways and it has hosts.
    pub fn is_for_mesh(&self) -> bool {
        !self.hosts.is_empty() && self.gateways.iter().any(|gateway| gateway == "mesh")
    }
}

/// One rule: when it applies and what it does.
#[derive(Debug, Clone)]
pub struct HttpRoute {
    /// The rule's name (`root-delegate` when merged from a delegate), for logs and `/why`.
    pub name: Option<String>,
    /// Alternatives; any one is enough. Empty: every request.
    pub matches: Vec<HttpMatch>,
    /// What is done with the request.
    pub action: Action,
    /// How the request is changed before it is sent on.
    pub rewrite: Option<Rewrite>,
    /// For the whole call; `None` (the default, as in Istio, and for `0s`): no limit.
    pub timeout: Option<Duration>,
    /// Header edits of the rule; those of the destination come after.
    pub headers: HeaderEdits,
    /// When to try again. `None`: Istio's default.
    pub retries: Option<Retry>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin rules.
    pub cors: Option<Cors>,
    /// Where the rule is written.
    pub source: Source,
}

/// What a rule does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send it to one of these by weight. Never empty; the sum of weights is never 0.
    Route(Vec<RouteDestination>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed response.
    DirectResponse(DirectResponse),
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMatch {
    /// The block's name, for logs.
    pub name: Option<String>,
    /// Of the path, without the query.
    pub uri: Option<StringMatch>,
    /// Of the scheme.
    pub scheme: Option<StringMatch>,
    /// Of the method.
    pub method: Option<StringMatch>,
    /// Of the Host header or `:authority`.
    pub authority: Option<StringMatch>,
    /// Of headers that must be there; names in lower case.
    pub headers: Vec<(String, StringMatch)>,
    /// Of headers that must not match; names in lower case. `Presence`: must not be there.
    pub without_headers: Vec<(String, StringMatch)>,
    /// Of query parameters.
    pub query_params: Vec<(String, StringMatch)>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// Labels that the calling workload must have.
    pub source_labels: StringMap,
    /// Namespace of the calling workload.
    pub source_namespace: Option<String>,
    /// Gateways; empty: those of the VirtualService.
    pub gateways: Vec<String>,
    /// `uri` exact and prefix ignore case.
    pub ignore_uri_case: bool,
    /// Prefix for statistics.
    pub stat_prefix: Option<String>,
}

/// A destination and its share.
#[derive(Debug, Clone)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share of the sum. A single destination has at least 1.
    pub weight: u32,
    /// Header edits for this destination only.
    pub headers: HeaderEdits,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// A service's host, resolved, or `<capability>.capability.mesh`.
    pub host: Host,
    /// A subset of that host's DestinationRule.
    pub subset: Option<String>,
    /// The service's port, when it has several.
    pub port: Option<u16>,
}

/// Answer with a redirect.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// Replaces the path.
    pub path: Option<PathRewrite>,
    /// Replaces the authority.
    pub authority: Option<String>,
    /// Which port the Location names.
    pub port: RedirectPort,
    /// Replaces the scheme.
    pub scheme: Option<String>,
    /// 301 by default.
    pub status: u16,
}

/// Which port a redirect's Location names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectPort {
    /// The default: none when the scheme or authority is replaced, else as the request.
    #[default]
    Unset,
    /// This one.
    Number(u16),
    /// The scheme's default: 80 or 443.
    FromProtocolDefault,
    /// The port that the client used.
    FromRequest,
}

/// How a path is replaced.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// The whole path.
    Whole(String),
    /// Only what the match's prefix covered; the whole path when the match was not a prefix.
    Prefix(String),
}

/// Answer with a fixed response.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// The body; empty when none.
    pub body: Vec<u8>,
}

/// How the request is changed before it is sent on.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// Replaces the matched prefix, or the whole path when the match was exact or a regex.
    pub uri: Option<String>,
    /// Replaces what a regex matches in the path.
    pub uri_regex: Option<UriRegexRewrite>,
    /// Replaces the authority.
    pub authority: Option<String>,
}

/// A rule for TLS pass-through.
#[derive(Debug, Clone)]
pub struct TlsRoute {
    /// Alternatives.
    pub matches: Vec<TlsMatch>,
    /// Destinations by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TLS connection.
#[derive(Debug, Clone)]
pub struct TlsMatch {
    /// Server names, wildcards included.
    pub sni_hosts: Vec<String>,
    /// The rest.
    pub connection: ConnectionMatch,
}

/// A rule for opaque TCP.
#[derive(Debug, Clone)]
pub struct TcpRoute {
    /// Alternatives; empty: every connection.
    pub matches: Vec<ConnectionMatch>,
    /// Destinations by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a connection.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMatch {
    /// Addresses or CIDR blocks of the destination.
    pub destination_subnets: Vec<String>,
    /// Port of the destination.
    pub port: Option<u16>,
    /// Labels of the caller.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Namespace of the caller.
    pub source_namespace: Option<String>,
}
