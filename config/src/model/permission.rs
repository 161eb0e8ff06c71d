//! What a role gives and what a call needs: permissions, resources, and where the parts of a resource are taken from.

use crate::yaml::clip_text;

/// How many `*` a resource of a role may have.
const STARS: usize = 8;
/// How long a permission, a resource or a template may be, bytes.
const LONGEST: usize = 512;

/// What is wrong with a text (to be written after the text itself), and what to do.
type Wrong = (String, String);

fn wrong<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err((what.into(), hint.into()))
}

/// A permission, `domain:verb`. Each part may be `*`, for any, where a role gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permission {
    /// What it is about; `None`: anything.
    pub domain: Option<Box<str>>,
    /// What may be done; `None`: anything.
    pub verb: Option<Box<str>>,
}

impl Permission {
    /// Reads a permission that a role gives.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn parse(text: &str) -> Result<Permission, Wrong> {
        let hint = "write domain:verb, such as knowledge:read, knowledge:* or *:*";
        let Some((domain, verb)) = text.split_once(':') else {
            return wrong("is not a permission", hint);
        };
        let part = |part: &str| match part {
            "*" => Ok(None),
            word if is_word(word) => Ok(Some(word.into())),
            word if word.contains('*') => {
                wrong("has a `*` within a word", "a `*` stands for a whole domain or verb")
            }
            _ => wrong("is not a permission", hint),
        };
        Ok(Permission { domain: part(domain)?, verb: part(verb)? })
    }

    /// Checks a permission that a call needs: without `*`.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check_needed(text: &str) -> Result<(), Wrong> {
        match Permission::parse(text)? {
            Permission { domain: Some(_), verb: Some(_) } => Ok(()),
            _ => {
                wrong("is no single permission", "a call needs one, such as nlp:process; roles may have `*`")
            }
        }
    }

    /// Whether who has it may do what needs `domain:verb`.
    pub fn gives(&self, domain: &str, verb: &str) -> bool {
        let part = |own: &Option<Box<str>>, asked: &str| own.as_deref().is_none_or(|own| own == asked);
        part(&self.domain, domain) && part(&self.verb, verb)
    }

    /// Whether it is `*:*`.
    pub fn is_all(&self) -> bool {
        self.domain.is_none() && self.verb.is_none()
    }
}

fn is_word(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(good)
}

/// Checks a resource of a role or of `classifications`: `*` stands for any characters, `/` included.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_resource(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return wrong("is empty", "write `*` for every resource");
    }
    if text.starts_with('/') {
        return wrong("begins with `/`", "resources are written without their first slash, conversations/*");
    }
    if text.contains("**") {
        return wrong("has `**`", "one `*` stands for any characters, `/` included");
    }
    if text.matches('*').count() > STARS {
        return wrong("has too many `*`", format!("at most {STARS}"));
    }
    if text.contains(['{', '}']) {
        return wrong("has a brace", "templates belong into `pilotfish.dev/resource`; roles have `*`");
    }
    plain(text)
}

/// What holds for the fixed text of resources.
fn plain(text: &str) -> Result<(), Wrong> {
    if text.len() > LONGEST {
        return wrong("is too long", format!("at most {LONGEST} bytes"));
    }
    if text.chars().any(|c| c.is_control() || c == '\\' || c == '%' || c == ';') {
        return wrong("has a character that no resource has", "not `\\`, `%`, `;` or control characters");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return wrong("has a segment `.` or `..`", "no resource has one: such calls are refused");
    }
    Ok(())
}

/// One piece of a resource that a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourcePiece {
    /// This text.
    Text(Box<str>),
    /// `{path.N}`: the N-th segment of the path, from 1.
    Segment(usize),
    /// `{NAME}` without a path that names it: the segment after this one, which is there exactly once.
    After(Box<str>),
    /// `{header.NAME}`, in lower case.
    Header(Box<str>),
    /// `{body.FIELD}`: what the decoded body or the headers of its protocol say.
    Body(BodyField),
}

/// What a template may take from a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyField {
    /// A2A `contextId`.
    ContextId,
    /// A2A `taskId`.
    TaskId,
    /// `Mcp-Session-Id`, or another session header.
    Session,
    /// OpenAI `model`.
    Model,
    /// The name of an MCP tool, prompt or resource.
    Tool,
    /// The skill of an A2A message.
    Skill,
    /// OpenAI `user`.
    User,
}

const FIELDS: [(&str, BodyField); 7] = [
    ("contextId", BodyField::ContextId),
    ("taskId", BodyField::TaskId),
    ("session", BodyField::Session),
    ("model", BodyField::Model),
    ("tool", BodyField::Tool),
    ("skill", BodyField::Skill),
    ("user", BodyField::User),
];

/// What a call is about, `pilotfish.dev/resource`: text with `{...}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceTemplate {
    /// Its pieces in order.
    pub pieces: Vec<ResourcePiece>,
}

impl ResourceTemplate {
    /// Reads one. `path`: the value of `pilotfish.dev/resource-path`, `/v1/conversations/{id}`, if there is one.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn parse(text: &str, path: Option<&str>) -> Result<ResourceTemplate, Wrong> {
        if text.starts_with('/') {
            return wrong("begins with `/`", "resources are written without their first slash");
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal(before, &mut pieces)?;
            let Some(close) = from.find('}') else {
                return wrong("has a `{` without its `}`", "as in conversations/{id}");
            };
            let name = &from[1..close];
            pieces.push(source(name, before, pieces.len() <= 1, path)?);
            rest = &from[close + 1..];
        }
        literal(rest, &mut pieces)?;
        if pieces.is_empty() {
            return wrong("is empty", "such as conversations/{id}");
        }
        Ok(ResourceTemplate { pieces })
    }

    /// Whether it takes something from the body.
    pub fn reads_body(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, ResourcePiece::Body(_)))
    }
}

fn literal(text: &str, pieces: &mut Vec<ResourcePiece>) -> Result<(), Wrong> {
    if text.contains('}') {
        return wrong("has a `}` without its `{`", "as in conversations/{id}");
    }
    if text.contains('*') {
        return wrong("has a `*`", "a call is about one resource; roles have `*`");
    }
    plain(text)?;
    if !text.is_empty() {
        pieces.push(ResourcePiece::Text(text.into()));
    }
    Ok(())
}

/// Where `{name}` is taken from. `before`: the text before it, which is the template's beginning when `first`.
fn source(name: &str, before: &str, first: bool, path: Option<&str>) -> Result<ResourcePiece, Wrong> {
    if let Some(number) = name.strip_prefix("path.") {
        return match number.parse() {
            Ok(number @ 1..=64) => Ok(ResourcePiece::Segment(number)),
            _ => wrong("has a bad number of a segment", "{path.1} is the path's first segment; at most 64"),
        };
    }
    if let Some(header) = name.strip_prefix("header.") {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        return match !header.is_empty() && header.bytes().all(good) {
            true => Ok(ResourcePiece::Header(header.to_ascii_lowercase().into())),
            false => wrong("names no header", "as in {header.x-conversation-id}"),
        };
    }
    if let Some(field) = name.strip_prefix("body.") {
        let found = FIELDS.iter().find(|(known, _)| *known == field);
        let known = || FIELDS.map(|(known, _)| known).join(", ");
        return match found {
            Some((_, field)) => Ok(ResourcePiece::Body(*field)),
            None => wrong(
                format!("names no field of a body: `{}`", clip_text(field)),
                format!("known: {}", known()),
            ),
        };
    }
    if !is_word(name) || name.contains('.') {
        return wrong(
            format!("has a bad name in braces: `{}`", clip_text(name)),
            "{id}, {path.N}, {header.NAME} or {body.FIELD}",
        );
    }
    if let Some(path) = path {
        let mut segments = path.trim_start_matches('/').split('/');
        if let Some(at) = segments.position(|segment| segment.strip_prefix('{') == Some(&format!("{name}}}")))
        {
            return Ok(ResourcePiece::Segment(at + 1));
        }
    }
    let segment = before.strip_suffix('/').and_then(|before| before.rsplit('/').next());
    match segment.filter(|segment| first && !segment.is_empty()) {
        Some(segment) => Ok(ResourcePiece::After(segment.into())),
        None => wrong(
            format!("does not say where `{{{name}}}` is taken from"),
            "name its place in the path, pilotfish.dev/resource-path: /v1/conversations/{id}; or write {path.N}, \
             {header.NAME} or {body.FIELD}",
        ),
    }
}

/// Checks `pilotfish.dev/resource-path`: segments, some of them `{NAME}`.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_resource_path(text: &str) -> Result<(), Wrong> {
    let hint = "as in /v1/conversations/{id}";
    let Some(rest) = text.strip_prefix('/') else { return wrong("does not begin with `/`", hint) };
    let good = |segment: &str| match segment.strip_prefix('{') {
        Some(name) => name.strip_suffix('}').is_some_and(|name| is_word(name) && !name.contains('.')),
        None => !segment.is_empty() && !segment.contains(['{', '}', '*']),
    };
    if !rest.split('/').all(good) {
        return wrong("is not a path whose segments are text or `{NAME}`", hint);
    }
    if !rest.contains('{') {
        return wrong("names no segment", hint);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, path: Option<&str>) -> Vec<ResourcePiece> {
        ResourceTemplate::parse(text, path).unwrap().pieces
    }

    #[test]
    fn permissions_are_two_words() {
        let all = Permission::parse("*:*").unwrap();
        assert!(all.is_all() && all.gives("a", "b"));
        let reads = Permission::parse("*:read").unwrap();
        assert!(reads.gives("a", "read") && !reads.gives("a", "write") && !reads.is_all());
        for bad in ["", "a", ":", "a:", ":b", "a:b:c", "a b:c", "a*:b", "a/b:c"] {
            assert!(Permission::parse(bad).is_err(), "{bad}");
        }
        assert!(Permission::check_needed("nlp:process").is_ok());
        assert!(Permission::check_needed("nlp:*").is_err());
    }

    #[test]
    fn a_template_says_where_its_parts_come_from() {
        let text = |text: &str| ResourcePiece::Text(text.into());
        assert_eq!(
            pieces("conversations/{id}", None),
            [text("conversations/"), ResourcePiece::After("conversations".into())]
        );
        assert_eq!(
            pieces("c/{id}", Some("/v1/conversations/{id}")),
            [text("c/"), ResourcePiece::Segment(3)],
            "a path that names it goes first"
        );
        assert_eq!(
            pieces("{header.X-Conv}/{body.contextId}/{path.2}", None),
            [
                ResourcePiece::Header("x-conv".into()),
                text("/"),
                ResourcePiece::Body(BodyField::ContextId),
                text("/"),
                ResourcePiece::Segment(2)
            ]
        );
        for bad in
            ["", "/a", "a/{", "a/}", "{id}", "a/{b}/{c}", "a/*", "{body.secret}", "{path.0}", "a/../{path.1}"]
        {
            assert!(ResourceTemplate::parse(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_of_roles_are_checked() {
        for good in ["*", "conversations/*", "a/*/b", "knowledge-base/public/*"] {
            assert!(check_resource(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/**", "a/../b", "a%2fb", "a;b", "a\\b", "{id}", "*a*a*a*a*a*a*a*a*a"] {
            assert!(check_resource(bad).is_err(), "{bad}");
        }
        assert!(check_resource_path("/v1/c/{id}").is_ok());
        for bad in ["v1/{id}", "/v1", "/v1//{id}", "/{a.b}", "/{id}x", "/*/{id}"] {
            assert!(check_resource_path(bad).is_err(), "{bad}");
        }
    }
}
