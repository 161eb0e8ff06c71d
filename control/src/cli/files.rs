//! The flag `-f`: files, folders and standard input as a submission.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use pilotfish_config::yaml::Limits;
use pilotfish_config::{Severity, read_texts};

use super::failed::{Failed, Why};
use super::human::count;
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{File, Submission};

/// Documents in files.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// Files, or folders whose .yaml and .yml files are read (not those below); `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    pub paths: Vec<PathBuf>,

    /// The namespace of documents that name none [default: default]
    #[arg(short = 'n', long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Understand the documents exactly as Istio does, without Pilotfish's additions
    #[arg(long)]
    pub strict_istio: bool,
}

impl Files {
    /// Reads everything.
    ///
    /// # Errors
    /// A file cannot be read, or there is none.
    pub fn submission(&self) -> Result<Submission, Failed> {
        let files = read(&self.paths)?;
        Ok(Submission {
            summary: summary(&files),
            files,
            namespace: self.namespace.clone(),
            strict_istio: self.strict_istio,
            ..Submission::default()
        })
    }
}

/// The texts of files, folders and standard input.
///
/// # Errors
/// One cannot be read (that is told on standard error), or there is none.
pub fn read(paths: &[PathBuf]) -> Result<Vec<File>, Failed> {
    let stdin = Path::new("-");
    let (from_stdin, paths): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(|path| path == stdin);
    let (texts, report) = read_texts(&paths);
    let terminal = Terminal::stderr();
    for diagnostic in &report.diagnostics {
        eprintln!("{}", coloured(&diagnostic.to_string(), &terminal));
    }
    if report.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Failed::told(Why::Refused));
    }
    let mut files: Vec<File> =
        texts.into_iter().map(|(name, text)| File { name: name.to_string(), text }).collect();
    if !from_stdin.is_empty() {
        files.push(File { name: "<stdin>".into(), text: standard_input()? });
    }
    if files.is_empty() { Err(Failed::refused("there is no file to read")) } else { Ok(files) }
}

fn standard_input() -> Result<String, Failed> {
    let limit = Limits::default().bytes;
    let mut text = String::new();
    let read = io::stdin().lock().take(limit as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| Failed::refused(format!("<stdin>: {error}")))?;
    if text.len() > limit {
        return Err(Failed::refused(format!("<stdin>: longer than {} MiB", limit >> 20)));
    }
    Ok(text)
}

/// For the history, when the author gives no summary: the names of the files.
fn summary(files: &[File]) -> String {
    let name = |file: &File| {
        let name = Path::new(&file.name).file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| file.name.clone())
    };
    let named: Vec<String> = files.iter().take(3).map(name).collect();
    let more = files.len() - named.len();
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named} and {}", count(more, "more file")) }
}

/// A line of `file:line:column: error: ...` as `pilotfish check` colours it.
pub fn coloured(line: &str, terminal: &Terminal) -> String {
    // A hint may show several lines of YAML.
    let line = harmless(line, true);
    for (word, tone) in [("error", Tone::Bad), ("warning", Tone::Warn)] {
        if let Some((place, rest)) = line.split_once(&format!(": {word}: ")) {
            return format!("{place}: {} {rest}", terminal.paint(tone, &format!("{word}:")));
        }
    }
    line
}

/// Prints warnings on standard error, and what `pilotfish check` would say of files.
pub fn warn(warnings: &[String]) {
    let terminal = Terminal::stderr();
    for warning in warnings {
        let known = warning.contains(": warning: ") || warning.contains(": error: ");
        let line = if known { warning.clone() } else { format!("pilotfish: warning: {warning}") };
        eprintln!("{}", coloured(&line, &terminal));
    }
}
