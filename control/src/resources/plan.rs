//! What a change would come to: the documents afterwards, validated together as a sidecar would, and what differs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use pilotfish_config::model::ResourceKey;
use pilotfish_config::wire::{Document, Key};
use pilotfish_config::{
    Admitted, Diagnostic, Loaded, Options, Report, Severity, admit_among, load_documents,
};
use serde_json::value::RawValue;

use super::loaded::texts;
use super::tree::digest_of;
use super::{Committed, Refusal, Stored, compile_errors, yaml};
use crate::api::types::{Action, Applied, Change, Difference, Failure, Submission};

/// The longest document that a store takes, bytes of JSON: etcd takes 1.5 MB at once.
const LONGEST: usize = 900 << 10;

type Documents = BTreeMap<Key, Arc<Stored>>;

/// A change that was not made yet.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What there is.
    pub before: Arc<Committed>,
    /// What there would be, under the number that it would get; the same as `before` when nothing differs.
    pub committed: Arc<Committed>,
    /// Each document that was submitted or goes, by key.
    pub changes: Vec<Change>,
    /// Warnings about what was submitted.
    pub warnings: Vec<String>,
}

impl Planned {
    /// Documents that differ, with both texts.
    pub fn differences(&self) -> Vec<Difference> {
        let text = |of: &Committed, key: &Key| of.documents.get(key).map(|stored| yaml(&stored.document));
        let differing = self.changes.iter().filter(|change| change.action != Action::Unchanged);
        let difference = |change: &Change| Difference {
            key: change.key.clone(),
            action: change.action,
            before: text(&self.before, &change.key),
            after: text(&self.committed, &change.key),
        };
        differing.map(difference).collect()
    }

    /// Whether anything differs.
    pub fn is_change(&self) -> bool {
        self.committed.version != self.before.version
    }

    /// The answer when nothing is stored.
    pub(super) fn applied(self) -> Applied {
        Applied { version: self.before.version, changes: self.changes, warnings: self.warnings }
    }
}

/// Documents are added or replaced.
pub(super) fn submitted(
    before: &Arc<Committed>,
    submission: &Submission,
    trust_domain: Option<&str>,
) -> Result<Planned, Refusal> {
    let files: Vec<(&str, &str)> =
        submission.files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
    let namespace = submission.namespace.clone().unwrap_or_else(|| Options::default().default_namespace);
    let options = Options {
        strict_istio: submission.strict_istio,
        default_namespace: namespace,
        trust_domain: trust_domain.map(str::to_owned),
        registered: submission.registered.clone(),
    };
    let stays = |keys: &[ResourceKey]| texts(staying(before, keys, submission.prune).values().copied());
    let (mut loaded, admitted) = admit_among(&files, &options, stays);
    let names: HashSet<&str> = files.iter().map(|(name, _)| *name).collect();
    let warnings = warnings(&loaded.report, |found| names.contains(&*found.file));
    if loaded.report.errors() == 0 && admitted.is_empty() {
        return Err(invalid(
            "there is no document of a kind that Pilotfish reads in what was given",
            Vec::new(),
        ));
    }
    let keys: Vec<ResourceKey> = admitted.iter().map(|document| document.key.clone()).collect();
    let mut documents: Documents = staying(before, &keys, submission.prune)
        .into_iter()
        .map(|(key, stored)| (key.clone(), stored.clone()))
        .collect();
    let version = before.version + 1;
    for one in &admitted {
        let stored = stored(before, one, version)?;
        documents.insert(stored.document.key.clone(), stored);
    }
    if submission.strict_istio && loaded.model.is_some() {
        // Strictness is the author's wish for this file; what is stored means the same to everybody.
        loaded.model = load_documents(texts(documents.values()), &Options::default()).model;
    }
    let mut planned = finish(before, documents, loaded)?;
    planned.warnings = warnings;
    let submitted = admitted.iter().map(|document| key(&document.key));
    planned.changes = changes(before, &planned.committed, submitted.collect());
    Ok(planned)
}

/// Documents go.
pub(super) fn without(before: &Arc<Committed>, keys: &[Key]) -> Result<Planned, Refusal> {
    if let Some(missing) = keys.iter().find(|key| !before.documents.contains_key(key)) {
        return Err(Refusal::NotFound(format!(
            "there is no {missing}; `pilotfish get all` lists what there is"
        )));
    }
    let mut documents = (*before.documents).clone();
    keys.iter().for_each(|key| {
        documents.remove(key);
    });
    exactly(before, documents)
}

/// Everything becomes as it was in another version.
pub(super) fn replaced(before: &Arc<Committed>, target: &Documents) -> Result<Planned, Refusal> {
    let version = before.version + 1;
    let again = |(key, stored): (&Key, &Arc<Stored>)| {
        let own = before.documents.get(key).filter(|own| own.digest == stored.digest);
        let stored = own.cloned().unwrap_or_else(|| Arc::new(Stored { version, ..(**stored).clone() }));
        (key.clone(), stored)
    };
    exactly(before, target.iter().map(again).collect())
}

fn exactly(before: &Arc<Committed>, documents: Documents) -> Result<Planned, Refusal> {
    let loaded = load_documents(texts(documents.values()), &Options::default());
    let mut planned = finish(before, documents, loaded)?;
    planned.changes = changes(before, &planned.committed, BTreeSet::new());
    Ok(planned)
}

/// What stays beside submitted documents.
fn staying<'b>(
    before: &'b Committed,
    keys: &[ResourceKey],
    prune: bool,
) -> BTreeMap<&'b Key, &'b Arc<Stored>> {
    let submitted: HashSet<Key> = keys.iter().map(key).collect();
    let touched: HashSet<&str> = keys.iter().map(|key| &*key.namespace).collect();
    let pruned = |key: &Key| prune && touched.contains(key.namespace.as_str());
    let stays = |key: &Key| !submitted.contains(key) && !pruned(key);
    before.documents.iter().filter(|(key, _)| stays(key)).collect()
}

fn key(of: &ResourceKey) -> Key {
    Key { kind: of.kind.name().into(), namespace: (*of.namespace).into(), name: (*of.name).into() }
}

/// A submitted document: the stored one when its content is the same.
fn stored(before: &Committed, admitted: &Admitted, version: u64) -> Result<Arc<Stored>, Refusal> {
    let key = key(&admitted.key);
    if admitted.json.len() > LONGEST {
        let what = format!("{}: error: {key} has {} bytes as JSON", admitted.source, admitted.json.len());
        return Err(invalid(
            &format!("a document may have {LONGEST} bytes at most; split it in several"),
            vec![what],
        ));
    }
    let digest = digest_of(admitted.json.as_bytes());
    if let Some(own) = before.documents.get(&key).filter(|own| own.digest == digest) {
        return Ok(own.clone());
    }
    let body = RawValue::from_string(admitted.json.clone());
    let body = body.map_err(|error| invalid(&format!("{key}: {error}"), Vec::new()))?;
    let document = Document { key, source: admitted.source.clone(), body };
    Ok(Arc::new(Stored { document, digest, version, meta: admitted.meta.clone() }))
}

/// The documents are valid and compile.
fn finish(before: &Arc<Committed>, documents: Documents, loaded: Loaded) -> Result<Planned, Refusal> {
    let Some(model) = loaded.model else { return Err(refused(&loaded.report)) };
    let namespaces = documents.keys().map(|key| key.namespace.as_str());
    let errors = compile_errors(&model, namespaces.chain(["default"]));
    if !errors.is_empty() {
        return Err(refused(&Report { diagnostics: errors, ..loaded.report }));
    }
    let same = |(key, stored): (&Key, &Arc<Stored>)| {
        before.documents.get(key).is_some_and(|own| own.digest == stored.digest)
    };
    let nothing = documents.len() == before.documents.len() && documents.iter().all(same);
    let committed = if nothing {
        before.clone()
    } else {
        let version = before.version + 1;
        Arc::new(Committed { version, documents: Arc::new(documents), model: Arc::new(model) })
    };
    Ok(Planned { before: before.clone(), committed, changes: Vec::new(), warnings: Vec::new() })
}

/// What differs, and what was named and does not.
fn changes(before: &Committed, after: &Committed, mut named: BTreeSet<Key>) -> Vec<Change> {
    let digest = |of: &Committed, key: &Key| of.documents.get(key).map(|stored| stored.digest.clone());
    let keys = before.documents.keys().chain(after.documents.keys());
    named.extend(keys.filter(|key| digest(before, key) != digest(after, key)).cloned());
    let action = |key: &Key| match (digest(before, key), digest(after, key)) {
        (None, _) => Action::Created,
        (_, None) => Action::Removed,
        (old, new) if old == new => Action::Unchanged,
        _ => Action::Changed,
    };
    named.into_iter().map(|key| Change { action: action(&key), key }).collect()
}

fn warnings(report: &Report, about: impl Fn(&Diagnostic) -> bool) -> Vec<String> {
    let is_warning = |found: &&Diagnostic| found.severity == Severity::Warning;
    report
        .diagnostics
        .iter()
        .filter(is_warning)
        .filter(|found| about(found))
        .map(ToString::to_string)
        .collect()
}

fn refused(report: &Report) -> Refusal {
    let count = report.errors();
    let errors = if count == 1 { "1 error".to_owned() } else { format!("{count} errors") };
    let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
    let lines = report.diagnostics.iter().filter(is_error).map(ToString::to_string).collect();
    invalid(&format!("the documents are not valid: {errors}; nothing was stored"), lines)
}

fn invalid(error: &str, diagnostics: Vec<String>) -> Refusal {
    Refusal::Invalid(Failure { error: error.to_owned(), diagnostics })
}
