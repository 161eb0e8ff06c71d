//! A compiled condition, and whether it holds.

use std::cmp::Ordering;

use regex::bytes::Regex;

use super::{Attribute, Room, View};

/// A condition.
#[derive(Debug, Clone)]
pub(super) enum Test {
    /// Always the same.
    Always(bool),
    /// The other way round.
    Not(Box<Test>),
    /// All of them.
    All(Vec<Test>),
    /// Any of them.
    Any(Vec<Test>),
    /// An attribute that is yes or no.
    Is(Attribute),
    /// Both hold, or neither.
    Same(Box<Test>, Box<Test>),
    /// Two texts.
    Text(Comparison, Text, Text),
    /// Two numbers, or two durations.
    Number(Comparison, Number, Number),
    /// A text is one of these.
    TextIn(Text, Vec<Text>),
    /// A number is one of these.
    NumberIn(Number, Vec<Number>),
    /// The first text begins with the second.
    StartsWith(Text, Text),
    /// The first text ends with the second.
    EndsWith(Text, Text),
    /// The second text is in the first.
    Contains(Text, Text),
    /// The expression is found in the text.
    Matches(Text, Regex),
    /// It is known.
    Has(Attribute),
    /// It was sent.
    HasHeader(Box<str>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::Unequal => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }
    }
}

/// A text of a condition.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Literal(Box<str>),
    Attribute(Attribute),
    Header(Box<str>),
}

impl Text {
    fn of<'v>(&'v self, view: &'v dyn View, room: &'v mut Room) -> Option<&'v str> {
        match self {
            Text::Literal(text) => Some(text),
            Text::Attribute(attribute) => Some(view.text(*attribute, room).unwrap_or_default()),
            Text::Header(name) => view.header(name),
        }
    }
}

/// A number of a condition; a duration is one of nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i64),
    Double(f64),
    Attribute(Attribute),
}

/// A number's value.
#[derive(Clone, Copy)]
enum Value {
    Int(i64),
    Double(f64),
}

impl Number {
    fn of(self, view: &dyn View) -> Option<Value> {
        match self {
            Number::Int(number) => Some(Value::Int(number)),
            Number::Double(number) => Some(Value::Double(number)),
            Number::Attribute(attribute) => view.number(attribute).map(Value::Int),
        }
    }
}

impl Value {
    /// By the numbers themselves, whatever their type, as CEL does. There is always an order: no literal is a NaN.
    fn order(self, other: Value) -> Ordering {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => a.cmp(&b),
            (Value::Double(a), Value::Double(b)) => a.total_cmp(&b),
            (Value::Int(a), Value::Double(b)) => int_to_double(a, b),
            (Value::Double(a), Value::Int(b)) => int_to_double(b, a).reverse(),
        }
    }
}

/// Exact, where a conversion of the whole number would round it.
fn int_to_double(a: i64, b: f64) -> Ordering {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if b >= BOUND {
        return Ordering::Less;
    }
    if b < -BOUND {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    a.cmp(&(whole as i64)).then(0.0f64.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal))
}

impl Test {
    pub(super) fn evaluate(&self, view: &dyn View) -> Option<bool> {
        let two = |a: &Text, b: &Text, holds: &dyn Fn(&str, &str) -> bool| {
            let (mut room_a, mut room_b) = (Room::default(), Room::default());
            Some(holds(a.of(view, &mut room_a)?, b.of(view, &mut room_b)?))
        };
        match self {
            Test::Always(holds) => Some(*holds),
            Test::Not(test) => test.evaluate(view).map(|holds| !holds),
            Test::All(tests) => decided_by(false, tests.iter().map(|test| test.evaluate(view))),
            Test::Any(tests) => decided_by(true, tests.iter().map(|test| test.evaluate(view))),
            Test::Is(attribute) => view.number(*attribute).map(|yes| yes != 0),
            Test::Same(a, b) => Some(a.evaluate(view)? == b.evaluate(view)?),
            Test::Text(how, a, b) => two(a, b, &|a, b| how.holds(a.cmp(b))),
            Test::Number(how, a, b) => Some(how.holds(a.of(view)?.order(b.of(view)?))),
            Test::TextIn(one, list) => {
                let mut room = Room::default();
                let one = one.of(view, &mut room)?;
                decided_by(true, list.iter().map(|other| Some(other.of(view, &mut Room::default())? == one)))
            }
            Test::NumberIn(one, list) => {
                let one = one.of(view)?;
                decided_by(true, list.iter().map(|other| Some(other.of(view)?.order(one).is_eq())))
            }
            Test::StartsWith(a, b) => two(a, b, &|a, b| a.starts_with(b)),
            Test::EndsWith(a, b) => two(a, b, &|a, b| a.ends_with(b)),
            Test::Contains(a, b) => two(a, b, &|a, b| a.contains(b)),
            Test::Matches(text, regex) => {
                Some(regex.is_match(text.of(view, &mut Room::default())?.as_bytes()))
            }
            Test::Has(attribute) => Some(match attribute.kind() {
                super::Type::Text => {
                    view.text(*attribute, &mut Room::default()).is_some_and(|text| !text.is_empty())
                }
                _ => view.number(*attribute).is_some(),
            }),
            Test::HasHeader(name) => Some(view.header(name).is_some()),
        }
    }
}

/// `one` as soon as any says so; unknown when any is unknown; else the opposite.
fn decided_by(one: bool, results: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut decided = Some(!one);
    for result in results {
        match result {
            Some(holds) if holds == one => return Some(one),
            Some(_) => {}
            None => decided = None,
        }
    }
    decided
}
