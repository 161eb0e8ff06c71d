//! The process's own log: one line for each event on standard error, never on the request path.
//!
//! `level time message key=value ...`, coloured only on a terminal. Use the macros: `log::info!("message", key = value)`.

use std::fmt::{Display, Write as _};
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::text::{push_sentence, push_time, push_value};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something that an operator would want to find afterwards.
    Info,
    /// Service goes on, but somebody should look.
    Warn,
    /// Something asked for was not done.
    Error,
}

impl Level {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Level::Info => ("info ", "\x1b[32minfo\x1b[0m "),
            Level::Warn => ("warn ", "\x1b[33mwarn\x1b[0m "),
            Level::Error => ("error", "\x1b[31merror\x1b[0m"),
        }
    }
}

/// Writes one event to standard error. A reader that went away is no reason to stop serving.
pub fn write(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    #[cfg(feature = "sim")]
    if crate::net::simulated::is_here() {
        return;
    }
    let mut stderr = std::io::stderr().lock();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = render(level, now, message, fields, stderr.is_terminal());
    let _ = stderr.write_all(line.as_bytes());
}

fn render(
    level: Level,
    now: std::time::Duration,
    message: &str,
    fields: &[(&str, &dyn Display)],
    colour: bool,
) -> String {
    let (bare, coloured) = level.words();
    let mut line = String::with_capacity(160);
    line.push_str(if colour { coloured } else { bare });
    line.push(' ');
    push_time(&mut line, now);
    line.push(' ');
    push_sentence(&mut line, message);
    let mut text = String::new();
    for (key, value) in fields {
        text.clear();
        let _ = write!(text, "{value}");
        line.push(' ');
        line.push_str(key);
        line.push('=');
        push_value(&mut line, &text);
    }
    line.push('\n');
    line
}

/// Writes one event of the given level: `event!(Level::Info, "message", key = value, ...)`.
macro_rules! event {
    ($level:expr, $message:expr $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::telemetry::log::write($level, $message, &[$((stringify!($key), &$value as &dyn ::std::fmt::Display)),*])
    };
}

/// Writes an event of level info.
macro_rules! info {
    ($($all:tt)*) => { $crate::telemetry::log::event!($crate::telemetry::log::Level::Info, $($all)*) };
}

/// Writes an event of level warn.
macro_rules! warn_ {
    ($($all:tt)*) => { $crate::telemetry::log::event!($crate::telemetry::log::Level::Warn, $($all)*) };
}

/// Writes an event of level error.
macro_rules! error {
    ($($all:tt)*) => { $crate::telemetry::log::event!($crate::telemetry::log::Level::Error, $($all)*) };
}

pub(crate) use {error, event, info, warn_ as warn};

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_line_with_fields_that_cannot_be_forged() {
        let line = render(
            Level::Warn,
            Duration::from_millis(1500),
            "configuration\nrefused",
            &[("file", &"a b.yaml"), ("count", &2), ("hint", &"x\ninfo forged")],
            false,
        );
        assert_eq!(
            line,
            "warn  1970-01-01T00:00:01.500Z configuration\\nrefused file=\"a b.yaml\" count=2 hint=\"x\\ninfo forged\"\n"
        );
    }

    #[test]
    fn colour_only_when_asked_for() {
        assert!(render(Level::Error, Duration::ZERO, "m", &[], true).starts_with("\x1b[31merror\x1b[0m "));
        assert!(!render(Level::Error, Duration::ZERO, "m", &[], false).contains('\x1b'));
    }
}
