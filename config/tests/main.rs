//! What loading promises, seen from outside.

// Helpers outside of #[test] functions may panic too; hostile input is timed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod canonical;
mod examples;
mod hostile;
mod invalid;
mod meaning;
mod placement;
mod reference;
mod schema;
mod wire;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pilotfish_config::{Loaded, Model, Options, load_texts};

/// What this thread has computed so far. The clock would count what others compute on a busy machine as well.
fn computed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| START.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// Loads one text.
fn load(text: &str) -> Loaded {
    load_texts(&[("test.yaml", text)], &Options::default())
}

/// Loads one text that has to be valid.
fn model(text: &str) -> Model {
    let loaded = load(text);
    loaded.model.unwrap_or_else(|| panic!("{}", loaded.report))
}
