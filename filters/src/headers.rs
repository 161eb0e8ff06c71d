//! Header edits as data: what a rule or a destination sets, adds and removes. The proxy applies them to its own head.

/// What the proxy's header map must be able to do for an edit. Names are lower case.
pub trait HeaderMapMut {
    /// Replaces every value of `name` by one; `host` stands for the authority.
    fn set(&mut self, name: &str, value: &[u8]);
    /// Adds a value beside those that are there.
    fn append(&mut self, name: &str, value: &[u8]);
    /// Drops every value of `name`.
    fn remove(&mut self, name: &str);
}

/// Edits of one head. Values are taken literally: Envoy's `%...%` variables are not expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names (lower case) that are dropped first.
    pub remove: Box<[Box<str>]>,
    /// Names and values that replace what is there. `host` and `:authority` replace the authority.
    pub set: Box<[(Box<str>, Box<[u8]>)]>,
    /// Names and values that are added beside what is there.
    pub add: Box<[(Box<str>, Box<[u8]>)]>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Applies the edits in Envoy's order: remove, add, then set.
    pub fn apply<M: HeaderMapMut>(&self, headers: &mut M) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.add {
            headers.append(name, value);
        }
        for (name, value) in &self.set {
            headers.set(name, value);
        }
    }

    /// These edits, then `later`, as one.
    #[must_use]
    pub fn then(&self, later: &HeaderEdits) -> HeaderEdits {
        let join = |a: &[(Box<str>, Box<[u8]>)], b: &[(Box<str>, Box<[u8]>)]| [a, b].concat().into();
        HeaderEdits {
            remove: [&self.remove[..], &later.remove[..]].concat().into(),
            set: join(&self.set, &later.set),
            add: join(&self.add, &later.add),
        }
    }
}

/// Edits of the request's and of the response's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEditsPair {
    /// Applied to the request before it is sent upstream.
    pub request: HeaderEdits,
    /// Applied to the response before it is sent downstream.
    pub response: HeaderEdits,
}

impl HeaderEditsPair {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }

    /// These edits, then `later`, as one.
    #[must_use]
    pub fn then(&self, later: &HeaderEditsPair) -> HeaderEditsPair {
        HeaderEditsPair {
            request: self.request.then(&later.request),
            response: self.response.then(&later.response),
        }
    }
}

/// Whether `name` is a header name of RFC 9110 (`token`), or `:authority`, in lower case.
pub fn is_header_name(name: &str) -> bool {
    let token = |b: u8| matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z');
    name == ":authority" || (!name.is_empty() && name.bytes().all(token))
}

/// Whether `value` may stand in a header: no control characters but tab.
pub fn is_header_value(value: &[u8]) -> bool {
    value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Map(Vec<(String, String)>);

    impl HeaderMapMut for Map {
        fn set(&mut self, name: &str, value: &[u8]) {
            self.remove(name);
            self.append(name, value);
        }
        fn append(&mut self, name: &str, value: &[u8]) {
            self.0.push((name.into(), String::from_utf8_lossy(value).into()));
        }
        fn remove(&mut self, name: &str) {
            self.0.retain(|(n, _)| n != name);
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Box<[(Box<str>, Box<[u8]>)]> {
        list.iter().map(|(n, v)| ((*n).into(), v.as_bytes().into())).collect()
    }

    #[test]
    fn remove_then_add_then_set() {
        let edits = HeaderEdits {
            remove: ["a".into()].into(),
            add: pairs(&[("a", "2"), ("b", "2")]),
            set: pairs(&[("b", "3")]),
        };
        let mut map = Map(vec![("a".into(), "1".into()), ("b".into(), "1".into())]);
        edits.apply(&mut map);
        assert_eq!(map.0, [("a".into(), "2".into()), ("b".into(), "3".into())]);
    }

    #[test]
    fn names_and_values_that_would_split_a_head_are_told() {
        assert!(is_header_name("x-a") && is_header_name(":authority"));
        assert!(
            !is_header_name("X-A")
                && !is_header_name("")
                && !is_header_name("a b")
                && !is_header_name(":path")
        );
        assert!(is_header_value("a\tb é".as_bytes()));
        assert!(!is_header_value(b"a\r\nb") && !is_header_value(b"\0"));
    }
}
