//! A Grafana dashboard and Prometheus' rules, both from one table: what is worth looking at of the sidecars' metrics.
//!
//! Sidecars do not name their agent in each metric; Prometheus adds a label to whatever it scrapes. `job` is taken for it,
//! as OpenTelemetry's translation of `service.name` does.

use pilotfish_config::model::{AlertCondition, AlertRule};
use pilotfish_config::units::print_duration;
use serde_json::{Value, json};

use crate::alerts::rules;

/// Grafana's version of a dashboard's form: that of Grafana 11 and 12; later ones read it.
const SCHEMA: u32 = 41;

/// One panel.
#[derive(Debug)]
struct Panel {
    title: &'static str,
    /// What the numbers are, in Grafana's words.
    unit: &'static str,
    /// What it shows and when to worry.
    about: &'static str,
    /// PromQL, and the legend.
    queries: &'static [(&'static str, &'static str)],
}

/// Panels under one heading. `JOBS` is replaced by the chosen agents.
const ROWS: &[(&str, &[Panel])] = &[
    (
        "Calls",
        &[
            Panel {
                title: "Calls that agents get",
                unit: "reqps",
                about: "Inbound calls by agent.",
                queries: &[("pilotfish:inbound_calls:rate5m{JOBS}", "{{job}}")],
            },
            Panel {
                title: "Errors of calls that agents get",
                unit: "percentunit",
                about: "The share of inbound calls that were answered 5xx.",
                queries: &[("pilotfish:inbound_errors:ratio5m{JOBS}", "{{job}}")],
            },
            Panel {
                title: "How long agents take",
                unit: "s",
                about: "Quantiles of inbound calls over all chosen agents, from the head to the end of the answer.",
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(pilotfish_request_duration_seconds_bucket{direction=\"inbound\", JOBS}[5m])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le) (rate(pilotfish_request_duration_seconds_bucket{direction=\"inbound\", JOBS}[5m])))",
                        "p95",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(pilotfish_request_duration_seconds_bucket{direction=\"inbound\", JOBS}[5m])))",
                        "p99",
                    ),
                ],
            },
            Panel {
                title: "The slowest agents",
                unit: "s",
                about: "p95 of inbound calls by agent.",
                queries: &[("pilotfish:inbound_duration_seconds:p95_5m{JOBS}", "{{job}}")],
            },
        ],
    ),
    (
        "Who calls whom",
        &[
            Panel {
                title: "Calls by edge",
                unit: "reqps",
                about: "Outbound tries by calling agent and by what was called.",
                queries: &[(
                    "sum by (job, server_address) (rate(http_client_request_duration_seconds_count{pilotfish_direction=\"outbound\", JOBS}[5m]))",
                    "{{job}} → {{server_address}}",
                )],
            },
            Panel {
                title: "Errors by edge",
                unit: "reqps",
                about: "Outbound tries that failed, by what went wrong.",
                queries: &[(
                    "sum by (job, server_address, error_type) (rate(http_client_request_duration_seconds_count{pilotfish_direction=\"outbound\", error_type!=\"\", JOBS}[5m]))",
                    "{{job}} → {{server_address}}: {{error_type}}",
                )],
            },
            Panel {
                title: "p95 by edge",
                unit: "s",
                about: "How long outbound tries take.",
                queries: &[(
                    "histogram_quantile(0.95, sum by (job, server_address, le) (rate(http_client_request_duration_seconds_bucket{pilotfish_direction=\"outbound\", JOBS}[5m])))",
                    "{{job}} → {{server_address}}",
                )],
            },
            Panel {
                title: "By rule",
                unit: "reqps",
                about: "Finished calls by the rule that matched.",
                queries: &[("sum by (rule) (rate(pilotfish_rule_requests_total{JOBS}[5m]))", "{{rule}}")],
            },
        ],
    ),
    (
        "What the mesh does about failures",
        &[
            Panel {
                title: "More tries",
                unit: "reqps",
                about: "Tries after the first, by what became of them. `over-budget`: too many fail for more tries to help.",
                queries: &[("sum by (result) (rate(pilotfish_retries_total{JOBS}[5m]))", "{{result}}")],
            },
            Panel {
                title: "Refusals",
                unit: "reqps",
                about: "Calls that sidecars refused or gave up themselves, by reason.",
                queries: &[("sum by (reason) (rate(pilotfish_refusals_total{JOBS}[5m])) > 0", "{{reason}}")],
            },
            Panel {
                title: "Breakers",
                unit: "short",
                about: "Circuit breakers of endpoints that opened, were probed and closed, in 5 minutes.",
                queries: &[(
                    "sum by (to) (increase(pilotfish_endpoint_breaker_steps_total{JOBS}[5m]))",
                    "{{to}}",
                )],
            },
            Panel {
                title: "Endpoints that get no calls",
                unit: "short",
                about: "By state, as sidecars see them; and ejections in 5 minutes.",
                queries: &[
                    ("sum by (state) (pilotfish_endpoints_out{JOBS})", "{{state}}"),
                    (
                        "sum by (cause) (increase(pilotfish_endpoint_ejections_total{JOBS}[5m]))",
                        "ejected: {{cause}}",
                    ),
                ],
            },
        ],
    ),
    (
        "Load",
        &[
            Panel {
                title: "In flight",
                unit: "short",
                about: "Calls that agents have in work.",
                queries: &[(
                    "sum by (job) (pilotfish_requests_active{direction=\"inbound\", JOBS})",
                    "{{job}}",
                )],
            },
            Panel {
                title: "Queues",
                unit: "short",
                about: "Calls that wait for a place: at the agent, and for connections to others.",
                queries: &[
                    ("sum by (job) (pilotfish_inbound_waiting{JOBS})", "at {{job}}"),
                    (
                        "sum by (job) (pilotfish_cluster_requests_pending{JOBS})",
                        "of {{job}}, for a connection",
                    ),
                    ("sum by (job) (pilotfish_cluster_requests_queued{JOBS})", "of {{job}}, for a place"),
                ],
            },
            Panel {
                title: "Shed",
                unit: "reqps",
                about: "Calls that found no place in time, by priority.",
                queries: &[(
                    "sum by (job, priority) (rate(pilotfish_inbound_shed_total{JOBS}[5m]))",
                    "{{job}} {{priority}}",
                )],
            },
            Panel {
                title: "Tokens",
                unit: "short",
                about: "Tokens a second that models read and wrote, where their answers say so.",
                queries: &[(
                    "sum by (job, gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{JOBS}[5m]))",
                    "{{job}} {{gen_ai_token_type}}",
                )],
            },
        ],
    ),
    (
        "Sidecars",
        &[
            Panel {
                title: "Configuration that serves",
                unit: "none",
                about: "Versions of the configuration: all instances of an agent should soon have the same.",
                queries: &[("pilotfish_snapshot_version{JOBS}", "{{job}} {{instance}}")],
            },
            Panel {
                title: "Configurations refused",
                unit: "short",
                about: "In an hour; the last good one went on serving.",
                queries: &[("sum by (job) (increase(pilotfish_config_rejected_total{JOBS}[1h]))", "{{job}}")],
            },
            Panel {
                title: "Certificates end in",
                unit: "s",
                about: "Renewed at half to 70 % of their life: what comes near 0 is not renewed.",
                queries: &[("min by (job) (pilotfish_certificate_expires_seconds{JOBS})", "{{job}}")],
            },
            Panel {
                title: "Memory and CPU",
                unit: "bytes",
                about: "Resident memory of the sidecars, and their CPU seconds a second.",
                queries: &[
                    ("max by (job) (process_resident_memory_bytes{JOBS})", "{{job}}"),
                    ("sum by (job) (rate(process_cpu_seconds_total{JOBS}[5m]))", "{{job}} CPU"),
                ],
            },
            Panel {
                title: "Telemetry that was dropped",
                unit: "short",
                about: "Spans, logs and points a second that no collector took in time.",
                queries: &[("sum by (job) (rate(pilotfish_telemetry_dropped_total{JOBS}[5m]))", "{{job}}")],
            },
        ],
    ),
];

/// What Prometheus computes once, for panels and alerts.
const RECORDED: &[(&str, &str)] = &[
    (
        "pilotfish:inbound_calls:rate5m",
        "sum by (job) (rate(pilotfish_requests_total{direction=\"inbound\"}[5m]))",
    ),
    (
        "pilotfish:inbound_errors:ratio5m",
        "sum by (job) (rate(pilotfish_requests_total{direction=\"inbound\", status=\"5xx\"}[5m])) / sum by (job) (rate(pilotfish_requests_total{direction=\"inbound\"}[5m]))",
    ),
    (
        "pilotfish:inbound_duration_seconds:p95_5m",
        "histogram_quantile(0.95, sum by (job, le) (rate(pilotfish_request_duration_seconds_bucket{direction=\"inbound\"}[5m])))",
    ),
    (
        "pilotfish:edge_calls:rate5m",
        "sum by (job, server_address) (rate(http_client_request_duration_seconds_count{pilotfish_direction=\"outbound\"}[5m]))",
    ),
];

/// Every query of panels, recording rules and alerts, with the chosen agents left out.
pub fn queries() -> Vec<String> {
    let panels = ROWS.iter().flat_map(|(_, panels)| panels.iter()).flat_map(|panel| panel.queries);
    let mut all: Vec<String> = panels.map(|(query, _)| (*query).to_owned()).collect();
    all.extend(RECORDED.iter().map(|(_, query)| (*query).to_owned()));
    all.extend(rules::defaults().iter().map(|rule| expression(&rule.condition)));
    all
}

/// The dashboard, as Grafana imports it.
pub fn grafana() -> Value {
    let source = json!({"type": "prometheus", "uid": "${source}"});
    let (mut panels, mut id, mut y) = (Vec::new(), 0, 0);
    for (title, row) in ROWS {
        id += 1;
        panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
        }));
        y += 1;
        for (at, panel) in row.iter().enumerate() {
            id += 1;
            let place = json!({"x": at % 2 * 12, "y": y + at / 2 * 8, "w": 12, "h": 8});
            panels.push(panel_json(panel, id, &place, &source));
        }
        y += row.len().div_ceil(2) * 8;
    }
    json!({
        "uid": "pilotfish",
        "title": "Pilotfish",
        "description": "Agents and the calls between them. Written by `pilotfish dashboards`.",
        "tags": ["pilotfish"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [
            {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
            {
                "name": "job", "label": "Agent", "type": "query", "datasource": source,
                "query": {"query": "label_values(pilotfish_build_info, job)", "refId": "job"},
                "definition": "label_values(pilotfish_build_info, job)",
                "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
            },
        ]},
        "annotations": {"list": []},
        "panels": panels,
    })
}

fn panel_json(panel: &Panel, id: u32, place: &Value, source: &Value) -> Value {
    let target = |(at, (query, legend)): (usize, &(&str, &str))| {
        json!({
            "refId": format!("Q{at}"), "datasource": source, "editorMode": "code", "range": true,
            "expr": query.replace("JOBS", "job=~\"$job\""), "legendFormat": legend,
        })
    };
    let targets: Vec<Value> = panel.queries.iter().enumerate().map(target).collect();
    json!({
        "id": id, "type": "timeseries", "title": panel.title, "description": panel.about, "datasource": source,
        "gridPos": place, "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"drawStyle": "line", "fillOpacity": 8, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    })
}

/// Prometheus' file of rules: what is recorded, and the four alerts that control planes have by default.
pub fn prometheus() -> String {
    let mut text = String::from(
        "# Written by `pilotfish dashboards`: recording rules for its Grafana dashboard, and the alerts that the control plane\n\
         # has by default, for those who have Prometheus evaluate them. `job` is taken for the agent.\n\
         groups:\n- name: pilotfish-recorded\n  interval: 30s\n  rules:\n",
    );
    for (name, query) in RECORDED {
        text.push_str(&format!("  - record: {name}\n    expr: {}\n", quoted(query)));
    }
    text.push_str("- name: pilotfish-alerts\n  rules:\n");
    for rule in rules::defaults() {
        text.push_str(&alert(&rule));
    }
    text
}

fn alert(rule: &AlertRule) -> String {
    let summary = match &rule.condition {
        AlertCondition::ErrorRate { .. } => {
            "{{ $labels.job }}: {{ $value | humanizePercentage }} of its calls fail"
        }
        AlertCondition::Latency { .. } => {
            "{{ $labels.job }}: p95 of its calls is {{ $value | humanizeDuration }}"
        }
        AlertCondition::Saturation { .. } => {
            "{{ $labels.job }}: {{ $value }} calls in flight at each instance"
        }
        AlertCondition::Unavailable { .. } => {
            "{{ $labels.job }}: no sidecar is left, or none that says it is ready"
        }
    };
    let name: String =
        rule.meta.name().split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
    format!(
        "  - alert: Pilotfish{name}\n    expr: {}\n    for: {}\n    keep_firing_for: {}\n    labels:\n      severity: {}\n    \
         annotations:\n      summary: {}\n      description: {}\n",
        quoted(&expression(&rule.condition)),
        print_duration(rule.hold),
        print_duration(rule.keep),
        rule.severity.word(),
        quoted(summary),
        quoted(&rules::words(rule)),
    )
}

/// The condition in PromQL.
fn expression(condition: &AlertCondition) -> String {
    let calls = "pilotfish_requests_total{direction=\"inbound\"";
    match condition {
        AlertCondition::ErrorRate { calls: which, above } => {
            let (window, least) = (print_duration(which.window), which.min_calls);
            format!(
                "sum by (job) (rate({calls}, status=\"5xx\"}}[{window}])) / sum by (job) (rate({calls}}}[{window}])) > {above} \
                 and sum by (job) (increase({calls}}}[{window}])) >= {least}"
            )
        }
        AlertCondition::Latency { calls: which, quantile, above } => {
            let (window, least) = (print_duration(which.window), which.min_calls);
            format!(
                "histogram_quantile({quantile}, sum by (job, le) \
                 (rate(pilotfish_request_duration_seconds_bucket{{direction=\"inbound\"}}[{window}]))) > {} \
                 and sum by (job) (increase({calls}}}[{window}])) >= {least}",
                above.as_secs_f64()
            )
        }
        AlertCondition::Saturation { above } => {
            format!("avg by (job) (pilotfish_requests_active{{direction=\"inbound\"}}) > {above}")
        }
        AlertCondition::Unavailable { .. } => {
            "count by (job) (max_over_time(pilotfish_build_info[1h])) unless count by (job) (pilotfish_build_info)".into()
        }
    }
}

/// As a YAML text of one line.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
