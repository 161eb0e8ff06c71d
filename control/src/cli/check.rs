//! `pilotfish check`: says everything that is wrong with configuration files.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use pilotfish_config::{Diagnostic, Loaded, Options, Report, Severity, load, load_bytes};

use crate::resources::compile_errors;

/// Say everything that is wrong with configuration files, at once.
///
/// Ends with 0 when there are no errors (warnings are fine), with 1 when there are errors, with 2 when it was called
/// wrongly. Nothing is changed and nothing is sent anywhere.
#[derive(Debug, Args)]
pub struct Check {
    /// Files, or folders whose .yaml and .yml files are read; `-` reads standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
    /// Understand the files exactly as Istio does, without Pilotfish's additions.
    #[arg(long)]
    strict_istio: bool,
    /// The namespace of resources that name none.
    #[arg(long, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// The mesh's own trust domain, to tell of policies that name callers of meshes that nobody trusts.
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
}

impl Check {
    /// Checks and reports.
    pub fn run(self) -> ExitCode {
        let options = Options {
            strict_istio: self.strict_istio,
            default_namespace: self.namespace.clone(),
            trust_domain: self.trust_domain.clone(),
            registered: Vec::new(),
        };
        let loaded = match self.load(&options) {
            Ok(loaded) => self.compiled(loaded),
            Err(message) => {
                eprintln!("pilotfish check: {message}");
                return ExitCode::from(2);
            }
        };
        let text = if self.json {
            json(&loaded.report)
        } else {
            lines(&loaded.report, io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        };
        // A closed pipe (`| head`) is no failure of the check.
        let _ = io::stdout().write_all(text.as_bytes());
        if loaded.model.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Compiles as a sidecar of the namespace would, so that what a sidecar would refuse is refused here.
    fn compiled(&self, mut loaded: Loaded) -> Loaded {
        let Some(model) = &loaded.model else { return loaded };
        let errors = compile_errors(model, [self.namespace.as_str()]);
        if !errors.is_empty() {
            loaded.model = None;
            loaded.report.diagnostics.extend(errors);
        }
        loaded
    }

    fn load(&self, options: &Options) -> Result<Loaded, String> {
        if !self.paths.iter().any(|path| path == Path::new("-")) {
            return Ok(load(&self.paths, options));
        }
        if self.paths.len() > 1 {
            return Err("`-` cannot be combined with other paths".into());
        }
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map_err(|error| format!("standard input: {error}"))?;
        Ok(load_bytes("<stdin>", bytes, options))
    }
}

fn json(report: &Report) -> String {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("errors".into(), report.errors().into());
        map.insert("warnings".into(), report.warnings().into());
        map.insert("valid".into(), (report.errors() == 0).into());
    }
    format!("{value:#}\n")
}

fn lines(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for diagnostic in &report.diagnostics {
        let line = diagnostic.to_string();
        let _ = writeln!(text, "{}", if colour { coloured(diagnostic, &line) } else { line });
    }
    let _ = writeln!(text, "{}", summary(report));
    text
}

fn coloured(diagnostic: &Diagnostic, line: &str) -> String {
    let (word, code) = match diagnostic.severity {
        Severity::Error => (" error: ", "31"),
        Severity::Warning => (" warning: ", "33"),
    };
    line.replacen(word, &format!(" \x1b[1;{code}m{}\x1b[0m ", word.trim()), 1)
}

fn summary(report: &Report) -> String {
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    format!(
        "{} in {}: {}, {}",
        count(report.resources, "resource"),
        count(report.files, "file"),
        count(report.errors(), "error"),
        count(report.warnings(), "warning"),
    )
}
