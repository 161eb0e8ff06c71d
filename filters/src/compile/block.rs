//! Match blocks: from Istio's conditions to what is compared at run time. Conditions on the calling workload are
//! decided here, since a plan is for one sidecar.

use pilotfish_config::model::{HttpMatch, StringMatch, includes};

use super::CompileOptions;
use crate::route::block::{Block, Condition, PathMatch};
use crate::route::text::TextMatch;

/// Keys that Istio ignores in `headers`, because they have fields of their own.
const NOT_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// The block for `rule`; `None` when it can never match for this sidecar.
pub(super) fn block(from: &HttpMatch, rule: u32, options: &CompileOptions) -> Option<Block> {
    let for_mesh = from.gateways.is_empty() || from.gateways.iter().any(|gateway| gateway == "mesh");
    let for_namespace = from.source_namespace.as_ref().is_none_or(|own| *own == options.namespace);
    if !for_mesh || !for_namespace || !includes(&options.labels, &from.source_labels) {
        return None;
    }
    let path = from.uri.as_ref().map_or(PathMatch::Any, |uri| path(uri, from.ignore_uri_case));
    Some(Block { rule, path, rest: conditions(from) })
}

fn conditions(from: &HttpMatch) -> Box<[Condition]> {
    let named = |pairs: &[(String, StringMatch)], make: fn(Box<str>, TextMatch) -> Condition| {
        let pairs = pairs.iter().filter(|(name, _)| !NOT_HEADERS.contains(&name.as_str()));
        pairs.map(|(name, of)| make(name.as_str().into(), text(of))).collect::<Vec<_>>()
    };
    let query = |(name, of): &(String, StringMatch)| Condition::Query(name.as_str().into(), text(of));
    let mut all = Vec::new();
    // Cheap and selective ones first.
    all.extend(from.port.map(Condition::Port));
    all.extend(from.method.as_ref().map(|of| Condition::Method(text(of))));
    all.extend(from.scheme.as_ref().map(|of| Condition::Scheme(text(of))));
    all.extend(from.authority.as_ref().map(|of| Condition::Authority(text(of))));
    all.extend(named(&from.headers, Condition::Header));
    all.extend(named(&from.without_headers, Condition::NotHeader));
    all.extend(from.query_params.iter().map(query));
    all.into()
}

fn path(uri: &StringMatch, ignore_case: bool) -> PathMatch {
    match uri {
        StringMatch::Exact(path) if ignore_case => PathMatch::ExactNoCase(path.as_str().into()),
        StringMatch::Prefix(path) if ignore_case => PathMatch::PrefixNoCase(path.as_str().into()),
        StringMatch::Presence => PathMatch::Any,
        other => PathMatch::Text(text(other)),
    }
}

fn text(of: &StringMatch) -> TextMatch {
    match of {
        StringMatch::Exact(want) => TextMatch::Exact(want.as_str().into()),
        StringMatch::Prefix(want) => TextMatch::Prefix(want.as_str().into()),
        StringMatch::Regex(pattern) => TextMatch::Regex(pattern.clone()),
        StringMatch::Presence => TextMatch::Present,
    }
}
