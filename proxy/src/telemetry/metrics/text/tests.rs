//! The text of metrics, line by line.

use std::time::Duration;

use pilotfish_filters::trace::{SpanId, TraceId};

use super::super::family::Families;
use super::*;

fn families() -> Vec<Family> {
    let mut page = Families::default();
    page.family("pilotfish_requests_total", Kind::Counter, "Requests, \"all\" of them: a\\b.");
    page.sample(vec![("direction", "outbound".into()), ("status", "2xx".into())], 2_u64);
    page.by("rule", "a/\"b\"\\\n", u64::MAX);
    page.family("pilotfish_nothing_total", Kind::Counter, "Is not told.");
    page.single("pilotfish_share", Kind::Gauge, "A share.", 0.25);
    page.single("pilotfish_odd", Kind::Gauge, "Odd.", f64::INFINITY);
    page.family("pilotfish_cluster_seconds_total", Kind::Counter, "Seconds.");
    page.by("cluster", "a", Value::Micros(1_500_000));
    page.by("cluster", "b", Value::Micros(3_000_001));
    let name = "http_server_request_duration_seconds";
    page.standard("http.server.request.duration", name, Kind::Histogram, "Durations.");
    let mut values = Distribution::new(Unit::Micros, &[5_000, 1_000_000]);
    (values.counts, values.sum) = (vec![1, 0, 2], 4_000_123);
    let exemplar = Exemplar {
        trace: TraceId([0xab; 16]),
        span: SpanId([0xcd; 8]),
        value: 2_000_000,
        at: Duration::from_millis(1_700_000_000_007),
    };
    values.exemplars = vec![None, None, Some(exemplar)];
    page.sample(vec![("http.request.method", "GET".into())], values);
    page.family("tokens", Kind::Histogram, "Tokens.");
    page.sample(Vec::new(), Distribution::new(Unit::Whole, &[1, 4]));
    page.family("pilotfish_build_info", Kind::Info, "The release.");
    page.by("version", "1", 1_u64);
    page.take()
}

#[test]
fn prometheus_text() {
    assert_eq!(
        render(&families(), Format::Text),
        r#"# HELP pilotfish_requests_total Requests, "all" of them: a\\b.
# TYPE pilotfish_requests_total counter
pilotfish_requests_total{direction="outbound",status="2xx"} 2
pilotfish_requests_total{rule="a/\"b\"\\\n"} 18446744073709551615
# HELP pilotfish_share A share.
# TYPE pilotfish_share gauge
pilotfish_share 0.25
# HELP pilotfish_odd Odd.
# TYPE pilotfish_odd gauge
pilotfish_odd +Inf
# HELP pilotfish_cluster_seconds_total Seconds.
# TYPE pilotfish_cluster_seconds_total counter
pilotfish_cluster_seconds_total{cluster="a"} 1.5
pilotfish_cluster_seconds_total{cluster="b"} 3.000001
# HELP http_server_request_duration_seconds Durations.
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{http_request_method="GET",le="0.005"} 1
http_server_request_duration_seconds_bucket{http_request_method="GET",le="1"} 1
http_server_request_duration_seconds_bucket{http_request_method="GET",le="+Inf"} 3
http_server_request_duration_seconds_sum{http_request_method="GET"} 4.000123
http_server_request_duration_seconds_count{http_request_method="GET"} 3
# HELP tokens Tokens.
# TYPE tokens histogram
tokens_bucket{le="1"} 0
tokens_bucket{le="4"} 0
tokens_bucket{le="+Inf"} 0
tokens_sum 0
tokens_count 0
# HELP pilotfish_build_info The release.
# TYPE pilotfish_build_info gauge
pilotfish_build_info{version="1"} 1
"#
    );
}

#[test]
fn open_metrics() {
    assert_eq!(
        render(&families(), Format::OpenMetrics),
        r#"# HELP pilotfish_requests Requests, \"all\" of them: a\\b.
# TYPE pilotfish_requests counter
pilotfish_requests_total{direction="outbound",status="2xx"} 2
pilotfish_requests_total{rule="a/\"b\"\\\n"} 18446744073709551615
# HELP pilotfish_share A share.
# TYPE pilotfish_share gauge
pilotfish_share 0.25
# HELP pilotfish_odd Odd.
# TYPE pilotfish_odd gauge
pilotfish_odd +Inf
# HELP pilotfish_cluster_seconds Seconds.
# TYPE pilotfish_cluster_seconds counter
# UNIT pilotfish_cluster_seconds seconds
pilotfish_cluster_seconds_total{cluster="a"} 1.5
pilotfish_cluster_seconds_total{cluster="b"} 3.000001
# HELP http_server_request_duration_seconds Durations.
# TYPE http_server_request_duration_seconds histogram
# UNIT http_server_request_duration_seconds seconds
http_server_request_duration_seconds_bucket{http_request_method="GET",le="0.005"} 1
http_server_request_duration_seconds_bucket{http_request_method="GET",le="1.0"} 1
http_server_request_duration_seconds_bucket{http_request_method="GET",le="+Inf"} 3 # {trace_id="abababababababababababababababab",span_id="cdcdcdcdcdcdcdcd"} 2 1700000000.007
http_server_request_duration_seconds_sum{http_request_method="GET"} 4.000123
http_server_request_duration_seconds_count{http_request_method="GET"} 3
# HELP tokens Tokens.
# TYPE tokens histogram
tokens_bucket{le="1.0"} 0
tokens_bucket{le="4.0"} 0
tokens_bucket{le="+Inf"} 0
tokens_sum 0
tokens_count 0
# HELP pilotfish_build The release.
# TYPE pilotfish_build info
pilotfish_build_info{version="1"} 1
# EOF
"#
    );
}

#[test]
fn the_better_liked_format_is_given() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for (accept, wanted) in [
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/html", Format::Text),
        (prometheus, Format::OpenMetrics),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("application/openmetrics-text; version=2.0.0", Format::Text),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", Format::Text),
        ("application/openmetrics-text;q=0.9, text/*;q=0.1", Format::OpenMetrics),
        ("application/openmetrics-text;q=0, */*", Format::Text),
        ("APPLICATION/OpenMetrics-Text ; Q=1 , text/plain ; q=0.5", Format::OpenMetrics),
        ("application/openmetrics-text;q=nonsense", Format::Text),
        (";;;,,,=", Format::Text),
    ] {
        assert_eq!(Format::accepted(accept), wanted, "{accept}");
    }
}
