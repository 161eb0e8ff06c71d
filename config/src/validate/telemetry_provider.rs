//! TelemetryProvider: a collector's address and how it is spoken to.

use std::time::Duration;

use crate::model::{BUILT_IN, Meta, Otlp, TelemetryProvider};
use crate::raw::{CompressionWord, OtlpProtocolWord, OtlpSpec, TelemetryProviderSpec, Text};
use crate::units::print_duration;
use crate::yaml::clip_text;

use super::check::Cx;
use super::headers::is_header_name;

const LONGEST: Duration = Duration::from_secs(600);

/// Reads one.
pub(super) fn telemetry_provider(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &TelemetryProviderSpec<'_>,
) -> Option<TelemetryProvider> {
    if BUILT_IN.iter().any(|known| known.name == meta.name()) {
        let message = format!("`{}` is a provider that needs no document", meta.name());
        cx.error_hint(spec.node, message, "give this one another name");
    }
    Some(TelemetryProvider { otlp: otlp(cx, spec.otlp.as_ref()?)?, meta })
}

fn otlp(cx: &mut Cx<'_>, spec: &OtlpSpec<'_>) -> Option<Otlp> {
    let grpc = spec.protocol.is_some_and(|protocol| protocol.value == OtlpProtocolWord::Grpc);
    let endpoint = spec.endpoint?;
    if let Err((message, hint)) = checked(endpoint.value, grpc) {
        cx.error_hint(endpoint.node, message, hint);
    }
    let timeout = spec.timeout.map_or(Duration::from_secs(10), |time| {
        let timeout = cx.duration(time);
        if timeout > LONGEST {
            let text = format!("{} is too long", print_duration(timeout));
            cx.error_hint(time.node, text, "at most 10m");
        }
        timeout
    });
    let mut headers = Vec::new();
    for (name, variable) in spec.headers_from_environment.iter().flatten() {
        if !is_header_name(name.value) {
            let message = format!("`{}` is not a header name", clip_text(name.value));
            cx.diagnose.error_at_key(name.node, message, Some("letters, digits and `-`".into()));
        }
        is_variable(cx, *variable);
        headers.push((name.value.to_ascii_lowercase(), variable.value.to_owned()));
    }
    let tls = spec.tls.as_ref();
    if let Some(tls) = tls.filter(|_| endpoint.value.starts_with("http://")) {
        cx.error_hint(tls.node, "`tls` is for https, and the endpoint is http", "write `https://` there");
    }
    let file = |cx: &mut Cx<'_>, text: Option<Text<'_>>| text.map(|text| cx.not_empty(text));
    let client = tls.and_then(|tls| {
        let (chain, key) = (file(cx, tls.client_certificate), file(cx, tls.private_key));
        if chain.is_some() != key.is_some() {
            cx.error(tls.node, "`clientCertificate` and `privateKey` need each other");
        }
        chain.zip(key)
    });
    Some(Otlp {
        endpoint: endpoint.value.to_owned(),
        grpc,
        timeout,
        gzip: spec.compression.is_some_and(|word| word.value == CompressionWord::Gzip),
        headers_from_environment: headers,
        ca_certificates: tls.and_then(|tls| file(cx, tls.ca_certificates)),
        client,
    })
}

/// A variable's name: no value by mistake, which may be a key and is not repeated.
fn is_variable(cx: &mut Cx<'_>, variable: Text<'_>) {
    let name = variable.value;
    let token = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || name.len() > 128
        || name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(token)
    {
        let hint = "letters, digits and `_`, as in COLLECTOR_KEY; the value itself stands in the environment";
        cx.error_hint(variable.node, "this is not the name of an environment variable", hint);
    }
}

/// `http://HOST[:PORT][/PATH]`, without what may hold a secret.
pub(super) fn checked(endpoint: &str, grpc: bool) -> Result<(), (String, &'static str)> {
    const FORM: &str = "write a URL, such as `http://collector:4317` or `https://collector.example.com:4318`";
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(("the endpoint does not begin with http:// or https://".into(), FORM));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err((
            "the endpoint has a user name".into(),
            "write `headersFromEnvironment` for what is secret",
        ));
    }
    if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("the endpoint has a query, a fragment or a space".into(), FORM));
    }
    if grpc && !path.is_empty() {
        return Err((
            format!("the endpoint has the path `/{}`", clip_text(path)),
            "gRPC has none: only `http/protobuf` may have a path",
        ));
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, after)) if ip.parse::<std::net::Ipv6Addr>().is_ok() => {
            ("ok", after.strip_prefix(':').or_else(|| after.is_empty().then_some("1")))
        }
        Some(_) => return Err(("the endpoint's host is not an IPv6 address".into(), FORM)),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("1")),
        },
    };
    let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(label) {
        return Err((format!("`{}` is not a host", clip_text(host)), FORM));
    }
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(1..) => Ok(()),
        _ => Err(("the endpoint's port is not one of 1 to 65535".into(), FORM)),
    }
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn endpoints() {
        for good in
            ["http://collector:4317", "https://c.example.com", "http://[::1]:4318", "http://127.0.0.1:1/"]
        {
            assert!(checked(good, false).is_ok() && checked(good, true).is_ok(), "{good}");
        }
        assert!(checked("https://api.example.com/otlp", false).is_ok());
        for bad in [
            "collector:4317",
            "grpc://c:1",
            "http://",
            "http://:1",
            "http://c:0",
            "http://c:70000",
            "http://c:",
            "http://u:p@c:1",
            "http://c?k=v",
            "http://a b:1",
            "http://[::1:1",
            "http://[x]:1",
            "http://[::1]1",
        ] {
            assert!(checked(bad, false).is_err(), "{bad}");
        }
        assert!(checked("http://c:4317/v1/traces", true).is_err());
    }
}
