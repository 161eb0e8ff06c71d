//! The control plane's log: one line for each event on standard error.
//!
//! `level time message key=value ...`, coloured only on a terminal, as the sidecar writes it. Use the macros:
//! `log::info!("message", key = value)`. What came from outside can neither end a line nor look like another field.

use std::fmt::{Display, Write as _};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_config::text::{push_sentence, push_time, push_value};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something that an operator would want to find afterwards; every write of an administrator is one.
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

static SILENT: AtomicBool = AtomicBool::new(false);

/// Writes nothing any more: for a program that runs many control planes within itself.
pub fn silence() {
    SILENT.store(true, Relaxed);
}

/// Writes one event to standard error. A reader that went away is no reason to stop serving.
pub fn write(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    if SILENT.load(Relaxed) {
        return;
    }
    let mut stderr = std::io::stderr().lock();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = render(level, now, message, fields, stderr.is_terminal());
    let _ = stderr.write_all(line.as_bytes());
}

fn render(
    level: Level,
    now: Duration,
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
        $crate::log::write($level, $message, &[$((stringify!($key), &$value as &dyn ::std::fmt::Display)),*])
    };
}

/// Writes an event of level info.
macro_rules! info {
    ($($all:tt)*) => { $crate::log::event!($crate::log::Level::Info, $($all)*) };
}

/// Writes an event of level warn.
macro_rules! warn_ {
    ($($all:tt)*) => { $crate::log::event!($crate::log::Level::Warn, $($all)*) };
}

/// Writes an event of level error.
macro_rules! error {
    ($($all:tt)*) => { $crate::log::event!($crate::log::Level::Error, $($all)*) };
}

#[allow(unused_imports, reason = "each is for whoever needs it")]
pub(crate) use {error, event, info, warn_ as warn};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_fields_that_cannot_be_forged() {
        let line = render(
            Level::Warn,
            Duration::from_millis(1500),
            "stream\nrefused",
            &[("agent", &"a b"), ("version", &2), ("why", &"x\ninfo forged")],
            false,
        );
        assert_eq!(
            line,
            "warn  1970-01-01T00:00:01.500Z stream\\nrefused agent=\"a b\" version=2 why=\"x\\ninfo forged\"\n"
        );
        assert!(render(Level::Error, Duration::ZERO, "m", &[], true).starts_with("\x1b[31merror\x1b[0m "));
    }
}
