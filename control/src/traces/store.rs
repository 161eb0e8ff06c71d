//! The window of traces on disk: taken in batches, searched by what their roots and spans say, dropped when they are old or too many.

use std::path::Path;

use pilotfish_filters::trace::TraceId;

use super::span::Trace;

/// The window.
#[derive(Debug)]
pub struct TraceStore {}

/// What a search is for; everything that is given has to hold.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// An agent (`name` or `namespace/name`) that has a span in the trace.
    pub agent: Option<String>,
    /// The name of a span of that agent.
    pub operation: Option<String>,
    /// Attributes that one span has, compared as text.
    pub attributes: Vec<(String, String)>,
    /// The workflow (`pilotfish.workflow.id`) that it belongs to.
    pub workflow: Option<String>,
    /// Only those with an error, or only those without.
    pub error: Option<bool>,
    /// At least so long, nanoseconds.
    pub min_duration: Option<u64>,
    /// At most so long, nanoseconds.
    pub max_duration: Option<u64>,
    /// Began at this time or later, nanoseconds since 1970.
    pub since: Option<u64>,
    /// Began before this time, nanoseconds since 1970.
    pub until: Option<u64>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// What a list tells of a trace.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// The agent of its first span, `namespace/name`.
    pub agent: String,
    /// The name of its first span.
    pub name: String,
    /// When it began, nanoseconds since 1970.
    pub start_ns: u64,
    /// From its first start to its last end, nanoseconds.
    pub duration_ns: u64,
    /// Its spans.
    pub spans: u32,
    /// Agents in it.
    pub agents: u32,
    /// One of its spans is an error.
    pub error: bool,
    /// It was not sampled; what is known of it was gathered because a call failed or was slow.
    pub partial: bool,
    /// The workflow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workflow: String,
}

impl TraceStore {
    /// The window in a folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(_folder: &Path) -> std::io::Result<TraceStore> {
        Ok(TraceStore {})
    }

    /// Traces for which everything holds, newest first.
    ///
    /// # Errors
    /// The disk's.
    pub fn search(&self, _search: &Search) -> std::io::Result<Vec<Summary>> {
        Ok(Vec::new())
    }

    /// All that is known of a trace.
    ///
    /// # Errors
    /// The disk's.
    pub fn trace(&self, _id: TraceId) -> std::io::Result<Option<Trace>> {
        Ok(None)
    }
}
