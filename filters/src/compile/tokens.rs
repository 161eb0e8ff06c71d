//! RequestAuthentications that are for this workload, all of them together, as Istio does.

use std::time::Duration;

use pilotfish_config::model::{JwtRule, Model, RequestAuthentication};

use super::CompileOptions;
use super::selected::{labels, selects};
use crate::tokens::{ClaimTo, KeySource, Place, TokenRule, TokenRules};

/// How long a look at a key set may take (Istio's default).
const TIMEOUT: Duration = Duration::from_secs(5);

/// What holds for the workload of `options`.
pub(super) fn compile(model: &Model, options: &CompileOptions, warnings: &mut Vec<Box<str>>) -> TokenRules {
    if model.request_authentications.is_empty() {
        return TokenRules::default();
    }
    let labels = labels(options);
    let mut own: Vec<&RequestAuthentication> = Vec::new();
    for policy in &model.request_authentications {
        if selects(model, options, &labels, &policy.meta, &policy.scope, warnings) {
            own.push(policy);
        }
    }
    own.sort_by_key(|policy| (policy.meta.namespace(), policy.meta.name()));
    let mut rules = Vec::new();
    for policy in own {
        for (number, written) in policy.jwt_rules.iter().enumerate() {
            let name = format!("{}/{} rule {}", policy.meta.namespace(), policy.meta.name(), number + 1);
            rules.push(rule(name, written));
        }
    }
    TokenRules::new(rules)
}

fn rule(name: String, written: &JwtRule) -> TokenRule {
    let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let lower = |header: &str| Box::from(header.to_ascii_lowercase());
    let claims_to = written
        .output_claim_to_headers
        .iter()
        .map(|(header, claim)| ClaimTo { header: lower(header), claim: claim.as_str().into() });
    TokenRule {
        name: name.into(),
        issuer: written.issuer.as_str().into(),
        audiences: boxed(&written.audiences),
        places: places(written),
        keys: keys(written),
        forward: written.forward_original_token,
        payload_to: written.output_payload_to_header.as_deref().map(lower),
        claims_to: claims_to.collect(),
        space_delimited: boxed(&written.space_delimited_claims),
        required: written.required,
    }
}

/// Istio's defaults hold only where nothing is written.
fn places(written: &JwtRule) -> Box<[Place]> {
    let headers = written.from_headers.iter().map(|(name, prefix)| {
        Place::Header(name.to_ascii_lowercase().into(), prefix.as_deref().unwrap_or_default().into())
    });
    let parameters = written.from_params.iter().map(|name| Place::Parameter(name.as_str().into()));
    let cookies = written.from_cookies.iter().map(|name| Place::Cookie(name.as_str().into()));
    let places: Vec<Place> = headers.chain(parameters).chain(cookies).collect();
    if !places.is_empty() {
        return places.into();
    }
    Box::new([
        Place::Header("authorization".into(), "Bearer ".into()),
        Place::Parameter("access_token".into()),
    ])
}

/// The document's own keys come first, as in Istio.
fn keys(written: &JwtRule) -> KeySource {
    let timeout = written.timeout.unwrap_or(TIMEOUT);
    match (&written.jwks, &written.jwks_uri) {
        (Some(keys), _) => KeySource::Inline(keys.as_str().into()),
        (None, Some(uri)) => KeySource::Uri { uri: uri.as_str().into(), timeout },
        (None, None) => KeySource::Discovery { issuer: written.issuer.as_str().into(), timeout },
    }
}
