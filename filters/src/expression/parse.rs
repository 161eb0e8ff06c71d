//! A condition's grammar, by recursive descent; names and types are checked on the way.
//!
//! ```text
//! or      = and { "||" and }
//! and     = compare { "&&" compare }
//! compare = unary [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") unary ]
//! unary   = "!" unary | value { "." function "(" text ")" }
//! value   = literal | name | headers "[" text "]" | "has" "(" name ")" | "(" or ")" | "[" { value "," } "]"
//! ```

use pilotfish_config::raw::nearest;
use regex::bytes::{Regex, RegexBuilder};

use super::evaluate::{Comparison, Number, Test, Text};
use super::lex::{self, Token};
use super::{Attribute, ExpressionError, LONGEST, Type};
use crate::redact;

/// Brackets and negations within each other.
const DEEPEST: usize = 32;

/// Regular expressions of one condition, and the bytes that each may take compiled.
const REGEXES: usize = 8;
const REGEX_SIZE: usize = 256 << 10;

const HEADERS: &str = "request.headers";
const FUNCTIONS: [&str; 4] = ["startsWith", "endsWith", "contains", "matches"];

type Result<T> = std::result::Result<T, ExpressionError>;

/// Part of a condition, by what it is.
enum Part {
    Test(Test),
    Text(Text),
    /// With its type, which is no text.
    Number(Type, Number),
    List(Vec<(usize, Part)>),
    /// All request headers.
    Headers,
}

impl Part {
    fn shown(&self) -> &'static str {
        match self {
            Part::Test(_) => Type::Bool.word(),
            Part::Text(_) => Type::Text.word(),
            Part::Number(kind, _) => kind.word(),
            Part::List(_) => "a list",
            Part::Headers => "all headers",
        }
    }
}

/// A condition, and what it asks for.
pub(super) struct Parsed {
    pub(super) test: Test,
    pub(super) headers: Box<[Box<str>]>,
    pub(super) attributes: Box<[Attribute]>,
}

/// Reads a condition.
pub(super) fn parse(source: &str) -> Result<Parsed> {
    if source.len() > LONGEST {
        let message = format!("the condition has {} bytes, and may have {LONGEST}", source.len());
        return Err(lex::error(source, 0, message, None));
    }
    let tokens = lex::lex(source)?;
    let mut parser =
        Parser { source, tokens, next: 0, depth: 0, regexes: 0, headers: Vec::new(), attributes: Vec::new() };
    if parser.at_end() {
        return Err(parser.wrong(0, "the condition is empty", "write one such as `response.code >= 500`"));
    }
    let begins = parser.place();
    let part = parser.any()?;
    if !parser.at_end() {
        return Err(parser.expected("an operator such as `&&` or `==`, or the end"));
    }
    let test = parser.test(begins, part)?;
    Ok(Parsed { test, headers: parser.headers.into(), attributes: parser.attributes.into() })
}

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    regexes: usize,
    headers: Vec<Box<str>>,
    attributes: Vec<Attribute>,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.source.len(), |(place, _)| *place)
    }

    fn at_end(&self) -> bool {
        *self.peek() == Token::End
    }

    fn take(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(there);
        there
    }

    fn need(&mut self, sign: &str) -> Result<()> {
        if self.take(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}`"))) }
    }

    fn wrong(&self, at: usize, message: &str, hint: &str) -> ExpressionError {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        lex::error(self.source, at, message.to_owned(), hint)
    }

    fn expected(&self, what: &str) -> ExpressionError {
        self.wrong(self.place(), &format!("expected {what}, found {}", self.peek().shown()), "")
    }

    /// One bracket deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEEPEST {
            let message = format!("more than {DEEPEST} brackets and negations within each other");
            return Err(self.wrong(self.place(), &message, ""));
        }
        self.depth += 1;
        let done = inner(self);
        self.depth -= 1;
        done
    }

    fn any(&mut self) -> Result<Part> {
        self.chain("||", Test::Any, |parser| parser.chain("&&", Test::All, Self::compare))
    }

    /// `part { sign part }`.
    fn chain(
        &mut self,
        sign: &str,
        join: fn(Vec<Test>) -> Test,
        part: fn(&mut Self) -> Result<Part>,
    ) -> Result<Part> {
        let begins = self.place();
        let first = part(self)?;
        if !matches!(self.peek(), Token::Sign(next) if *next == sign) {
            return Ok(first);
        }
        let mut tests = vec![self.test(begins, first)?];
        while self.take(sign) {
            let begins = self.place();
            let next = part(self)?;
            tests.push(self.test(begins, next)?);
        }
        Ok(Part::Test(join(tests)))
    }

    /// It as a condition.
    fn test(&self, at: usize, part: Part) -> Result<Test> {
        match part {
            Part::Test(test) => Ok(test),
            Part::Text(Text::Literal(text)) if Attribute::named(&text).is_some() => Err(self.wrong(
                at,
                "expected a condition, found a text",
                "names of attributes stand without quotes",
            )),
            other => {
                let message = format!("expected a condition, found {}", other.shown());
                Err(self.wrong(
                    at,
                    &message,
                    "compare it: `==`, `<`, `in`, `startsWith(..)`, or ask `has(..)`",
                ))
            }
        }
    }

    fn compare(&mut self) -> Result<Part> {
        let (begins, left) = (self.place(), self.unary()?);
        let sign_at = self.place();
        let Some(compare) = self.comparison() else { return Ok(left) };
        let (second, right) = (self.place(), self.unary()?);
        let test = match compare {
            None => self.membership(begins, left, second, right)?,
            Some(how) => self.comparing(how, sign_at, left, second, right)?,
        };
        let third = self.place();
        if self.comparison().is_some() {
            return Err(self.wrong(third, "a comparison cannot be compared again", "use `&&`, or brackets"));
        }
        Ok(Part::Test(test))
    }

    /// The comparison that comes next; `Some(None)`: `in`.
    #[expect(clippy::option_option, reason = "no comparison, `in`, or another one")]
    fn comparison(&mut self) -> Option<Option<Comparison>> {
        let found = match self.peek() {
            Token::Word(word) if word == "in" => None,
            Token::Sign("==") => Some(Comparison::Equal),
            Token::Sign("!=") => Some(Comparison::Unequal),
            Token::Sign("<") => Some(Comparison::Less),
            Token::Sign("<=") => Some(Comparison::AtMost),
            Token::Sign(">") => Some(Comparison::Greater),
            Token::Sign(">=") => Some(Comparison::AtLeast),
            _ => return None,
        };
        self.next += 1;
        Some(found)
    }

    fn comparing(&self, how: Comparison, sign: usize, left: Part, at: usize, right: Part) -> Result<Test> {
        match (left, right) {
            (Part::Text(a), Part::Text(b)) => Ok(Test::Text(how, a, b)),
            (Part::Number(a_kind, a), Part::Number(b_kind, b)) => {
                self.same_kind(a_kind, at, b_kind)?;
                Ok(Test::Number(how, a, b))
            }
            (Part::Test(a), Part::Test(b)) => match how {
                Comparison::Equal => Ok(Test::Same(Box::new(a), Box::new(b))),
                Comparison::Unequal => Ok(Test::Not(Box::new(Test::Same(Box::new(a), Box::new(b))))),
                _ => Err(self.wrong(sign, "true and false have no order", "use `==` or `!=`")),
            },
            (left, right) => Err(self.mismatch(&left, at, &right)),
        }
    }

    fn mismatch(&self, left: &Part, at: usize, right: &Part) -> ExpressionError {
        let hint = match (left, right) {
            (Part::Number(..), Part::Text(_)) => "numbers stand without quotes",
            (Part::Text(_), Part::Number(..)) => "texts stand in quotes: '..'",
            (_, Part::List(_)) => "write `in` before a list",
            _ => "",
        };
        let message = format!("{} cannot be compared with {}", left.shown(), right.shown());
        self.wrong(at, &message, hint)
    }

    fn same_kind(&self, a: Type, at: usize, b: Type) -> Result<()> {
        if (a == Type::Duration) == (b == Type::Duration) {
            return Ok(());
        }
        let message = format!("{} cannot be compared with {}", a.word(), b.word());
        Err(self.wrong(at, &message, "durations have a unit: `250ms`, `1.5s`"))
    }

    fn membership(&mut self, begins: usize, left: Part, at: usize, right: Part) -> Result<Test> {
        let list = match (&left, right) {
            (_, Part::List(list)) => list,
            (Part::Text(Text::Literal(name)), Part::Headers) => {
                let name = name.clone();
                return Ok(Test::HasHeader(self.header(begins, &name, true)?));
            }
            (_, other) => {
                let message = format!("expected a list after `in`, found {}", other.shown());
                return Err(self.wrong(at, &message, "write one such as `['a', 'b']`"));
            }
        };
        match left {
            Part::Text(one) => {
                let mut texts = Vec::with_capacity(list.len());
                for (at, item) in list {
                    match item {
                        Part::Text(text) => texts.push(text),
                        other => return Err(self.mismatch(&Part::Text(one), at, &other)),
                    }
                }
                Ok(Test::TextIn(one, texts))
            }
            Part::Number(kind, one) => {
                let mut numbers = Vec::with_capacity(list.len());
                for (at, item) in list {
                    match item {
                        Part::Number(other, number) => {
                            self.same_kind(kind, at, other)?;
                            numbers.push(number);
                        }
                        other => return Err(self.mismatch(&Part::Number(kind, one), at, &other)),
                    }
                }
                Ok(Test::NumberIn(one, numbers))
            }
            other => {
                let message = format!("{} cannot be looked for in a list", other.shown());
                Err(self.wrong(begins, &message, ""))
            }
        }
    }

    fn unary(&mut self) -> Result<Part> {
        if self.take("!") {
            let begins = self.place();
            let inner = self.deeper(Self::unary)?;
            return Ok(Part::Test(Test::Not(Box::new(self.test(begins, inner)?))));
        }
        let begins = self.place();
        let mut part = self.value()?;
        while self.take(".") {
            let at = self.place();
            let Token::Word(function) = self.peek().clone() else {
                return Err(self.expected("the name of a function"));
            };
            self.next += 1;
            part = self.function(begins, part, at, &function)?;
        }
        Ok(part)
    }

    /// `part.function(..)`, of which the bracket comes next.
    fn function(&mut self, begins: usize, part: Part, at: usize, function: &str) -> Result<Part> {
        if !FUNCTIONS.contains(&function) {
            let hint = match nearest(function, FUNCTIONS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}", FUNCTIONS.join(", ")),
            };
            return Err(self.wrong(at, &format!("there is no function `{function}`"), &hint));
        }
        let Part::Text(text) = part else {
            let message = format!("`{function}` is for texts, and this is {}", part.shown());
            return Err(self.wrong(begins, &message, ""));
        };
        self.need("(")?;
        let argument_at = self.place();
        let argument = match self.deeper(Self::value)? {
            Part::Text(argument) => argument,
            other => {
                let message = format!("`{function}` needs a text, found {}", other.shown());
                return Err(self.wrong(argument_at, &message, "texts stand in quotes: '..'"));
            }
        };
        self.need(")")?;
        Ok(Part::Test(match (function, argument) {
            ("startsWith", argument) => Test::StartsWith(text, argument),
            ("endsWith", argument) => Test::EndsWith(text, argument),
            ("contains", argument) => Test::Contains(text, argument),
            (_, Text::Literal(pattern)) => Test::Matches(text, self.regex(argument_at, &pattern)?),
            _ => return Err(self.wrong(argument_at, "`matches` needs a text in quotes", "")),
        }))
    }

    /// RE2's syntax with its ASCII classes, found anywhere in the text, as CEL's `matches`.
    fn regex(&mut self, at: usize, pattern: &str) -> Result<Regex> {
        self.regexes += 1;
        if self.regexes > REGEXES {
            return Err(self.wrong(at, &format!("more than {REGEXES} regular expressions"), ""));
        }
        let build = |unicode| {
            let mut builder = RegexBuilder::new(pattern);
            builder.size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).unicode(unicode).build()
        };
        build(false).or_else(|_| build(true)).map_err(|error| {
            let text = error.to_string();
            let last =
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").trim().to_owned();
            self.wrong(at, &format!("the regular expression is not valid: {last}"), "")
        })
    }

    fn value(&mut self) -> Result<Part> {
        let at = self.place();
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        match token {
            Token::Text(text) => Ok(Part::Text(Text::Literal(text.into()))),
            Token::Int(number) => Ok(Part::Number(Type::Int, Number::Int(number))),
            Token::Double(number) => Ok(Part::Number(Type::Double, Number::Double(number))),
            Token::Duration(nanos) => Ok(Part::Number(Type::Duration, Number::Int(nanos))),
            Token::Sign("-") => {
                let negative = match self.peek() {
                    Token::Int(number) => Part::Number(Type::Int, Number::Int(-number)),
                    Token::Double(number) => Part::Number(Type::Double, Number::Double(-number)),
                    Token::Duration(nanos) => Part::Number(Type::Duration, Number::Int(-nanos)),
                    _ => return Err(self.expected("a number")),
                };
                self.next += 1;
                Ok(negative)
            }
            Token::Sign("(") => {
                let inner = self.deeper(Self::any)?;
                self.need(")")?;
                Ok(inner)
            }
            Token::Sign("[") => self.deeper(Self::list),
            Token::Word(word) => self.word(at, word),
            Token::Sign("?" | ":") => Err(self.wrong(at, "there is no `? :` here", "use `&&` and `||`")),
            Token::Sign(_) | Token::End => {
                self.next -= usize::from(token != Token::End);
                Err(self.expected("an attribute or a value"))
            }
        }
    }

    /// What follows `[`.
    fn list(&mut self) -> Result<Part> {
        let mut items = Vec::new();
        while !self.take("]") {
            let at = self.place();
            let item = self.value()?;
            items.push((at, item));
            if !self.take(",") {
                self.need("]")?;
                break;
            }
        }
        Ok(Part::List(items))
    }

    /// What begins with a word.
    fn word(&mut self, at: usize, word: String) -> Result<Part> {
        match &*word {
            "true" => return Ok(Part::Test(Test::Always(true))),
            "false" => return Ok(Part::Test(Test::Always(false))),
            "has" if self.take("(") => return self.deeper(Self::has),
            "duration" if self.take("(") => return self.duration(),
            _ => {}
        }
        let (name, called) = self.name(word);
        if name == HEADERS {
            return Ok(match self.one_header(false)? {
                Some(name) => Part::Text(Text::Header(name)),
                None => Part::Headers,
            });
        }
        if let Some(name) = name.strip_prefix("request.headers.") {
            return Ok(Part::Text(Text::Header(self.header(at, name, false)?)));
        }
        let Some(attribute) = Attribute::named(&name) else { return Err(self.unknown(at, &name, called)) };
        self.note(attribute);
        Ok(match attribute.kind() {
            Type::Text => Part::Text(Text::Attribute(attribute)),
            Type::Bool => Part::Test(Test::Is(attribute)),
            kind => Part::Number(kind, Number::Attribute(attribute)),
        })
    }

    fn note(&mut self, attribute: Attribute) {
        if !self.attributes.contains(&attribute) {
            self.attributes.push(attribute);
        }
    }

    /// The rest of a name with points, and whether a function of it is called: that word is left.
    fn name(&mut self, mut name: String) -> (String, bool) {
        while let [(_, Token::Sign(".")), (_, Token::Word(word)), rest @ ..] = &self.tokens[self.next..] {
            if matches!(rest.first(), Some((_, Token::Sign("(")))) {
                return (name, true);
            }
            name.push('.');
            name.push_str(word);
            self.next += 2;
        }
        (name, false)
    }

    fn unknown(&self, at: usize, name: &str, called: bool) -> ExpressionError {
        let message = format!("there is no attribute `{name}`");
        let known = || Attribute::names().chain([HEADERS]);
        let (family, own) = name.split_once('.').unwrap_or(("", name));
        let siblings: Vec<&str> = known().filter(|known| known.split('.').next() == Some(family)).collect();
        // Within a family the first word says nothing of what was meant.
        let near = match &*siblings {
            [] => nearest(name, known()),
            siblings => nearest(own, siblings.iter().map(|known| &known[family.len() + 1..]))
                .and_then(|near| siblings.iter().copied().find(|known| known[family.len() + 1..] == *near)),
        };
        let hint = match (near, &*siblings) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) if family.is_empty() && !called => format!("a text stands in quotes: '{name}'"),
            (None, []) => format!("known: {}", known().collect::<Vec<_>>().join(", ")),
            (None, siblings) => format!("known: {}", siblings.join(", ")),
        };
        self.wrong(at, &message, &hint)
    }

    /// `['name']` after `request.headers`, if it comes.
    fn one_header(&mut self, only_asked: bool) -> Result<Option<Box<str>>> {
        if !self.take("[") {
            return Ok(None);
        }
        let at = self.place();
        let Token::Text(name) = self.peek().clone() else {
            return Err(self.expected("a header's name in quotes"));
        };
        self.next += 1;
        self.need("]")?;
        self.header(at, &name, only_asked).map(Some)
    }

    /// A header's name, checked and noted.
    fn header(&mut self, at: usize, name: &str, only_asked: bool) -> Result<Box<str>> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
            return Err(self.wrong(at, "this is no header's name", ""));
        }
        let name = name.to_ascii_lowercase();
        if !only_asked && redact::is_sensitive_header(&name) {
            let message = format!("`{name}` carries credentials: its value cannot be asked for");
            return Err(self.wrong(at, &message, &format!("`has({HEADERS}['{name}'])` can")));
        }
        let name = name.into_boxed_str();
        if !self.headers.contains(&name) {
            self.headers.push(name.clone());
        }
        Ok(name)
    }

    /// What follows `has(`.
    fn has(&mut self) -> Result<Part> {
        let at = self.place();
        let Token::Word(word) = self.peek().clone() else {
            return Err(self.expected("an attribute"));
        };
        self.next += 1;
        let (name, called) = self.name(word);
        let header = match name.strip_prefix("request.headers.") {
            Some(name) => Some(self.header(at, name, true)?),
            None if name == HEADERS => {
                let found = self.one_header(true)?;
                Some(found.ok_or_else(|| self.expected("`['name']`"))?)
            }
            None => None,
        };
        let test = match (header, Attribute::named(&name)) {
            (Some(header), _) => Test::HasHeader(header),
            (None, Some(attribute)) => {
                self.note(attribute);
                Test::Has(attribute)
            }
            (None, None) => return Err(self.unknown(at, &name, called)),
        };
        self.need(")")?;
        Ok(Part::Test(test))
    }

    /// What follows `duration(`.
    fn duration(&mut self) -> Result<Part> {
        let at = self.place();
        let Token::Text(text) = self.peek().clone() else {
            return Err(self.expected("a duration in quotes, such as '1.5s'"));
        };
        let nanos = lex::duration(&text)
            .map_err(|why| self.wrong(at, &format!("'{text}' is no duration: {why}"), ""))?;
        self.next += 1;
        self.need(")")?;
        Ok(Part::Number(Type::Duration, Number::Int(nanos)))
    }
}
