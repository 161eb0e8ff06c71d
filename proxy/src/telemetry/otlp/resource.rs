//! Who the sidecar is, for every signal: OpenTelemetry's resource.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// A text as an attribute.
pub fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// An attribute.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The resource. What `said` has (`OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME`, so that the later wins) beats what
/// the sidecar knows of itself.
pub fn resource(agent: &str, namespace: &str, said: &[(String, String)]) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let process = std::process::id();
    let mut attributes = vec![
        text("service.name", agent),
        text("service.namespace", namespace),
        text("service.instance.id", format!("{host}-{process}")),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("host.name", host),
        attribute("process.pid", Value::IntValue(process.into())),
        text("telemetry.sdk.name", "pilotfish"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    for (key, value) in said {
        let said = text(key, value);
        match attributes.iter_mut().find(|known| known.key == *key) {
            Some(known) => *known = said,
            None => attributes.push(said),
        }
    }
    Resource { attributes, ..Resource::default() }
}

/// What made the spans, metrics and log records.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "pilotfish-proxy".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_beats_what_is_known() {
        let said = [("service.name", "a"), ("team", "x"), ("service.name", "b")];
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let resource = resource("agent", "space", &said);
        let of = |key: &str| {
            let mut all = resource.attributes.iter().filter(|one| one.key == key);
            let value = all.next().and_then(|one| one.value.clone()).and_then(|value| value.value);
            assert!(all.next().is_none(), "{key} twice");
            value
        };
        assert_eq!(of("service.name"), Some(Value::StringValue("b".into())));
        assert_eq!(of("service.namespace"), Some(Value::StringValue("space".into())));
        assert_eq!(of("team"), Some(Value::StringValue("x".into())));
        assert!(of("host.name").is_some() && of("process.pid").is_some());
    }
}
