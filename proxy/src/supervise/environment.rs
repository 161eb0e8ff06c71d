//! What the agent finds in its environment: where it listens, where its calls go, who it is. Nothing that proves who its
//! sidecar is: all of the sidecar's own variables are taken out.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use pilotfish_processes::MARK;

use crate::bootstrap::{Secret, Settings};

/// Where calls go that the sidecar should not see: the agent's own machine.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// What the agent is told.
#[derive(Debug)]
pub struct Environment {
    /// Variables, in their order.
    pub set: Vec<(String, String)>,
    /// Of all that it is told, its command included.
    pub digest: String,
}

/// What to tell an agent of these settings.
pub fn of(
    settings: &Settings,
    outbound: SocketAddr,
    relay: Option<SocketAddr>,
    secret: Option<&Secret>,
    mark: &str,
) -> Environment {
    let (host, port) = settings
        .app
        .as_ref()
        .map_or_else(|| (Ipv4Addr::LOCALHOST.to_string(), 0), |app| (app.host.clone(), app.port));
    let ip = if outbound.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { outbound.ip() };
    let outbound = SocketAddr::new(ip, outbound.port());
    let user = secret.map(|secret| format!("agent:{}@", secret.expose())).unwrap_or_default();
    let proxy = format!("http://{user}{outbound}");
    let mut set: Vec<(String, String)> = Vec::new();
    let mut say = |name: &str, value: &str| set.push((name.to_owned(), value.to_owned()));
    say("PORT", &port.to_string());
    say("HOST", &host);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        say(name, &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        say(name, NO_PROXY);
    }
    say("PILOTFISH_OUTBOUND", &outbound.to_string());
    say("PILOTFISH_AGENT", &settings.agent);
    say("PILOTFISH_NAMESPACE", &settings.namespace);
    say(MARK, mark);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        say("OTEL_SERVICE_NAME", &settings.agent);
    }
    let otlp = &settings.telemetry.otlp;
    if let Some(endpoint) = &otlp.endpoint {
        say("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        if let Some(protocol) = &otlp.protocol {
            say("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        }
    } else if let (Some(relay), Some(secret)) = (relay, secret) {
        say("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{relay}"));
        say("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        say("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{}", secret.expose()));
    }
    let told = serde_json::to_vec(&(&settings.supervise.command, &set)).unwrap_or_default();
    Environment { digest: HEXLOWER.encode(digest(&SHA256, &told).as_ref()), set }
}

/// The sidecar's variables that are none of the agent's business: its settings, a join token among them.
pub fn removed() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"PILOTFISH_"))
}
