//! From a validated model to a [`Plan`], with the eyes of one sidecar: what it may see, who it is, where it runs.
//! The only place where configuration types turn into runtime types.

mod action;
mod asked;
mod authorizers;
mod authz;
mod block;
mod catalogue;
pub mod cluster;
mod cors;
pub(crate) mod credentials;
mod destination;
mod egress;
mod governance;
mod inbound;
mod on_demand;
mod rate_limit;
mod resilience;
mod retry;
mod route;
mod selected;
mod telemetry;
mod to_agent;
mod tokens;

use std::fmt;

use pilotfish_config::model::{Host, Locality, Model, MtlsMode, OutboundMode, Source, StringMap};

use crate::affinity::hash_bytes;
use crate::authz::decisive;
use crate::balance::locality::Place;
use crate::clock::Micros;
use crate::normalize::Normalization;
use crate::on_demand::OnDemand;
use crate::plan::{Own, Plan, Registered};
use crate::state::State;
use crate::view::View;
pub(crate) use authz::{of_operation, of_source, written};
pub use cluster::Resolved;
pub(crate) use governance::declares;
pub(crate) use resilience::timeouts;

/// Who the plan is for.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// The agent's name.
    pub agent: String,
    /// The sidecar's namespace.
    pub namespace: String,
    /// The workload's labels, for `sourceLabels`, selectors and `failoverPriority`.
    pub labels: StringMap,
    /// Where the sidecar runs.
    pub locality: Locality,
    /// What happens to calls to unknown hosts when no Sidecar resource says.
    pub outbound: OutboundMode,
    /// The sidecar's trust domain; `None`: it has no identity.
    pub trust_domain: Option<String>,
    /// Whether callers must speak mTLS where no PeerAuthentication says. `None`: they must when the sidecar has an
    /// identity, else they may not.
    pub default_mtls: Option<MtlsMode>,
    /// Whether there is no control plane that shares out fleet-wide rate limits: then the sidecar has them whole.
    pub alone: bool,
    /// Calls that the agent takes at a time (`--agent-capacity`), when its Sidecar document says nothing; 0: no limit.
    pub capacity: u32,
    /// Whether nobody may call the workload whom no ALLOW policy lets in (`--default-deny`); Istio's default is that everybody may.
    pub default_deny: bool,
    /// How far paths are normalised.
    pub normalization: Normalization,
    /// Looks up variables of the process's environment; `None`: there are none, as in the control plane, which checks for others.
    pub environment: Option<fn(&str) -> Option<String>>,
}

impl CompileOptions {
    /// Where the sidecar is, for the choice of endpoints.
    pub fn place(&self) -> Place {
        Place {
            namespace: self.namespace.clone(),
            locality: self.locality.clone(),
            labels: self.labels.clone(),
        }
    }

    /// A number for this agent, the same after every restart.
    pub(crate) fn identity_hash(&self) -> u64 {
        hash_bytes(format!("{}/{}", self.namespace, self.agent).as_bytes())
    }
}

/// Why a valid model cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// Where it is written.
    pub source: Source,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: error: {}", self.source, self.message)
    }
}

/// Compiles `model`. Addresses of DNS names come from `resolved`; counters that outlive plans from `state`.
///
/// # Errors
/// Everything that cannot be compiled, at once.
pub fn compile(
    model: &Model,
    options: &CompileOptions,
    resolved: &Resolved,
    state: &State,
    now: Micros,
) -> Result<Plan, Vec<CompileError>> {
    let place = options.place();
    let rules = cluster::Rules::new(model, &place);
    let view = View::new(model, &options.namespace, &options.labels);
    let trust_domain = options.trust_domain.as_deref();
    let on_demand = on_demand::agents(model, &view, now);
    let sources =
        cluster::Sources { model, resolved, view: &view, place: &place, trust_domain, on_demand: &on_demand };
    let mut pass = state.begin(now);
    let (clusters, dns_names) = cluster::clusters(sources, &mut pass);
    let mut routes = route::compile(model, options, &view, &rules, &clusters);
    let limits = rate_limit::compile(model, options, &mut routes, &mut pass);
    let to_agent = to_agent::compile(model, options, &mut pass);
    drop(pass);
    let (inbound, mut warnings) = inbound::compile(model, options);
    warnings.extend(routes.warnings);
    let telemetry = telemetry::compile(model, options, &mut warnings)?;
    let authz = authz::compile(model, options, &mut warnings);
    let tokens = tokens::compile(model, options, &mut warnings);
    let credentials = credentials::compile(model, options, &mut warnings);
    credentials::warn_of_plaintext(
        &credentials,
        clusters.iter().map(|(_, cluster)| &**cluster),
        &mut warnings,
    );
    let authorizers = authorizers::compile(model, &authz.policies.providers());
    let questioned = asked::compile(&clusters, &options.namespace, &authorizers, &tokens, &credentials);
    Ok(Plan {
        routes: routes.table,
        by_capability: routes.by_capability,
        warnings: warnings.into(),
        inbound,
        decisive: decisive(&authz, &tokens),
        authz,
        tokens,
        credentials,
        authorizers,
        questioned,
        telemetry: telemetry.policies,
        telemetry_providers: telemetry.providers,
        own: model.sidecar(&options.namespace, &options.labels).map(Own::of).unwrap_or_default(),
        limits,
        to_agent,
        inbound_cors: cors::compile(model, options),
        on_demand: {
            let endpoints = clusters.iter().flat_map(|(_, cluster)| cluster.endpoints());
            OnDemand::new(on_demand.into_iter().map(|started| started.agent).collect(), endpoints)
        },
        catalogue: catalogue::compile(&clusters),
        egress: egress::compile(model, options, &view),
        dns_names,
        registered: Registered::new(&clusters),
        clusters: clusters.into_list(),
    })
}

/// What the workload of `options` decides of callers by, and nothing else: no routes, no clusters. Cheap, also for a large model.
pub fn compile_authorization(model: &Model, options: &CompileOptions) -> Plan {
    let mut warnings = Vec::new();
    let authz = authz::compile(model, options, &mut warnings);
    let tokens = tokens::compile(model, options, &mut warnings);
    Plan { authz, tokens, warnings: warnings.into(), ..Plan::default() }
}

/// The names under which callers in `namespace` know `host`: itself, and the short forms of an in-cluster name.
pub(crate) fn names_of<'h>(host: &'h Host, namespace: &str) -> impl Iterator<Item = &'h str> {
    let host = host.as_str();
    let service =
        host.strip_suffix(".svc.cluster.local").and_then(|short| Some((short, short.split_once('.')?)));
    let (short, name) = match service {
        Some((short, (name, own))) if !own.contains('.') && !name.starts_with('*') => {
            (Some(short), Some(name).filter(|_| own == namespace))
        }
        _ => (None, None),
    };
    let with_svc = short.map(|short| &host[..short.len() + ".svc".len()]);
    [Some(host), with_svc, short, name].into_iter().flatten()
}

#[cfg(test)]
mod tests;
