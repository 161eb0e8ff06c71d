//! The grammar of `agent-constraint`:
//!
//! ```text
//! constraint = term *( "," term )                      all must hold
//! term       = key ( "=" | "!=" ) value                labels, region, zone, version
//!            / key "in" "(" value *( "|" value ) ")"
//!            / "version" ( "<" | "<=" | ">" | ">=" ) version
//!            / measure ( "<" | "<=" | ">" | ">=" ) number [ unit ]
//! measure    = "latency" / "cost" (us, ms, s; none is ms) / "success" (%; none is 0 to 1) / "inflight"
//! value      = 1*( any but , | ( ) " < > = ! and controls ) / DQUOTE *any DQUOTE
//! ```
//! After `=`, `!=` and `in`, `version` takes a semver range: `version=^1.2`, `version in (1.x|3.x)`.

use semver::VersionReq;

use super::{is_key_byte, parse_range, shown};
use crate::verdict::{Deny, Reason};

/// The longest constraint, in bytes.
const MAX_LENGTH: usize = 4096;
/// The most terms and, in one term, the most alternatives.
const MAX_TERMS: usize = 32;

/// What `agent-constraint` asks for; the default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constraint {
    /// All must hold.
    pub terms: Vec<Term>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// As the caller wrote it, for explanations.
    pub text: Box<str>,
    /// Where it starts, in bytes from 1.
    pub position: usize,
    /// What it asks.
    pub test: Test,
}

/// What a condition asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A label, `region` or `zone` has (or has not, when `negated`) one of these values.
    Value {
        /// `region`, `zone` or a label.
        key: Box<str>,
        /// `!=`.
        negated: bool,
        /// Any one is enough.
        values: Vec<Box<str>>,
    },
    /// The version is (or is not, when `negated`) in one of these ranges.
    Version {
        /// `!=`.
        negated: bool,
        /// Any one is enough.
        ranges: Vec<VersionReq>,
    },
    /// Something that is measured is on the right side of a bound.
    Measure(Measure, Comparison, f64),
}

/// What is measured of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Peak-EWMA latency in milliseconds.
    Latency,
    /// Share of calls that succeed, 0 to 1.
    Success,
    /// Calls in flight.
    InFlight,
    /// The balancer's cost in milliseconds: latency x (in flight + 1) / max(success, 0.05)^2.
    Cost,
}

/// How a measure is compared with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// Whether `value` is on the right side of `bound`.
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Comparison::Less => value < bound,
            Comparison::LessOrEqual => value <= bound,
            Comparison::Greater => value > bound,
            Comparison::GreaterOrEqual => value >= bound,
        }
    }
}

impl Constraint {
    /// Reads a constraint; the empty text asks for nothing.
    ///
    /// # Errors
    /// [`Reason::BadConstraint`] with the position and what is wrong there.
    pub fn parse(text: &str) -> Result<Constraint, Deny> {
        if text.len() > MAX_LENGTH {
            return Err(bad(MAX_LENGTH, "longer than 4096 bytes"));
        }
        let mut scanner = Scanner { text, at: 0 };
        let mut terms = Vec::new();
        scanner.skip_blanks();
        if scanner.peek().is_none() {
            return Ok(Constraint::default());
        }
        loop {
            if terms.len() == MAX_TERMS {
                return Err(bad(scanner.at + 1, "more than 32 terms"));
            }
            terms.push(scanner.term()?);
            match scanner.peek() {
                None => return Ok(Constraint { terms }),
                Some(b',') => scanner.at += 1,
                Some(_) => return Err(bad(scanner.at + 1, "expected `,` or the end")),
            }
        }
    }
}

/// A refusal that points at a byte, counted from 1.
pub(super) fn bad(position: usize, what: impl AsRef<str>) -> Deny {
    Deny::with(Reason::BadConstraint, format!("agent-constraint at {position}: {}", what.as_ref()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    In,
    Compare(Comparison),
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn term(&mut self) -> Result<Term, Deny> {
        self.skip_blanks();
        let start = self.at;
        while self.peek().is_some_and(is_key_byte) {
            self.at += 1;
        }
        let key = &self.text[start..self.at];
        if key.is_empty() {
            return Err(bad(start + 1, "expected a key"));
        }
        let operator = self.operator()?;
        self.skip_blanks();
        let values_at = self.at + 1;
        let values = if operator == Operator::In { self.list()? } else { vec![self.value()?] };
        let end = self.at;
        self.skip_blanks();
        let test = test(key, operator, &values).map_err(|what| bad(values_at, what))?;
        Ok(Term { text: shown(self.text[start..end].trim_end()).into(), position: start + 1, test })
    }

    fn operator(&mut self) -> Result<Operator, Deny> {
        self.skip_blanks();
        let symbols = [
            ("!=", Operator::NotEqual),
            ("<=", Operator::Compare(Comparison::LessOrEqual)),
            (">=", Operator::Compare(Comparison::GreaterOrEqual)),
            ("<", Operator::Compare(Comparison::Less)),
            (">", Operator::Compare(Comparison::Greater)),
            ("=", Operator::Equal),
        ];
        if let Some((_, operator)) = symbols.into_iter().find(|(symbol, _)| self.take(symbol)) {
            return Ok(operator);
        }
        // `in` follows a blank, or it would have been read as part of the key.
        let at = self.at;
        if self.take("in") && matches!(self.peek(), Some(b' ' | b'\t' | b'(')) {
            return Ok(Operator::In);
        }
        Err(bad(at + 1, "expected one of = != < <= > >= in"))
    }

    fn list(&mut self) -> Result<Vec<String>, Deny> {
        if !self.take("(") {
            return Err(bad(self.at + 1, "expected `(` after `in`"));
        }
        let mut values = Vec::new();
        loop {
            if values.len() == MAX_TERMS {
                return Err(bad(self.at + 1, "more than 32 alternatives"));
            }
            self.skip_blanks();
            values.push(self.value()?);
            self.skip_blanks();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take("|") {
                return Err(bad(self.at + 1, "expected `|` or `)`"));
            }
        }
    }

    fn value(&mut self) -> Result<String, Deny> {
        let start = self.at;
        if self.take("\"") {
            let Some(length) = self.rest().find('"') else {
                return Err(bad(start + 1, "a quote that never ends"));
            };
            let value = &self.rest()[..length];
            self.at += length + 1;
            return Ok(value.to_owned());
        }
        let stop =
            |c: char| matches!(c, ',' | '|' | '(' | ')' | '"' | '<' | '>' | '=' | '!') || c.is_control();
        let length = self.rest().find(stop).unwrap_or(self.rest().len());
        let value = self.rest()[..length].trim_end();
        if value.is_empty() {
            return Err(bad(start + 1, "expected a value"));
        }
        self.at += value.len();
        Ok(value.to_owned())
    }
}

fn test(key: &str, operator: Operator, values: &[String]) -> Result<Test, String> {
    let measure = match key {
        "latency" => Some(Measure::Latency),
        "success" => Some(Measure::Success),
        "inflight" => Some(Measure::InFlight),
        "cost" => Some(Measure::Cost),
        _ => None,
    };
    match (measure, operator) {
        (Some(measure), Operator::Compare(comparison)) => {
            Ok(Test::Measure(measure, comparison, bound(measure, &values[0])?))
        }
        (Some(_), _) => Err(format!("`{key}` is compared by < <= > >=")),
        (None, _) if key == "version" => version(operator, values),
        (None, Operator::Compare(_)) => Err(format!("`{}` is compared by = != in", shown(key))),
        (None, _) => Ok(Test::Value {
            key: key.into(),
            negated: operator == Operator::NotEqual,
            values: values.iter().map(|value| value.as_str().into()).collect(),
        }),
    }
}

fn version(operator: Operator, values: &[String]) -> Result<Test, String> {
    let compared = match operator {
        Operator::Compare(Comparison::Less) => "<",
        Operator::Compare(Comparison::LessOrEqual) => "<=",
        Operator::Compare(Comparison::Greater) => ">",
        Operator::Compare(Comparison::GreaterOrEqual) => ">=",
        Operator::Equal | Operator::NotEqual | Operator::In => "",
    };
    let range = |value: &String| match compared {
        "" => parse_range(value),
        symbol => parse_range(&format!("{symbol}{}", value.strip_prefix('v').unwrap_or(value))),
    };
    let ranges = values.iter().map(range).collect::<Result<_, _>>()?;
    Ok(Test::Version { negated: operator == Operator::NotEqual, ranges })
}

/// Reads a bound in the measure's own unit.
fn bound(measure: Measure, text: &str) -> Result<f64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let number: f64 = number.parse().map_err(|_| format!("`{}` is not a number", shown(text)))?;
    let scale = match (measure, unit) {
        (Measure::Latency | Measure::Cost, "" | "ms") => 1.0,
        (Measure::Latency | Measure::Cost, "us") => 0.001,
        (Measure::Latency | Measure::Cost, "s") => 1000.0,
        (Measure::Success, "%") => 0.01,
        (Measure::Success | Measure::InFlight, "") => 1.0,
        _ => return Err(format!("`{}` is not a unit here", shown(unit))),
    };
    let value = number * scale;
    match measure {
        Measure::Success if value > 1.0 => Err("a success rate is at most 100% (or 1)".into()),
        Measure::InFlight if value.fract() != 0.0 => Err("calls in flight are a whole number".into()),
        _ => Ok(value),
    }
}

/// Feeds arbitrary bytes to the parser: it must never panic, and what it accepts must keep within its limits.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(constraint) = Constraint::parse(text) {
        assert!(constraint.terms.len() <= MAX_TERMS);
        assert!(constraint.terms.iter().all(|term| term.position <= text.len()));
    }
    let _ = super::parse_wanted(text);
    let _ = super::host_capability(text);
}

#[cfg(test)]
mod tests;
