//! Addressing by capability: what a caller asks for, how narrow its wishes are, and who is able.
//!
//! | part | what |
//! |---|---|
//! | [`parse_wanted`], [`host_capability`] | `agent-capability: a, b@^1.2` (both), and `<capability>.capability.mesh` |
//! | [`constraint`] | the grammar of `agent-constraint` |
//! | [`catalogue`] | who offers what; the candidates, or why each is none |

pub mod catalogue;
pub mod constraint;

use semver::VersionReq;

use crate::route::host::split_authority;
use crate::verdict::{Deny, Reason};

pub use catalogue::{Candidate, Catalogue, Demand};
pub use constraint::Constraint;

/// The end of every host that names a capability.
pub const HOST_SUFFIX: &str = ".capability.mesh";

/// At most this many capabilities in one request.
const MAX_WANTED: usize = 32;

/// A capability that a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name; compared without regard to ASCII case.
    pub name: Box<str>,
    /// The versions that will do; `None` is any.
    pub version: Option<VersionReq>,
}

impl Wanted {
    /// Reads `name` or `name@range`.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Wanted, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, range)) => (name, Some(parse_range(range)?)),
            None => (text, None),
        };
        if name.is_empty() || !name.bytes().all(is_key_byte) {
            return Err(format!("`{}` is not a capability's name", shown(name)));
        }
        Ok(Wanted { name: name.into(), version })
    }
}

/// The capability that `<capability>.capability.mesh` names, with or without a port.
pub fn host_capability(authority: &str) -> Option<&str> {
    let host = split_authority(authority).0;
    let host = host.strip_suffix('.').unwrap_or(host);
    let at = host.len().checked_sub(HOST_SUFFIX.len()).filter(|at| *at > 0)?;
    let (name, suffix) = (host.get(..at)?, host.get(at..)?);
    suffix.eq_ignore_ascii_case(HOST_SUFFIX).then_some(name)
}

/// What `agent-capability` asks for: names separated by commas, all of them wanted.
///
/// # Errors
/// [`Reason::BadConstraint`] that names the item that cannot be read.
pub fn parse_wanted(header: &str) -> Result<Vec<Wanted>, Deny> {
    wanted(header.split(',').map(str::trim).filter(|item| !item.is_empty()))
}

/// The capabilities of `items`, each `name` or `name@range`.
///
/// # Errors
/// [`Reason::BadConstraint`] that names the item that cannot be read.
pub fn wanted<'i>(items: impl Iterator<Item = &'i str>) -> Result<Vec<Wanted>, Deny> {
    let bad = |detail: String| Deny::with(Reason::BadConstraint, format!("agent-capability: {detail}"));
    let wanted: Vec<Wanted> =
        items.take(MAX_WANTED + 1).map(Wanted::parse).collect::<Result<_, _>>().map_err(bad)?;
    if wanted.len() > MAX_WANTED {
        return Err(bad(format!("more than {MAX_WANTED} capabilities")));
    }
    Ok(wanted)
}

/// Reads a semver range; `v` before a number is allowed (`v1` is `^1`).
fn parse_range(text: &str) -> Result<VersionReq, String> {
    let text = text.trim();
    let plain =
        text.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(text);
    VersionReq::parse(plain).map_err(|error| format!("`{}` is not a version range: {error}", shown(text)))
}

/// What may stand in a capability's name or a constraint's key.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':')
}

/// A caller's text as it may be shown back: short, without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_name_a_capability() {
        assert_eq!(host_capability("nlu.capability.mesh"), Some("nlu"));
        assert_eq!(host_capability("NLU.Capability.Mesh:8080"), Some("NLU"));
        assert_eq!(host_capability("a.b.capability.mesh."), Some("a.b"));
        for not in ["capability.mesh", ".capability.mesh", "nlu.capability.mesh.org", "x", "", "é.mesh"] {
            assert_eq!(host_capability(not), None, "{not}");
        }
    }

    #[test]
    fn comma_means_both_and_a_range_may_follow() {
        let wanted = parse_wanted("a, b@^1.2 ,, c@v2").unwrap();
        let names: Vec<&str> = wanted.iter().map(|w| &*w.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(wanted[1].version, Some(VersionReq::parse("^1.2").unwrap()));
        assert_eq!(wanted[2].version, Some(VersionReq::parse("^2").unwrap()));
        assert!(parse_wanted(" , ").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        for bad in ["a b", "a@", "a@x.y", "@1", "a;b", "\u{7f}"] {
            let deny = parse_wanted(bad).unwrap_err();
            assert_eq!(deny.reason, Reason::BadConstraint, "{bad}");
        }
        assert!(parse_wanted(&"a,".repeat(33)).is_err());
    }
}
