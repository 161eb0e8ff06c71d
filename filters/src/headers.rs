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

/// One edit of a head. Names are in lower case; `host` and `:authority` stand for the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Drops every value.
    Remove(Box<str>),
    /// Replaces what is there.
    Set(Box<str>, Box<[u8]>),
    /// Adds a value beside what is there.
    Add(Box<str>, Box<[u8]>),
}

impl HeaderEdit {
    /// Envoy's order: removing first, so that what is set or added stays; then setting, then adding.
    fn rank(&self) -> u8 {
        match self {
            HeaderEdit::Remove(_) => 0,
            HeaderEdit::Set(..) => 1,
            HeaderEdit::Add(..) => 2,
        }
    }
}

/// Edits of one head. Values are taken literally: Envoy's `%...%` variables are not expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits(Box<[HeaderEdit]>);

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The edits in the order in which they are applied.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderEdit> {
        self.0.iter()
    }

    /// Applies the edits: removes, then sets, then adds.
    pub fn apply<M: HeaderMapMut>(&self, headers: &mut M) {
        for edit in &self.0 {
            match edit {
                HeaderEdit::Remove(name) => headers.remove(name),
                HeaderEdit::Set(name, value) => headers.set(name, value),
                HeaderEdit::Add(name, value) => headers.append(name, value),
            }
        }
    }

    /// These edits and `later`, as one.
    #[must_use]
    pub fn then(self, later: HeaderEdits) -> HeaderEdits {
        match (self.is_empty(), later.is_empty()) {
            (_, true) => self,
            (true, _) => later,
            _ => self.0.into_iter().chain(later.0).collect(),
        }
    }
}

impl FromIterator<HeaderEdit> for HeaderEdits {
    /// Sorts edits into the order in which they are applied.
    fn from_iter<I: IntoIterator<Item = HeaderEdit>>(edits: I) -> HeaderEdits {
        let mut edits: Vec<HeaderEdit> = edits.into_iter().collect();
        edits.sort_by_key(HeaderEdit::rank);
        HeaderEdits(edits.into())
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

    /// These edits and `later`, as one.
    #[must_use]
    pub fn then(self, later: HeaderEditsPair) -> HeaderEditsPair {
        HeaderEditsPair {
            request: self.request.then(later.request),
            response: self.response.then(later.response),
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

    #[test]
    fn remove_then_set_then_add() {
        let edits: HeaderEdits = [
            HeaderEdit::Add("a".into(), b"2"[..].into()),
            HeaderEdit::Set("a".into(), b"3"[..].into()),
            HeaderEdit::Remove("b".into()),
        ]
        .into_iter()
        .collect();
        let later = [HeaderEdit::Set("b".into(), b"4"[..].into())].into_iter().collect();
        let mut map = Map(vec![("a".into(), "1".into()), ("b".into(), "1".into())]);
        edits.then(later).apply(&mut map);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(map.0, [pair("a", "3"), pair("b", "4"), pair("a", "2")]);
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
