//! How policies compare: texts (exact, `prefix*`, `*suffix`, `*`), path templates, addresses, identities.

use std::net::IpAddr;

use crate::authz::Principal;
use crate::route::hash::FixedMap;

/// Up to so many exact texts are compared one by one.
const FEW: usize = 8;

/// Values of which one has to match.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    few: Box<[Box<[u8]>]>,
    many: FixedMap<Box<[u8]>, ()>,
    patterns: Box<[Pattern]>,
    /// `*`: anything that is there and not empty.
    present: bool,
}

/// One value that is not compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `abc*`
    Prefix(Box<[u8]>),
    /// `*abc`
    Suffix(Box<[u8]>),
    /// `a*b*c`, which only namespaces have: what is between the stars, in order.
    Glob(Box<[Box<[u8]>]>),
    /// `/a/{*}/b/{**}`
    Template(Template),
}

impl Texts {
    /// As Istio reads values: a star at one end only, `*` alone is presence.
    pub(crate) fn new<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Texts {
        Texts::read(values, |value| match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(suffix), _) => Some(Pattern::Suffix(suffix.as_bytes().into())),
            (_, Some(prefix)) => Some(Pattern::Prefix(prefix.as_bytes().into())),
            _ => None,
        })
    }

    /// This text and no other.
    fn verbatim(text: &str) -> Texts {
        Texts { few: [text.as_bytes().into()].into(), ..Texts::default() }
    }

    /// The same, where a star may be anywhere.
    pub(crate) fn globs<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Texts {
        let part = |part: &str| part.as_bytes().into();
        Texts::read(values, |value| {
            value.contains('*').then(|| Pattern::Glob(value.split('*').map(part).collect()))
        })
    }

    /// The same for paths, which may be templates.
    pub(crate) fn paths(values: &[String]) -> Texts {
        Texts::read(values, |value| match (value.strip_prefix('*'), value.strip_suffix('*')) {
            _ if Template::is(value) => Some(Pattern::Template(Template::new(value))),
            (Some(suffix), _) => Some(Pattern::Suffix(suffix.as_bytes().into())),
            (_, Some(prefix)) => Some(Pattern::Prefix(prefix.as_bytes().into())),
            _ => None,
        })
    }

    fn read<T: AsRef<str>>(
        values: impl IntoIterator<Item = T>,
        pattern: impl Fn(&str) -> Option<Pattern>,
    ) -> Texts {
        let (mut exact, mut patterns, mut present) = (Vec::<Box<[u8]>>::new(), Vec::new(), false);
        for value in values {
            let value = value.as_ref();
            match pattern(value) {
                _ if value == "*" => present = true,
                Some(pattern) => patterns.push(pattern),
                None => exact.push(value.as_bytes().into()),
            }
        }
        let many = exact.len() > FEW;
        let (few, many) = if many { (Vec::new(), exact) } else { (exact, Vec::new()) };
        let many = many.into_iter().map(|text| (text, ())).collect();
        Texts { few: few.into(), many, patterns: patterns.into(), present }
    }

    /// Whether one of them matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        (self.present && !text.is_empty()) || self.matches_but_presence(text)
    }

    /// Whether one of them other than `*` matches.
    pub(crate) fn matches_but_presence(&self, text: &[u8]) -> bool {
        self.few.iter().any(|own| **own == *text)
            || (!self.many.is_empty() && self.many.contains_key(text))
            || self.patterns.iter().any(|pattern| pattern.matches(text))
    }

    /// Whether `*` is among them.
    pub(crate) fn has_presence(&self) -> bool {
        self.present
    }

    /// All of them, when all are compared as a whole; for the index.
    pub(crate) fn all_exact(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let exact = self.patterns.is_empty() && !self.present;
        exact.then(|| self.few.iter().chain(self.many.keys()).map(|text| &**text))
    }

    /// The exact ones, and the patterns; `None` when `*` is among them.
    pub(crate) fn parts(&self) -> Option<(impl Iterator<Item = &[u8]>, &[Pattern])> {
        let exact = self.few.iter().chain(self.many.keys()).map(|text| &**text);
        (!self.present).then_some((exact, &*self.patterns))
    }
}

impl Pattern {
    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Pattern::Prefix(prefix) => text.starts_with(prefix),
            Pattern::Suffix(suffix) => text.ends_with(suffix),
            Pattern::Glob(parts) => glob(parts, text),
            Pattern::Template(template) => template.matches(text),
        }
    }
}

/// The first part begins the text, the last one ends it, the others follow each other in between.
fn glob(parts: &[Box<[u8]>], text: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else { return parts.iter().any(|part| **part == *text) };
    let Some(rest) = text.strip_prefix(&**first) else { return false };
    let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
    for part in middle {
        if part.is_empty() {
            continue;
        }
        let Some(at) = rest.windows(part.len()).position(|window| *window == **part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// A path with `{*}` for one segment that is not empty, and `{**}` for anything (Envoy's URI template).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// What begins the path, to the first operator.
    start: Box<[u8]>,
    /// Each operator, and the text behind it.
    rest: Box<[(Operator, Box<[u8]>)]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `{*}`
    Segment,
    /// `{**}`; no other operator comes after it.
    Anything,
}

impl Template {
    /// Whether a path is one.
    pub(crate) fn is(path: &str) -> bool {
        path.contains("{*}") || path.contains("{**}")
    }

    fn new(path: &str) -> Template {
        let mut pieces = path.split('{');
        let start = pieces.next().unwrap_or_default().as_bytes().into();
        let operator = |piece: &str| match piece.strip_prefix("**}") {
            Some(text) => (Operator::Anything, text.as_bytes().into()),
            None => (Operator::Segment, piece.strip_prefix("*}").unwrap_or(piece).as_bytes().into()),
        };
        Template { start, rest: pieces.map(operator).collect() }
    }

    /// What every path that matches begins with.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    fn matches(&self, path: &[u8]) -> bool {
        let Some(mut path) = path.strip_prefix(&*self.start) else { return false };
        for (operator, text) in &self.rest {
            match operator {
                Operator::Anything => return path.ends_with(text),
                Operator::Segment => {
                    let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
                    let Some(rest) = path[end..].strip_prefix(&**text) else { return false };
                    if end == 0 {
                        return false;
                    }
                    path = rest;
                }
            }
        }
        path.is_empty()
    }
}

/// Address blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nets(Box<[Net]>);

#[derive(Debug, Clone, Copy)]
struct Net {
    v4: bool,
    bits: u128,
    mask: u128,
}

impl Nets {
    /// Addresses and CIDR blocks.
    ///
    /// # Errors
    /// One is neither.
    pub(crate) fn new(blocks: &[String]) -> Result<Nets, String> {
        let net = |block: &String| Net::parse(block).ok_or_else(|| format!("`{block}` is no address block"));
        blocks.iter().map(net).collect::<Result<Box<[Net]>, String>>().map(Nets)
    }

    /// Whether one has the address; an IPv4 address within IPv6 is an IPv4 address.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        let (v4, bits) = number(ip.to_canonical());
        self.0.iter().any(|net| net.v4 == v4 && net.bits == bits & net.mask)
    }
}

impl Net {
    fn parse(text: &str) -> Option<Net> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        // A block of IPv4 within IPv6 is one of IPv4, as its addresses are.
        let (address, length) = match (address.to_canonical(), length) {
            (IpAddr::V4(inner), Some(length)) if address.is_ipv6() && length >= 96 => {
                (inner.into(), Some(length - 96))
            }
            (inner, None) => (inner, None),
            (_, length) => (address, length),
        };
        let (v4, bits) = number(address);
        let width = if v4 { 32 } else { 128 };
        let length = length.unwrap_or(width);
        let mask = u128::MAX.checked_shl(width.checked_sub(length)?).unwrap_or(0);
        Some(Net { v4, bits: bits & mask, mask })
    }
}

fn number(ip: IpAddr) -> (bool, u128) {
    match ip {
        IpAddr::V4(ip) => (true, u128::from(u32::from(ip))),
        IpAddr::V6(ip) => (false, u128::from(ip)),
    }
}

/// Values for identities: each in the ways in which the same identity is written.
///
/// A service account is an agent here, and `cluster.local` is the mesh's own trust domain, as in Istio.
pub(crate) fn identities(values: &[String], own_trust_domain: Option<&str>) -> Texts {
    Texts::new(values.iter().flat_map(|value| spellings(value, own_trust_domain)))
}

fn spellings(value: &str, own: Option<&str>) -> Vec<String> {
    const LOCAL: &str = "cluster.local";
    let mut all = vec![value.to_owned()];
    if let Some(own) = own {
        let (domain, rest) = value.split_once('/').unwrap_or((value, ""));
        let begins =
            domain.strip_suffix('*').is_some_and(|start| !start.is_empty() && LOCAL.starts_with(start));
        let ends = domain.strip_prefix('*').is_some_and(|end| !end.is_empty() && LOCAL.ends_with(end));
        if domain == LOCAL {
            all = vec![format!("{own}/{rest}")];
        } else if value == domain && begins {
            all.push(format!("{own}/*"));
        } else if ends && rest.starts_with("ns/") {
            all.push(format!("{own}/{rest}"));
        }
    }
    let others: Vec<String> = all.iter().flat_map(|value| other_words(value)).collect();
    all.extend(others);
    all
}

/// The identity with `agent` for `sa`, and the other way round: the fourth of its five parts. A prefix may end within it, a suffix
/// may begin so.
fn other_words(value: &str) -> Vec<String> {
    let parts: Vec<&str> = value.split('/').collect();
    let suffix = value.starts_with('*');
    let at = if suffix { parts.len().checked_sub(2) } else { Some(3) };
    let Some((at, part)) = at.and_then(|at| Some((at, *parts.get(at)?))) else { return Vec::new() };
    let last = at + 1 == parts.len();
    let changed = |word: &str| [&parts[..at], &[word], &parts[at + 1..]].concat().join("/");
    let mut all = Vec::new();
    for (own, other) in [("sa", "agent"), ("agent", "sa")] {
        let end = part.strip_prefix('*').filter(|end| !end.is_empty());
        let start = part.strip_suffix('*').filter(|start| last && !start.is_empty());
        if end.is_some_and(|end| own.ends_with(end)) {
            all.push(changed(&format!("*/{other}")));
        } else if start.is_some_and(|start| own.starts_with(start)) {
            all.push(changed(&format!("{other}*")));
        } else if part == own && !last {
            all.push(changed(other));
        }
    }
    all
}

/// Trust domains; `cluster.local` is the mesh's own.
pub(crate) fn trust_domains(values: &[String], own: Option<&str>) -> Texts {
    Texts::new(values.iter().map(|value| match own {
        Some(own) if value == "cluster.local" => own,
        _ => value.as_str(),
    }))
}

/// Service accounts, each with its namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts(Box<[(Box<str>, Box<str>)]>);

impl Accounts {
    /// `NAME`, in the policy's `namespace`, or `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// One has a star.
    pub(crate) fn new(values: &[String], namespace: &str) -> Result<Accounts, String> {
        let account = |value: &String| {
            if value.contains('*') {
                return Err(format!("`{value}`: service accounts take no `*`"));
            }
            let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
            Ok((namespace.into(), name.into()))
        };
        values.iter().map(account).collect::<Result<_, String>>().map(Accounts)
    }

    pub(crate) fn has(&self, principal: &Principal) -> bool {
        self.0.iter().any(|(namespace, name)| {
            principal.namespace.as_ref() == Some(namespace) && principal.name.as_ref() == Some(name)
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(namespace, name)| (&**namespace, &**name))
    }
}

/// Values for identities from tokens, `ISSUER/SUBJECT`: issuer and subject are compared each for itself, as Istio does, so
/// that `https://a/*` is no other issuer whose name begins so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subjects {
    pairs: Box<[(Texts, Texts)]>,
    /// Read in other ways than Istio's: with the subject beginning at an earlier slash, since subjects may have some of their own, and
    /// with stars anywhere.
    others: Box<[(Texts, Texts)]>,
}

impl Subjects {
    pub(crate) fn new(values: &[String]) -> Subjects {
        let loose = |issuer: &str, subject: &str| (Texts::new([issuer]), Texts::new([subject]));
        // A star stands for others at an end of the whole value only: within it, it is a star.
        let strict = |value: &str, issuer: &str, subject: &str| match (value.starts_with('*'), subject) {
            (true, "*") => loose(issuer, subject),
            (true, _) => (Texts::new([issuer]), Texts::verbatim(subject)),
            (false, "*") => (Texts::verbatim(issuer), Texts::new([subject])),
            (false, _) if subject.starts_with('*') => (Texts::verbatim(issuer), Texts::verbatim(subject)),
            (false, _) => (Texts::verbatim(issuer), Texts::new([subject])),
        };
        let (mut pairs, mut others) = (Vec::new(), Vec::new());
        for value in values {
            others.extend(value.match_indices('/').map(|(at, _)| loose(&value[..at], &value[at + 1..])));
            pairs.push(match value.rsplit_once('/') {
                Some((issuer, subject)) => strict(value, issuer, subject),
                None if value.starts_with('*') => loose("*", value.as_str()),
                None if value.ends_with('*') => loose(value.as_str(), "*"),
                None => (Texts::verbatim(value), Texts::verbatim("")),
            });
        }
        Subjects { pairs: pairs.into(), others: others.into() }
    }

    /// Whether one is this subject of this issuer; with `any` also where a value can be read so in another way than Istio's. A token
    /// without either is nobody's.
    pub(crate) fn has(&self, issuer: &str, subject: &str, any: bool) -> bool {
        let others = if any { &*self.others } else { &[] };
        !issuer.is_empty()
            && !subject.is_empty()
            && self.pairs.iter().chain(others).any(|(issuers, subjects)| {
                issuers.matches(issuer.as_bytes()) && subjects.matches(subject.as_bytes())
            })
    }
}

/// A bound of a number: `3`, `<=3`, `<3`, `>=3`, `>3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    least: u64,
    most: u64,
}

impl Bound {
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Bound, String> {
        let text = text.trim();
        let number = |digits: &str| {
            digits
                .trim()
                .parse::<u64>()
                .map_err(|_| format!("`{text}` is no number, nor `<=N`, `<N`, `>=N`, `>N`"))
        };
        let (least, most) = if let Some(digits) = text.strip_prefix("<=") {
            (0, number(digits)?)
        } else if let Some(digits) = text.strip_prefix(">=") {
            (number(digits)?, u64::MAX)
        } else if let Some(digits) = text.strip_prefix('<') {
            let below = number(digits)?;
            (u64::from(below == 0), below.saturating_sub(1))
        } else if let Some(digits) = text.strip_prefix('>') {
            (number(digits)?.saturating_add(1), u64::MAX)
        } else {
            let exactly = number(text)?;
            (exactly, exactly)
        };
        Ok(Bound { least, most })
    }

    pub(crate) fn has(self, number: u64) -> bool {
        (self.least..=self.most).contains(&number)
    }
}
