//! RequestAuthentications of one workload: whose tokens are valid, where they are found, what is done with them.
//!
//! Looking at signatures is the sidecar's part. Here is what can be said without keys: where a request has a token, and which of its
//! headers only a rule may write. A request with two different tokens has no one caller, and is refused; Istio leaves open whose it is.
//! Where rules want their token (`presence: REQUIRED`), a request may have one for each place, each has to be valid, and the first such
//! rule's says who calls.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Head;

/// The longest token that is looked at, bytes. Those of real issuers have up to some kilobytes; a signature over more would be work for
/// nothing.
pub const LONGEST: usize = 16 * 1024;

/// The issuers, in the order in which tokens are tried: those that want one first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TokenRules {
    rules: Arc<[TokenRule]>,
    /// Where any of them looks, each place once.
    places: Box<[Place]>,
    /// Headers that only rules write, each once.
    written: Box<[Box<str>]>,
    required: bool,
}

/// One issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRule {
    /// `namespace/policy rule 1`, as messages name it.
    pub name: Box<str>,
    /// `iss`; empty: any.
    pub issuer: Box<str>,
    /// `aud`, any one; empty: any, or none (as Istio compiles it).
    pub audiences: Box<[Box<str>]>,
    /// Where its tokens are.
    pub places: Box<[Place]>,
    /// Where its keys are.
    pub keys: KeySource,
    /// Whether the agent gets the token.
    pub forward: bool,
    /// The header that gets the payload as it stands in the token (base64url).
    pub payload_to: Option<Box<str>>,
    /// Headers that get claims; `a.b` is the claim `b` of `a`.
    pub claims_to: Box<[ClaimTo]>,
    /// Claims that are lists although they are one text with spaces, besides `scope` and `permission`.
    pub space_delimited: Box<[Box<str>]>,
    /// Whether each request has to have a token of it.
    pub required: bool,
}

/// A claim that becomes a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimTo {
    /// The header, lower case.
    pub header: Box<str>,
    /// The claim.
    pub claim: Box<str>,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In the document.
    Inline(Arc<str>),
    /// At an address.
    Uri {
        /// The key set.
        uri: Box<str>,
        /// How long one look may take.
        timeout: Duration,
    },
    /// Where the issuer's own document says (OpenID Connect Discovery 1.0).
    Discovery {
        /// The issuer.
        issuer: Box<str>,
        /// How long one look may take.
        timeout: Duration,
    },
}

/// A place in a request that may have a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header, lower case, and what stands before the token.
    Header(Box<str>, Box<str>),
    /// A parameter of the query.
    Parameter(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

/// A token as a request brings it; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'h> {
    /// The token.
    pub token: Cow<'h, str>,
    /// The place where it is; when it is at several, the first.
    at: usize,
}

/// Why a request's token cannot even be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// There are two that differ.
    Several,
    /// It is longer than [`LONGEST`].
    TooLong,
    /// It is no text.
    Malformed,
}

impl TokenRules {
    /// These issuers.
    pub(crate) fn new(mut rules: Vec<TokenRule>) -> Self {
        rules.sort_by_key(|rule| !rule.required);
        let required = rules.first().is_some_and(|rule| rule.required);
        let mut places: Vec<Place> = Vec::new();
        for place in rules.iter().flat_map(|rule| &rule.places) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        let mut written: Vec<Box<str>> = Vec::new();
        for rule in &rules {
            written.extend(rule.payload_to.clone());
            written.extend(rule.claims_to.iter().map(|to| to.header.clone()));
        }
        written.sort_unstable();
        written.dedup();
        TokenRules { rules: rules.into(), places: places.into(), written: written.into(), required }
    }

    /// The issuers.
    pub fn rules(&self) -> &Arc<[TokenRule]> {
        &self.rules
    }

    /// Whether there is none: then tokens are nobody's concern here.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a request has to have a token: [`TokenRules::find_all`] has those that it may have.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Headers that only rules write: whatever a caller says in them is removed.
    pub fn written(&self) -> &[Box<str>] {
        &self.written
    }

    /// Every place that is looked at.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether a rule looks where this token was found.
    pub fn looks_at(&self, rule: &TokenRule, found: &Found<'_>) -> bool {
        self.places.get(found.at).is_some_and(|place| rule.places.contains(place))
    }

    /// The token of a request, if it has one.
    ///
    /// # Errors
    /// It has two, or one that is none.
    pub fn find<'h>(&self, head: &'h (impl Head + ?Sized)) -> Result<Option<Found<'h>>, Unclear> {
        let mut found: Option<Found<'h>> = None;
        for (at, place) in self.places.iter().enumerate() {
            let Some(token) = place.token(head)? else { continue };
            match &found {
                Some(first) if first.token != token => return Err(Unclear::Several),
                Some(_) => {}
                None => found = Some(Found { token, at }),
            }
        }
        match &found {
            Some(one) if one.token.len() > LONGEST => Err(Unclear::TooLong),
            _ => Ok(found),
        }
    }

    /// The token of each place, for rules of which some want one.
    ///
    /// # Errors
    /// A place has two, or one that is none.
    pub fn find_all<'h>(&self, head: &'h (impl Head + ?Sized)) -> Result<Vec<Found<'h>>, Unclear> {
        let mut all = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            let Some(token) = place.token(head)? else { continue };
            if token.len() > LONGEST {
                return Err(Unclear::TooLong);
            }
            all.push(Found { token, at });
        }
        Ok(all)
    }

    /// Whether what holds for a token here holds for it everywhere: every rule looks at this place.
    pub fn is_same_everywhere(&self, found: &Found<'_>) -> bool {
        self.rules.iter().all(|rule| self.looks_at(rule, found))
    }
}

impl Place {
    /// What stands here; `None`: nothing, or nothing that could be a token.
    fn token<'h>(&self, head: &'h (impl Head + ?Sized)) -> Result<Option<Cow<'h, str>>, Unclear> {
        match self {
            Place::Header(name, prefix) => match head.header(name) {
                None => Ok(None),
                Some(Cow::Borrowed(value)) => Ok(of_header(value, prefix)?.map(Cow::Borrowed)),
                Some(Cow::Owned(value)) => {
                    Ok(of_header(&value, prefix)?.map(|token| Cow::Owned(token.to_owned())))
                }
            },
            Place::Parameter(name) => {
                Ok(one(parameters(head.query().unwrap_or_default(), name))?.map(Cow::Borrowed))
            }
            Place::Cookie(name) => match head.header("cookie") {
                None => Ok(None),
                Some(Cow::Borrowed(value)) => Ok(of_cookies(value, name)?.map(Cow::Borrowed)),
                Some(Cow::Owned(value)) => {
                    Ok(of_cookies(&value, name)?.map(|token| Cow::Owned(token.to_owned())))
                }
            },
        }
    }
}

fn text(value: &[u8]) -> Result<&str, Unclear> {
    std::str::from_utf8(value).map_err(|_| Unclear::Malformed)
}

/// Repeated fields are one with commas by now. Two tokens, or one beside anything else, is more than one caller.
fn of_header<'v>(value: &'v [u8], prefix: &str) -> Result<Option<&'v str>, Unclear> {
    if !value.contains(&b',') {
        return match after(value, prefix) {
            Some(token) => Ok(not_empty(text(token)?.trim_ascii())),
            None => Ok(None),
        };
    }
    // A scheme that nobody looks for may have commas of its own (`Digest`).
    if value.split(|byte| *byte == b',').any(|part| after(part.trim_ascii(), prefix).is_some()) {
        Err(Unclear::Several)
    } else {
        Ok(None)
    }
}

/// What comes after `prefix`, in any case, at the beginning of a header's value. Where the prefix ends with a space, whatever cannot be part
/// of a scheme's name ends that too: some agents take a tab, or any white space of Unicode, for it.
pub fn after<'v>(value: &'v [u8], prefix: &str) -> Option<&'v [u8]> {
    let scheme = prefix.trim_end();
    let (start, rest) = value.split_at_checked(scheme.len())?;
    let ends = scheme.len() == prefix.len()
        || rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"-_.~+".contains(byte));
    (ends && start.eq_ignore_ascii_case(scheme.as_bytes())).then_some(rest)
}

fn not_empty(token: &str) -> Option<&str> {
    Some(token).filter(|token| !token.is_empty())
}

/// The values of a parameter in a query.
fn parameters<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
    query
        .split('&')
        .filter_map(move |pair| pair.split_once('=').filter(|(own, _)| is_parameter(own, name)))
        .map(|(_, value)| value)
}

/// Whether a parameter of a query has this name once it is decoded, as agents do.
pub fn is_parameter(own: &str, name: &str) -> bool {
    if !own.contains('%') {
        return own == name;
    }
    let mut rest = own.as_bytes();
    let decoded = std::iter::from_fn(|| {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
                (digit(high) << 4 | digit(low), after)
            }
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    });
    decoded.eq(name.bytes())
}

/// The value of a cookie. What others have in theirs is nobody's concern.
fn of_cookies<'c>(header: &'c [u8], name: &str) -> Result<Option<&'c str>, Unclear> {
    let named = |pair: &'c [u8]| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    let mut found = None;
    for value in header.split(|byte| *byte == b';').filter_map(named) {
        let value = not_empty(text(value)?.trim_matches('"'));
        if found.is_some() && value.is_some() && found != value {
            return Err(Unclear::Several);
        }
        found = found.or(value);
    }
    Ok(found)
}

/// The one that is not empty, if all agree.
fn one<'v>(values: impl Iterator<Item = &'v str>) -> Result<Option<&'v str>, Unclear> {
    let mut found = None;
    for value in values.filter(|value| !value.is_empty()) {
        if found.is_some_and(|first| first != value) {
            return Err(Unclear::Several);
        }
        found = Some(value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
