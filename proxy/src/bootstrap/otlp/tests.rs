//! What flags and variables come to, and what is said of bad ones.

use super::*;

fn plan(flags: OtlpSettings, env: &[(&str, &str)]) -> Result<Plan, String> {
    flags.plan(&|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

fn of_env(env: &[(&str, &str)]) -> Result<Plan, String> {
    plan(OtlpSettings::default(), env)
}

/// `url protocol`, `off` or `-` for each signal.
fn shown(plan: &Plan) -> [String; 3] {
    plan.ways.each_ref().map(|way| match way {
        Way::Off => "off".into(),
        Way::Unset => "-".into(),
        Way::Collector(collector) => format!("{collector} {:?}", collector.protocol),
    })
}

fn ways(env: &[(&str, &str)]) -> [String; 3] {
    shown(&of_env(env).unwrap())
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

#[test]
fn an_endpoint_for_all_gets_each_signal_its_path() {
    assert_eq!(ways(&[]), ["-", "-", "-"]);
    assert_eq!(ways(&[(ENDPOINT, " ")]), ["-", "-", "-"]);
    let http = |path: &str| format!("http://c:4318{path} Http");
    let all = [http("/v1/traces"), http("/v1/metrics"), http("/v1/logs")];
    assert_eq!(ways(&[(ENDPOINT, "http://c:4318")]), all);
    assert_eq!(ways(&[(ENDPOINT, "http://c:4318/")]), all);
    assert_eq!(ways(&[(ENDPOINT, "http://c:4318/otlp/")])[0], http("/otlp/v1/traces"));
    let env = [(ENDPOINT, "http://c:4318"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x")];
    assert_eq!(ways(&env)[..2], ["http://t:1/x Http".to_owned(), http("/v1/metrics")]);
    let env = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:1")];
    assert_eq!(ways(&env), ["http://[::1]:1/ Http", "-", "-"]);
}

#[test]
fn a_protocol_may_be_of_one_signal() {
    let env = [
        (ENDPOINT, "http://c:4317"),
        (PROTOCOL, "grpc"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
    ];
    let expected = [
        "http://c:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export Grpc",
        "http://c:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export Grpc",
        "http://c:4317/v1/logs Http",
    ];
    assert_eq!(ways(&env), expected);
    let env = [(ENDPOINT, "c:4317"), (PROTOCOL, "grpc"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
    assert!(ways(&env)[0].starts_with("http://c:4317/"));
    let env = [(ENDPOINT, "c:4317"), (PROTOCOL, "grpc"), ("OTEL_EXPORTER_OTLP_INSECURE", "maybe")];
    let wrong = "OTEL_EXPORTER_OTLP_INSECURE: expected true or false, not `maybe`";
    assert_eq!(of_env(&env).unwrap_err(), wrong);
}

#[test]
fn a_flag_is_stronger_than_the_variable_for_all_and_weaker_than_one_for_a_signal() {
    let flags = OtlpSettings { endpoint: Some("http://flag:1".into()), ..OtlpSettings::default() };
    let env = [(ENDPOINT, "http://env:1"), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:1/l")];
    let plan = plan(flags, &env).unwrap();
    let expected = ["http://flag:1/v1/traces Http", "http://flag:1/v1/metrics Http", "http://logs:1/l Http"];
    assert_eq!(shown(&plan), expected);
}

#[test]
fn exporters_can_be_chosen_and_everything_turned_off() {
    let env = [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "none")];
    assert_eq!(ways(&env), ["http://localhost:4318/v1/traces Http", "off", "-"]);
    let env = [("OTEL_LOGS_EXPORTER", "otlp"), (PROTOCOL, "grpc")];
    assert!(ways(&env)[2].starts_with("http://localhost:4317/"));
    assert_eq!(ways(&[(ENDPOINT, "http://c:1"), ("OTEL_SDK_DISABLED", "TRUE")]), ["off", "off", "off"]);
}

#[test]
fn headers_times_and_sizes() {
    let env = [
        (ENDPOINT, "http://c:1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b, x-team=c=d,"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "3s"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=x%2Cy,service.name=a"),
        ("OTEL_SERVICE_NAME", "b"),
    ];
    let plan = of_env(&env).unwrap();
    let [Way::Collector(traces), _, Way::Collector(logs)] = &plan.ways else { panic!("{plan:?}") };
    let headers: Vec<_> =
        traces.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("api-key", "a b"), ("x-team", "c=d")]);
    assert_eq!((traces.timeout, logs.timeout), (Duration::from_millis(2500), Duration::from_secs(3)));
    assert!(traces.gzip && !logs.gzip);
    let batching = Batching { queue: 100, batch: 100, delay: Duration::from_millis(20) };
    assert_eq!((plan.batching, plan.metric_interval), (batching, Duration::from_secs(5)));
    let resource: Vec<_> = plan.resource.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(resource, [("team", "x,y"), ("service.name", "a"), ("service.name", "b")]);
    assert!(!format!("{plan:?}").contains("a b"), "secrets are not shown");
}

#[test]
fn what_is_wrong_is_named_with_what_it_should_be() {
    let certificate = "/nowhere/ca.pem";
    let rows: &[(&[(&str, &str)], &str)] = &[
        (
            &[(ENDPOINT, "c:4318")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL: http://HOST:PORT or https://HOST:PORT",
        ),
        (
            &[(ENDPOINT, "ftp://c")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL: http://HOST:PORT or https://HOST:PORT",
        ),
        (
            &[(ENDPOINT, "http://")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL: http://HOST:PORT or https://HOST:PORT",
        ),
        (&[(ENDPOINT, "http://c:0")], "OTEL_EXPORTER_OTLP_ENDPOINT: the URL has port 0"),
        (
            &[(ENDPOINT, "http://me:secret@c:1")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: no password in the URL: it would be in logs; send a header (OTEL_EXPORTER_OTLP_HEADERS)",
        ),
        (
            &[(ENDPOINT, "http://c:1"), (PROTOCOL, "http/json")],
            "OTEL_EXPORTER_OTLP_PROTOCOL: http/json is not offered: http/protobuf or grpc",
        ),
        (
            &[(ENDPOINT, "http://c:1"), (PROTOCOL, "udp")],
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc, not `udp`",
        ),
        (
            &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "zip")],
            "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION: expected gzip or none, not `zip`",
        ),
        (
            &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")],
            "OTEL_EXPORTER_OTLP_TIMEOUT: expected milliseconds, or a number and ms, s or m, not `0`",
        ),
        (
            &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_HEADERS", "ok=1,hush")],
            "OTEL_EXPORTER_OTLP_HEADERS: entry 2: expected NAME=VALUE, the value percent-encoded",
        ),
        (
            &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_HEADERS", "key=%zz")],
            "OTEL_EXPORTER_OTLP_HEADERS: entry 1: expected NAME=VALUE, the value percent-encoded",
        ),
        (
            &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_HEADERS", "a b=1")],
            "OTEL_EXPORTER_OTLP_HEADERS: `a b` is no name of a header",
        ),
        (
            &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_HEADERS", "Host=x")],
            "OTEL_EXPORTER_OTLP_HEADERS: `Host` is set by the sidecar itself",
        ),
        (
            &[(ENDPOINT, "https://c:1"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate)],
            "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere/ca.pem: No such file or directory (os error 2)",
        ),
        (
            &[(ENDPOINT, "https://c:1"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificate)],
            "OTEL_EXPORTER_OTLP_CLIENT_KEY: it needs a client certificate too",
        ),
        (&[("OTEL_TRACES_EXPORTER", "zipkin")], "OTEL_TRACES_EXPORTER: expected otlp or none, not `zipkin`"),
        (&[("OTEL_SDK_DISABLED", "1")], "OTEL_SDK_DISABLED: expected true or false, not `1`"),
        (&[("OTEL_BSP_MAX_QUEUE_SIZE", "0")], "OTEL_BSP_MAX_QUEUE_SIZE: expected 1 to 1000000, not `0`"),
        (
            &[("OTEL_METRIC_EXPORT_INTERVAL", "1m")],
            "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds, 1 to 86400000, not `1m`",
        ),
        (
            &[("OTEL_RESOURCE_ATTRIBUTES", "=x")],
            "OTEL_RESOURCE_ATTRIBUTES: entry 1: expected NAME=VALUE, the value percent-encoded",
        ),
    ];
    for (env, expected) in rows {
        assert_eq!(of_env(env).map(|plan| shown(&plan)), Err((*expected).to_owned()), "{env:?}");
    }
    let flags = OtlpSettings { endpoint: Some("x".into()), ..OtlpSettings::default() };
    let why = plan(flags, &[]).unwrap_err();
    assert_eq!(why, "--otlp-endpoint: expected a URL: http://HOST:PORT or https://HOST:PORT");
}
