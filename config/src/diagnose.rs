//! Collects what is wrong while documents are read and validated.

use std::collections::HashMap;
use std::sync::Arc;

use crate::raw::{Field, Object};
use crate::report::{Diagnostic, Report, Severity};
use crate::yaml::{At, Node, Problem};

/// More diagnostics than this are counted, not kept: a bound on memory for hostile text.
const MAX: usize = 2000;

/// The collector.
#[derive(Debug, Default)]
pub struct Diagnose {
    report: Report,
    dropped: usize,
    errors: usize,
    /// Fields of the current document that are not enforced yet: where the first is in the report, and how many.
    later: HashMap<(&'static str, &'static str), (usize, usize)>,
}

impl Diagnose {
    /// An error at a node's value.
    pub fn error(&mut self, node: Node<'_>, message: String, hint: Option<String>) {
        self.at_node(Severity::Error, node, node.at(), message, hint);
    }

    /// An error at a node's key.
    pub fn error_at_key(&mut self, node: Node<'_>, message: String, hint: Option<String>) {
        self.at_node(Severity::Error, node, node.key_at(), message, hint);
    }

    /// A warning at a node's value.
    pub fn warn(&mut self, node: Node<'_>, message: String, hint: Option<String>) {
        self.at_node(Severity::Warning, node, node.at(), message, hint);
    }

    /// A warning at a node's key.
    pub fn warn_at_key(&mut self, node: Node<'_>, message: String, hint: Option<String>) {
        self.at_node(Severity::Warning, node, node.key_at(), message, hint);
    }

    /// A field that is read and not acted on: one warning for a document, with a count.
    pub fn later(&mut self, node: Node<'_>, object: &'static Object, field: &'static Field) {
        if let Some((_, count)) = self.later.get_mut(&(object.title, field.name)) {
            *count += 1;
            return;
        }
        let index = self.report.diagnostics.len();
        let message = "not enforced yet: this release checks it and does not act on it".to_owned();
        self.warn_at_key(node, message, None);
        if self.report.diagnostics.len() > index {
            self.later.insert((object.title, field.name), (index, 1));
        }
    }

    /// Ends a document: the counts of [`Diagnose::later`] are written into their warnings.
    pub fn end_document(&mut self) {
        for (_, (index, count)) in self.later.drain() {
            if let Some(diagnostic) = self.report.diagnostics.get_mut(index).filter(|_| count > 1) {
                diagnostic.message.push_str(&format!(" ({count} times in this document)"));
            }
        }
    }

    /// A problem of the text itself.
    pub fn problem(&mut self, file: &Arc<str>, problem: Problem) {
        self.push(Severity::Error, file.clone(), problem.at, String::new(), problem.message, problem.hint);
    }

    /// An error that concerns a whole file.
    pub fn file_error(&mut self, file: &str, message: String, hint: Option<String>) {
        self.push(Severity::Error, file.into(), At::default(), String::new(), message, hint);
    }

    /// A warning that concerns a whole file or folder.
    pub fn file_warning(&mut self, file: &str, message: String) {
        self.push(Severity::Warning, file.into(), At::default(), String::new(), message, None);
    }

    fn at_node(&mut self, severity: Severity, node: Node<'_>, at: At, message: String, hint: Option<String>) {
        if self.report.diagnostics.len() < MAX {
            self.push(severity, node.file().clone(), at, node.path(), message, hint);
        } else {
            self.drop_one(severity);
        }
    }

    fn push(
        &mut self,
        severity: Severity,
        file: Arc<str>,
        at: At,
        path: String,
        message: String,
        hint: Option<String>,
    ) {
        if self.report.diagnostics.len() >= MAX {
            return self.drop_one(severity);
        }
        self.errors += usize::from(severity == Severity::Error);
        let At { line, column } = at;
        self.report.diagnostics.push(Diagnostic { severity, file, line, column, path, message, hint });
    }

    fn drop_one(&mut self, severity: Severity) {
        self.dropped += 1;
        self.errors += usize::from(severity == Severity::Error);
    }

    /// The number of errors so far, those not kept included.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The report, for what is not a diagnostic.
    pub fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// The finished report, in the order of files and lines.
    pub fn finish(self, files: &[Arc<str>]) -> Report {
        let mut report = self.report;
        let order: HashMap<&str, usize> = files.iter().enumerate().map(|(i, file)| (&**file, i)).collect();
        let place = |d: &Diagnostic| order.get(&*d.file).copied().unwrap_or_default();
        report.diagnostics.sort_by_key(|d| (place(d), d.line, d.column));
        if let Some(last) = report.diagnostics.last().filter(|_| self.dropped > 0).cloned() {
            let message = format!("{} more errors and warnings are not shown", self.dropped);
            let severity = if self.errors > report.errors() { Severity::Error } else { Severity::Warning };
            report.diagnostics.push(Diagnostic {
                severity,
                message,
                path: String::new(),
                hint: None,
                ..last
            });
        }
        report
    }
}
