//! Where endpoints are, which localities are preferred, and what is hashed for affinity.

use std::fmt;
use std::time::Duration;

/// `region/zone/subzone`; missing parts are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub subzone: String,
}

impl Locality {
    /// Parses `region/zone/subzone`; fewer parts are fine.
    pub fn parse(text: &str) -> Locality {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), subzone: next() }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    /// Whether `pattern` (as in `distribute`: `*`, `region/*`, `region/zone/*`, `region/zone/subzone`) covers it.
    pub fn matches(&self, pattern: &str) -> bool {
        let mut parts = pattern.split('/');
        for own in [&self.region, &self.zone, &self.subzone] {
            match parts.next() {
                None | Some("*") => return true,
                Some(part) if part != own => return false,
                Some(_) => {}
            }
        }
        true
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

/// Which localities are preferred.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LocalityPolicy {
    /// `enabled: false` turns it off (default: on).
    pub enabled: bool,
    /// How.
    pub mode: LocalityMode,
}

/// How localities are preferred; at most one is written.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum LocalityMode {
    /// The caller's own locality first, then its zone, region, anything.
    #[default]
    Nearest,
    /// Shares by locality, for callers in `from`.
    Distribute(Vec<Distribute>),
    /// As `Nearest`, but region `from` fails over to region `to`.
    Failover(Vec<Failover>),
    /// Priorities by how many of these labels are equal, in order.
    FailoverPriority(Vec<FailoverLabel>),
}

/// Shares by locality.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribute {
    /// Callers in this locality (see [`Locality::matches`]).
    pub from: String,
    /// Locality patterns with shares that add up to 100.
    pub to: Vec<(String, u32)>,
}

/// Region `from` fails over to region `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// The region that fails.
    pub from: String,
    /// The region that takes over.
    pub to: String,
}

/// A label of `failoverPriority`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailoverLabel {
    /// The label.
    pub key: String,
    /// The value that the endpoint must have (`key=value`); `None`: the caller's.
    pub value: Option<String>,
}

/// What is hashed to choose an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum HashKey {
    /// A header, name in lower case.
    Header(String),
    /// A cookie.
    Cookie(HashCookie),
    /// The caller's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(String),
    /// Something that the body or well-known headers say (`pilotfish.dev/affinity`).
    Affinity(Affinity),
}

/// A cookie to hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// Its path, when it is issued.
    pub path: Option<String>,
    /// Its life time. `None`: it is never issued; 0: for the browser's session.
    pub ttl: Option<Duration>,
    /// Further attributes when it is issued: name, perhaps with a value.
    pub attributes: Vec<(String, Option<String>)>,
}

/// What of the call is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// A2A's contextId.
    ContextId,
    /// The session (`Mcp-Session-Id` and the like).
    Session,
    /// The user (OpenAI `user`).
    User,
}

impl Affinity {
    /// The words of the annotation.
    pub const WORDS: &'static [(&'static str, Affinity)] =
        &[("contextId", Affinity::ContextId), ("session", Affinity::Session), ("user", Affinity::User)];

    /// Reads the annotation's value.
    pub fn parse(word: &str) -> Option<Affinity> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::Locality;

    #[test]
    fn patterns_cover_localities_part_by_part() {
        let place = Locality::parse("us/west/rack1");
        for (pattern, covers) in [
            ("*", true),
            ("us/*", true),
            ("us/west/*", true),
            ("us", true),
            ("us/east/*", false),
            ("eu/*", false),
        ] {
            assert_eq!(place.matches(pattern), covers, "{pattern}");
        }
        assert_eq!(Locality::parse("us").to_string(), "us");
        assert_eq!(place.to_string(), "us/west/rack1");
    }
}
