//! What a sidecar would refuse when it compiles the documents, found where they are checked or applied.

use std::collections::{BTreeSet, HashSet};

use pilotfish_config::{Diagnostic, Model, Severity};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, compile};
use pilotfish_filters::state::State;

/// Compiles as a sidecar of each namespace would; every error once.
pub fn compile_errors<'n>(model: &Model, namespaces: impl IntoIterator<Item = &'n str>) -> Vec<Diagnostic> {
    let namespaces: BTreeSet<&str> = namespaces.into_iter().collect();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for namespace in namespaces {
        let options = CompileOptions { namespace: namespace.to_owned(), ..CompileOptions::default() };
        let compiled = compile(model, &options, &Default::default(), &State::default(), Micros::default());
        for error in compiled.err().unwrap_or_default() {
            if seen.insert((error.source.clone(), error.message.clone())) {
                found.push(Diagnostic {
                    severity: Severity::Error,
                    file: error.source.file,
                    line: error.source.line,
                    column: error.source.column,
                    path: String::new(),
                    message: error.message,
                    hint: None,
                });
            }
        }
    }
    found
}
