//! Roles: who has which, and what each gives. Found by the caller's name, so that their number costs nothing.

use std::borrow::Cow;

use pilotfish_config::model::Permission;

use super::glob::Glob;
use crate::authz::{Claims, Principal};
use crate::route::hash::{FixedMap, Fnv, HashedMap};

/// What a role gives.
#[derive(Debug)]
pub(crate) struct Role {
    /// `namespace/policy role NAME`.
    pub(crate) by: Box<str>,
    pub(crate) permissions: Box<[Permission]>,
    pub(crate) resources: Box<[Glob]>,
    /// The highest class that it may see.
    pub(crate) clearance: usize,
    /// Everything on everything.
    pub(crate) all: bool,
}

impl Role {
    /// Whether it gives `domain:verb` on a resource.
    pub(crate) fn gives(&self, (domain, verb): (&str, &str), resource: &str) -> bool {
        self.all
            || self.permissions.iter().any(|own| own.gives(domain, verb))
                && self.resources.iter().any(|own| own.matches(resource))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.by.rsplit(' ').next().unwrap_or_default()
    }
}

/// Places in [`Roles::roles`].
type Places = Vec<u32>;

/// All roles, and who has them.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    pub(crate) roles: Vec<Role>,
    /// The mesh's own trust domain: names alone mean its agents.
    trust_domain: Box<str>,
    /// By the hash of namespace and name.
    agents: HashedMap<Vec<Named>>,
    principals: Names,
    tokens: Names,
}

#[derive(Debug)]
struct Named {
    /// `namespace/name`.
    agent: Box<str>,
    roles: Places,
}

/// Texts, perhaps with `*` at one end.
#[derive(Debug, Default)]
struct Names {
    exact: FixedMap<Box<str>, Places>,
    prefixes: Ends,
    suffixes: Ends,
}

/// Beginnings or ends, with the lengths that there are.
#[derive(Debug, Default)]
struct Ends {
    lengths: Vec<usize>,
    texts: FixedMap<Box<str>, Places>,
}

impl Ends {
    fn add(&mut self, text: &str, role: u32) {
        if !self.lengths.contains(&text.len()) {
            self.lengths.push(text.len());
        }
        self.texts.entry(text.into()).or_default().push(role);
    }
}

impl Names {
    fn add(&mut self, pattern: &str, role: u32) {
        match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
            (Some(prefix), _) => self.prefixes.add(prefix, role),
            (None, Some(suffix)) => self.suffixes.add(suffix, role),
            (None, None) => self.exact.entry(pattern.into()).or_default().push(role),
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.texts.is_empty() && self.suffixes.texts.is_empty()
    }

    fn find(&self, text: &str, found: &mut impl FnMut(u32)) {
        let exact = self.exact.get(text).into_iter();
        let prefixes =
            self.prefixes.lengths.iter().filter_map(|length| self.prefixes.texts.get(text.get(..*length)?));
        let suffixes = self
            .suffixes
            .lengths
            .iter()
            .filter_map(|length| self.suffixes.texts.get(text.get(text.len().checked_sub(*length)?..)?));
        exact.chain(prefixes).chain(suffixes).flatten().for_each(|role| found(*role));
    }
}

/// A principal in the one form by which they are compared: a service account is an agent. Which of the two it is says the fourth of its
/// five parts; the second and third may be called so too. What begins with `*` is the end of one.
fn canonical(id: &str) -> Cow<'_, str> {
    let before = match id.starts_with('*') {
        true => id.rfind('/').and_then(|name| id[..name].rfind('/')),
        false => id.match_indices('/').nth(2).map(|(at, _)| at),
    };
    let Some((start, end)) = before.map(|at| id.split_at(at + 1)) else { return Cow::Borrowed(id) };
    match end.strip_prefix("sa/") {
        Some(name) => Cow::Owned(format!("{start}agent/{name}")),
        None => Cow::Borrowed(id),
    }
}

fn agent_key(namespace: &str, name: &str) -> u64 {
    Fnv::START.extend(namespace.as_bytes()).extend(b"/").extend(name.as_bytes()).finish()
}

fn is_agent(agent: &str, namespace: &str, name: &str) -> bool {
    agent.split_once('/') == Some((namespace, name))
}

impl Roles {
    pub(crate) fn new(trust_domain: &str) -> Roles {
        Roles { trust_domain: trust_domain.into(), ..Roles::default() }
    }

    /// Adds a role and gives its place.
    pub(crate) fn add(&mut self, role: Role) -> u32 {
        self.roles.push(role);
        (self.roles.len() - 1) as u32
    }

    /// Gives a role to an agent of this mesh.
    pub(crate) fn bind_agent(&mut self, namespace: &str, name: &str, role: u32) {
        let same = self.agents.entry(agent_key(namespace, name)).or_default();
        match same.iter_mut().find(|named| is_agent(&named.agent, namespace, name)) {
            Some(named) => named.roles.push(role),
            None => same.push(Named { agent: format!("{namespace}/{name}").into(), roles: vec![role] }),
        }
    }

    /// Gives a role to an identity as policies write it.
    pub(crate) fn bind_principal(&mut self, pattern: &str, role: u32) {
        let own = match pattern.strip_prefix("cluster.local/") {
            Some(rest) => Cow::Owned(format!("{}/{rest}", self.trust_domain)),
            None => Cow::Borrowed(pattern),
        };
        self.principals.add(&canonical(&own), role);
    }

    /// Gives a role to whoever a token names.
    pub(crate) fn bind_token(&mut self, pattern: &str, role: u32) {
        self.tokens.add(pattern, role);
    }

    /// Whether tokens give any.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Every role of an agent, more than once if it has it in several ways.
    pub(crate) fn of_principal(&self, principal: &Principal, found: &mut impl FnMut(&Role)) {
        let mut give = |place: u32| {
            if let Some(role) = self.roles.get(place as usize) {
                found(role);
            }
        };
        if let (Some(namespace), Some(name)) = (&principal.namespace, &principal.name)
            && principal.trust_domain == self.trust_domain
        {
            let same = self.agents.get(&agent_key(namespace, name)).into_iter().flatten();
            let named = same.filter(|named| is_agent(&named.agent, namespace, name));
            named.flat_map(|named| &named.roles).for_each(|role| give(*role));
        }
        if !self.principals.is_empty() {
            self.principals.find(&canonical(&principal.id), &mut give);
        }
    }

    /// Every role that a token gives.
    pub(crate) fn of_token(&self, claims: &Claims, found: &mut impl FnMut(&Role)) {
        if !self.tokens.is_empty() && !claims.principal.is_empty() {
            self.tokens.find(&claims.principal, &mut |place| {
                if let Some(role) = self.roles.get(place as usize) {
                    found(role);
                }
            });
        }
    }
}
