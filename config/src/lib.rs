//! What users write, and what it means. No sockets, no clocks, no async.
//!
//! YAML -> located tree -> `raw` (checked against each kind's field table) -> `validate` -> [`model`].
//! Every error is reported at once, each with file, line, column and field.

mod canonical;
pub(crate) mod diagnose;
mod document;
pub mod kinds;
mod load;
pub mod model;
pub mod quantity;
pub mod raw;
pub mod reference;
pub mod report;
pub mod schema;
pub mod text;
pub mod units;
mod validate;
pub mod wire;
pub mod yaml;

pub use canonical::{to_json, to_yaml};
pub use load::{Admitted, admit, admit_among, load, load_bytes, load_documents, load_texts, read_texts};
pub use model::Model;
pub use report::{Diagnostic, Report, Severity};
pub use validate::annotations;

/// How documents are understood.
#[derive(Debug, Clone)]
pub struct Options {
    /// Turn off the two additions to Istio (undefined subsets, lent policies).
    pub strict_istio: bool,
    /// The namespace of resources that name none.
    pub default_namespace: String,
    /// The mesh's own trust domain, to tell of names that nobody can have; `None`: it is not known.
    pub trust_domain: Option<String>,
    /// Hosts that are there without a document: those of agents that are registered, by full name.
    pub registered: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            strict_istio: false,
            default_namespace: "default".into(),
            trust_domain: None,
            registered: Vec::new(),
        }
    }
}

/// What came of loading.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The model; `None` when there is any error.
    pub model: Option<Model>,
    /// Every error and warning.
    pub report: Report,
}

/// Entry point for fuzzing: loads `data` as one file; must neither panic nor hang, and what it accepts it accepts again.
pub fn fuzz(data: &[u8]) {
    for strict_istio in [false, true] {
        let options = Options { strict_istio, ..Options::default() };
        let loaded = load_bytes("fuzz", data.to_vec(), &options);
        let _ = loaded.report.to_string();
        assert_eq!(loaded.model.is_some(), loaded.report.errors() == 0, "{}", loaded.report);
        let Some(text) = std::str::from_utf8(data).ok().filter(|_| loaded.model.is_some()) else { continue };
        let (_, admitted) = admit(&[("fuzz", text)], &options);
        let documents = admitted.iter().map(|one| (one.source.as_str(), one.json.as_str()));
        let again = load_documents(documents, &options);
        assert!(again.model.is_some(), "{}", again.report);
        for one in &admitted {
            let yaml = to_yaml(&one.json);
            assert_eq!(yaml.and_then(|yaml| to_json(&yaml)).as_ref(), Some(&one.json));
        }
    }
}
