//! Telemetry documents to what holds for calls of the agent itself (Istio's CLIENT side) and for calls to it (SERVER), with
//! Istio's precedence.
//!
//! What a document says of a field holds over what a wider one says: one that selects the workload comes before its namespace's,
//! and that before the mesh's, which is the one without a selector in a root namespace. Documents have no age, so of equals the
//! first by name holds.

use std::collections::HashMap;

use pilotfish_config::model::{
    AccessLogging, Condition, CustomTag, Metrics, Model, ROOT_NAMESPACES, Side, Telemetry, Tracing, includes,
};

use super::{CompileError, CompileOptions};
use crate::expression::Expression;
use crate::redact;
use crate::sampling::Sampling;
use crate::telemetry::{
    AccessLogPolicy, Collector, MetricSet, MetricsPolicy, Tag, TagSource, TelemetryPolicy, TracingPolicy,
    label,
};

/// What documents say.
pub(super) struct Compiled {
    /// For calls of the agent itself, and for calls to it.
    pub(super) policies: [TelemetryPolicy; 2],
    /// The collectors that they name.
    pub(super) providers: Box<[Collector]>,
}

/// For the workload of `options`; what is valid but does nothing goes to `warnings`.
///
/// # Errors
/// Conditions that cannot be compiled, those of documents for other workloads too: whoever checks documents learns of all.
pub(super) fn compile(
    model: &Model,
    options: &CompileOptions,
    warnings: &mut Vec<Box<str>>,
) -> Result<Compiled, Vec<CompileError>> {
    let conditions = conditions(model)?;
    let layers = layers(model, options, warnings);
    let mut compiler = Compiler { model, options, conditions, warnings, providers: Vec::new() };
    let policies = [Side::Client, Side::Server].map(|side| compiler.policy(&layers, side));
    let mut providers = compiler.providers;
    providers.sort_by(|a, b| a.name.cmp(&b.name));
    // Both sides may say the same of what does nothing.
    let mut seen = std::collections::HashSet::new();
    warnings.retain(|warning| seen.insert(warning.clone()));
    Ok(Compiled { policies, providers: providers.into() })
}

type Conditions<'m> = HashMap<&'m str, Expression>;

/// Every filter, by its text.
fn conditions(model: &Model) -> Result<Conditions<'_>, Vec<CompileError>> {
    let mut conditions = HashMap::new();
    let mut errors = Vec::new();
    let filters = model.telemetries.iter().flat_map(|document| {
        document.access_logging.iter().filter_map(move |entry| Some((document, entry.filter.as_ref()?)))
    });
    for (document, Condition { text, source }) in filters {
        if text.is_empty() || conditions.contains_key(text.as_str()) {
            continue;
        }
        match Expression::compile(text) {
            Ok(condition) => {
                conditions.insert(text.as_str(), condition);
            }
            Err(error) => {
                let message = format!("{}: the filter's {error}", document.meta.key);
                errors.push(CompileError { source: source.clone(), message });
            }
        }
    }
    if errors.is_empty() { Ok(conditions) } else { Err(errors) }
}

/// The documents for the workload, the widest first.
fn layers<'m>(
    model: &'m Model,
    options: &CompileOptions,
    warnings: &mut Vec<Box<str>>,
) -> Vec<&'m Telemetry> {
    let all = || model.telemetries.iter().filter(|document| document.scope.targets.is_empty());
    let root = |document: &&Telemetry| ROOT_NAMESPACES.contains(&document.meta.namespace());
    let own = |document: &&Telemetry| document.meta.namespace() == options.namespace && !root(document);
    let wide = |document: &&Telemetry| document.scope.selector.is_empty();
    let selects =
        |document: &&Telemetry| !wide(document) && includes(&options.labels, &document.scope.selector);
    let layers = [
        first(all().filter(|one| root(one) && wide(one)), warnings),
        first(all().filter(|one| own(one) && wide(one)), warnings),
        first(all().filter(|one| own(one) && selects(one)), warnings),
    ];
    layers.into_iter().flatten().collect()
}

/// The first by root namespace and name, a warning for the others that loading has not warned of already.
fn first<'m>(
    documents: impl Iterator<Item = &'m Telemetry>,
    warnings: &mut Vec<Box<str>>,
) -> Option<&'m Telemetry> {
    let root =
        |document: &Telemetry| ROOT_NAMESPACES.iter().position(|root| *root == document.meta.namespace());
    let mut documents: Vec<&Telemetry> = documents.collect();
    documents.sort_by_key(|document| (root(document), document.meta.name()));
    let first = documents.first().copied()?;
    let told = |other: &Telemetry| {
        other.scope.selector.is_empty() && other.meta.namespace() == first.meta.namespace()
    };
    for other in documents.iter().skip(1).filter(|other| !told(other)) {
        let line = format!(
            "{}: {}: this workload has {} already, so this one does nothing for it (put them into one)",
            other.meta.source, other.meta.key, first.meta.key
        );
        warnings.push(line.into());
    }
    Some(first)
}

struct Compiler<'a> {
    model: &'a Model,
    options: &'a CompileOptions,
    conditions: Conditions<'a>,
    warnings: &'a mut Vec<Box<str>>,
    providers: Vec<Collector>,
}

fn concerns(entry: Side, side: Side) -> bool {
    entry == Side::Both || entry == side
}

impl Compiler<'_> {
    fn policy(&mut self, layers: &[&Telemetry], side: Side) -> TelemetryPolicy {
        let mut policy = TelemetryPolicy::default();
        // Whether entries without providers mean the sidecar's own log, and whether records.
        let mut meant = (true, false);
        for document in layers {
            for entry in document.tracing.iter().filter(|entry| concerns(entry.side, side)) {
                self.tracing(document, entry, &mut policy.tracing);
            }
            for entry in &document.metrics {
                self.metrics(document, entry, side, &mut policy.metrics);
            }
            for entry in document.access_logging.iter().filter(|entry| concerns(entry.side, side)) {
                self.access_log(document, entry, &mut meant, &mut policy.access_log);
            }
        }
        policy
    }

    fn warn(&mut self, document: &Telemetry, what: &str) {
        self.warnings.push(format!("{}: {}: {what}", document.meta.source, document.meta.key).into());
    }

    fn tracing(&mut self, document: &Telemetry, entry: &Tracing, policy: &mut TracingPolicy) {
        if let Some(percent) = entry.random_sampling_percentage {
            policy.sampling = Some(Sampling { ratio: percent / 100.0, per_second: 0 });
        }
        policy.silent = entry.disable_span_reporting.unwrap_or(policy.silent);
        policy.cut = entry.disable_context_propagation.unwrap_or(policy.cut);
        policy.by_request_id = entry.use_request_id_for_trace_sampling.unwrap_or(policy.by_request_id);
        if let Some(tags) = &entry.custom_tags {
            policy.tags = tags.iter().filter_map(|(name, tag)| self.tag(document, name, tag)).collect();
        }
        if !entry.providers.is_empty() {
            policy.providers =
                entry.providers.iter().filter_map(|name| self.provider(document, name)).collect();
        }
    }

    fn tag(&mut self, document: &Telemetry, name: &str, tag: &CustomTag) -> Option<Tag> {
        let source = match tag {
            CustomTag::Literal(value) => TagSource::Literal(value.as_str().into()),
            CustomTag::Environment(variable, default) => {
                let value = self.options.environment.and_then(|look_up| look_up(variable));
                if !redact::variable(variable, value.as_deref().unwrap_or_default()) {
                    let what = format!(
                        "the tag `{name}` is left out: the variable {variable} looks like a credential"
                    );
                    self.warn(document, &what);
                    return None;
                }
                TagSource::Literal(value.or_else(|| default.clone())?.into())
            }
            CustomTag::Header(header, _) if redact::is_sensitive_header(header) => {
                let what = format!("the tag `{name}` is left out: the header {header} carries credentials");
                self.warn(document, &what);
                return None;
            }
            CustomTag::Header(header, default) => {
                TagSource::Header(header.to_ascii_lowercase().into(), default.as_deref().map(Into::into))
            }
            // Loading has warned of it.
            CustomTag::Formatter(_) => return None,
        };
        Some(Tag { name: name.into(), source })
    }

    /// A provider as policies name it; `None`: it stands for the default.
    fn provider(&mut self, document: &Telemetry, name: &str) -> Option<Box<str>> {
        if matches!(name, "otlp" | "pilotfish") {
            return Some(name.into());
        }
        let named = || self.model.telemetry_providers.iter().filter(|one| one.meta.name() == name);
        let of = |namespace: &str| named().find(|one| one.meta.namespace() == namespace);
        let found =
            of(document.meta.namespace()).or_else(|| ROOT_NAMESPACES.iter().find_map(|root| of(root)))?;
        let key: Box<str> = format!("{}/{name}", found.meta.namespace()).into();
        if self.providers.iter().all(|known| known.name != key) {
            let otlp = &found.otlp;
            let text = |text: &String| text.as_str().into();
            self.providers.push(Collector {
                name: key.clone(),
                endpoint: text(&otlp.endpoint),
                grpc: otlp.grpc,
                timeout: otlp.timeout,
                gzip: otlp.gzip,
                headers_from_environment: otlp
                    .headers_from_environment
                    .iter()
                    .map(|(header, variable)| (text(header), text(variable)))
                    .collect(),
                ca_certificates: otlp.ca_certificates.as_ref().map(text),
                client: otlp.client.as_ref().map(|(chain, key)| (text(chain), text(key))),
            });
        }
        Some(key)
    }

    fn metrics(&mut self, document: &Telemetry, entry: &Metrics, side: Side, policy: &mut MetricsPolicy) {
        for change in entry.overrides.iter().filter(|change| concerns(change.side, side)) {
            let all = change.metric.is_empty();
            let Some(set) = (if all { Some(MetricSet::ALL) } else { MetricSet::named(&change.metric) })
            else {
                self.warn(document, &format!("there is no metric `{}`: nothing is changed", change.metric));
                continue;
            };
            match change.disabled {
                Some(true) => policy.disabled = policy.disabled.with(set),
                Some(false) => policy.disabled = policy.disabled.without(set),
                None => {}
            }
            let mut removed = policy.removed.to_vec();
            // Values of labels cannot be changed: loading has warned of it.
            for (tag, _) in change.tags.iter().filter(|(_, value)| value.is_none()) {
                match label(tag) {
                    Some(label) => removed.push((set, label)),
                    None => {
                        self.warn(document, &format!("metrics have no label `{tag}`: nothing is left out"))
                    }
                }
            }
            policy.removed = removed.into();
        }
    }

    fn access_log(
        &mut self,
        document: &Telemetry,
        entry: &AccessLogging,
        meant: &mut (bool, bool),
        policy: &mut AccessLogPolicy,
    ) {
        let off = entry.disabled == Some(true);
        let own = |name: &str| matches!(name, "envoy" | "stdout");
        let named = !entry.providers.is_empty();
        let (lines, records) = match named {
            true => {
                (entry.providers.iter().any(|name| own(name)), entry.providers.iter().any(|name| !own(name)))
            }
            // What is off is off everywhere.
            false if off => (true, true),
            false => *meant,
        };
        if named && !off {
            *meant = (lines, records);
            if records {
                let others: Vec<&String> = entry.providers.iter().filter(|name| !own(name)).collect();
                policy.providers = others.iter().filter_map(|name| self.provider(document, name)).collect();
            }
        }
        for (concerned, log) in [(lines, &mut policy.lines), (records, &mut policy.records)] {
            if !concerned {
                continue;
            }
            log.on = Some(!off);
            if let Some(filter) = &entry.filter {
                log.filter = self.conditions.get(filter.text.as_str()).cloned().map(Box::new);
            }
        }
    }
}
