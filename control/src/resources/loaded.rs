//! Documents that come out of the store: their JSON with what is known of it, and their meaning together.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_config::kinds::kind_info;
use pilotfish_config::model::{Meta, ResourceKey, Source, StringMap};
use pilotfish_config::wire::{Document, Key};
use pilotfish_config::{Model, Options, Severity, load_documents};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Stored;
use super::tree::Leaf;
use crate::store::StoreError;

/// What is read of a document besides its meaning.
#[derive(Deserialize)]
struct Envelope {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<StringMap>,
    #[serde(default)]
    annotations: Option<StringMap>,
}

/// Whether it is the document that the leaf names.
pub(super) fn is(stored: &Stored, leaf: &Leaf) -> bool {
    stored.digest == leaf.digest() && stored.version == leaf.4 && stored.document.source == leaf.5
}

/// A document from its leaf and its JSON.
pub(super) fn stored(leaf: &Leaf, body: String) -> Result<Stored, String> {
    let envelope: Envelope = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let key = leaf.key();
    let kind =
        kind_info(&key.kind).ok_or_else(|| format!("this build does not know the kind {}", key.kind))?;
    let (file, line) = leaf.5.rsplit_once(':').unwrap_or((&leaf.5, "1"));
    let meta = Meta {
        key: ResourceKey {
            kind: kind.kind,
            namespace: key.namespace.as_str().into(),
            name: key.name.as_str().into(),
        },
        labels: envelope.metadata.labels.unwrap_or_default(),
        annotations: envelope.metadata.annotations.unwrap_or_default(),
        source: Source { file: file.into(), line: line.parse().unwrap_or(1), column: 1 },
    };
    let body = RawValue::from_string(body).map_err(|error| error.to_string())?;
    let document = Document { key, source: leaf.5.clone(), body };
    Ok(Stored { document, digest: leaf.digest().to_owned(), version: leaf.4, meta })
}

/// Documents as they are loaded: where they were written, and their JSON.
pub(super) fn texts<'d>(stored: impl IntoIterator<Item = &'d Arc<Stored>>) -> Vec<(&'d str, &'d str)> {
    stored.into_iter().map(|stored| (stored.document.source.as_str(), stored.document.body.get())).collect()
}

/// What the documents of a stored version mean together.
pub(super) fn model(version: u64, documents: &BTreeMap<Key, Arc<Stored>>) -> Result<Model, StoreError> {
    let loaded = load_documents(texts(documents.values()), &Options::default());
    loaded.model.ok_or_else(|| {
        let errors = loaded.report.diagnostics.iter().filter(|found| found.severity == Severity::Error);
        let first = errors.map(ToString::to_string).next().unwrap_or_default();
        StoreError::Corrupt(format!(
            "version {version} of the documents is not valid for this build: {first}"
        ))
    })
}
