//! OutboundCredential: no secret in it, and none that could be seen on its way.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::{
    ClientProof, Exchange, Host, KeyPlace, Meta, OAuthClient, OutboundCredential, Secret, TokenEndpoint,
};
use crate::raw::{
    ApiKeySpec, AuthStyleWord, BasicSpec, ExchangeSpec, Inline, List, OAuth2Spec, One,
    OutboundCredentialSpec, Text, Time,
};
use crate::units::print_duration;
use crate::yaml::clip_text;

use super::check::Cx;
use super::headers::is_header_name;
use super::telemetry_provider::checked;

/// For one request to a token endpoint, unless the document says.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that it may say.
const LONGEST: Duration = Duration::from_secs(60);
/// The header of a key, unless the document says.
const KEY_HEADER: &str = "x-api-key";
/// RFC 8693 section 3.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Headers that say where a call goes, how its body ends, or what sidecars say of it.
const NOT_FOR_KEYS: &[&str] = &[
    "host",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "traceparent",
    "tracestate",
    "baggage",
    "via",
];

/// Reads one.
pub(super) fn outbound_credential(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &OutboundCredentialSpec<'_>,
) -> Option<OutboundCredential> {
    let hosts: Vec<Host> = spec.hosts.iter().flatten().map(|host| checked_host(cx, *host)).collect();
    if spec.hosts.as_ref().is_some_and(Vec::is_empty) {
        cx.error(spec.node, "`hosts` is empty, so it is shown to nobody");
    }
    let insecure = spec.insecure.is_some_and(|insecure| insecure.value);
    let secret = if let Some(key) = &spec.api_key {
        api_key(cx, key)
    } else if let Some(bearer) = &spec.bearer {
        refuse(cx, bearer.token.or(bearer.value), "file");
        let file = bearer.file.map(|path| file(cx, path)).unwrap_or_default();
        Some(Secret::Key { place: KeyPlace::Header("authorization".into()), prefix: "Bearer ".into(), file })
    } else if let Some(spec) = &spec.basic {
        basic(cx, spec)
    } else if let Some(spec) = &spec.oauth2 {
        oauth2(cx, spec, insecure)
    } else if let Some(spec) = &spec.exchange {
        exchange(cx, spec, insecure)
    } else {
        let hint = "write one of `apiKey`, `bearer`, `basic`, `oauth2` and `exchange`";
        cx.error_hint(spec.node, "the credential says nothing", hint);
        None
    };
    let selector = spec.selector.as_ref();
    let selector = selector.map(|s| cx.selector(s.node, s.match_labels.as_ref())).unwrap_or_default();
    Some(OutboundCredential { meta, hosts, selector, insecure, secret: secret? })
}

/// A host that a secret may be for: a name, or all names below one of at least two labels.
fn checked_host(cx: &mut Cx<'_>, text: Text<'_>) -> Host {
    let name = text.value.trim_end_matches('.');
    if let Some(below) = name.strip_prefix('*') {
        let domain = below.strip_prefix('.').unwrap_or_default();
        if domain.split('.').count() < 2 {
            let message = format!("`{}` is too wide for a secret", clip_text(text.value));
            cx.error_hint(text.node, message, "name the host, or a domain of your own: `*.example.com`");
        }
    }
    if text.value.contains(':') && !text.value.contains("://") {
        let message = format!("`{}` is not a host name", clip_text(text.value));
        cx.error_hint(text.node, message, "without a port: it is shown on every port of the host");
        return Host::verbatim(name);
    }
    let host = cx.host(text);
    Host::verbatim(host.trim_end_matches('.'))
}

fn refuse(cx: &mut Cx<'_>, inline: Option<Inline<'_>>, instead: &str) {
    if let Some(Inline(node)) = inline {
        let hint = format!("put it into a file on the sidecar's machine, and write `{instead}: PATH`");
        cx.error_hint(node, "a document is no place for a secret", hint);
    }
}

/// A path. What stands there may be the secret itself by mistake, so it is not repeated.
fn file(cx: &mut Cx<'_>, path: Text<'_>) -> String {
    if !path.value.starts_with('/') || path.value.chars().any(char::is_control) {
        let hint = "a path begins with `/`; the secret itself is in that file";
        cx.error_hint(path.node, "this is not the path of a file", hint);
    }
    path.value.to_owned()
}

fn api_key(cx: &mut Cx<'_>, spec: &ApiKeySpec<'_>) -> Option<Secret> {
    refuse(cx, spec.value.or(spec.key), "file");
    let place = match (spec.header, spec.query) {
        (_, Some(name)) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            if name.value.is_empty() || !name.value.bytes().all(plain) {
                let message = format!("`{}` is not the name of a parameter", clip_text(name.value));
                cx.error_hint(name.node, message, "letters, digits, `-`, `.`, `_` and `~`");
            }
            KeyPlace::Query(name.value.to_owned())
        }
        (Some(name), None) => {
            let lower = name.value.to_ascii_lowercase();
            if !is_header_name(&lower) {
                let message = format!("`{}` is not a header name", clip_text(name.value));
                cx.error_hint(name.node, message, "letters, digits and `-`, as in `x-api-key`");
            } else if NOT_FOR_KEYS.contains(&&*lower)
                || lower.starts_with("x-pilotfish-")
                || lower.starts_with("agent-")
            {
                let message = format!("`{lower}` is not a header for a key");
                cx.error_hint(name.node, message, "`authorization` or `x-api-key`, as the host asks for");
            }
            KeyPlace::Header(lower)
        }
        (None, None) => KeyPlace::Header(KEY_HEADER.into()),
    };
    if let Some(prefix) = spec.prefix {
        if prefix.value.len() > 64 || !prefix.value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            cx.error_hint(prefix.node, "this cannot stand before a key", "at most 64 visible characters");
        }
        if matches!(place, KeyPlace::Query(_)) {
            cx.error(prefix.node, "a key in the query has no prefix");
        }
    }
    let prefix = spec.prefix.map(|prefix| prefix.value.to_owned()).unwrap_or_default();
    Some(Secret::Key { place, prefix, file: file(cx, spec.file?) })
}

fn basic(cx: &mut Cx<'_>, spec: &BasicSpec<'_>) -> Option<Secret> {
    refuse(cx, spec.password, "passwordFile");
    let username = match (spec.username, spec.username_file) {
        (_, Some(path)) => Err(file(cx, path)),
        (Some(name), None) => {
            if name.value.is_empty() || name.value.contains(':') || name.value.chars().any(char::is_control) {
                cx.error(name.node, "a user name is not empty, and has no `:` (RFC 7617)");
            }
            Ok(name.value.to_owned())
        }
        (None, None) => {
            cx.error_hint(spec.node, "there is no user name", "write `username` or `usernameFile`");
            return None;
        }
    };
    Some(Secret::Basic { username, password_file: file(cx, spec.password_file?) })
}

fn oauth2(cx: &mut Cx<'_>, spec: &OAuth2Spec<'_>, insecure: bool) -> Option<Secret> {
    refuse(cx, spec.client_secret, "clientSecretFile");
    refuse(cx, spec.private_key, "privateKeyFile");
    let url = spec.token_url.map(|url| token_url(cx, url, insecure));
    let written = Client {
        id: spec.client_id,
        secret: spec.client_secret_file,
        key: spec.private_key_file,
        key_id: spec.key_id,
        style: spec.auth_style,
    };
    if spec.client_secret_file.is_none() && spec.private_key_file.is_none() {
        let hint = "write `clientSecretFile` or `privateKeyFile`";
        cx.error_hint(spec.node, "nothing says how the client proves itself", hint);
    }
    let client = client(cx, &written);
    Some(Secret::Client(TokenEndpoint {
        url: url?,
        client: Some(client?),
        scopes: scopes(cx, spec.scopes.as_ref()),
        audience: spec.audience.map(|audience| cx.not_empty(audience)),
        resource: spec.resource.map(|resource| cx.not_empty(resource)),
        ca_certificates: spec.ca_certificates.map(|path| cx.not_empty(path)),
        timeout: timeout(cx, spec.timeout),
    }))
}

fn exchange(cx: &mut Cx<'_>, spec: &ExchangeSpec<'_>, insecure: bool) -> Option<Secret> {
    refuse(cx, spec.client_secret, "clientSecretFile");
    refuse(cx, spec.private_key, "privateKeyFile");
    refuse(cx, spec.subject_token, "subjectTokenFile");
    refuse(cx, spec.actor_token, "actorTokenFile");
    let url = spec.token_url.map(|url| token_url(cx, url, insecure));
    let written = Client {
        id: spec.client_id,
        secret: spec.client_secret_file,
        key: spec.private_key_file,
        key_id: spec.key_id,
        style: spec.auth_style,
    };
    if written.id.is_some() != (written.secret.is_some() || written.key.is_some()) {
        cx.error(spec.node, "`clientId` and `clientSecretFile` (or `privateKeyFile`) need each other");
    }
    if let (Some(kind), None) = (spec.actor_token_type, spec.actor_token_file) {
        cx.error_hint(kind.node, "there is no actor token", "write `actorTokenFile`");
    }
    let endpoint = TokenEndpoint {
        client: client(cx, &written),
        scopes: scopes(cx, spec.scopes.as_ref()),
        audience: spec.audience.map(|audience| cx.not_empty(audience)),
        resource: spec.resource.map(|resource| cx.not_empty(resource)),
        ca_certificates: spec.ca_certificates.map(|path| cx.not_empty(path)),
        timeout: timeout(cx, spec.timeout),
        url: url?,
    };
    let kind = |cx: &mut Cx<'_>, text: Option<Text<'_>>, usual: &str| {
        text.map_or(usual.to_owned(), |text| cx.not_empty(text))
    };
    let exchange = Exchange {
        subject_file: spec.subject_token_file.map(|path| file(cx, path)),
        subject_type: kind(cx, spec.subject_token_type, ACCESS_TOKEN),
        actor: spec.actor_token_file.map(|path| (file(cx, path), kind(cx, spec.actor_token_type, JWT))),
        requested_type: spec.requested_token_type.map(|requested| cx.not_empty(requested)),
    };
    Some(Secret::Exchange(endpoint, exchange))
}

/// Who asks a token endpoint, as written.
struct Client<'n> {
    id: Option<Text<'n>>,
    secret: Option<Text<'n>>,
    key: Option<Text<'n>>,
    key_id: Option<Text<'n>>,
    style: Option<One<'n, AuthStyleWord>>,
}

fn client(cx: &mut Cx<'_>, written: &Client<'_>) -> Option<OAuthClient> {
    if let (Some(id), None) = (written.key_id, written.key) {
        cx.error_hint(id.node, "there is no key that would have this id", "write `privateKeyFile`");
    }
    if let (Some(style), Some(_)) = (&written.style, written.key) {
        cx.error(style.node, "`authStyle` says where a secret goes; with `privateKeyFile` there is none");
    }
    let id = written.id.map(|id| cx.not_empty(id));
    let key_id = written.key_id.map(|id| cx.not_empty(id));
    let in_body = written.style.as_ref().is_some_and(|style| style.value == AuthStyleWord::Body);
    let proof = match (written.key, written.secret) {
        (Some(path), _) => ClientProof::Key { file: file(cx, path), id: key_id },
        (None, Some(path)) if in_body => ClientProof::Form(file(cx, path)),
        (None, Some(path)) => ClientProof::Basic(file(cx, path)),
        (None, None) => return None,
    };
    Some(OAuthClient { id: id?, proof })
}

fn scopes(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>) -> Vec<String> {
    let scope = |cx: &mut Cx<'_>, text: &Text<'_>| {
        // RFC 6749 section 3.3.
        let token = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.value.is_empty() || !text.value.bytes().all(token) {
            let message = format!("`{}` is not a scope", clip_text(text.value));
            cx.error_hint(text.node, message, "one scope without spaces for each item");
        }
        text.value.to_owned()
    };
    list.into_iter().flatten().map(|text| scope(cx, text)).collect()
}

fn timeout(cx: &mut Cx<'_>, time: Option<Time<'_>>) -> Duration {
    let Some(time) = time else { return TIMEOUT };
    let timeout = cx.duration(time);
    if timeout > LONGEST {
        let text = format!("{} is too long", print_duration(timeout));
        cx.error_hint(time.node, text, "at most 1m: calls wait for it");
    }
    timeout
}

/// The URL of a token endpoint, to which secrets are sent.
fn token_url(cx: &mut Cx<'_>, url: Text<'_>, insecure: bool) -> String {
    if let Err((message, hint)) = checked(url.value, false) {
        let hint = if message.contains("user name") {
            "write `clientId` and `clientSecretFile`"
        } else if hint.contains("collector") {
            "write a URL, such as `https://login.example.com/oauth2/token`"
        } else {
            hint
        };
        cx.error_hint(url.node, message, hint);
    } else if let Some(rest) = url.value.strip_prefix("http://")
        && !insecure
        && !is_loopback(rest)
    {
        let hint = "write `https://`, or `insecure: true` if everybody on the way may read it";
        cx.error_hint(url.node, "the secret would be sent in plaintext", hint);
    }
    url.value.to_owned()
}

/// Whether what follows `http://` is an address of this machine, by number: a name may lead anywhere.
fn is_loopback(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, _)) => ip,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
