//! authz: who may call what. Everything that a decision may ask, and the one place that puts the parts of a decision together, for
//! sidecars and for `pilotfish authz explain` alike.
//!
//! Order: CUSTOM (asked by the sidecar between [`Plan::custom`] and [`Plan::authorize`]), DENY, ALLOW ([`policies`]), then what an
//! AgentSecurityPolicy asks for ([`governance`]). Every part has to allow. AUDIT and dry runs change nothing but what is recorded.

pub mod governance;
pub mod policies;
pub mod reach;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::call::{Call, Caller, Head};
use crate::delegation::Delegated;
use crate::plan::Plan;
use crate::tokens::{Place, TokenRules};
use crate::verdict::{Deny, Reason};

/// An identity that was proved by a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The SPIFFE ID without `spiffe://`: `mesh.local/ns/default/agent/a`.
    pub id: Box<str>,
    /// `mesh.local`.
    pub trust_domain: Box<str>,
    /// The namespace, when the identity is an agent's or a service account's.
    pub namespace: Option<Box<str>>,
    /// The agent's or service account's name.
    pub name: Option<Box<str>>,
}

impl Principal {
    /// Whether it stands for agents that are too many to be named ([`Delegated::unknown`]): every other one has a trust domain.
    pub fn is_unknown(&self) -> bool {
        self.trust_domain.is_empty()
    }
}

/// What a valid token says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    /// `ISSUER/SUBJECT`: Istio's `request.auth.principal`.
    pub principal: Box<str>,
    /// `aud`.
    pub audiences: Box<[Box<str>]>,
    /// `azp`.
    pub presenter: Option<Box<str>>,
    /// All of them.
    pub all: serde_json::Map<String, serde_json::Value>,
    /// Claims that are lists although they are written as one text with spaces (`scope` and `permission`, and
    /// `spaceDelimitedClaims`).
    pub space_delimited: Box<[Box<str>]>,
}

/// For whom a caller acts: proved by the sidecars on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it began: a token's `ISSUER/SUBJECT`, or an agent's identity without `spiffe://`. Empty: the caller acts for itself.
    pub origin: Box<str>,
    /// The agents before the caller, first to last, as `TRUST-DOMAIN/ns/NAMESPACE/agent/NAME`.
    pub agents: Vec<Principal>,
    /// Not all of it is known: the caller serves several calls, and did not say for which it acts. Then `agents` are all of them.
    pub uncertain: bool,
}

/// The most bytes of names of a chain that records of calls keep: there are thousands of them.
const MOST_KEPT: usize = 4 << 10;

impl Chain {
    /// The same for records of calls, which keep it for long: of names without end only the first, and that there are more.
    pub fn kept(self: &Arc<Chain>) -> Arc<Chain> {
        let mut left = MOST_KEPT.saturating_sub(self.origin.len());
        let fitting = self.agents.iter().take_while(|agent| {
            let fits = agent.id.len() <= left;
            left = left.saturating_sub(agent.id.len());
            fits
        });
        let fitting = fitting.count();
        let fits = fitting == self.agents.len() && self.origin.len() <= MOST_KEPT;
        if fits { Arc::clone(self) } else { Arc::new(self.cut(fitting)) }
    }

    #[cold]
    fn cut(&self, agents: usize) -> Chain {
        let origin = self.origin.get(..self.origin.floor_char_boundary(MOST_KEPT)).unwrap_or_default();
        let shown = self.agents.get(..agents).unwrap_or_default();
        let agents = shown.iter().cloned().chain([Delegated::unknown()]).collect();
        Chain { origin: origin.into(), agents, uncertain: self.uncertain }
    }
}

/// Who a call comes from and where it arrived, as far as that is proved.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// By its certificate.
    pub principal: Option<&'a Principal>,
    /// The address of the original client (`x-forwarded-for`, as far as it is trusted); `None`: the peer's.
    pub remote_ip: Option<IpAddr>,
    /// Where the call is going to: the agent's address.
    pub destination: Option<SocketAddr>,
    /// The address at which its sidecar was called; the agent's own is often one that only its machine knows.
    pub arrived: Option<IpAddr>,
    /// The server name of the connection.
    pub sni: Option<&'a str>,
    /// What its token says.
    pub claims: Option<&'a Arc<Claims>>,
    /// For whom it acts; `None`: for itself.
    pub chain: Option<&'a Chain>,
    /// What an external authorizer says of the call (`dynamic_metadata`); an object.
    pub metadata: Option<&'a serde_json::Value>,
    /// When it asks, seconds since 1970: how old its token is. Not looked at without a token.
    pub unix: u64,
    /// The policies' rules that can be about `principal`, when its connection keeps them ([`Plan::caller_rules`] of this
    /// very plan); `None`: they are found anew.
    pub rules: Option<&'a policies::CallerRules>,
}

/// Everything that a policy may ask of a call.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// Its head, normalised.
    pub head: &'a dyn Head,
    /// What it is.
    pub call: &'a Call,
    /// Address and port.
    pub caller: &'a Caller,
    /// Who.
    pub who: &'a Who<'a>,
}

/// What was decided of a call.
#[derive(Debug, Clone, Default)]
pub struct Judgement<'p> {
    /// Why it is refused; `None`: it is allowed.
    pub deny: Option<Deny>,
    /// The policy and rule that decided, `default/viewers rule 2`; empty: no policy is for this workload.
    pub by: Cow<'p, str>,
    /// A dry-run policy and rule that would have decided otherwise.
    pub dry_run: Option<Cow<'p, str>>,
    /// Whether it has to be recorded even when it is allowed.
    pub audit: bool,
    /// Whether only what touches classified data has to be recorded (`log_data_access`).
    pub access: bool,
    /// The permission that it needs.
    pub permission: Cow<'p, str>,
    /// What it is about.
    pub resource: Cow<'p, str>,
    /// The class of what it asks for: a place in [`governance::Governance::levels`].
    pub class: Option<usize>,
    /// The highest class that the caller may get; `None`: nothing is classified here.
    pub clearance: Option<usize>,
}

impl Judgement<'_> {
    /// A refusal.
    pub fn refused(reason: Reason, detail: impl Into<Box<str>>) -> Self {
        Judgement { deny: Some(Deny::with(reason, detail)), ..Judgement::default() }
    }
}

/// The headers that decide who may call the workload of these, each once.
pub(crate) fn decisive(authz: &Authz, tokens: &TokenRules) -> Arc<[Box<str>]> {
    let of_tokens = tokens.places().iter().filter_map(|place| match place {
        Place::Header(name, _) => Some(&**name),
        Place::Parameter(_) | Place::Cookie(_) => None,
    });
    let written = tokens.written().iter().map(|name| &**name);
    let of_resources = authz.governance.declarations.headers();
    let all = authz.policies.headers().chain(of_resources).chain(of_tokens).chain(written);
    all.map(str::to_ascii_lowercase).collect::<BTreeSet<_>>().into_iter().map(String::into).collect()
}

impl Plan {
    /// The AuthorizationPolicies' rules that can be about a caller, for [`Who::rules`]; `None`: there are none.
    pub fn caller_rules(&self, principal: Option<&Principal>) -> Option<policies::CallerRules> {
        self.authz.policies.caller_rules(principal)
    }

    /// Headers that policies decide by, that have tokens, or that only rules write, in lower case.
    pub fn decisive_headers(&self) -> &Arc<[Box<str>]> {
        &self.decisive
    }

    /// The authorizer that has to be asked about this call first (action CUSTOM).
    pub fn custom(&self, asking: &Asking<'_>) -> Option<policies::Custom<'_>> {
        self.authz.policies.custom(asking)
    }

    /// Whether the call is allowed, CUSTOM apart.
    pub fn authorize<'p>(&'p self, asking: &Asking<'p>) -> Judgement<'p> {
        let judgement = self.authz.policies.decide(asking);
        if judgement.deny.is_some() {
            return judgement;
        }
        self.authz.governance.decide(asking, judgement)
    }

    /// Whether decisions hang on what only a body says: A2A and MCP methods, skills, tools, models.
    pub fn authz_reads_body(&self) -> bool {
        self.authz.policies.reads_body() || self.authz.governance.reads_body()
    }

    /// What AgentSecurityPolicies say for this workload.
    pub fn governance(&self) -> &governance::Governance {
        &self.authz.governance
    }
}

/// What a plan knows of who may call its workload.
#[derive(Debug, Default)]
pub struct Authz {
    /// AuthorizationPolicies.
    pub policies: policies::Policies,
    /// AgentSecurityPolicies, with their RoleBindings.
    pub governance: governance::Governance,
}
