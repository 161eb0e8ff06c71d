//! Conditions over a call, a subset of CEL with Istio's and Envoy's attribute names: filters of the access log and of taps.
//!
//! ```text
//! response.code >= 500 && !(request.url_path.startsWith('/health') || call.agent in ['default/probe'])
//! ```
//!
//! Names and types are checked when a condition is compiled; evaluating it neither fails nor allocates (but for the scratch
//! memory of a regular expression, once a thread). A header that is not there, or a number that is not known, makes what is
//! asked of it unknown, and an unknown condition does not hold; `&&` and `||` hide an unknown side as CEL's do. A text that is
//! not known is empty. So a condition that must not fail open asks with `has(..)`.

mod attribute;
mod evaluate;
mod lex;
mod parse;

use std::fmt;

pub use attribute::{Attribute, Type};
use evaluate::Test;

/// Bytes of a condition.
pub const LONGEST: usize = 4096;

/// A condition, compiled.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Box<str>,
    test: Test,
    headers: Box<[Box<str>]>,
    attributes: Box<[Attribute]>,
}

impl Expression {
    /// Reads a condition. Of headers that carry credentials (see [`crate::redact`]) only `has(..)` may be asked: a filter
    /// that anyone may set must not become a way to guess them.
    ///
    /// # Errors
    /// What is wrong first, and where.
    pub fn compile(source: &str) -> Result<Expression, ExpressionError> {
        let parse::Parsed { test, headers, attributes } = parse::parse(source)?;
        Ok(Expression { source: source.into(), test, headers, attributes })
    }

    /// The condition as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The request headers that it asks for, in lower case, each once: what has to be kept of a call until it is evaluated.
    pub fn headers(&self) -> &[Box<str>] {
        &self.headers
    }

    /// Whether it asks for an attribute.
    pub fn asks(&self, attribute: Attribute) -> bool {
        self.attributes.contains(&attribute)
    }

    /// Whether it holds; unknown is no.
    pub fn matches(&self, view: &dyn View) -> bool {
        self.evaluate(view) == Some(true)
    }

    /// Whether it holds; `None`: that hangs on something that is not known.
    pub fn evaluate(&self, view: &dyn View) -> Option<bool> {
        self.test.evaluate(view)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Display for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source)
    }
}

impl std::str::FromStr for Expression {
    type Err = ExpressionError;
    fn from_str(source: &str) -> Result<Self, ExpressionError> {
        Expression::compile(source)
    }
}

/// What a condition may know of a call.
pub trait View {
    /// A text; `None` and empty are the same: not known. What has to be formatted first is written to `room`.
    fn text<'v>(&'v self, attribute: Attribute, room: &'v mut Room) -> Option<&'v str>;
    /// A whole number, a duration in nanoseconds, or 1 and 0 for yes and no; `None`: not known.
    fn number(&self, attribute: Attribute) -> Option<i64>;
    /// The value of a request header, whose name is in lower case.
    fn header(&self, name: &str) -> Option<&str>;
}

/// Room on the stack for a text that an attribute's value has to be formatted to; what does not fit is cut off.
#[derive(Debug, Clone)]
pub struct Room {
    len: usize,
    bytes: [u8; 96],
}

impl Default for Room {
    fn default() -> Self {
        Room { len: 0, bytes: [0; 96] }
    }
}

impl Room {
    /// `value` as text.
    pub fn show(&mut self, value: &dyn fmt::Display) -> &str {
        self.len = 0;
        let _ = fmt::write(self, format_args!("{value}"));
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(self.bytes.len() - self.len);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.len..self.len + end].copy_from_slice(&text.as_bytes()[..end]);
        self.len += end;
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// What is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// Its line, from 1, ...
    pub line: usize,
    /// ... and the character within it, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
    /// What to do, if that can be told.
    pub hint: Option<String>,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(out, "line {}, ", self.line)?;
        }
        write!(out, "column {}: {}", self.column, self.message)?;
        match &self.hint {
            None => Ok(()),
            Some(hint) => write!(out, "; {hint}"),
        }
    }
}

impl std::error::Error for ExpressionError {}

#[cfg(test)]
mod tests;
