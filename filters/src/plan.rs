//! The plan: a configuration compiled for one sidecar, immutable, read by every request.

mod asked;
mod describe;
mod egress;
mod inbound;
mod limits;
mod own;
mod registered;
mod resilience;
mod to_agent;
mod why;

use std::sync::Arc;
use std::time::Duration;

use crate::affinity::{Affinity, split_hash};
use crate::authorizer::Authorizers;
use crate::authz::Authz;
use crate::call::{Call, Caller, Head};
use crate::capability::{Catalogue, Demand, Wanted, host_capability};
use crate::cluster::Cluster;
pub use crate::cluster::ClusterId;
use crate::cors::Arriving;
use crate::credentials::Credentials;
use crate::endpoint::Labels;
use crate::headers::HeaderEditsPair;
use crate::on_demand::OnDemand;
use crate::rewrite::{PathRewrite, Redirect, Rewrite};
use crate::route::block::{Block, PathMatch};
use crate::route::{RouteTable, VirtualHost};
use crate::telemetry::{Collector, TelemetryPolicy};
use crate::tokens::TokenRules;
use crate::verdict::{Deny, Reason};

pub(crate) use asked::{Questioned, Service, host_and_port};
pub use egress::Egress;
pub(crate) use egress::NamedAddress;
pub(crate) use inbound::InboundMtls;
pub(crate) use limits::Limits;
pub use own::Own;
pub use registered::Measured;
pub(crate) use registered::Registered;
pub use resilience::Resilience;
pub(crate) use to_agent::ToAgent;

/// A configuration compiled for one sidecar.
#[derive(Debug)]
pub struct Plan {
    pub(crate) routes: RouteTable,
    pub(crate) clusters: Box<[Arc<Cluster>]>,
    pub(crate) catalogue: Catalogue,
    pub(crate) on_demand: OnDemand,
    pub(crate) egress: Egress,
    pub(crate) registered: Registered,
    pub(crate) inbound: InboundMtls,
    pub(crate) authz: Authz,
    pub(crate) tokens: TokenRules,
    pub(crate) decisive: Arc<[Box<str>]>,
    pub(crate) credentials: Credentials,
    pub(crate) authorizers: Authorizers,
    pub(crate) questioned: Questioned,
    pub(crate) own: Own,
    /// Of calls of the agent itself, and of calls to it.
    pub(crate) telemetry: [TelemetryPolicy; 2],
    pub(crate) telemetry_providers: Box<[Collector]>,
    pub(crate) limits: Limits,
    pub(crate) to_agent: ToAgent,
    pub(crate) inbound_cors: Box<[Arriving]>,
    /// The rule of calls that ask for a capability and whose host has no rule of its own.
    pub(crate) by_capability: Rule,
    /// Names whose addresses have to be looked up, sorted.
    pub(crate) dns_names: Box<[Box<str>]>,
    /// What is valid but does nothing, for the log.
    pub(crate) warnings: Box<[Box<str>]>,
}

/// The rule that a request matched, and by which part of its path.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'p> {
    /// The rule.
    pub rule: &'p Rule,
    block: Option<&'p Block>,
}

/// One rule, or the default route of a service.
#[derive(Debug, Clone)]
pub struct Rule {
    /// `namespace/virtualservice/name-or-position`, as tables and logs show it.
    pub name: Box<str>,
    /// Its own number within the plan, from 0 without large gaps: counters are found by it.
    pub number: u32,
    /// What is done.
    pub action: Action,
    /// The whole call's time limit; `None`: none, Istio's default.
    pub timeout: Option<Duration>,
    /// Edits by the rule. Those of a single destination are merged in; those of weighted destinations are in
    /// [`WeightedDestination::edits`] and come first, as Envoy does.
    pub edits: HeaderEditsPair,
    /// Changes of path and authority.
    pub rewrite: Option<Rewrite>,
    /// What says which conversation a call belongs to; gives the key for [`Split::choose`] and the balancer.
    pub affinity: Option<Affinity>,
    /// What it does about failure, load and time.
    pub resilience: Resilience,
}

/// What a rule does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Sends the call on.
    Forward(Split),
    /// Sends the caller elsewhere.
    Redirect(Box<Redirect>),
    /// Answers.
    Respond(Box<FixedResponse>),
}

/// `directResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedResponse {
    /// The status.
    pub status: u16,
    /// The body; `text/plain` unless the rule's edits say otherwise (Envoy's default).
    pub body: Box<[u8]>,
}

/// Weighted destinations. Never empty; the weights' sum is at least 1.
#[derive(Debug, Clone)]
pub struct Split {
    destinations: Box<[WeightedDestination]>,
    total: u64,
}

/// One destination and its share.
#[derive(Debug, Clone)]
pub struct WeightedDestination {
    /// Where to.
    pub target: Target,
    /// Edits for calls that go here, applied before those of the rule.
    pub edits: HeaderEditsPair,
    /// The share, of the sum of all.
    pub weight: u32,
}

/// Where a call goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A cluster.
    Cluster(ClusterId),
    /// The cluster of the port that the caller addressed: the destination names none and its host has several.
    ByPort(Box<[(u16, ClusterId)]>),
    /// Whoever is able.
    Capability(Box<CapabilityTarget>),
    /// A host (with its port and subset, as text) that nobody knows: [`Reason::NoCluster`].
    Unknown(Box<str>),
}

/// Whoever has a capability.
#[derive(Debug, Clone, Default)]
pub struct CapabilityTarget {
    /// What is needed. Empty: what the call asks for by its headers and host.
    pub wanted: Box<[Wanted]>,
    /// Labels that the rule's subset asks for.
    pub subset: Labels,
    /// The cluster whose settings (connect timeout, limits, protocol) hold, when a DestinationRule names the
    /// capability's host; `None`: those of the cluster in which each candidate was found.
    pub settings: Option<ClusterId>,
}

impl CapabilityTarget {
    /// What a call needs here.
    ///
    /// # Errors
    /// [`Reason::BadConstraint`] when the call's headers cannot be read.
    pub fn demand(&self, call: &Call) -> Result<Demand, Deny> {
        let mut demand = Demand::of(call)?;
        if demand.wanted.is_empty() && self.wanted.is_empty() {
            return Err(Deny::with(Reason::BadConstraint, "agent-capability names no capability"));
        }
        // A rule that sends the call to another capability than it asks for decides alone.
        let asked = |own: &Wanted| demand.wanted.iter().any(|w| w.name.eq_ignore_ascii_case(&own.name));
        if !self.wanted.iter().all(asked) {
            demand.wanted = self.wanted.to_vec();
        }
        demand.subset = self.subset.clone();
        Ok(demand)
    }
}

impl Split {
    /// Destinations by weight; `otherwise` stands in when there are none. Weights that are all zero count as equal.
    pub fn new(
        mut destinations: Vec<WeightedDestination>,
        otherwise: impl FnOnce() -> WeightedDestination,
    ) -> Split {
        if destinations.is_empty() {
            destinations.push(otherwise());
        }
        if destinations.iter().all(|d| d.weight == 0) {
            destinations.iter_mut().for_each(|d| d.weight = 1);
        }
        let total = destinations.iter().map(|d| u64::from(d.weight)).sum();
        Split { destinations: destinations.into(), total }
    }

    /// One destination: by the hash of a conversation's key, so that it stays where it is, else at random.
    pub fn choose(&self, key: Option<u64>, rng: &mut fastrand::Rng) -> &WeightedDestination {
        if let [only] = &*self.destinations {
            return only;
        }
        let mut point = match key {
            // The high bits of a product spread a hash over the weights without a division's bias.
            Some(key) => ((u128::from(split_hash(key)) * u128::from(self.total)) >> 64) as u64,
            None => rng.u64(..self.total),
        };
        let chosen = self.destinations.iter().find(|d| match point.checked_sub(u64::from(d.weight)) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        });
        // The point is below the sum, so one is always found.
        chosen.unwrap_or(&self.destinations[0])
    }

    /// All of them.
    pub fn destinations(&self) -> &[WeightedDestination] {
        &self.destinations
    }
}

impl Target {
    /// The cluster for a caller that addressed `port`; `None` for a capability.
    ///
    /// # Errors
    /// [`Reason::NoCluster`] when nobody knows the destination, or not at this port.
    pub fn cluster(&self, port: u16) -> Result<Option<ClusterId>, Deny> {
        match self {
            Target::Cluster(id) => Ok(Some(*id)),
            Target::Capability(_) => Ok(None),
            Target::Unknown(what) => Err(Deny::with(Reason::NoCluster, format!("nobody knows {what}"))),
            Target::ByPort(ports) => {
                let own = ports.iter().find(|(number, _)| *number == port);
                // A caller that names no port means the service, whichever port that has.
                let own = own.or_else(|| ports.first().filter(|_| matches!(port, 80 | 443)));
                own.map(|(_, id)| Some(*id)).ok_or_else(|| {
                    Deny::with(Reason::NoCluster, format!("the destination has no port {port}"))
                })
            }
        }
    }
}

impl Rule {
    /// Whether its affinity reads what only the body says.
    pub(crate) fn peeks_body(&self) -> bool {
        self.affinity.as_ref().is_some_and(Affinity::needs_body)
    }
}

impl<'p> Matched<'p> {
    /// The path (without the query) that goes upstream, when it changes.
    pub fn rewritten_path(&self, path: &str) -> Option<String> {
        let rewrite = &self.rule.rewrite.as_ref()?.path;
        if matches!(rewrite, PathRewrite::Keep) { None } else { rewrite.apply(path, self.matched_len(path)) }
    }

    /// The authority that goes upstream, when it changes.
    pub fn rewritten_authority(&self) -> Option<&'p str> {
        self.rule.rewrite.as_ref()?.authority.as_deref()
    }

    /// The `Location` of a redirect.
    pub fn location<H: Head>(&self, redirect: &Redirect, head: &H, caller: &Caller) -> String {
        redirect.location(head, caller, self.matched_len(head.path()))
    }

    fn matched_len(&self, path: &str) -> usize {
        self.block.map_or(&PathMatch::Any, |block| &block.path).rewritten_len(path)
    }
}

impl Default for Plan {
    /// The plan of an empty configuration: no host, nobody able to do anything.
    fn default() -> Self {
        let target = Target::Capability(Box::default());
        let nobody = || WeightedDestination { target, edits: HeaderEditsPair::default(), weight: 1 };
        Plan {
            routes: RouteTable::default(),
            clusters: Box::default(),
            catalogue: Catalogue::default(),
            on_demand: OnDemand::default(),
            egress: Egress::default(),
            registered: Registered::default(),
            inbound: InboundMtls::default(),
            authz: Authz::default(),
            tokens: TokenRules::default(),
            decisive: Arc::default(),
            credentials: Credentials::default(),
            authorizers: Authorizers::default(),
            questioned: Questioned::default(),
            own: Own::default(),
            telemetry: Default::default(),
            telemetry_providers: Box::default(),
            limits: Limits::default(),
            to_agent: ToAgent::default(),
            inbound_cors: Box::default(),
            by_capability: Rule {
                name: "*.capability.mesh".into(),
                number: 0,
                action: Action::Forward(Split::new(Vec::new(), nobody)),
                timeout: None,
                edits: HeaderEditsPair::default(),
                rewrite: None,
                affinity: None,
                resilience: Resilience::default(),
            },
            dns_names: Box::default(),
            warnings: Box::default(),
        }
    }
}

impl Plan {
    /// The rule for an outbound request.
    ///
    /// # Errors
    /// [`Reason::NoRoute`] when no host or no rule of it matches.
    pub fn route<'p, H: Head>(&'p self, head: &H, call: &Call, caller: &Caller) -> Result<Matched<'p>, Deny> {
        if let Some(host) = self.routes.host(head.authority()) {
            return match host.route(head, caller) {
                Some((rule, block)) => Ok(Matched { rule, block: Some(block) }),
                None => Err(Deny::with(Reason::NoRoute, format!("no rule of {} matches", head.authority()))),
            };
        }
        if !call.capabilities.is_empty() || host_capability(head.authority()).is_some() {
            return Ok(Matched { rule: &self.by_capability, block: None });
        }
        Err(Deny::with(Reason::NoRoute, format!("no rule is for the host {}", head.authority())))
    }

    /// Whether a rule or a service is for this authority, whose port does not count.
    pub fn knows(&self, authority: &str) -> bool {
        self.routes.host(authority).is_some() || host_capability(authority).is_some()
    }

    /// Whether rules of this authority read what only the body says (A2A contextId, OpenAI user). Conservative.
    pub fn peeks_body(&self, authority: &str) -> bool {
        let by_capability = self.by_capability.peeks_body();
        if !self.routes.any_peeks_body() && !by_capability {
            return false;
        }
        self.routes.host(authority).map_or(by_capability, VirtualHost::peeks_body)
    }

    /// A cluster of this plan.
    ///
    /// # Panics
    /// When the id comes from another plan.
    pub fn cluster(&self, id: ClusterId) -> &Arc<Cluster> {
        &self.clusters[id.0 as usize]
    }

    /// All clusters, each at the position that its [`ClusterId`] says.
    pub fn clusters(&self) -> &[Arc<Cluster>] {
        &self.clusters
    }

    /// Who is able to do what.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Agents that are started when they are asked for.
    pub fn on_demand(&self) -> &OnDemand {
        &self.on_demand
    }

    /// The same destination in a newer plan; `None`: it is gone.
    pub fn same_target(&self, target: &Target, port: u16, newer: &Plan) -> Option<Target> {
        let same = |id: ClusterId| {
            let name = &self.cluster(id).name;
            let at = newer.clusters.iter().position(|cluster| cluster.name == *name)?;
            Some(ClusterId(u32::try_from(at).ok()?))
        };
        match target {
            Target::Capability(target) => {
                let settings = target.settings.and_then(same);
                Some(Target::Capability(Box::new(CapabilityTarget { settings, ..(**target).clone() })))
            }
            target => target.cluster(port).ok()?.and_then(same).map(Target::Cluster),
        }
    }

    /// What happens to calls to hosts that no rule and no service is for.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// What the sidecar's own Sidecar document says of every call.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// What Telemetry documents say of calls of the agent itself (Istio's CLIENT side).
    pub fn client_telemetry(&self) -> &TelemetryPolicy {
        &self.telemetry[0]
    }

    /// What Telemetry documents say of calls to the agent (Istio's SERVER side).
    pub fn server_telemetry(&self) -> &TelemetryPolicy {
        &self.telemetry[1]
    }

    /// Whose tokens are valid here.
    pub fn tokens(&self) -> &TokenRules {
        &self.tokens
    }

    /// What the sidecar shows to hosts on its agent's behalf.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Who is asked by the action CUSTOM.
    pub fn authorizers(&self) -> &Authorizers {
        &self.authorizers
    }

    /// The TelemetryProviders that [`Plan::client_telemetry`] and [`Plan::server_telemetry`] name, sorted by name.
    pub fn telemetry_providers(&self) -> &[Collector] {
        &self.telemetry_providers
    }

    /// Names whose addresses have to be looked up and given to the next compilation, sorted.
    pub fn dns_names(&self) -> &[Box<str>] {
        &self.dns_names
    }

    /// What is valid but does nothing.
    pub fn warnings(&self) -> &[Box<str>] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests;
