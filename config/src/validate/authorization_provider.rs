//! AuthorizationProvider: an authorizer's address, what it is told and what is taken from its answers.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::{
    AuthorizationProvider, AuthorizerCache, AuthorizerProtocol, AuthorizerTls, CheckedBody, HttpAuthorizer,
    Meta,
};
use crate::raw::{
    AuthorizationProviderSpec, AuthorizerCacheSpec, CheckedBodySpec, GrpcAuthorizerSpec, HttpAuthorizerSpec,
    Int, OtlpTlsSpec, Text, TextMap, Time,
};
use crate::units::print_duration;
use crate::yaml::clip_text;

use super::check::{Cx, fqdn, is_dns_label};
use super::headers::is_header_name;

/// Ours: nobody waits for Istio's 600 s.
const TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// Istio's default.
const STATUS_ON_ERROR: u16 = 403;
/// What a sidecar reads of a body before it decides, bytes.
const LONGEST_BODY: u32 = 1024 * 1024;

/// Reads one.
pub(super) fn authorization_provider(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &AuthorizationProviderSpec<'_>,
) -> Option<AuthorizationProvider> {
    let (service, port, tls, protocol) = match (&spec.grpc, &spec.http) {
        (Some(grpc), None) => (grpc.service, grpc.port, grpc.tls.as_ref(), by_grpc(grpc)),
        (None, Some(http)) => (http.service, http.port, http.tls.as_ref(), by_http(cx, http)),
        (None, None) => {
            cx.error_hint(
                spec.node,
                "it has to be said how the authorizer is asked",
                "write `grpc:` or `http:`",
            );
            return None;
        }
        // Told already.
        (Some(_), Some(_)) => return None,
    };
    if let Some((body, http)) = spec.body.as_ref().zip(spec.http.as_ref())
        && body.pack_as_bytes.is_some()
    {
        cx.warn(http.node, "`packAsBytes` does nothing for an authorizer that speaks HTTP", "leave it out");
    }
    // All of it is read, so that all that is wrong is told at once.
    let host = service.map(|service| host(cx, service));
    let port = port.and_then(|port| cx.port(port));
    let tls = tls.map(|tls| files(cx, tls));
    let timeout = spec.timeout.map_or(TIMEOUT, |time| at_most(cx, time, LONGEST_TIMEOUT));
    let status_on_error = spec.status_on_error.map_or(STATUS_ON_ERROR, |status| refusing(cx, status));
    let body = spec.body.as_ref().and_then(|body| checked_body(cx, body));
    let cache = spec.cache.as_ref().and_then(|cache| remembered(cx, cache));
    let fail_open = spec.fail_open.is_some_and(|open| open.value);
    let (host, port) = (host?, port?);
    Some(AuthorizationProvider {
        meta,
        host,
        port,
        tls,
        protocol,
        timeout,
        fail_open,
        status_on_error,
        body,
        cache,
    })
}

fn by_grpc(spec: &GrpcAuthorizerSpec<'_>) -> AuthorizerProtocol {
    let pairs = spec.context_extensions.iter().flatten();
    AuthorizerProtocol::Grpc {
        context: pairs.map(|(name, value)| (name.value.to_owned(), value.value.to_owned())).collect(),
    }
}

fn by_http(cx: &mut Cx<'_>, spec: &HttpAuthorizerSpec<'_>) -> AuthorizerProtocol {
    let path_prefix = spec.path_prefix.map(|prefix| {
        let sent = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
        if !prefix.value.starts_with('/') || !prefix.value.chars().all(sent) {
            let message = format!("`{}` is not the beginning of a path", clip_text(prefix.value));
            cx.error_hint(prefix.node, message, "it begins with `/`, without query and fragment");
        }
        prefix.value.trim_end_matches('/').to_owned()
    });
    AuthorizerProtocol::Http(Box::new(HttpAuthorizer {
        path_prefix: path_prefix.unwrap_or_default(),
        include: names(cx, spec.include_headers.as_deref()),
        add: added(cx, spec.additional_headers.as_ref()),
        to_upstream: names(cx, spec.to_upstream.as_deref()),
        to_downstream_on_deny: spec.to_downstream_on_deny.as_ref().map(|list| names(cx, Some(list))),
        to_downstream_on_allow: names(cx, spec.to_downstream_on_allow.as_deref()),
    }))
}

/// Names of headers, `*` at one end, in lower case.
fn names(cx: &mut Cx<'_>, list: Option<&[Text<'_>]>) -> Vec<String> {
    let mut names = Vec::new();
    for text in list.into_iter().flatten() {
        let bare =
            text.value.strip_suffix('*').or_else(|| text.value.strip_prefix('*')).unwrap_or(text.value);
        // A `*` inside is a character that a name may have, and nobody means it.
        if text.value != "*" && (bare.contains('*') || !is_header_name(bare)) {
            let message = format!("`{}` is not a header name", clip_text(text.value));
            cx.error_hint(text.node, message, "letters, digits and `-`; `*` at the begin or at the end");
        }
        names.push(text.value.to_ascii_lowercase());
    }
    names
}

fn added(cx: &mut Cx<'_>, map: Option<&TextMap<'_>>) -> Vec<(String, String)> {
    let mut added = Vec::new();
    for (name, value) in map.into_iter().flatten() {
        if !is_header_name(name.value) {
            let message = format!("`{}` is not a header name", clip_text(name.value));
            cx.diagnose.error_at_key(name.node, message, Some("letters, digits and `-`".into()));
        }
        if value.value.chars().any(char::is_control) {
            cx.error(value.node, "a header's value has no control characters");
        }
        added.push((name.value.to_ascii_lowercase(), value.value.to_owned()));
    }
    added
}

/// A name or an address; `NAMESPACE/NAME` as Istio has it, whose namespace says nothing here: a host is one service, whoever names it.
fn host(cx: &mut Cx<'_>, text: Text<'_>) -> String {
    let host = text.value.split_once('/').filter(|(namespace, _)| is_dns_label(namespace));
    let host = host.map_or(text.value, |(_, host)| host);
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_err() && fqdn(bare).is_err() {
        let message = format!("`{}` is not a host", clip_text(text.value));
        let hint = "a name such as `authorizer.example.com` or an address; the port stands in `port`";
        cx.error_hint(text.node, message, hint);
    }
    bare.to_owned()
}

fn files(cx: &mut Cx<'_>, spec: &OtlpTlsSpec<'_>) -> AuthorizerTls {
    let mut file = |text: Option<Text<'_>>| text.map(|text| cx.not_empty(text));
    let ca_certificates = file(spec.ca_certificates);
    let (chain, key) = (file(spec.client_certificate), file(spec.private_key));
    if chain.is_some() != key.is_some() {
        cx.error(spec.node, "`clientCertificate` and `privateKey` need each other");
    }
    AuthorizerTls { ca_certificates, client: chain.zip(key) }
}

fn at_most(cx: &mut Cx<'_>, time: Time<'_>, longest: Duration) -> Duration {
    let value = cx.duration(time);
    if value > longest {
        let text = format!("{} is too long", print_duration(value));
        cx.error_hint(time.node, text, format!("at most {}", print_duration(longest)));
    }
    value
}

/// A status that refuses: Istio has it as text.
fn refusing(cx: &mut Cx<'_>, status: Text<'_>) -> u16 {
    match status.value.parse() {
        Ok(number @ 400..=599) => number,
        _ => {
            let message = format!("`{}` is not a status that refuses", clip_text(status.value));
            cx.error_hint(status.node, message, "write one of 400 to 599, such as \"503\"");
            STATUS_ON_ERROR
        }
    }
}

fn checked_body(cx: &mut Cx<'_>, spec: &CheckedBodySpec<'_>) -> Option<CheckedBody> {
    let bytes: Int<'_> = spec.max_request_bytes?;
    if !(1..=LONGEST_BODY).contains(&bytes.value) {
        let message = format!("{} is not a length that is read before a decision", bytes.value);
        cx.error_hint(bytes.node, message, format!("allowed: 1 to {LONGEST_BODY}"));
    }
    Some(CheckedBody {
        max: bytes.value as usize,
        partial: spec.allow_partial_message.is_some_and(|partial| partial.value),
        as_bytes: spec.pack_as_bytes.is_some_and(|bytes| bytes.value),
    })
}

fn remembered(cx: &mut Cx<'_>, spec: &AuthorizerCacheSpec<'_>) -> Option<AuthorizerCache> {
    let ttl = at_most(cx, spec.ttl?, LONGEST_TTL);
    let mut headers = Vec::new();
    for text in spec.headers.iter().flatten() {
        if !is_header_name(text.value) {
            let message = format!("`{}` is not a header name", clip_text(text.value));
            cx.error_hint(text.node, message, "letters, digits and `-`");
        }
        headers.push(text.value.to_ascii_lowercase());
    }
    Some(AuthorizerCache { ttl, headers })
}
