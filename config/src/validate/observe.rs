//! Telemetry.

use crate::model::{AccessLogging, CustomTag, Meta, MetricOverride, Metrics, Side, Telemetry, Tracing};
use crate::raw::{
    CustomTagSpec, List, MetricOverrideSpec, MetricWord, One, ProviderRefSpec, SideWord, TagOperation,
    TagOverrideSpec, TelemetrySpec, TracingSpec, Val, Word,
};

use super::check::Cx;
use super::security::scope;

/// Reads one.
pub(super) fn telemetry(cx: &mut Cx<'_>, meta: Meta, spec: &TelemetrySpec<'_>) -> Telemetry {
    let scope = scope(cx, spec.selector.as_ref(), spec.target_ref.as_ref(), spec.target_refs.as_ref());
    let tracing = spec.tracing.iter().flatten().map(|tracing| self::tracing(cx, tracing)).collect();
    let mut metrics = Vec::new();
    for entry in spec.metrics.iter().flatten() {
        metrics.push(Metrics {
            providers: providers(cx, entry.providers.as_ref()),
            overrides: entry.overrides.iter().flatten().map(|o| metric_override(cx, o)).collect(),
            reporting_interval: entry.reporting_interval.map(|time| cx.duration(time)),
        });
    }
    let mut access_logging = Vec::new();
    for entry in spec.access_logging.iter().flatten() {
        access_logging.push(AccessLogging {
            side: side(entry.matching.as_ref().and_then(|matching| matching.mode)),
            providers: providers(cx, entry.providers.as_ref()),
            disabled: entry.disabled.map(|disabled| disabled.value),
            filter: entry.filter.as_ref().and_then(|f| f.expression).map(|e| e.value.to_owned()),
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

fn providers(cx: &mut Cx<'_>, list: Option<&List<ProviderRefSpec<'_>>>) -> Vec<String> {
    list.into_iter().flatten().filter_map(|provider| provider.name).map(|name| cx.not_empty(name)).collect()
}

fn tracing(cx: &mut Cx<'_>, spec: &TracingSpec<'_>) -> Tracing {
    let mut custom_tags = Vec::new();
    for (name, tag) in spec.custom_tags.iter().flatten() {
        if name.value.is_empty() {
            cx.diagnose.error_at_key(name.node, "a tag's name must not be empty".into(), None);
        }
        custom_tags.extend(custom_tag(cx, tag).map(|tag| (name.value.to_owned(), tag)));
    }
    Tracing {
        side: side(spec.matching.as_ref().and_then(|matching| matching.mode)),
        providers: providers(cx, spec.providers.as_ref()),
        random_sampling_percentage: spec.random_sampling_percentage.map(|percent| cx.percent(percent)),
        disable_span_reporting: spec.disable_span_reporting.map(|flag| flag.value),
        custom_tags,
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
    let name = cx.not_empty(named.name?);
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
