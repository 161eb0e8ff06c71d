//! The table of hosts: exact name, then the longest wildcard, then `*`. Ports and letter case do not count.

use crate::route::hash::FixedMap;

/// The longest name that is looked up; DNS allows 253 bytes.
const MAX_HOST: usize = 255;

type Names = FixedMap<Box<str>, u32>;

/// From a host name to a number (of a virtual host, of a service).
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    exact: Names,
    /// What follows the `*`, in lower case.
    suffixes: Names,
    /// The distinct lengths of the suffixes, longest first.
    lengths: Vec<usize>,
    any: Option<u32>,
}

impl HostTable {
    /// Adds a host (`name`, `*.suffix` or `*`); the first to claim a name keeps it. Returns who had it before.
    pub(crate) fn insert(&mut self, host: &str, value: u32) -> Option<u32> {
        let host = host.to_ascii_lowercase();
        let (names, name) = match host.strip_prefix('*') {
            Some("") => {
                let before = self.any;
                self.any.get_or_insert(value);
                return before;
            }
            Some(suffix) => (&mut self.suffixes, suffix),
            None => (&mut self.exact, host.as_str()),
        };
        if let Some(before) = names.get(name) {
            return Some(*before);
        }
        names.insert(name.into(), value);
        if host.starts_with('*')
            && let Err(at) = self.lengths.binary_search_by(|l| (host.len() - 1).cmp(l))
        {
            self.lengths.insert(at, host.len() - 1);
        }
        None
    }

    /// The value of the most specific host that covers `host`, which carries no port.
    pub(crate) fn find(&self, host: &str) -> Option<u32> {
        let mut buffer = [0u8; MAX_HOST];
        let host = lower_case(host.strip_suffix('.').unwrap_or(host), &mut buffer)?;
        if let Some(value) = self.exact.get(host) {
            return Some(*value);
        }
        let wildcard = self.lengths.iter().find_map(|&length| {
            // `*` stands for at least one character.
            let start = host.len().checked_sub(length).filter(|start| *start > 0)?;
            self.suffixes.get(host.get(start..)?).copied()
        });
        wildcard.or(self.any)
    }

    /// Every entry as it was written, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u32)> {
        let exact = self.exact.iter().map(|(name, value)| (name.to_string(), *value));
        let suffixes = self.suffixes.iter().map(|(suffix, value)| (format!("*{suffix}"), *value));
        exact.chain(suffixes).chain(self.any.map(|value| ("*".to_owned(), value)))
    }
}

fn lower_case<'b>(host: &str, buffer: &'b mut [u8; MAX_HOST]) -> Option<&'b str> {
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

/// Splits an authority into host and port: `a:80`, `[::1]:80` (the host keeps its brackets), `a`.
pub fn split_authority(authority: &str) -> (&str, Option<u16>) {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_brackets..].rfind(':') {
        Some(colon) => {
            let colon = after_brackets + colon;
            (&authority[..colon], authority[colon + 1..].parse().ok())
        }
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(hosts: &[&str]) -> HostTable {
        let mut table = HostTable::default();
        for (at, host) in hosts.iter().enumerate() {
            table.insert(host, at as u32);
        }
        table
    }

    #[test]
    fn exact_then_longest_wildcard_then_star() {
        let t = table(&["*", "*.com", "*.example.com", "a.example.com", "*-x.example.com"]);
        for (host, want) in [
            ("a.example.com", 3),
            ("A.Example.COM", 3),
            ("a.example.com.", 3),
            ("b.example.com", 2),
            ("b.c.example.com", 2),
            ("q-x.example.com", 4),
            ("example.com", 1),
            ("other.org", 0),
        ] {
            assert_eq!(t.find(host), Some(want), "{host}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_at_least_one_character() {
        let t = table(&["*.example.com"]);
        assert_eq!(t.find("example.com"), None);
        assert_eq!(t.find(".example.com"), None);
        assert_eq!(t.find("éexample.com"), None, "a cut inside a character is no match, and no panic");
    }

    #[test]
    fn a_name_too_long_for_dns_matches_nothing() {
        let t = table(&["*.example.com"]);
        assert_eq!(t.find(&format!("{}.example.com", "a".repeat(300))), None);
    }

    #[test]
    fn the_first_to_claim_a_host_keeps_it() {
        let mut t = table(&["a", "*.b", "*"]);
        assert_eq!([t.insert("A", 9), t.insert("*.b", 9), t.insert("*", 9)], [Some(0), Some(1), Some(2)]);
        assert_eq!([t.find("a"), t.find("x.b"), t.find("q")], [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn authorities() {
        assert_eq!(split_authority("a:80"), ("a", Some(80)));
        assert_eq!(split_authority("a"), ("a", None));
        assert_eq!(split_authority("[::1]:80"), ("[::1]", Some(80)));
        assert_eq!(split_authority("[::1]"), ("[::1]", None));
        assert_eq!(split_authority("a:x"), ("a", None));
        assert_eq!(split_authority(""), ("", None));
    }
}
