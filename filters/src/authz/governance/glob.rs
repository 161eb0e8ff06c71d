//! Resources with `*`, which stands for any characters, `/` included.

/// A resource that a role or a classification is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Glob {
    /// `*`.
    Any,
    /// Without `*`.
    Exact(Box<str>),
    /// `text*`.
    Prefix(Box<str>),
    /// Text before the first `*`, between them, and after the last.
    Parts { first: Box<str>, middle: Box<[Box<str>]>, last: Box<str> },
}

impl Glob {
    pub(crate) fn new(text: &str) -> Glob {
        let Some((first, rest)) = text.split_once('*') else { return Glob::Exact(text.into()) };
        match (first, rest) {
            ("", "") => Glob::Any,
            (first, "") => Glob::Prefix(first.into()),
            (first, rest) => {
                let mut middle: Vec<Box<str>> = rest.split('*').map(Box::from).collect();
                let last = middle.pop().unwrap_or_default();
                Glob::Parts { first: first.into(), middle: middle.into(), last }
            }
        }
    }

    /// Whether it is for this resource. Each part is looked for once, at the first place where it can be: with nothing but `*`
    /// between them an earlier place never takes a match away.
    pub(crate) fn matches(&self, resource: &str) -> bool {
        match self {
            Glob::Any => true,
            Glob::Exact(text) => **text == *resource,
            Glob::Prefix(text) => resource.starts_with(&**text),
            Glob::Parts { first, middle, last } => {
                let Some(rest) = resource.strip_prefix(&**first) else { return false };
                let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
                for part in middle {
                    match rest.find(&**part) {
                        Some(at) => rest = &rest[at + part.len()..],
                        None => return false,
                    }
                }
                true
            }
        }
    }
}
