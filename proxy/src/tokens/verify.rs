//! Is a token (RFC 7519, signed as RFC 7515 says) one of an issuer's? No time, no waiting, nothing kept: see [`super::cache`].
//!
//! The key decides which algorithms there may be; what the token says of itself is only compared with that. Nothing in a token names a key
//! by address (`jku`, `x5u`) or brings one along (`jwk`, `x5c`): such members are not looked at. A member that appears twice, at any
//! depth, makes the token unreadable, because two readers could take different ones.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use pilotfish_filters::authz::Claims;
use pilotfish_filters::tokens::TokenRule;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::keys::{Algorithm, Key, KeySet};

/// How far the clocks of issuers may be off, seconds (Envoy's default).
pub const SKEW: i64 = 60;

/// How many keys are tried at most for one token that does not name its key, or whose key has no name.
const MOST_TRIES: usize = 16;

/// Claims that are lists although they are written as one text with spaces (Istio's).
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request has none, or not each that it has to have.
    Missing,
    /// The request has several that differ.
    Several,
    /// It is longer than anybody's.
    TooLong,
    /// It is no signed token, or its parts can be read in two ways.
    Malformed,
    /// `none`, an algorithm with a shared secret, one that is not known, or not the key's.
    Algorithm,
    /// It names extensions that have to be understood (`crit`).
    Critical,
    /// No rule is for its issuer, or not at this place.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It was good until then.
    Expired,
    /// It is from the future.
    NotYet,
    /// The issuer has no such key.
    UnknownKey,
    /// The issuer's keys are not known yet.
    NoKeys,
    /// The signature is not the issuer's.
    Signature,
}

impl Refusal {
    /// Every one, in the order of declaration.
    pub const ALL: [Refusal; 13] = [
        Refusal::Missing,
        Refusal::Several,
        Refusal::TooLong,
        Refusal::Malformed,
        Refusal::Algorithm,
        Refusal::Critical,
        Refusal::Issuer,
        Refusal::Audience,
        Refusal::Expired,
        Refusal::NotYet,
        Refusal::UnknownKey,
        Refusal::NoKeys,
        Refusal::Signature,
    ];

    /// The stable word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Refusal::Missing => "missing",
            Refusal::Several => "several",
            Refusal::TooLong => "too-long",
            Refusal::Malformed => "malformed",
            Refusal::Algorithm => "algorithm",
            Refusal::Critical => "critical",
            Refusal::Issuer => "issuer",
            Refusal::Audience => "audience",
            Refusal::Expired => "expired",
            Refusal::NotYet => "not-yet-valid",
            Refusal::UnknownKey => "unknown-key",
            Refusal::NoKeys => "no-keys",
            Refusal::Signature => "signature",
        }
    }

    /// What the caller is told; never anything of the token.
    pub const fn sentence(self) -> &'static str {
        match self {
            Refusal::Missing => "a token is required, and the request does not have it",
            Refusal::Several => "the request has several tokens, so it is not clear who calls; send one",
            Refusal::TooLong => "the token is longer than 16 KiB",
            Refusal::Malformed => "the token is not a signed JSON Web Token, or can be read in two ways",
            Refusal::Algorithm => {
                "the token's algorithm is not one of its issuer's keys; RS256 to RS512, PS256 to PS512, ES256, ES384 and EdDSA are known"
            }
            Refusal::Critical => "the token has critical extensions (`crit`), and none is known here",
            Refusal::Issuer => {
                "no RequestAuthentication of the called agent is for the token's issuer, or not at this place"
            }
            Refusal::Audience => "the token is for another audience",
            Refusal::Expired => "the token has expired",
            Refusal::NotYet => "the token is not valid yet",
            Refusal::UnknownKey => "the token is signed with a key that its issuer does not publish",
            Refusal::NoKeys => {
                "the issuer's keys are not known: they could not be fetched, or none of them can be used"
            }
            Refusal::Signature => "the token's signature is not its issuer's",
        }
    }
}

/// A token that is its issuer's. Whether it is valid now is asked at each use.
#[derive(Debug, Default, PartialEq)]
pub struct Verified {
    /// The number of the rule whose it is.
    pub rule: usize,
    /// Other rules, of those that want a token, that it is good for, wherever they look.
    pub also: Vec<usize>,
    /// What it says.
    pub claims: Arc<Claims>,
    /// The headers that the rule writes: name and value.
    pub headers: Box<[(Box<str>, Box<str>)]>,
    /// Valid from this second since 1970 on, as the issuer's clock goes.
    not_before: i64,
    /// Valid before this second.
    expires: i64,
}

impl Verified {
    /// Whether it is valid at `now`, seconds since 1970.
    ///
    /// # Errors
    /// It is too late, or too early.
    pub fn at(&self, now: i64) -> Result<(), Refusal> {
        if now >= self.expires.saturating_add(SKEW) {
            return Err(Refusal::Expired);
        }
        if now < self.not_before.saturating_sub(SKEW) { Err(Refusal::NotYet) } else { Ok(()) }
    }
}

/// A token taken apart.
pub struct Parsed<'t> {
    algorithm: Algorithm,
    key: Option<Box<str>>,
    payload: Map<String, Value>,
    /// The payload as it stands in the token.
    encoded: &'t str,
    /// What is signed.
    signed: &'t str,
    signature: Vec<u8>,
}

impl fmt::Debug for Parsed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Parsed(..)")
    }
}

/// Takes a token apart.
///
/// # Errors
/// It is none, or none that could be anybody's.
pub fn parse(token: &str) -> Result<Parsed<'_>, Refusal> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, encoded) = signed.split_once('.').ok_or(Refusal::Malformed)?;
    // A dot in the payload (five parts: an encrypted token) is no base64.
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refusal::Malformed);
    let header = object(&decode(header)?).ok_or(Refusal::Malformed)?;
    // No token has a payload that is not encoded (RFC 7797, section 7).
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Refusal::Critical);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Refusal::Malformed)?;
    let algorithm = Algorithm::from_word(algorithm).ok_or(Refusal::Algorithm)?;
    let key = match header.get("kid") {
        None => None,
        Some(Value::String(key)) => Some(key.as_str().into()),
        Some(_) => return Err(Refusal::Malformed),
    };
    let payload = object(&decode(encoded)?).ok_or(Refusal::Malformed)?;
    Ok(Parsed { algorithm, key, payload, encoded, signed, signature: decode(signature)? })
}

impl Parsed<'_> {
    /// Its issuer, as it says.
    ///
    /// # Errors
    /// It is no text.
    pub fn issuer(&self) -> Result<Option<&str>, Refusal> {
        match self.payload.get("iss") {
            None => Ok(None),
            Some(Value::String(issuer)) => Ok(Some(issuer)),
            Some(_) => Err(Refusal::Malformed),
        }
    }

    /// Whether it is of rule number `number`, whose keys are given.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, number: usize, rule: &TokenRule, keys: Option<&KeySet>) -> Result<Verified, Refusal> {
        let issuer = self.issuer()?;
        if !rule.issuer.is_empty() && issuer != Some(&*rule.issuer) {
            return Err(Refusal::Issuer);
        }
        let audiences = self.audiences()?;
        if !rule.audiences.is_empty() {
            let wanted = |own: &str| rule.audiences.iter().any(|one| plain(one) == plain(own));
            if !audiences.iter().any(|own| wanted(own)) {
                return Err(Refusal::Audience);
            }
        }
        let expires = self.time("exp")?.map_or(i64::MAX, f64::ceil_seconds);
        let begins =
            [self.time("nbf")?, self.time("iat")?].into_iter().flatten().map(f64::ceil_seconds).max();
        self.signature(keys.ok_or(Refusal::NoKeys)?)?;
        let text = |name: &str| self.payload.get(name).and_then(Value::as_str);
        let principal = match (issuer, text("sub")) {
            (Some(issuer), Some(subject)) => format!("{issuer}/{subject}").into(),
            _ => Box::default(),
        };
        let own = rule.space_delimited.iter().cloned();
        let claims = Claims {
            principal,
            audiences,
            presenter: text("azp").map(Box::from),
            all: self.payload.clone(),
            space_delimited: SPACE_DELIMITED.iter().map(|name| Box::from(*name)).chain(own).collect(),
        };
        let headers = self.headers(rule);
        Ok(Verified {
            rule: number,
            also: Vec::new(),
            claims: Arc::new(claims),
            headers,
            not_before: begins.unwrap_or(i64::MIN),
            expires,
        })
    }

    /// `aud` is one text or a list of texts (RFC 7519 section 4.1.3).
    fn audiences(&self) -> Result<Box<[Box<str>]>, Refusal> {
        match self.payload.get("aud") {
            None => Ok(Box::default()),
            Some(Value::String(one)) => Ok(Box::new([one.as_str().into()])),
            Some(Value::Array(all)) => {
                all.iter().map(|one| one.as_str().map(Box::from).ok_or(Refusal::Malformed)).collect()
            }
            Some(_) => Err(Refusal::Malformed),
        }
    }

    fn time(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.payload.get(name) {
            None => Ok(None),
            Some(Value::Number(seconds)) => seconds.as_f64().map(Some).ok_or(Refusal::Malformed),
            Some(_) => Err(Refusal::Malformed),
        }
    }

    fn signature(&self, keys: &KeySet) -> Result<(), Refusal> {
        let wanted = |key: &&Key| match (&self.key, &key.id) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        };
        let mut tries = 0;
        for key in keys.keys.iter().filter(wanted) {
            let Some(key) = key.verifier(self.algorithm) else { continue };
            if tries == MOST_TRIES {
                break;
            }
            tries += 1;
            if key.verify_sig(self.signed.as_bytes(), &self.signature).is_ok() {
                return Ok(());
            }
        }
        // Without that name on both sides it may be of a key that is not here yet.
        let is_here = self.key.is_some() && keys.keys.iter().any(|key| key.id == self.key);
        match tries {
            _ if !is_here => Err(Refusal::UnknownKey),
            0 => Err(Refusal::Algorithm),
            _ => Err(Refusal::Signature),
        }
    }

    fn headers(&self, rule: &TokenRule) -> Box<[(Box<str>, Box<str>)]> {
        let payload = rule.payload_to.iter().map(|header| (header.clone(), self.encoded.into()));
        let claims = rule
            .claims_to
            .iter()
            .filter_map(|to| Some((to.header.clone(), as_header(claim(&self.payload, &to.claim)?)?)));
        payload.chain(claims).collect()
    }
}

/// Seconds of a NumericDate, which may have a fraction.
trait CeilSeconds {
    fn ceil_seconds(self) -> i64;
}

impl CeilSeconds for f64 {
    fn ceil_seconds(self) -> i64 {
        // Saturates at the ends.
        self.ceil() as i64
    }
}

/// An audience without what Envoy leaves out too: scheme and slash at the end.
fn plain(audience: &str) -> &str {
    let rest =
        audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// The claim of that name, else the one within others that dots lead to.
fn claim<'p>(payload: &'p Map<String, Value>, name: &str) -> Option<&'p Value> {
    payload.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = payload.get(parts.next()?)?;
        parts.try_fold(first, |within, part| within.as_object()?.get(part))
    })
}

/// A claim as a header's value: text, numbers and booleans as they are, lists and objects as base64 of their JSON (Envoy's form).
fn as_header(value: &Value) -> Option<Box<str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.as_str().into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
        Value::Array(_) | Value::Object(_) => Some(BASE64.encode(value.to_string().as_bytes()).into()),
    }
}

/// A JSON object in which no member appears twice, at any depth.
pub fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(object))) => Some(object),
        _ => None,
    }
}

/// A JSON value without members that appear twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(one)) = all.next_element()? {
            list.push(one);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = all.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a member appears twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
