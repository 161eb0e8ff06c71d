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

use pilotfish_config::{Loaded, Model, Options, load_texts};

/// Loads one text.
fn load(text: &str) -> Loaded {
    load_texts(&[("test.yaml", text)], &Options::default())
}

/// Loads one text that has to be valid.
fn model(text: &str) -> Model {
    let loaded = load(text);
    loaded.model.unwrap_or_else(|| panic!("{}", loaded.report))
}
