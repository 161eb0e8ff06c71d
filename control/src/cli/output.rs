//! The flag `-o`: the same answer as a table, as JSON or as YAML.

use clap::{Args, ValueEnum};
use pilotfish_config::to_yaml;
use serde::Serialize;

use super::failed::Failed;
use super::terminal;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people, with more columns.
    Wide,
    /// The API's JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The flag.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

impl Output {
    /// Whether a machine reads it.
    pub fn is_data(self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Prints `value`, or what `table` makes of it; `table` is told whether there may be more columns.
    ///
    /// # Errors
    /// The value has no JSON.
    pub fn print<T: Serialize>(self, value: &T, table: impl FnOnce(bool) -> String) -> Result<(), Failed> {
        terminal::print(&match self.format {
            Format::Table => table(false),
            Format::Wide => table(true),
            Format::Json => json(value)?,
            Format::Yaml => yaml(value)?,
        });
        Ok(())
    }
}

/// As JSON, over several lines.
///
/// # Errors
/// The value has no JSON.
pub fn json<T: Serialize>(value: &T) -> Result<String, Failed> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Failed::refused(format!("the answer: {error}")))
}

/// As YAML, fields in the order of the JSON.
///
/// # Errors
/// The value has no JSON.
pub fn yaml<T: Serialize>(value: &T) -> Result<String, Failed> {
    let text = json(value)?;
    Ok(to_yaml(&text).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_says_what_json_says() {
        let value = json!({"name": "chat", "port": 15006, "up": true, "why": null, "list": [], "rows": [{"a": "no"}, [1.5, 2]], "text": "a: b\nc"});
        let text = yaml(&value).unwrap();
        assert!(text.contains("\nport: 15006\n") && !text.starts_with('{'), "{text}");
        let read: serde_json::Value =
            serde_json::from_str(&pilotfish_config::to_json(&text).unwrap()).unwrap();
        assert_eq!(read, value);
    }
}
