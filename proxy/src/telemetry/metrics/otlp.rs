//! Families as OTLP has them, for whoever sends them.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
    exemplar, metric, number_data_point,
};

use super::family::{Distribution, Family, Kind, Label, Unit, Value};

/// The families as OTLP's metrics: counters and distributions since `start`, all as they were at `now`; both in nanoseconds since
/// 1970. `start` has to be the same each time.
pub fn metrics(families: &[Family], start: u64, now: u64) -> Vec<Metric> {
    families.iter().map(|family| metric(family, Times { start, now })).collect()
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn metric(family: &Family, times: Times) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers =
        || family.samples.iter().filter_map(|sample| number(&sample.labels, &sample.value, times)).collect();
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge | Kind::Info => metric::Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: family
                .samples
                .iter()
                .filter_map(|sample| match &sample.value {
                    Value::Distribution(values) => Some(distribution(&sample.labels, values, times)),
                    _ => None,
                })
                .collect(),
            aggregation_temporality: cumulative,
        }),
    };
    Metric {
        name: name(family),
        description: family.help.to_owned(),
        unit: unit(family).to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

/// Its own, or Prometheus' without `_total`, with our namespace before a dot.
fn name(family: &Family) -> String {
    if !family.otel.is_empty() {
        return family.otel.to_owned();
    }
    let name = family.name.strip_suffix("_total").unwrap_or(family.name);
    name.replacen('_', ".", 1)
}

/// The unit in UCUM, as OpenTelemetry wants it.
fn unit(family: &Family) -> &'static str {
    let name = family.name.strip_suffix("_total").unwrap_or(family.name);
    let last = name.rsplit('_').next().unwrap_or_default();
    let has = |word: &str| name.contains(word);
    match last {
        "seconds" => "s",
        "bytes" => "By",
        _ if family.otel == "gen_ai.client.token.usage" => "{token}",
        _ if has("connect") => "{connection}",
        _ if has("request") || has("refusal") => "{request}",
        _ if has("endpoint") => "{endpoint}",
        _ => "1",
    }
}

fn attributes(labels: &[Label]) -> Vec<KeyValue> {
    let value = |name: &str, value: &str| match value.parse() {
        Ok(status) if name == "http.response.status_code" => any_value::Value::IntValue(status),
        _ => any_value::Value::StringValue(value.to_owned()),
    };
    let pair = |(name, text): &Label| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(value(name, text)) }),
        ..KeyValue::default()
    };
    labels.iter().map(pair).collect()
}

fn number(labels: &[Label], value: &Value, Times { start, now }: Times) -> Option<NumberDataPoint> {
    let value = match value {
        Value::Whole(value) => number_data_point::Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX)),
        Value::Micros(micros) => number_data_point::Value::AsDouble(seconds(*micros)),
        Value::Number(value) => number_data_point::Value::AsDouble(*value),
        Value::Distribution(_) => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn distribution(labels: &[Label], values: &Distribution, Times { start, now }: Times) -> HistogramDataPoint {
    let told = |value: u64| match values.unit {
        Unit::Micros => seconds(value),
        Unit::Whole => value as f64,
    };
    let exemplars = values.exemplars.iter().flatten().map(|one| Exemplar {
        time_unix_nano: u64::try_from(one.at.as_nanos()).unwrap_or(u64::MAX),
        span_id: one.span.0.to_vec(),
        trace_id: one.trace.0.to_vec(),
        value: Some(exemplar::Value::AsDouble(told(one.value))),
        ..Exemplar::default()
    });
    HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: values.count(),
        sum: Some(told(values.sum)),
        bucket_counts: values.counts.clone(),
        explicit_bounds: values.bounds.iter().map(|bound| told(*bound)).collect(),
        exemplars: exemplars.collect(),
        ..HistogramDataPoint::default()
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilotfish_filters::trace::{SpanId, TraceId};

    use super::super::family::{self, Families};
    use super::*;

    #[test]
    fn names_units_and_values() {
        let mut families = Families::default();
        families.family("pilotfish_cluster_seconds_total", Kind::Counter, "h");
        families.by("cluster", "a", Value::Micros(1_500_000));
        families.single("pilotfish_snapshot_version", Kind::Gauge, "h", 7_u64);
        families.standard(
            "http.server.request.duration",
            "http_server_request_duration_seconds",
            Kind::Histogram,
            "h",
        );
        let mut values = Distribution::new(Unit::Micros, &[5_000, 10_000]);
        values.counts = vec![1, 0, 2];
        values.sum = 3_000_000;
        values.exemplars = vec![
            None,
            None,
            Some(family::Exemplar {
                trace: TraceId([1; 16]),
                span: SpanId([2; 8]),
                value: 2_000_000,
                at: Duration::from_secs(9),
            }),
        ];
        families.sample(vec![("http.response.status_code", "200".into())], values);
        let told = metrics(&families.take(), 5, 6);
        let names: Vec<(&str, &str)> = told.iter().map(|one| (&*one.name, &*one.unit)).collect();
        assert_eq!(
            names,
            [
                ("pilotfish.cluster_seconds", "s"),
                ("pilotfish.snapshot_version", "1"),
                ("http.server.request.duration", "s")
            ]
        );
        let Some(metric::Data::Sum(sum)) = &told[0].data else { panic!("{:?}", told[0]) };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(1.5)));
        assert_eq!((sum.data_points[0].start_time_unix_nano, sum.data_points[0].time_unix_nano), (5, 6));
        let Some(metric::Data::Histogram(histogram)) = &told[2].data else { panic!("{:?}", told[2]) };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (3, Some(3.0), &[1, 0, 2][..]));
        assert_eq!(point.explicit_bounds, [0.005, 0.01]);
        assert_eq!(point.exemplars[0].time_unix_nano, 9_000_000_000);
        let status = point.attributes[0].value.as_ref().unwrap().value.clone();
        assert_eq!(status, Some(any_value::Value::IntValue(200)));
    }
}
