//! Kinds as people name them on the command line: `VirtualService`, `virtualservices`, `vs`, `vs/chat`, `all`.

use std::ffi::OsStr;
use std::sync::LazyLock;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};
use pilotfish_config::kinds::KINDS;

/// Short names, as Istio's where Istio has one.
const SHORT: &[(&str, &str)] = &[
    ("vs", "VirtualService"),
    ("dr", "DestinationRule"),
    ("se", "ServiceEntry"),
    ("we", "WorkloadEntry"),
    ("wg", "WorkloadGroup"),
    ("ac", "AgentCluster"),
    ("at", "AgentTemplate"),
    ("gp", "GpuPool"),
    ("no", "Node"),
    ("asp", "AgentSecurityPolicy"),
    ("sc", "Sidecar"),
    ("pa", "PeerAuthentication"),
    ("ap", "AuthorizationPolicy"),
    ("ra", "RequestAuthentication"),
    ("tm", "Telemetry"),
    ("td", "TrustDomain"),
    ("rl", "RateLimit"),
    ("alr", "AlertRule"),
    ("tp", "TelemetryProvider"),
    ("rb", "RoleBinding"),
    ("azp", "AuthorizationProvider"),
    ("oc", "OutboundCredential"),
];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Kinds; none: all.
    pub kinds: Vec<&'static str>,
    /// The name of `KIND/NAME`.
    pub name: Option<String>,
}

impl Wanted {
    /// The only kind.
    pub fn one(&self) -> Option<&'static str> {
        match self.kinds.as_slice() {
            [kind] => Some(kind),
            _ => None,
        }
    }

    /// Reads what a person wrote.
    pub fn parse(text: &str) -> Option<Wanted> {
        let (kinds, name) = match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() => (kind, Some(name.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        if kinds.eq_ignore_ascii_case("all") {
            return Some(Wanted { kinds: Vec::new(), name: None }).filter(|_| name.is_none());
        }
        let kinds = kinds.split(',').map(kind).collect::<Option<Vec<_>>>()?;
        let several = kinds.len() > 1;
        Some(Wanted { kinds, name }).filter(|wanted| !(several && wanted.name.is_some()))
    }
}

/// The kind that a word means.
fn kind(word: &str) -> Option<&'static str> {
    // `virtualservices.networking.istio.io`, as kubectl also takes it.
    let word = word.split('.').next().unwrap_or(word).to_ascii_lowercase();
    let long = SHORT.iter().find(|(short, _)| *short == word).map(|(_, long)| *long);
    let known =
        |name: &str| KINDS.iter().map(|info| info.kind.name()).find(|kind| kind.eq_ignore_ascii_case(name));
    if let Some(long) = long {
        return known(long);
    }
    let plural = KINDS.iter().map(|info| info.kind.name()).find(|kind| plural(kind) == word);
    known(&word).or(plural)
}

/// `virtualservices`, `serviceentries`.
fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

/// Reads [`Wanted`] and offers the kinds to completion.
#[derive(Debug, Clone)]
pub struct Kinds;

impl TypedValueParser for Kinds {
    type Value = Wanted;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Wanted, Error> {
        let text = value.to_string_lossy();
        Wanted::parse(&text).ok_or_else(|| {
            let mut error = Error::new(ErrorKind::InvalidValue).with_cmd(command);
            let name = arg.map(ToString::to_string).unwrap_or_default();
            error.insert(ContextKind::InvalidArg, ContextValue::String(name));
            error.insert(ContextKind::InvalidValue, ContextValue::String(text.into_owned()));
            error.insert(ContextKind::ValidValue, ContextValue::Strings(NAMES.clone()));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let value = |name: &'static String| {
            let short = SHORT.iter().find(|(_, long)| long.eq_ignore_ascii_case(name));
            let value = PossibleValue::new(name.as_str());
            match short {
                Some((short, _)) => value.alias(*short).help(*short),
                None => value,
            }
        };
        Some(Box::new(NAMES.iter().map(value)))
    }
}

/// Every kind in lower case, and `all`.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let kinds = KINDS.iter().map(|info| info.kind.name().to_ascii_lowercase());
    kinds.chain(["all".to_owned()]).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_many_names() {
        for word in [
            "VirtualService",
            "virtualservice",
            "VIRTUALSERVICES",
            "vs",
            "virtualservices.networking.istio.io",
        ] {
            assert_eq!(Wanted::parse(word).and_then(|wanted| wanted.one()), Some("VirtualService"), "{word}");
        }
        assert_eq!(kind("serviceentries"), Some("ServiceEntry"));
        assert_eq!(kind("agentsecuritypolicies"), Some("AgentSecurityPolicy"));
        assert_eq!(
            Wanted::parse("vs,dr").map(|wanted| wanted.kinds),
            Some(vec!["VirtualService", "DestinationRule"])
        );
        assert_eq!(Wanted::parse("vs/chat").and_then(|wanted| wanted.name).as_deref(), Some("chat"));
        assert_eq!(Wanted::parse("all").map(|wanted| wanted.kinds.len()), Some(0));
        for bad in ["deployment", "", "vs/", "vs,dr/x", "all/x", "vs,"] {
            assert_eq!(Wanted::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_kind_has_a_short_name() {
        for info in KINDS {
            assert!(SHORT.iter().any(|(_, long)| *long == info.kind.name()), "{}", info.kind.name());
        }
    }
}
