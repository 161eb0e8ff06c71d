//! What one sidecar may reach: what others export to it, narrowed by the `egress.hosts` of its Sidecar document.
//!
//! As in Istio, rules bring the hosts with them that they send to: a rule whose host is imported works.

use std::collections::HashSet;

use pilotfish_config::model::{Action, Host, Model, ServiceEntry, StringMap, VirtualService};

/// The hosts and rules that a sidecar sees.
#[derive(Debug)]
pub(crate) struct View<'m> {
    namespace: &'m str,
    /// `None`: everything that is exported.
    imports: Option<Imports<'m>>,
}

#[derive(Debug)]
struct Imports<'m> {
    list: Vec<Import<'m>>,
    /// Hosts that the rules it sees send to.
    destinations: HashSet<Host>,
}

/// One of `egress.hosts`.
#[derive(Debug)]
struct Import<'m> {
    /// `~namespace/host`: not this one, whatever else imports it.
    excludes: bool,
    /// `None`: any.
    namespace: Option<&'m str>,
    host: Host,
}

impl<'m> View<'m> {
    /// The view of a workload with `labels` in `namespace`.
    pub(crate) fn new(model: &'m Model, namespace: &'m str, labels: &StringMap) -> View<'m> {
        let mut view = View { namespace, imports: None };
        let sidecar = model.sidecar(namespace, labels).filter(|sidecar| !sidecar.egress.is_empty());
        let Some(sidecar) = sidecar else { return view };
        let hosts = sidecar.egress.iter().flat_map(|listener| &listener.hosts);
        let list = hosts.filter_map(|host| Import::parse(host, namespace)).collect();
        view.imports = Some(Imports { list, destinations: HashSet::new() });
        let rules = model.virtual_services.iter().filter(|rules| view.sees_rules(rules));
        let destinations: HashSet<Host> = rules.flat_map(destinations).flat_map(names).collect();
        if let Some(imports) = &mut view.imports {
            imports.destinations = destinations;
        }
        view
    }

    /// Whether nothing but `exportTo` narrows it.
    pub(crate) fn is_wide(&self) -> bool {
        self.imports.is_none()
    }

    /// Whether it uses these rules.
    pub(crate) fn sees_rules(&self, rules: &VirtualService) -> bool {
        let namespace = rules.meta.namespace();
        let exported = namespace == self.namespace || rules.export_to.reaches(self.namespace);
        let imported = |imports: &Imports<'_>| {
            imports.includes(namespace, |import| {
                rules.hosts.iter().any(|host| import.covers(host) || host.covers(import))
            })
        };
        exported && self.imports.as_ref().is_none_or(imported)
    }

    /// Whether it reaches this host of a service.
    pub(crate) fn sees_service(&self, entry: &ServiceEntry, host: &Host) -> bool {
        let namespace = entry.meta.namespace();
        (namespace == self.namespace || entry.export_to.reaches(self.namespace))
            && self.sees_host(namespace, host)
    }

    /// Whether it reaches a host of `namespace` that is exported to it: an agent's own, for example.
    pub(crate) fn sees_host(&self, namespace: &str, host: &Host) -> bool {
        let Some(imports) = &self.imports else { return true };
        imports.includes(namespace, |import| import.covers(host))
            || imports.destinations.contains(host)
            || host.is_wildcard() && imports.destinations.iter().any(|destination| host.covers(destination))
    }

    /// Whether policies for `host` can matter to it, in whichever namespace the host is.
    pub(crate) fn may_reach(&self, host: &Host) -> bool {
        let Some(imports) = &self.imports else { return true };
        let overlaps = |other: &Host| other.covers(host) || host.covers(other);
        host.ends_with(".capability.mesh")
            || imports.list.iter().any(|import| !import.excludes && overlaps(&import.host))
            || imports.destinations.iter().any(overlaps)
    }
}

impl Imports<'_> {
    fn includes(&self, namespace: &str, matches: impl Fn(&Host) -> bool) -> bool {
        let of = |import: &&Import<'_>| {
            import.namespace.is_none_or(|own| own == namespace) && matches(&import.host)
        };
        let mut found = self.list.iter().filter(of).peekable();
        found.peek().is_some() && found.all(|import| !import.excludes)
    }
}

impl<'m> Import<'m> {
    /// Reads `namespace/host`; `None` for `~/*`, which imports nothing.
    fn parse(text: &'m str, own: &'m str) -> Option<Import<'m>> {
        let (namespace, host) = text.split_once('/')?;
        let (excludes, namespace) = match namespace.strip_prefix('~') {
            Some("") => return None,
            Some(namespace) => (true, namespace),
            None => (false, namespace),
        };
        let namespace = match namespace {
            "*" => None,
            "." => Some(own),
            namespace => Some(namespace),
        };
        Some(Import { excludes, namespace, host: Host::resolve(host, namespace.unwrap_or(own)) })
    }
}

/// The hosts that rules send to.
pub(crate) fn destinations(rules: &VirtualService) -> impl Iterator<Item = &Host> {
    let routes = rules.http.iter().filter_map(|rule| match &rule.action {
        Action::Route(route) => Some(route),
        _ => None,
    });
    routes.flatten().map(|entry| &entry.destination.host)
}

/// A host, and the in-cluster service that a short dotted name (`reviews.prod`, `reviews.prod.svc`) may mean.
fn names(host: &Host) -> impl Iterator<Item = Host> {
    let short = host.strip_suffix(".svc").unwrap_or(host);
    let full =
        (short.matches('.').count() == 1).then(|| Host::resolve(&format!("{short}.svc.cluster.local"), ""));
    std::iter::once(host.clone()).chain(full)
}
