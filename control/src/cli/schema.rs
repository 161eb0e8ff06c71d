//! `pilotfish schema`: JSON Schema of the kinds, for editors and generators.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use pilotfish_config::kinds::{KINDS, KindInfo};
use pilotfish_config::reference;
use pilotfish_config::schema::{any_schema, schema};

/// Print JSON Schema of the kinds that are read.
#[derive(Debug, Args)]
pub struct Schema {
    /// The kind; without it, one schema for a document of any kind.
    kind: Option<String>,
    /// Only list the kinds, with their versions and whether this release acts on them.
    #[arg(long)]
    list: bool,
    /// The reference of all kinds and annotations as Markdown, for people (docs/reference.md).
    #[arg(long, conflicts_with_all = ["list", "kind"])]
    markdown: bool,
}

impl Schema {
    /// Prints.
    pub fn run(self) -> ExitCode {
        if self.list {
            return print(&KINDS.iter().map(line).collect::<String>());
        }
        if self.markdown {
            return print(&reference::markdown());
        }
        let Some(name) = self.kind else { return print(&format!("{:#}\n", any_schema())) };
        let Some(info) = KINDS.iter().find(|info| info.kind.name().eq_ignore_ascii_case(&name)) else {
            let names: Vec<&str> = KINDS.iter().map(|info| info.kind.name()).collect();
            eprintln!("pilotfish schema: unknown kind `{name}`; known: {}", names.join(", "));
            return ExitCode::from(2);
        };
        print(&format!("{:#}\n", schema(info)))
    }
}

fn line(info: &KindInfo) -> String {
    format!("{:<22} {}\n", info.kind.name(), info.versions.join(", "))
}

fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
