//! `pilotfish serve --default-deny`: a document that nobody applied and nobody can remove, by which nobody may call whom no ALLOW
//! policy lets in. It is Istio's own "allow nothing", an AuthorizationPolicy of a root namespace without rules, so sidecars need to
//! know nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_config::model::{Kind, Meta, Model};
use pilotfish_config::wire::{Document, Key};
use pilotfish_config::{Options, load_documents};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::tree::digest_of;
use super::{Committed, Stored};

/// Where it is written.
const SOURCE: &str = "pilotfish serve --default-deny";
const BODY: &str = r#"{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"default-deny","namespace":"pilotfish-system"},"spec":{}}"#;

/// Its key.
pub fn key() -> Key {
    Key {
        kind: Kind::AuthorizationPolicy.name().into(),
        namespace: "pilotfish-system".into(),
        name: "default-deny".into(),
    }
}

/// What is said to who would change or remove it.
pub fn why_not() -> String {
    format!(
        "{} is there because of `{SOURCE}`; it goes when the control plane starts without that flag",
        key()
    )
}

/// Whether these documents have it.
pub fn is_in(committed: &Committed) -> bool {
    committed.documents.get(&key()).is_some_and(|stored| stored.document.source == SOURCE)
}

/// The documents with it; one of its name that somebody applied makes room.
pub fn with(committed: &Committed) -> Committed {
    let mut documents: BTreeMap<Key, Arc<Stored>> = (*committed.documents).clone();
    let mut model: Model = (*committed.model).clone();
    // What is written above is valid; a test would tell.
    let (Some(meta), Ok(body)) = (add(&mut model), RawValue::from_string(BODY.into())) else {
        return committed.clone();
    };
    let document = Document { key: key(), source: SOURCE.into(), body };
    let stored = Stored { document, digest: digest_of(BODY.as_bytes()), version: 0, meta };
    documents.insert(key(), Arc::new(stored));
    Committed { version: committed.version, documents: Arc::new(documents), model: Arc::new(model) }
}

/// Adds its meaning.
pub fn add(model: &mut Model) -> Option<Meta> {
    let loaded = load_documents([(SOURCE, BODY)], &Options::default());
    let policy = loaded.model?.authorization_policies.pop()?;
    let meta = policy.meta.clone();
    model.authorization_policies.retain(|other| other.meta.key != meta.key);
    model.authorization_policies.push(policy);
    Some(meta)
}

/// Each version of the documents, with it.
pub fn follow(mut documents: watch::Receiver<Arc<Committed>>) -> watch::Receiver<Arc<Committed>> {
    let first = Arc::new(with(&documents.borrow_and_update().clone()));
    let (published, followed) = watch::channel(first);
    tokio::spawn(async move {
        while documents.changed().await.is_ok() {
            let newest = documents.borrow_and_update().clone();
            if published.send(Arc::new(with(&newest))).is_err() {
                return;
            }
        }
    });
    followed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_the_documents_and_in_their_meaning_once() {
        let before = Committed { version: 7, ..Committed::default() };
        assert!(!is_in(&before));
        let after = with(&with(&before));
        assert!(is_in(&after));
        assert_eq!((after.version, after.documents.len()), (7, 1));
        let [policy] = after.model.authorization_policies.as_slice() else { panic!("one policy") };
        assert!(policy.rules.is_empty() && policy.scope.selector.is_empty());
        assert_eq!(policy.meta.namespace(), "pilotfish-system");
    }
}
