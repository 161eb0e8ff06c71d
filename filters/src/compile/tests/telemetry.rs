//! Telemetry documents: which holds for whom, field by field; bad conditions; what reaches which sidecar.

use pilotfish_config::model::Meta;
use pilotfish_config::wire;

use super::*;
use crate::call::Protocol;
use crate::expression::{Attribute, Room, View};
use crate::scope::Scope;
use crate::telemetry::{MetricSet, Tag, TagSource};

fn document(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn provider(namespace: &str, name: &str, endpoint: &str) -> String {
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: TelemetryProvider\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{otlp: {{endpoint: '{endpoint}'}}}}\n---\n"
    )
}

fn with_environment() -> CompileOptions {
    let environment = |name: &str| match name {
        "REGION" => Some("eu".to_owned()),
        "HARMLESS" => Some("sk-proj-0123456789abcdef".to_owned()),
        "OPENAI_API_KEY" => Some("x".to_owned()),
        _ => None,
    };
    CompileOptions { environment: Some(environment), ..options() }
}

fn compiled(yaml: &str) -> Plan {
    plan_of(&model(yaml), &with_environment())
}

/// Of calls of the agent, and to it.
fn sampled(plan: &Plan) -> [Option<f64>; 2] {
    [plan.client_telemetry(), plan.server_telemetry()].map(|one| one.tracing.sampling.map(|s| s.ratio))
}

const SELECTED: &str = "selector: {matchLabels: {app: caller}}";

#[test]
fn nothing_said_is_nothing_changed() {
    let plan = compiled("");
    let policy = plan.client_telemetry();
    assert_eq!(sampled(&plan), [None, None]);
    assert!(!policy.tracing.silent && !policy.tracing.cut && !policy.tracing.by_request_id);
    assert!(policy.access_log.lines.on.is_none() && policy.access_log.records.on.is_none());
}

#[test]
fn the_nearer_document_holds_field_by_field() {
    let yaml = document(
        "istio-system",
        "mesh",
        "{tracing: [{randomSamplingPercentage: 1, disableSpanReporting: true, customTags: {a: {literal: {value: mesh}}}}]}",
    ) + &document(
        "default",
        "own",
        "{tracing: [{randomSamplingPercentage: 20, useRequestIdForTraceSampling: true}]}",
    ) + &document(
        "default",
        "selected",
        &format!("{{{SELECTED}, tracing: [{{disableSpanReporting: false}}]}}"),
    ) + &document("other", "other", "{tracing: [{randomSamplingPercentage: 99}]}")
        + &document(
            "default",
            "unselected",
            "{selector: {matchLabels: {app: x}}, tracing: [{randomSamplingPercentage: 98}]}",
        );
    let plan = compiled(&yaml);
    assert_eq!(sampled(&plan), [Some(0.2), Some(0.2)]);
    let policy = &plan.client_telemetry().tracing;
    assert!(!policy.silent && policy.by_request_id);
    assert_eq!(policy.tags.len(), 1, "inherited from the mesh");
    let elsewhere = CompileOptions { namespace: "third".into(), ..options() };
    assert_eq!(sampled(&plan_of(&model(&yaml), &elsewhere)), [Some(0.01), Some(0.01)]);
}

#[test]
fn each_side_is_told_apart() {
    let yaml = document(
        "default",
        "t",
        "{tracing: [{randomSamplingPercentage: 5}, {match: {mode: CLIENT}, randomSamplingPercentage: 100}, {match: {mode: SERVER}, disableContextPropagation: true}]}",
    );
    let plan = compiled(&yaml);
    assert_eq!(sampled(&plan), [Some(1.0), Some(0.05)]);
    assert!(!plan.client_telemetry().tracing.cut && plan.server_telemetry().tracing.cut);
}

#[test]
fn of_equals_the_first_by_name_holds_with_a_warning() {
    let selected =
        |percent: u32| format!("{{{SELECTED}, tracing: [{{randomSamplingPercentage: {percent}}}]}}");
    let plan = compiled(&(document("default", "b", &selected(2)) + &document("default", "a", &selected(1))));
    assert_eq!(sampled(&plan)[0], Some(0.01));
    let [warning] = plan.warnings() else { panic!("{:?}", plan.warnings()) };
    assert!(warning.contains("default/b: this workload has Telemetry default/a already"), "{warning}");
    let wide = |percent: u32| format!("{{tracing: [{{randomSamplingPercentage: {percent}}}]}}");
    let plan =
        compiled(&(document("istio-system", "a", &wide(1)) + &document("pilotfish-system", "z", &wide(2))));
    assert_eq!(sampled(&plan)[0], Some(0.02), "our root namespace comes first");
    assert_eq!(plan.warnings().len(), 1);
}

#[test]
fn documents_that_select_nothing_do_nothing() {
    let yaml =
        document("istio-system", "a", &format!("{{{SELECTED}, tracing: [{{randomSamplingPercentage: 1}}]}}"))
            + &document(
                "default",
                "b",
                "{targetRefs: [{kind: Service, name: s}], tracing: [{randomSamplingPercentage: 2}]}",
            );
    assert_eq!(sampled(&compiled(&yaml)), [None, None]);
}

#[test]
fn tags_never_carry_credentials() {
    let yaml = document(
        "default",
        "t",
        "{tracing: [{customTags: {a: {literal: {value: x}}, b: {header: {name: X-Tenant, defaultValue: none}}, c: {environment: {name: REGION}}, \
         d: {environment: {name: ABSENT, defaultValue: y}}, e: {environment: {name: ABSENT}}, f: {environment: {name: HARMLESS}}, \
         g: {environment: {name: OPENAI_API_KEY}}, h: {header: {name: Authorization}}, i: {formatter: {value: '%X%'}}}}]}",
    );
    let plan = compiled(&yaml);
    let literal =
        |name: &str, value: &str| Tag { name: name.into(), source: TagSource::Literal(value.into()) };
    let header = TagSource::Header("x-tenant".into(), Some("none".into()));
    let tags = &*plan.client_telemetry().tracing.tags;
    assert_eq!(
        tags,
        [literal("a", "x"), Tag { name: "b".into(), source: header }, literal("c", "eu"), literal("d", "y")]
    );
    let warnings = plan.warnings().join("\n");
    for part in [
        "`f` is left out: the variable HARMLESS",
        "`g` is left out",
        "`h` is left out: the header Authorization",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert_eq!(plan.warnings().len(), 3, "once for both sides: {warnings}");
}

#[test]
fn providers_are_those_of_the_documents_namespace_before_the_roots() {
    let names = "{tracing: [{providers: [{name: collector}, {name: pilotfish}, {name: zipkin}]}]}";
    let yaml = document("default", "t", names)
        + &provider("istio-system", "collector", "http://root:4318")
        + &provider("default", "collector", "http://own:4318")
        + &provider("other", "collector", "http://other:4318");
    let plan = compiled(&yaml);
    let of = |plan: &Plan| plan.client_telemetry().tracing.providers.join(" ");
    assert_eq!(of(&plan), "default/collector pilotfish");
    let [collector] = plan.telemetry_providers() else { panic!("{:?}", plan.telemetry_providers()) };
    assert_eq!(
        (&*collector.name, &*collector.endpoint, collector.grpc),
        ("default/collector", "http://own:4318", false)
    );
    let plan = compiled(
        &(document("istio-system", "t", names)
            + &provider("istio-system", "collector", "http://root:4318")
            + &provider("default", "collector", "http://own:4318")),
    );
    assert_eq!(
        of(&plan),
        "istio-system/collector pilotfish",
        "the mesh's document means the mesh's provider"
    );
}

#[test]
fn metrics_are_switched_off_one_by_one() {
    let yaml = document(
        "istio-system",
        "mesh",
        "{metrics: [{overrides: [{disabled: true}, {match: {metric: REQUEST_COUNT}, disabled: false}]}]}",
    ) + &document(
        "default",
        "own",
        "{metrics: [{overrides: [{match: {metric: REQUEST_SIZE, mode: CLIENT}, disabled: false, tagOverrides: {response_code: {operation: REMOVE}, nonsense: {operation: REMOVE}}}, {match: {customMetric: mine}, disabled: true}]}]}",
    );
    let plan = compiled(&yaml);
    let off =
        |set| [plan.client_telemetry(), plan.server_telemetry()].map(|one| one.metrics.disabled.has(set));
    assert_eq!(off(MetricSet::REQUEST_DURATION), [true, true]);
    assert_eq!(off(MetricSet::REQUEST_COUNT), [false, false]);
    assert_eq!(off(MetricSet::REQUEST_SIZE), [false, true]);
    let removed = &*plan.client_telemetry().metrics.removed;
    assert_eq!(removed, [(MetricSet::REQUEST_SIZE, "http.response.status_code")]);
    let warnings = plan.warnings().join("\n");
    assert!(warnings.contains("no label `nonsense`") && warnings.contains("no metric `mine`"), "{warnings}");
}

/// On or off: lines and records of calls of the agent.
fn logs(entries: &str) -> [Option<bool>; 2] {
    let plan = compiled(&document("default", "t", &format!("{{accessLogging: [{entries}]}}")));
    let log = &plan.client_telemetry().access_log;
    [log.lines.on, log.records.on]
}

#[test]
fn access_logs_are_switched_for_those_that_are_meant() {
    for (entries, on) in [
        ("{}", [Some(true), None]),
        ("{disabled: false}", [Some(true), None]),
        ("{disabled: true}", [Some(false), Some(false)]),
        ("{providers: [{name: envoy}]}", [Some(true), None]),
        ("{providers: [{name: otlp}]}", [None, Some(true)]),
        (
            "{providers: [{name: stdout}, {name: otlp}]}, {providers: [{name: otlp}], disabled: true}",
            [Some(true), Some(false)],
        ),
        ("{providers: [{name: otlp}]}, {filter: {expression: response.code > 1}}", [None, Some(true)]),
        ("{match: {mode: SERVER}}", [None, None]),
        ("{disabled: true}, {match: {mode: CLIENT}}", [Some(true), Some(false)]),
    ] {
        assert_eq!(logs(entries), on, "{entries}");
    }
}

struct Status(i64);

impl View for Status {
    fn text<'v>(&'v self, _: Attribute, room: &'v mut Room) -> Option<&'v str> {
        Some(room.show(&Protocol::Http.word()))
    }
    fn number(&self, attribute: Attribute) -> Option<i64> {
        (attribute == Attribute::Status).then_some(self.0)
    }
    fn header(&self, _: &str) -> Option<&str> {
        None
    }
}

#[test]
fn a_filter_is_inherited_until_another_is_written() {
    let yaml =
        document("istio-system", "mesh", "{accessLogging: [{filter: {expression: response.code >= 500}}]}")
            + &document("default", "own", "{accessLogging: [{disabled: false}]}")
            + &document(
                "default",
                "selected",
                &format!(
                    "{{{SELECTED}, accessLogging: [{{match: {{mode: SERVER}}, filter: {{expression: ''}}}}]}}"
                ),
            );
    let plan = compiled(&yaml);
    let filter = plan.client_telemetry().access_log.lines.filter.as_deref().unwrap();
    assert!(filter.matches(&Status(503)) && !filter.matches(&Status(200)));
    assert!(plan.server_telemetry().access_log.lines.filter.is_none());
}

#[test]
fn bad_conditions_are_refused_with_their_place_whomever_they_are_for() {
    let yaml = document(
        "other",
        "t",
        "\n  accessLogging:\n  - filter:\n      expression: response.code >== 5\n  - filter: {expression: \"request.metod == 'GET'\"}",
    );
    let errors = compile(&model(&yaml), &options(), &Resolved::default(), &State::with_seed(1), Micros(0))
        .unwrap_err();
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "test.yaml:7:19: error: Telemetry other/t: the filter's column 17: unexpected `=`; write `==`",
            "test.yaml:8:26: error: Telemetry other/t: the filter's column 1: there is no attribute `request.metod`; did you mean `request.method`?",
        ]
    );
}

#[test]
fn telemetry_reaches_the_sidecars_that_it_concerns() {
    let yaml = ["default", "a", "istio-system"]
        .map(|namespace| {
            document(namespace, "t", "{tracing: [{randomSamplingPercentage: 1}]}")
                + &provider(namespace, "p", "http://p:1")
        })
        .concat();
    let model = model(&yaml);
    let seen = |namespace: &str| -> Vec<bool> {
        let scope = Scope::new(&model, namespace, &Default::default());
        let telemetries = model.telemetries.iter().map(|one| &one.meta);
        let metas = telemetries.chain(model.telemetry_providers.iter().map(|one| &one.meta));
        let key = |meta: &Meta| wire::Key {
            kind: meta.key.kind.name().into(),
            namespace: meta.namespace().into(),
            name: meta.name().into(),
        };
        metas.map(|meta| scope.sees_document(&key(meta))).collect()
    };
    assert_eq!(seen("default"), [true, false, true, true, false, true]);
    assert_eq!(seen("b"), [false, false, true, false, false, true]);
}
