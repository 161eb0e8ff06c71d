//! A TelemetryProvider document as a collector.

use http::{HeaderName, HeaderValue};
use pilotfish_filters::telemetry::Collector as Provider;
use rustls::pki_types::ServerName;

use super::Address;
use crate::telemetry::otlp::target::{Collector, Protocol, Signal};
use crate::tls::client::{TlsFiles, tls};

/// Where the signal goes. `env` looks the values of headers up.
///
/// # Errors
/// Its address, a file or a header cannot be used; never the header's value.
pub fn collector(
    said: &Provider,
    signal: Signal,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Collector, String> {
    let protocol = if said.grpc { Protocol::Grpc } else { Protocol::Http };
    let address =
        Address::read(&said.endpoint, protocol, true).map_err(|why| format!("otlp.endpoint: {why}"))?;
    let text = |text: &str| text.to_owned();
    let files = TlsFiles {
        certificate: said.ca_certificates.as_deref().map(text),
        client_certificate: said.client.as_ref().map(|(chain, _)| text(chain)),
        client_key: said.client.as_ref().map(|(_, key)| text(key)),
    };
    let tls = if address.tls {
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|_| "otlp.endpoint: its host is no name that a certificate could have")?;
        Some((tls(&files, protocol == Protocol::Grpc).map_err(|(_, why)| format!("otlp: {why}"))?, name))
    } else {
        None
    };
    let mut headers = Vec::new();
    for (name, variable) in &said.headers_from_environment {
        let value =
            env(variable).ok_or_else(|| format!("the variable {variable} for `{name}` is not set"))?;
        let known = HeaderName::try_from(&**name).map_err(|_| format!("`{name}` is no name of a header"))?;
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("the value of {variable} cannot be in the header `{name}`"))?;
        value.set_sensitive(true);
        headers.push((known, value));
    }
    let path = match protocol {
        Protocol::Grpc => signal.method().to_owned(),
        Protocol::Http => format!("{}/v1/{}", address.path.trim_end_matches('/'), signal.word()),
    };
    Ok(Collector {
        host: address.host.into(),
        port: address.port,
        path: path.into(),
        protocol,
        tls,
        headers,
        gzip: said.gzip,
        timeout: said.timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_document_is_a_collector() {
        let mut said = Provider {
            name: "default/vendor".into(),
            endpoint: "http://c:4318/base/".into(),
            grpc: false,
            timeout: Duration::from_secs(3),
            gzip: true,
            headers_from_environment: [("api-key".into(), "KEY".into())].into(),
            ca_certificates: None,
            client: None,
        };
        let env = |name: &str| (name == "KEY").then(|| "hush".to_owned());
        let made = collector(&said, Signal::Traces, &env).unwrap();
        assert_eq!((made.to_string(), made.gzip), ("http://c:4318/base/v1/traces".into(), true));
        assert_eq!((made.headers[0].0.as_str(), made.timeout), ("api-key", Duration::from_secs(3)));
        let why = collector(&said, Signal::Traces, &|_| None).unwrap_err();
        assert_eq!(why, "the variable KEY for `api-key` is not set");
        said.grpc = true;
        assert!(collector(&said, Signal::Logs, &env).unwrap().path.ends_with("LogsService/Export"));
        said.endpoint = "https://c".into();
        said.ca_certificates = Some("/nowhere.pem".into());
        let why = collector(&said, Signal::Logs, &env).unwrap_err();
        assert_eq!(why, "otlp: /nowhere.pem: No such file or directory (os error 2)");
    }
}
