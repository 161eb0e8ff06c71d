//! What is told of metrics, whatever the format: families of samples.

use std::borrow::Cow;
use std::time::Duration;

use pilotfish_filters::trace::{SpanId, TraceId};

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were how large.
    Histogram,
    /// Labels that say something; the value is 1.
    Info,
}

/// A label: its name as OpenTelemetry writes it, with dots, and its value.
pub type Label = (&'static str, Cow<'static, str>);

/// Samples of one metric.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name for Prometheus, with unit and `_total`.
    pub name: &'static str,
    /// Its name for OpenTelemetry; empty: it follows from the other.
    pub otel: &'static str,
    /// What the samples are.
    pub kind: Kind,
    /// What it means, one line.
    pub help: &'static str,
    /// They.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What it is the value of; in their order.
    pub labels: Vec<Label>,
    /// It.
    pub value: Value,
}

/// What was measured.
#[derive(Debug, Clone)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Microseconds, told in seconds.
    Micros(u64),
    /// A number.
    Number(f64),
    /// Many of them.
    Distribution(Box<Distribution>),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Whole(value.into())
    }
}

impl From<u8> for Value {
    fn from(value: u8) -> Self {
        Value::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Value::Whole(value as u64)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Number(value)
    }
}

/// In what a distribution's values are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds, told in seconds.
    Micros,
    /// Things.
    Whole,
}

/// How many values were how large.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// The unit of the bounds, the sum and the exemplars.
    pub unit: Unit,
    /// Upper bounds of the buckets but the last, which has none.
    pub bounds: &'static [u64],
    /// How many are in each bucket; not cumulative.
    pub counts: Vec<u64>,
    /// The sum of all.
    pub sum: u64,
    /// A value of each bucket whose trace is kept; as many as counts, or none at all.
    pub exemplars: Vec<Option<Exemplar>>,
}

impl Distribution {
    /// Of nothing.
    pub fn new(unit: Unit, bounds: &'static [u64]) -> Self {
        Distribution { unit, bounds, counts: vec![0; bounds.len() + 1], sum: 0, exemplars: Vec::new() }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |all, one| all.wrapping_add(*one))
    }

    /// Adds another of the same bounds. Of two exemplars of a bucket the newer stays.
    pub fn merge(&mut self, other: Distribution) {
        for (own, theirs) in self.counts.iter_mut().zip(other.counts) {
            *own = own.wrapping_add(theirs);
        }
        self.sum = self.sum.wrapping_add(other.sum);
        if self.exemplars.is_empty() {
            self.exemplars = other.exemplars;
            return;
        }
        for (own, theirs) in self.exemplars.iter_mut().zip(other.exemplars) {
            let age = |one: &Option<Exemplar>| one.as_ref().map(|one| one.at);
            if age(&theirs) > age(own) {
                *own = theirs;
            }
        }
    }
}

/// One measured value whose trace is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Its trace.
    pub trace: TraceId,
    /// Its span.
    pub span: SpanId,
    /// The value.
    pub value: u64,
    /// When it was measured, since 1970.
    pub at: Duration,
}

impl From<Distribution> for Value {
    fn from(values: Distribution) -> Self {
        Value::Distribution(Box::new(values))
    }
}

/// Families as they are collected, one after the other.
#[derive(Debug, Default)]
pub struct Families(Vec<Family>);

impl Families {
    /// Starts a family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        self.0.push(Family { name, otel: "", kind, help, samples: Vec::new() });
    }

    /// Starts a family that OpenTelemetry has a name for.
    pub fn standard(&mut self, otel: &'static str, name: &'static str, kind: Kind, help: &'static str) {
        self.0.push(Family { name, otel, kind, help, samples: Vec::new() });
    }

    /// One sample of the newest family.
    pub fn sample(&mut self, labels: Vec<Label>, value: impl Into<Value>) {
        if let Some(family) = self.0.last_mut() {
            family.samples.push(Sample { labels, value: value.into() });
        }
    }

    /// One sample with one label, a word of our own.
    pub fn by(&mut self, label: &'static str, word: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.sample(vec![(label, word.into())], value);
    }

    /// A family with one sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &'static str, value: impl Into<Value>) {
        self.family(name, kind, help);
        self.sample(Vec::new(), value);
    }

    /// All that have samples.
    pub fn take(self) -> Vec<Family> {
        self.0.into_iter().filter(|family| !family.samples.is_empty()).collect()
    }
}
