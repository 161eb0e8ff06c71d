//! Merges delegates into their roots, as Istio does: the delegate's routes, each with both conditions.

use std::collections::HashMap;

use crate::model::{HttpMatch, HttpRoute, StringMatch};

use super::check::Cx;
use super::http_route::Draft;
use super::virtual_service::VirtualServiceDraft;

/// Fills `http` of every VirtualService.
pub(super) fn merge(cx: &mut Cx<'_>, drafts: &mut [VirtualServiceDraft<'_>]) {
    let delegates: HashMap<(String, String), usize> = drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.service.hosts.is_empty())
        .map(|(index, draft)| {
            let meta = &draft.service.meta;
            ((meta.namespace().to_owned(), meta.name().to_owned()), index)
        })
        .collect();
    for index in 0..drafts.len() {
        // Nobody else reads the rules of a root, so they are moved; a large one has thousands.
        if drafts[index].http.iter().all(|draft| draft.delegate.is_none())
            && !drafts[index].service.hosts.is_empty()
        {
            let rules = std::mem::take(&mut drafts[index].http);
            drafts[index].service.http = rules.into_iter().map(|draft| draft.route).collect();
            continue;
        }
        let mut http = Vec::new();
        for rule in 0..drafts[index].http.len() {
            let Draft { route, delegate } = &drafts[index].http[rule];
            let Some(delegate) = delegate else {
                http.push(route.clone());
                continue;
            };
            let Some(&target) = delegates.get(&(delegate.namespace.clone(), delegate.name.clone())) else {
                let message = format!("there is no delegate {}/{}", delegate.namespace, delegate.name);
                let hint = "a delegate is a VirtualService without hosts; this rule is left out";
                cx.warn(delegate.node, message, hint);
                continue;
            };
            let before = http.len();
            let routes = drafts[target].http.iter().filter(|draft| draft.delegate.is_none());
            http.extend(routes.filter_map(|draft| merged(route, &draft.route)));
            if http.len() == before {
                let message =
                    format!("no rule of {}/{} fits the conditions here", delegate.namespace, delegate.name);
                cx.warn(delegate.node, message, "conditions of a delegate must be narrower than its root's");
            }
            drafts[target].used = true;
            let key = drafts[target].service.meta.key.clone();
            drafts[index].service.delegates.push(key);
        }
        drafts[index].service.http = http;
    }
    for draft in drafts.iter().filter(|draft| draft.service.hosts.is_empty() && !draft.used) {
        cx.warn(
            draft.node,
            "a delegate that no VirtualService goes on in: it does nothing",
            "write `hosts`, or a root",
        );
    }
}

/// The delegate's route with the root's conditions; `None` when they contradict each other.
fn merged(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let matches = merged_matches(&root.matches, &delegate.matches)?;
    let own = delegate.clone();
    Some(HttpRoute {
        name: joined(root.name.as_deref(), own.name.as_deref()),
        matches,
        action: own.action,
        rewrite: own.rewrite.or_else(|| root.rewrite.clone()),
        timeout: own.timeout.or(root.timeout),
        headers: if own.headers.is_empty() { root.headers.clone() } else { own.headers },
        retries: own.retries.or_else(|| root.retries.clone()),
        fault: own.fault.or_else(|| root.fault.clone()),
        mirrors: if own.mirrors.is_empty() { root.mirrors.clone() } else { own.mirrors },
        cors: own.cors.or_else(|| root.cors.clone()),
        source: own.source,
    })
}

fn joined(root: Option<&str>, own: Option<&str>) -> Option<String> {
    match (root, own) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (one, other) => other.or(one).map(str::to_owned),
    }
}

fn merged_matches(root: &[HttpMatch], own: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || own.is_empty() {
        return Some(if root.is_empty() { own } else { root }.to_vec());
    }
    let mut out = Vec::new();
    for leaf in own {
        let fitting = root.iter().filter(|root| !contradict(root, leaf));
        let before = out.len();
        out.extend(fitting.map(|root| merged_match(root, leaf)));
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

fn merged_match(root: &HttpMatch, leaf: &HttpMatch) -> HttpMatch {
    let both = |root: &[(String, StringMatch)], leaf: &[(String, StringMatch)]| {
        let mut all = leaf.to_vec();
        all.extend(root.iter().filter(|(name, _)| !leaf.iter().any(|(own, _)| own == name)).cloned());
        all
    };
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(leaf.source_labels.clone());
    HttpMatch {
        name: joined(root.name.as_deref(), leaf.name.as_deref()),
        uri: leaf.uri.clone().or_else(|| root.uri.clone()),
        scheme: leaf.scheme.clone().or_else(|| root.scheme.clone()),
        method: leaf.method.clone().or_else(|| root.method.clone()),
        authority: leaf.authority.clone().or_else(|| root.authority.clone()),
        headers: both(&root.headers, &leaf.headers),
        without_headers: both(&root.without_headers, &leaf.without_headers),
        query_params: both(&root.query_params, &leaf.query_params),
        port: leaf.port.or(root.port),
        source_labels,
        source_namespace: leaf.source_namespace.clone().or_else(|| root.source_namespace.clone()),
        gateways: if leaf.gateways.is_empty() { root.gateways.clone() } else { leaf.gateways.clone() },
        ignore_uri_case: leaf.ignore_uri_case,
        stat_prefix: leaf.stat_prefix.clone().or_else(|| root.stat_prefix.clone()),
    }
}

/// Whether a request cannot meet both, or the leaf is wider than the root.
fn contradict(root: &HttpMatch, leaf: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let named = |root: &[(String, StringMatch)], leaf: &[(String, StringMatch)]| {
        leaf.iter().any(|(name, own)| {
            let other = root.iter().find(|(other, _)| other == name).map(|(_, matching)| matching);
            text_contradicts(other, Some(own))
        })
    };
    texts.iter().any(|(root, leaf)| text_contradicts(root.as_ref(), leaf.as_ref()))
        || named(&root.headers, &leaf.headers)
        || named(&root.without_headers, &leaf.without_headers)
        || named(&root.query_params, &leaf.query_params)
        || root.ignore_uri_case != leaf.ignore_uri_case
        || matches!((root.port, leaf.port), (Some(root), Some(leaf)) if root != leaf)
        || (root.source_namespace.is_some() && root.source_namespace != leaf.source_namespace)
        || leaf.source_labels.iter().any(|(key, own)| root.source_labels.get(key).is_some_and(|v| v != own))
        || (!root.gateways.is_empty() && leaf.gateways.iter().any(|own| !root.gateways.contains(own)))
}

fn text_contradicts(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix, Presence, Regex};
    match (root, leaf) {
        (None, _) | (_, None) => false,
        (Some(Presence), Some(_)) => false,
        (Some(Exact(root)), Some(Exact(leaf))) => root != leaf,
        (Some(Prefix(root)), Some(Prefix(leaf) | Exact(leaf))) => !leaf.starts_with(root.as_str()),
        (Some(Exact(_)), Some(Prefix(_) | Regex(_) | Presence)) => true,
        (Some(Regex(_)), Some(_)) | (Some(Prefix(_)), Some(Regex(_) | Presence)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::text_contradicts;
    use crate::model::StringMatch::{Exact, Prefix};

    #[test]
    fn a_delegate_may_only_narrow() {
        let contradicts = |root, leaf| text_contradicts(Some(&root), Some(&leaf));
        assert!(!contradicts(Prefix("/a".into()), Prefix("/a/b".into())));
        assert!(contradicts(Prefix("/a/b".into()), Prefix("/a".into())));
        assert!(!contradicts(Prefix("/a".into()), Exact("/a/x".into())));
        assert!(contradicts(Exact("/a".into()), Prefix("/a".into())));
    }
}
