//! Families as Prometheus reads them: its text format 0.0.4, or OpenMetrics 1.0.0 with exemplars.

use std::fmt::Write as _;

use super::family::{Distribution, Exemplar, Family, Kind, Label, Sample, Unit, Value};

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text, 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The better liked of the two, by an `Accept` header; text when it says nothing, or likes both as much.
    pub fn accepted(accept: &str) -> Format {
        // As each is named best: the name itself, then `type/*`, then `*/*` (RFC 9110, 12.5.1).
        let (mut text, mut open) = ((0, 0.0), (0, 0.0));
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let (mut q, mut version) = (1.0, None);
            for part in parts {
                match part.split_once('=') {
                    Some((key, value)) if key.eq_ignore_ascii_case("q") => q = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = Some(value.trim_matches('"')),
                    _ => {}
                }
            }
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            let note = |best: &mut (u8, f32), how: u8| {
                if how > best.0 || (how == best.0 && q > best.1) {
                    *best = (how, q);
                }
            };
            if is("application/openmetrics-text") && matches!(version, None | Some("1.0.0" | "0.0.1")) {
                note(&mut open, 3);
            } else if is("text/plain") && matches!(version, None | Some("0.0.4")) {
                note(&mut text, 3);
            } else if is("text/*") {
                note(&mut text, 2);
            } else if is("application/*") {
                note(&mut open, 2);
            } else if is("*/*") {
                note(&mut text, 1);
                note(&mut open, 1);
            }
        }
        if open.1 > text.1 { Format::OpenMetrics } else { Format::Text }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The families as text.
pub fn render(families: &[Family], format: Format) -> String {
    let mut page = Page { text: String::with_capacity(16 * 1024), open: format == Format::OpenMetrics };
    for family in families {
        page.family(family);
    }
    if page.open {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    text: String,
    open: bool,
}

impl Page {
    fn family(&mut self, family: &Family) {
        let (kind, suffix) = match family.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
            Kind::Info if self.open => ("info", "_info"),
            Kind::Info => ("gauge", ""),
        };
        // OpenMetrics names a family without what tells its samples' kind.
        let name =
            if self.open { family.name.strip_suffix(suffix).unwrap_or(family.name) } else { family.name };
        let _ = write!(self.text, "# HELP {name} ");
        self.escape(family.help, self.open);
        let _ = write!(self.text, "\n# TYPE {name} {kind}\n");
        if self.open
            && let Some(unit) = ["seconds", "bytes"]
                .into_iter()
                .find(|unit| name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')))
        {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        for sample in &family.samples {
            self.sample(family.name, sample);
        }
    }

    fn sample(&mut self, name: &str, sample: &Sample) {
        let Value::Distribution(values) = &sample.value else {
            self.start(name, "", &sample.labels, None);
            match &sample.value {
                Value::Whole(value) => drop(write!(self.text, " {value}")),
                Value::Micros(micros) => {
                    self.text.push(' ');
                    push_seconds(&mut self.text, *micros);
                }
                Value::Number(value) => {
                    self.text.push(' ');
                    push_number(&mut self.text, *value);
                }
                Value::Distribution(_) => {}
            }
            self.text.push('\n');
            return;
        };
        self.distribution(name, &sample.labels, values);
    }

    fn distribution(&mut self, name: &str, labels: &[Label], values: &Distribution) {
        // All but the last label and the value are the same in each line.
        let from = self.text.len();
        self.start(name, "_bucket", labels, Some(()));
        let start = self.text.split_off(from);
        let mut below = 0_u64;
        for (bucket, count) in values.counts.iter().enumerate() {
            below = below.wrapping_add(*count);
            self.text.push_str(&start);
            match values.bounds.get(bucket) {
                Some(bound) => {
                    let from = self.text.len();
                    push_in(&mut self.text, values.unit, *bound);
                    if self.open && !self.text[from..].contains('.') {
                        self.text.push_str(".0");
                    }
                }
                None => self.text.push_str("+Inf"),
            }
            let _ = write!(self.text, "\"}} {below}");
            if let Some(Some(exemplar)) = values.exemplars.get(bucket)
                && self.open
            {
                self.exemplar(exemplar, values.unit);
            }
            self.text.push('\n');
        }
        self.start(name, "_sum", labels, None);
        self.text.push(' ');
        push_in(&mut self.text, values.unit, values.sum);
        self.text.push('\n');
        self.start(name, "_count", labels, None);
        let _ = writeln!(self.text, " {below}");
    }

    fn exemplar(&mut self, exemplar: &Exemplar, unit: Unit) {
        let Exemplar { trace, span, value, at } = exemplar;
        let _ = write!(self.text, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} ");
        push_in(&mut self.text, unit, *value);
        let _ = write!(self.text, " {}.{:03}", at.as_secs(), at.subsec_millis());
    }

    /// A sample's name and labels; with a bound to come, up to its opening quote.
    fn start(&mut self, name: &str, suffix: &str, labels: &[Label], bound: Option<()>) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut next = '{';
        for (name, value) in labels {
            self.text.push(next);
            self.text.extend(name.chars().map(|c| if c == '.' { '_' } else { c }));
            self.text.push_str("=\"");
            self.escape(value, true);
            self.text.push('"');
            next = ',';
        }
        if bound.is_some() {
            self.text.push(next);
            self.text.push_str("le=\"");
        } else if next == ',' {
            self.text.push('}');
        }
    }

    /// Backslash and line feed are escaped, as the formats demand, and the quote where there are quotes.
    fn escape(&mut self, value: &str, quotes: bool) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                c => self.text.push(c),
            }
        }
    }
}

fn push_in(text: &mut String, unit: Unit, value: u64) {
    match unit {
        Unit::Micros => push_seconds(text, value),
        Unit::Whole => drop(write!(text, "{value}")),
    }
}

/// Microseconds as seconds, without a float's noise.
fn push_seconds(text: &mut String, micros: u64) {
    let _ = write!(text, "{}", micros / 1_000_000);
    let rest = micros % 1_000_000;
    if rest > 0 {
        let _ = write!(text, ".{rest:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
}

fn push_number(text: &mut String, value: f64) {
    match value {
        _ if value.is_nan() => text.push_str("NaN"),
        f64::INFINITY => text.push_str("+Inf"),
        f64::NEG_INFINITY => text.push_str("-Inf"),
        _ => drop(write!(text, "{value}")),
    }
}

#[cfg(test)]
mod tests;
