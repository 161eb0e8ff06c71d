//! Virtual hosts: the rules of VirtualServices, and a default route for every service that has none.

use pilotfish_config::model::{Action, Destination, Host, HttpRoute, Model, VirtualService};

use super::cluster::{EVERY_CAPABILITY, Rules};
use super::destination::Destinations;
use super::{CompileOptions, action, block, names_of, resilience};
use crate::affinity::{Affinity, HashPolicy};
use crate::cluster::Clusters;
use crate::headers::HeaderEditsPair;
use crate::plan::{self, CapabilityTarget, Rule, Split, Target, WeightedDestination};
use crate::route::block::{Block, PathMatch};
use crate::route::hash::FixedMap;
use crate::route::{RouteTable, VirtualHost};
use crate::view::View;

/// Routes, and what is wrong with them without being an error.
pub(super) struct Routes {
    pub(super) table: RouteTable,
    pub(super) by_capability: Rule,
    pub(super) warnings: Vec<Box<str>>,
    /// So many virtual hosts come first that are of VirtualServices.
    pub(super) written: usize,
}

/// Compiles every rule that the sidecar sees.
pub(super) fn compile(
    model: &Model,
    options: &CompileOptions,
    view: &View<'_>,
    rules: &Rules<'_>,
    clusters: &Clusters,
) -> Routes {
    let mut compiler = Compiler {
        options,
        view,
        destinations: Destinations::new(rules, clusters, options),
        table: RouteTable::default(),
        owners: Vec::new(),
        warnings: Vec::new(),
        numbers: 0,
    };
    let visible = model.virtual_services.iter().filter(|service| view.sees_rules(service));
    for service in visible.filter(|service| service.is_for_mesh() && !service.http.is_empty()) {
        compiler.virtual_service(service);
    }
    compiler.default_routes(model, clusters);
    let by_capability = compiler.capability_rule();
    Routes {
        table: compiler.table,
        by_capability,
        warnings: compiler.warnings,
        written: compiler.owners.len(),
    }
}

struct Compiler<'a> {
    options: &'a CompileOptions,
    view: &'a View<'a>,
    destinations: Destinations<'a>,
    table: RouteTable,
    /// The VirtualService of each virtual host, `namespace/name`.
    owners: Vec<String>,
    warnings: Vec<Box<str>>,
    /// The number of the next rule.
    numbers: u32,
}

impl<'a> Compiler<'a> {
    fn virtual_service(&mut self, service: &'a VirtualService) {
        let owner = format!("{}/{}", service.meta.namespace(), service.meta.name());
        let host = self.virtual_host(service, &owner);
        let number = self.table.add(host);
        for host in &service.hosts {
            let full = self.destinations.full_name(host);
            let host = full.as_ref().unwrap_or(host);
            self.claim(host, number, service, &owner);
        }
        self.owners.push(owner);
    }

    /// Lets the virtual host serve a host under all its names; the first VirtualService keeps it, as in Istio.
    fn claim(&mut self, host: &Host, number: u32, service: &VirtualService, owner: &str) {
        if self.table.name(host, number) {
            for name in names_of(host, &self.options.namespace).skip(1) {
                self.table.name(name, number);
            }
            return;
        }
        let first = self.table.number(host).and_then(|first| self.owners.get(first as usize));
        let first = first.map_or(owner, String::as_str);
        self.warnings.push(
            format!(
                "{}: VirtualService {owner}: host {host} already belongs to VirtualService {first}, so the rules here \
                 are not used for it (put them into one VirtualService, or use delegates)",
                service.meta.source
            )
            .into(),
        );
    }

    fn virtual_host(&mut self, service: &'a VirtualService, owner: &str) -> VirtualHost {
        let mut rules = Vec::with_capacity(service.http.len());
        let mut blocks = Vec::with_capacity(service.http.len());
        for (at, route) in service.http.iter().enumerate() {
            let rule = rules.len() as u32;
            let before = blocks.len();
            blocks.extend(route.matches.iter().filter_map(|m| block::block(m, rule, self.options)));
            if route.matches.is_empty() {
                blocks.push(Block { rule, path: PathMatch::Any, rest: Box::default() });
            }
            // A rule that can never match for this sidecar is left out.
            if blocks.len() > before {
                rules.push(self.rule(route, service, owner, at));
            }
        }
        VirtualHost::new(rules, blocks)
    }

    fn rule(&mut self, route: &'a HttpRoute, service: &'a VirtualService, owner: &str, at: usize) -> Rule {
        let name = match &route.name {
            Some(name) => format!("{owner}/{name}"),
            None => format!("{owner}/{at}"),
        };
        let mut edits = action::edits(&route.headers);
        let mut policies = Vec::new();
        let action = match &route.action {
            Action::Redirect(redirect) => plan::Action::Redirect(Box::new(action::redirect(redirect))),
            Action::DirectResponse(response) => plan::Action::Respond(Box::new(action::respond(response))),
            Action::Route(destinations) => {
                let mut weighted: Vec<WeightedDestination> = Vec::with_capacity(destinations.len());
                for one in destinations {
                    let found = self.destinations.find(&one.destination);
                    policies.extend(found.affinity.clone().filter(|policy| !policies.contains(policy)));
                    if let Target::Unknown(what) = &found.target {
                        self.warnings.push(unknown(route, &name, what));
                    }
                    weighted.push(WeightedDestination {
                        target: found.target.clone(),
                        edits: action::edits(&one.headers),
                        weight: one.weight,
                    });
                }
                if let [only] = weighted.as_mut_slice() {
                    edits = edits.then(std::mem::take(&mut only.edits));
                }
                forward(weighted)
            }
        };
        let resilience = resilience::of_route(route, service, &mut self.destinations);
        for mirror in &resilience.mirrors {
            if let Target::Unknown(what) = &mirror.target {
                self.warnings.push(unknown_mirror(route, &name, what));
            }
        }
        Rule {
            name: name.into(),
            number: self.next_number(),
            action,
            // Istio: timeouts and retries are not applied while faults are injected.
            timeout: if resilience.fault.is_none() { route.timeout } else { None },
            edits,
            rewrite: route.rewrite.as_ref().map(action::rewrite),
            affinity: affinity(policies),
            resilience,
        }
    }

    /// A default route for every host that has clusters and no rules of its own. A VirtualService whose wildcard
    /// covers the host is more than nothing: its rules hold, as in Istio.
    fn default_routes(&mut self, model: &Model, clusters: &Clusters) {
        let mut entries: FixedMap<&str, &pilotfish_config::model::ServiceEntry> = FixedMap::default();
        // Those of the sidecar's own namespace count before others.
        let own =
            |entry: &&pilotfish_config::model::ServiceEntry| entry.meta.namespace() == self.options.namespace;
        let all = || model.service_entries.iter();
        for entry in all().filter(own).chain(all().filter(|entry| !own(entry))) {
            for host in entry.hosts.iter().filter(|host| self.view.sees_service(entry, host)) {
                entries.entry(host).or_insert(entry);
            }
        }
        let mut claims: Vec<(Host, u32)> = Vec::new();
        // A capability's host is among them when a DestinationRule names it.
        let hosts = clusters.hosts().filter(|host| *host != EVERY_CAPABILITY);
        for host in hosts.map(|host| Host::resolve(host, "")) {
            let number = self.table.number(&host).unwrap_or_else(|| {
                let name = match entries.get(host.as_str()) {
                    Some(entry) => format!("{}/{}/default", entry.meta.namespace(), entry.meta.name()),
                    None => format!("{host}/default"),
                };
                let found =
                    self.destinations.work_out(&Destination { host: host.clone(), subset: None, port: None });
                let only = WeightedDestination {
                    target: found.target,
                    edits: HeaderEditsPair::default(),
                    weight: 1,
                };
                let rule = plain_rule(&name, self.next_number(), vec![only], found.affinity);
                self.table.add(VirtualHost::single(rule))
            });
            claims.push((host, number));
        }
        // Only now: a service's wildcard must not look like a VirtualService's to another service.
        claims.sort_unstable();
        for (host, number) in &claims {
            for name in names_of(host, &self.options.namespace) {
                self.table.name(name, *number);
            }
        }
    }

    /// The rule of calls that ask for a capability, by header or host, without rules of their own.
    fn capability_rule(&mut self) -> Rule {
        let settings = self.destinations.settings(EVERY_CAPABILITY, None);
        let target =
            Target::Capability(Box::new(CapabilityTarget { settings, ..CapabilityTarget::default() }));
        let affinity = self.destinations.affinity(&target);
        let only = WeightedDestination { target, edits: HeaderEditsPair::default(), weight: 1 };
        plain_rule(EVERY_CAPABILITY, self.next_number(), vec![only], affinity)
    }

    fn next_number(&mut self) -> u32 {
        let number = self.numbers;
        self.numbers += 1;
        number
    }
}

fn plain_rule(
    name: &str,
    number: u32,
    destinations: Vec<WeightedDestination>,
    hashed: Option<HashPolicy>,
) -> Rule {
    Rule {
        name: name.into(),
        number,
        action: forward(destinations),
        timeout: None,
        edits: HeaderEditsPair::default(),
        rewrite: None,
        affinity: affinity(hashed.into_iter().collect()),
        resilience: plan::Resilience::default(),
    }
}

/// The model promises at least one destination; were there none, nobody would know where to go.
fn forward(destinations: Vec<WeightedDestination>) -> plan::Action {
    let nowhere = || WeightedDestination {
        target: Target::Unknown("any destination".into()),
        edits: HeaderEditsPair::default(),
        weight: 1,
    };
    plan::Action::Forward(Split::new(destinations, nowhere))
}

fn affinity(policies: Vec<HashPolicy>) -> Option<Affinity> {
    (!policies.is_empty()).then(|| Affinity { policies: policies.into() })
}

fn unknown(route: &HttpRoute, name: &str, what: &str) -> Box<str> {
    format!("{}: {name}: nobody knows the destination {what}: calls there are answered 503", route.source)
        .into()
}

fn unknown_mirror(route: &HttpRoute, name: &str, what: &str) -> Box<str> {
    format!("{}: {name}: nobody knows the mirror {what}: no copies are sent there", route.source).into()
}
