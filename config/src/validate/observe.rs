//! Telemetry.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{
    AccessLogging, BUILT_IN, BuiltIn, Condition, CustomTag, Meta, MetricOverride, Metrics, Model,
    ROOT_NAMESPACES, Side, Telemetry, Tracing,
};
use crate::raw::{
    CustomTagSpec, List, MetricOverrideSpec, MetricWord, One, ProviderRefSpec, SideWord, TagOperation,
    TagOverrideSpec, TelemetrySpec, Text, TracingSpec, Val, Word, nearest,
};
use crate::yaml::{Node, clip_text};

use super::check::Cx;
use super::headers::is_header_name;
use super::security::scope;

/// What a provider is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Tracing,
    Metrics,
    AccessLog,
}

impl Use {
    fn is_for(self, provider: &BuiltIn) -> bool {
        match self {
            Use::Tracing => provider.tracing,
            Use::Metrics => provider.metrics,
            Use::AccessLog => provider.access_log,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Use::Tracing => "spans",
            Use::Metrics => "metrics",
            Use::AccessLog => "access logs",
        }
    }
}

/// A provider that a document names, to be looked for once all documents are read.
pub(super) struct Mention<'n> {
    namespace: Arc<str>,
    name: Text<'n>,
    used: Use,
}

/// Reads one.
pub(super) fn telemetry<'n>(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &TelemetrySpec<'n>,
    mentions: &mut Vec<Mention<'n>>,
) -> Telemetry {
    let scope = scope(cx, spec.selector.as_ref(), spec.target_ref.as_ref(), spec.target_refs.as_ref());
    let target = spec.target_ref.as_ref().or_else(|| spec.target_refs.as_ref()?.first());
    if let Some(target) = target {
        let hint = "targets are gateways and waypoints; write `selector` for workloads";
        cx.warn(target.node, "does nothing: sidecars leave a document with targets alone", hint);
    }
    let tracing = spec.tracing.iter().flatten().map(|tracing| self::tracing(cx, tracing, mentions)).collect();
    let mut metrics = Vec::new();
    for entry in spec.metrics.iter().flatten() {
        metrics.push(Metrics {
            providers: providers(cx, entry.providers.as_ref(), Use::Metrics, mentions),
            overrides: entry.overrides.iter().flatten().map(|o| metric_override(cx, o)).collect(),
            reporting_interval: entry.reporting_interval.map(|time| cx.duration(time)),
        });
    }
    let mut access_logging = Vec::new();
    for entry in spec.access_logging.iter().flatten() {
        access_logging.push(AccessLogging {
            side: side(entry.matching.as_ref().and_then(|matching| matching.mode)),
            providers: providers(cx, entry.providers.as_ref(), Use::AccessLog, mentions),
            disabled: entry.disabled.map(|disabled| disabled.value),
            filter: entry.filter.as_ref().map(|filter| {
                let text = filter.expression.map_or("", |expression| expression.value).to_owned();
                Condition { text, source: filter.expression.map_or(filter.node, |e| e.node).source() }
            }),
        });
    }
    Telemetry { meta, scope, tracing, metrics, access_logging }
}

fn side(word: Option<One<'_, SideWord>>) -> Side {
    match word.map(|word| word.value) {
        None | Some(SideWord::Both) => Side::Both,
        Some(SideWord::Client) => Side::Client,
        Some(SideWord::Server) => Side::Server,
    }
}

fn providers<'n>(
    cx: &mut Cx<'_>,
    list: Option<&List<ProviderRefSpec<'n>>>,
    used: Use,
    mentions: &mut Vec<Mention<'n>>,
) -> Vec<String> {
    let mut names = Vec::new();
    for name in list.into_iter().flatten().filter_map(|provider| provider.name) {
        names.push(cx.not_empty(name));
        if !name.value.is_empty() {
            mentions.push(Mention { namespace: cx.namespace.clone(), name, used });
        }
    }
    names
}

/// Names that Istio's users give the extension providers of their MeshConfig; it is not read here.
const OF_MESH_CONFIG: [&str; 17] = [
    "datadog",
    "envoy-json",
    "envoy-otel",
    "jaeger",
    "lightstep",
    "localtrace",
    "opencensus",
    "opentelemetry",
    "otel",
    "otel-access-log",
    "otel-tracing",
    "otel-traces",
    "skywalking",
    "stackdriver",
    "tempo",
    "tracing",
    "zipkin",
];

/// Names of providers that stand for nothing, or for something else.
pub(super) fn unknown_providers(cx: &mut Cx<'_>, mentions: &[Mention<'_>], model: &Model) {
    for Mention { namespace, name, used } in mentions {
        if let Some(known) = BUILT_IN.iter().find(|known| known.name == name.value) {
            if !used.is_for(known) {
                let message = format!("`{}` takes no {}", known.name, used.what());
                let fit: Vec<&str> =
                    BUILT_IN.iter().filter(|one| used.is_for(one)).map(|one| one.name).collect();
                cx.error_hint(name.node, message, format!("these do: {}", fit.join(", ")));
            }
            continue;
        }
        let own = || model.telemetry_providers.iter().filter(|provider| provider.is_for(namespace));
        if own().any(|provider| provider.meta.name() == name.value) {
            if *used == Use::Metrics {
                let hint = "`prometheus` and `otlp` do, and the latter goes where the sidecar's settings say";
                cx.warn(name.node, "does nothing: metrics are not sent to a TelemetryProvider", hint);
            }
            continue;
        }
        let built_in = BUILT_IN.iter().filter(|one| used.is_for(one)).map(|one| one.name);
        let known: Vec<&str> = built_in.chain(own().map(|provider| provider.meta.name())).collect();
        if OF_MESH_CONFIG.contains(&name.value) {
            let message = format!("there is no TelemetryProvider `{}`: MeshConfig is not read", name.value);
            let hint = "what is meant for it goes to the default; write a TelemetryProvider of that name";
            cx.warn(name.node, message, hint);
            continue;
        }
        let message = format!("there is no provider `{}`", clip_text(name.value));
        let hint = match nearest(name.value, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "known: {}; others are TelemetryProvider documents of the namespace",
                known.join(", ")
            ),
        };
        cx.error_hint(name.node, message, hint);
    }
}

/// Documents that have no effect on any workload.
pub(super) fn without_effect(cx: &mut Cx<'_>, nodes: &[Node<'_>], model: &Model) {
    // As the plan decides: of those for the same workloads, the first by name holds.
    let wide = |one: &Telemetry| one.scope.selector.is_empty() && one.scope.targets.is_empty();
    let mut first: HashMap<&str, &Telemetry> = HashMap::new();
    for one in model.telemetries.iter().filter(|one| wide(one)) {
        let known = first.entry(one.meta.namespace()).or_insert(one);
        if one.meta.name() < known.meta.name() {
            *known = one;
        }
    }
    for (one, node) in model.telemetries.iter().zip(nodes) {
        let namespace = one.meta.namespace();
        if !one.scope.selector.is_empty() {
            if ROOT_NAMESPACES.contains(&namespace) {
                let hint = "put it into the workloads' namespace";
                cx.warn(*node, "a selector in a root namespace selects nothing", hint);
            }
        } else if let Some(first) =
            first.get(namespace).filter(|first| wide(one) && first.meta.key != one.meta.key)
        {
            let message = format!("the namespace {namespace} has {} already", first.meta.key);
            cx.warn(*node, message, "the first by name holds; put them into one");
        }
    }
}

fn tracing<'n>(cx: &mut Cx<'_>, spec: &TracingSpec<'n>, mentions: &mut Vec<Mention<'n>>) -> Tracing {
    let mut custom_tags = Vec::new();
    for (name, tag) in spec.custom_tags.iter().flatten() {
        if name.value.is_empty() {
            cx.diagnose.error_at_key(name.node, "a tag's name must not be empty".into(), None);
        }
        custom_tags.extend(custom_tag(cx, tag).map(|tag| (name.value.to_owned(), tag)));
    }
    Tracing {
        side: side(spec.matching.as_ref().and_then(|matching| matching.mode)),
        providers: providers(cx, spec.providers.as_ref(), Use::Tracing, mentions),
        custom_tags: spec.custom_tags.is_some().then_some(custom_tags),
        random_sampling_percentage: spec.random_sampling_percentage.map(|percent| cx.percent(percent)),
        disable_span_reporting: spec.disable_span_reporting.map(|flag| flag.value),
        use_request_id_for_trace_sampling: spec.use_request_id.map(|flag| flag.value),
        enable_istio_tags: spec.enable_istio_tags.map(|flag| flag.value),
        disable_context_propagation: spec.disable_context_propagation.map(|flag| flag.value),
    }
}

fn custom_tag(cx: &mut Cx<'_>, spec: &CustomTagSpec<'_>) -> Option<CustomTag> {
    if let Some(literal) = &spec.literal {
        return Some(CustomTag::Literal(cx.not_empty(literal.value?)));
    }
    if let Some(formatter) = &spec.formatter {
        return Some(CustomTag::Formatter(cx.not_empty(formatter.value?)));
    }
    let named = spec.environment.as_ref().or(spec.header.as_ref());
    let Some(named) = named else {
        cx.error_hint(spec.node, "the tag has no value", "write literal, environment, header or formatter");
        return None;
    };
    let given = named.name?;
    let name = cx.not_empty(given);
    if spec.header.is_some() && !name.is_empty() && !is_header_name(&name) {
        let message = format!("`{}` is not a header name", clip_text(&name));
        cx.error_hint(given.node, message, "letters, digits and `-`, as in `x-tenant`");
    }
    if spec.environment.is_some() && (name.contains(['=', '\0']) || name.len() > 256) {
        cx.error(given.node, format!("`{}` is not the name of a variable", clip_text(&name)));
    }
    let default = named.default_value.map(|value| value.value.to_owned());
    let environment = spec.environment.is_some();
    Some(if environment { CustomTag::Environment(name, default) } else { CustomTag::Header(name, default) })
}

fn metric_override(cx: &mut Cx<'_>, spec: &MetricOverrideSpec<'_>) -> MetricOverride {
    let matching = spec.matching.as_ref();
    let word = |metric: One<'_, MetricWord>| {
        MetricWord::WORDS
            .iter()
            .find(|(_, value)| *value == metric.value)
            .map(|(word, _)| *word)
            .unwrap_or_default()
    };
    let metric = match (matching.and_then(|m| m.metric), matching.and_then(|m| m.custom_metric)) {
        (Some(metric), _) => word(metric).to_owned(),
        (None, Some(custom)) => cx.not_empty(custom),
        (None, None) => String::new(),
    };
    MetricOverride {
        metric,
        side: side(matching.and_then(|matching| matching.mode)),
        disabled: spec.disabled.map(|disabled| disabled.value),
        tags: spec.tag_overrides.iter().flatten().map(|(name, tag)| tag_override(cx, *name, tag)).collect(),
    }
}

fn tag_override(
    cx: &mut Cx<'_>,
    name: Val<'_, &str>,
    spec: &TagOverrideSpec<'_>,
) -> (String, Option<String>) {
    let value = spec.value.filter(|value| !value.value.is_empty()).map(|value| value.value.to_owned());
    let remove = spec.operation.is_some_and(|operation| operation.value == TagOperation::Remove);
    if remove && value.is_some() {
        cx.error(spec.node, "`value` must not be set when the operation is REMOVE");
    }
    if !remove && value.is_none() {
        cx.error(spec.node, "`value` must be set when the operation is UPSERT");
    }
    (name.value.to_owned(), if remove { None } else { value })
}
