//! Which rule matched and where a request went, as the calling sidecar itself wrote it down.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::children::Failure;

/// How long the sidecar may take to write a line: it may gather lines before it writes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The fields of a line that the demo shows. The sidecar writes more.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The `x-request-id`.
    pub request_id: String,
    /// The rule that matched, if any.
    pub rule: Option<String>,
    /// The address that the request went to, if it went anywhere.
    pub endpoint: Option<String>,
    /// The status that the caller saw.
    pub status: u16,
}

impl Entry {
    /// The rule for the table, without the namespace that all rules of the demo share.
    pub fn rule_or_none(&self) -> String {
        let rule = self.rule.as_deref().unwrap_or("none");
        rule.strip_prefix("default/").unwrap_or(rule).to_string()
    }
}

/// An access log in JSON lines that is still growing.
pub struct AccessLog {
    path: PathBuf,
    read: usize,
    entries: HashMap<String, Entry>,
}

impl AccessLog {
    /// The log at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        AccessLog { path, read: 0, entries: HashMap::new() }
    }

    /// The line of one request.
    ///
    /// # Errors
    /// When it is not there within 5 s.
    pub async fn find(&mut self, request_id: &str) -> Result<Entry, Failure> {
        let begin = Instant::now();
        loop {
            if let Some(entry) = self.entries.get(request_id) {
                return Ok(entry.clone());
            }
            if begin.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "the access log {} has no line for request {request_id}",
                    self.path.display()
                )));
            }
            self.read_on();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn read_on(&mut self) {
        let Ok(text) = std::fs::read(&self.path) else { return };
        let fresh = text.get(self.read..).unwrap_or_default();
        // A line without its end is still being written.
        let Some(end) = fresh.iter().rposition(|byte| *byte == b'\n') else { return };
        for line in fresh[..end].split(|byte| *byte == b'\n') {
            if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
                self.entries.insert(entry.request_id.clone(), entry);
            }
        }
        self.read += end + 1;
    }
}
