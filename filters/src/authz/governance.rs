//! AgentSecurityPolicies of one workload: roles, permissions, classification, what is recorded.
//!
//! Of several policies for one workload each demand holds, and their roles together are who may do what.

pub(crate) mod declared;
mod fit;
pub(crate) mod glob;
mod reach;
pub(crate) mod resource;
pub(crate) mod roles;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::{Asking, Claims, Judgement, Principal};
use crate::verdict::{Deny, Reason};
use declared::{Declarations, Declared, default_need};
use glob::Glob;
use resource::NoResource;
use roles::{Role, Roles};

/// The header by which an answer says its class.
pub const CLASS_HEADER: &str = "agent-classification";

/// What holds for this workload. By default nothing.
#[derive(Debug, Default)]
pub struct Governance {
    /// The classes of data, from the least to the most secret; empty: nothing is classified.
    pub levels: Box<[Box<str>]>,
    /// Everything is recorded (`audit_all_actions`).
    pub audit_all: bool,
    /// Access to classified data is recorded (`log_data_access`).
    pub log_access: bool,
    /// Unusual behaviour is told of (`alert_on_anomalies`).
    pub alert_on_anomalies: bool,
    /// How long records are kept; `None`: no policy says.
    pub retention: Option<Duration>,
    /// A call is refused when its record cannot be kept, instead of going on with a gap.
    pub audit_required: bool,
    /// Calls in plaintext are refused, from others and to others (`encryption: required`, or `protocols` alone).
    pub encrypted: bool,
    /// A call of the mesh that does not say for whom it is is refused (`delegation_required`).
    pub chain_required: bool,
    /// TLS to hosts outside of the mesh is 1.3 or nothing.
    pub tls13_only: bool,
    /// The highest class that the workload's own agent may get; `None`: nothing is classified.
    pub own_clearance: Option<usize>,
    /// The policies, `default/policy`; empty: there is none.
    pub(crate) by: Box<str>,
    /// No caller without a certificate (`mtls`).
    pub(crate) certificate: bool,
    /// `authentication.required`, and by what: of each policy that asks, one has to be there.
    pub(crate) authentication: Box<[Methods]>,
    /// `token_lifetime`.
    pub(crate) token_lifetime: Option<Duration>,
    pub(crate) classification_required: bool,
    /// `data_access.classifications`: what is for a resource, and its class.
    pub(crate) classifications: Box<[(Glob, usize)]>,
    /// Whether calls need a permission.
    pub(crate) rbac: bool,
    pub(crate) roles: Roles,
    pub(crate) declarations: Declarations,
}

/// By what a caller may say who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Methods {
    pub(crate) certificate: bool,
    pub(crate) token: bool,
}

/// The call's token as far as policies count it.
type Token<'a> = Option<&'a Arc<Claims>>;

impl Governance {
    /// Goes on with what the AuthorizationPolicies allowed.
    pub fn decide<'p>(&'p self, asking: &Asking<'p>, mut judgement: Judgement<'p>) -> Judgement<'p> {
        if self.by.is_empty() {
            return judgement;
        }
        judgement.audit |= self.audit_all;
        if let Err(deny) = self.judge(asking, &mut judgement) {
            judgement.deny = Some(deny);
            judgement.by = Cow::Borrowed(&self.by);
        }
        judgement.access = self.log_access && judgement.class.is_some();
        judgement
    }

    /// Whether permissions or resources hang on what only a body says.
    pub fn reads_body(&self) -> bool {
        self.rbac || !self.classifications.is_empty() || self.declarations.reads_body()
    }

    /// The policies, `default/policy`, for people.
    pub fn policies(&self) -> &str {
        &self.by
    }

    /// The place of a class among the levels; one that nobody knows counts as the highest.
    pub fn level(&self, class: &str) -> usize {
        let known = self.levels.iter().position(|level| level.eq_ignore_ascii_case(class));
        known.unwrap_or(self.highest())
    }

    /// The name of a class.
    pub fn level_name(&self, class: usize) -> &str {
        self.levels.get(class).map_or("", |level| level)
    }

    /// The highest class that an agent may get by its roles.
    pub fn clearance_of(&self, principal: &Principal) -> usize {
        let mut highest = 0;
        self.roles.of_principal(principal, &mut |role| highest = highest.max(role.clearance));
        highest
    }

    fn highest(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    fn judge<'p>(&'p self, asking: &Asking<'p>, judgement: &mut Judgement<'p>) -> Result<(), Deny> {
        self.encryption(asking)?;
        let (token, why) = self.token(asking);
        self.authentication(asking, token, why)?;
        if !self.rbac && self.levels.is_empty() {
            return Ok(());
        }
        let holding = self.declarations.of(asking);
        if holding.too_many {
            let detail =
                format!("more rules of {} declare something for this call than can be told apart", self.by);
            return Err(Deny::with(Reason::AccessDenied, detail));
        }
        let mut class = holding.class;
        let may_all = self.rbac && self.may_all(asking, token);
        let mut refused = None;
        for declared in holding.needs().map(Some).chain(holding.default.then_some(None)) {
            let (permission, found) = need(declared, asking);
            let found = found.map_err(|why| why.deny(permission));
            let (resource, result) = match found {
                Ok(resource) => {
                    class = class.max(self.class_of(&resource));
                    let result = match self.rbac && !may_all {
                        true => self.permitted(asking, token, permission, &resource),
                        false => Ok(()),
                    };
                    (resource, result)
                }
                // Who may do everything, may do this too, whatever it is; and nothing hangs on it where nothing is asked.
                Err(_) if self.classifications.is_empty() && (may_all || !self.rbac) => {
                    (Cow::Borrowed(""), Ok(()))
                }
                Err(deny) => (Cow::Borrowed(""), Err(deny)),
            };
            let first = judgement.permission.is_empty() || result.is_err() && refused.is_none();
            if first {
                judgement.permission = Cow::Borrowed(permission);
                judgement.resource = resource;
            }
            refused = refused.or(result.err());
        }
        judgement.class = class.filter(|_| !self.levels.is_empty());
        if let Some(deny) = refused {
            return Err(deny);
        }
        if judgement.by.is_empty() {
            judgement.by = Cow::Borrowed(&self.by);
        }
        self.classified(asking, token, judgement)
    }

    /// `communication`: a caller without a certificate has no encrypted connection.
    fn encryption(&self, asking: &Asking<'_>) -> Result<(), Deny> {
        if !(self.encrypted || self.certificate) || asking.who.principal.is_some() {
            return Ok(());
        }
        let what =
            if self.certificate { "a certificate of the mesh (mtls)" } else { "an encrypted connection" };
        let detail = format!("{} wants {what}; call through a sidecar", self.by);
        Err(Deny::with(Reason::EncryptionRequired, detail))
    }

    /// The token, if it counts; and why one does not.
    fn token<'a>(&self, asking: &Asking<'a>) -> (Token<'a>, Option<&'static str>) {
        let Some(claims) = asking.who.claims else { return (None, None) };
        let Some(lifetime) = self.token_lifetime else { return (Some(claims), None) };
        let time = |name: &str| {
            let value = claims.all.get(name)?;
            value.as_u64().or_else(|| value.as_f64().filter(|time| *time >= 0.0).map(|time| time as u64))
        };
        let longest = lifetime.as_secs();
        let why = match (time("iat"), time("exp")) {
            (None, _) => "its token does not say when it was issued (iat)",
            (_, None) => "its token does not say when it ends (exp)",
            (Some(issued), Some(ends)) if ends.saturating_sub(issued) > longest => {
                "its token is valid for longer than token_lifetime"
            }
            (Some(issued), _) if asking.who.unix.saturating_sub(issued) > longest => {
                "its token is older than token_lifetime"
            }
            _ => return (Some(claims), None),
        };
        (None, Some(why))
    }

    fn authentication(&self, asking: &Asking<'_>, token: Token<'_>, why: Option<&str>) -> Result<(), Deny> {
        let shown = |methods: &&Methods| {
            methods.certificate && asking.who.principal.is_some() || methods.token && token.is_some()
        };
        let Some(methods) = self.authentication.iter().find(|methods| !shown(methods)) else { return Ok(()) };
        let wanted = match (methods.certificate, methods.token) {
            (true, false) => "a certificate of the mesh",
            (false, true) => "a token",
            _ => "a certificate of the mesh or a token",
        };
        let why = why.unwrap_or("the caller shows none");
        let deny = Deny::with(Reason::Unauthenticated, format!("{} wants {wanted}: {why}", self.by));
        Err(deny.and_header("www-authenticate", "Bearer"))
    }

    /// Whether the caller, and everybody for whom it acts, may do everything.
    fn may_all(&self, asking: &Asking<'_>, token: Token<'_>) -> bool {
        let mut all = false;
        self.each_role(asking, token, &mut |role| all |= role.all);
        all && self.chain(asking).all(|agent| {
            let mut all = false;
            self.roles.of_principal(agent, &mut |role| all |= role.all);
            all
        })
    }

    /// The roles of the caller itself.
    fn each_role(&self, asking: &Asking<'_>, token: Token<'_>, found: &mut impl FnMut(&Role)) {
        if let Some(principal) = asking.who.principal {
            self.roles.of_principal(principal, found);
        }
        if let Some(claims) = token {
            self.roles.of_token(claims, found);
        }
    }

    /// Everybody for whom the caller acts.
    fn chain<'a>(&self, asking: &Asking<'a>) -> impl Iterator<Item = &'a Principal> {
        asking.who.chain.into_iter().flat_map(|chain| &chain.agents)
    }

    /// Permissions only shrink along a chain: everybody on it needs this one.
    fn permitted(
        &self,
        asking: &Asking<'_>,
        token: Token<'_>,
        permission: &str,
        resource: &str,
    ) -> Result<(), Deny> {
        let needed = permission.split_once(':').unwrap_or((permission, ""));
        let mut given = false;
        self.each_role(asking, token, &mut |role| given |= role.gives(needed, resource));
        if !given {
            let mut names = Vec::new();
            self.each_role(asking, token, &mut |role| names.push(role.name().to_owned()));
            return Err(self.lacks(&caller_name(asking, token), permission, resource, &names, false));
        }
        for agent in self.chain(asking) {
            let mut given = false;
            self.roles.of_principal(agent, &mut |role| given |= role.gives(needed, resource));
            if !given {
                let mut names = Vec::new();
                self.roles.of_principal(agent, &mut |role| names.push(role.name().to_owned()));
                return Err(self.lacks(&agent_name(agent), permission, resource, &names, true));
            }
        }
        Ok(())
    }

    /// Says who lacks what, and what to do.
    fn lacks(&self, who: &str, permission: &str, resource: &str, roles: &[String], chain: bool) -> Deny {
        const SHOWN: usize = 8;
        // By default a resource is the path without its first slash: of `/` nothing is left.
        let resource = if resource.is_empty() { "the path /" } else { resource };
        let mut detail = format!("{who} has no role that gives {permission} on {resource}");
        if chain {
            detail.push_str(", and the caller acts for it");
        }
        if roles.is_empty() {
            let _ = write!(detail, "; it has no role at all ({}; give it one by a RoleBinding)", self.by);
        } else {
            let shown = roles.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if roles.len() > SHOWN { ", ..." } else { "" };
            let _ = write!(detail, "; roles: {shown}{more} ({})", self.by);
        }
        Deny::with(Reason::AccessDenied, detail)
    }

    /// The highest class of what matches a resource.
    fn class_of(&self, resource: &str) -> Option<usize> {
        let matching = self.classifications.iter().filter(|(glob, _)| glob.matches(resource));
        matching.map(|(_, class)| *class).max()
    }

    /// Clearance: the highest of the caller's roles, the lowest along the chain.
    fn classified<'p>(
        &'p self,
        asking: &Asking<'_>,
        token: Token<'_>,
        judgement: &mut Judgement<'p>,
    ) -> Result<(), Deny> {
        if self.levels.is_empty() {
            return Ok(());
        }
        let mut own = 0;
        self.each_role(asking, token, &mut |role| own = own.max(role.clearance));
        let mut who = None;
        let mut clearance = own;
        for agent in self.chain(asking) {
            let of = self.clearance_of(agent);
            if of < clearance {
                (clearance, who) = (of, Some(agent));
            }
        }
        judgement.clearance = Some(clearance);
        match judgement.class {
            Some(class) if class > clearance => {
                let who = who.map_or_else(|| caller_name(asking, token), agent_name);
                let detail = format!(
                    "this is {}, and {who} may see what is {} at most ({})",
                    self.level_name(class),
                    self.level_name(clearance),
                    self.by
                );
                Err(Deny::with(Reason::Classified, detail))
            }
            None if self.classification_required => {
                let detail = format!(
                    "{} wants every call classified, and nothing gives this one a class: write pilotfish.dev/classification on its \
                     VirtualService or AgentCluster, or its resource into data_access.classifications",
                    self.by
                );
                Err(Deny::with(Reason::AccessDenied, detail))
            }
            _ => Ok(()),
        }
    }
}

/// What a call needs by one declaration, or by default.
fn need<'p>(
    declared: Option<&'p Declared>,
    asking: &Asking<'p>,
) -> (&'p str, Result<Cow<'p, str>, NoResource>) {
    let Some(declared) = declared else { return default_need(asking) };
    let resource = |template| resource::filled(template, asking);
    match (declared.permission.as_deref(), &declared.resource) {
        (Some(permission), Some(template)) => (permission, resource(template)),
        (Some(permission), None) => (permission, resource::of_path(asking.head.path())),
        (None, template) => {
            let (permission, default) = default_need(asking);
            // Which permission it is hangs on the body too.
            let doubtful = matches!(default, Err(NoResource::Doubtful));
            let own = template.as_ref().filter(|_| !doubtful).map(resource);
            (permission, own.unwrap_or(default))
        }
    }
}

fn agent_name(principal: &Principal) -> String {
    match (&principal.namespace, &principal.name) {
        (Some(namespace), Some(name)) => format!("agent {namespace}/{name}"),
        _ => principal.id.to_string(),
    }
}

fn caller_name(asking: &Asking<'_>, token: Token<'_>) -> String {
    match (asking.who.principal, token) {
        (Some(principal), _) => agent_name(principal),
        (None, Some(claims)) => claims.principal.to_string(),
        (None, None) => "a caller without a name".to_owned(),
    }
}
